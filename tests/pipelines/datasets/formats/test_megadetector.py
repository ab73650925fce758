import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.megadetector import read_megadetector
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]

FOX: dict[str, Any] = {"category": "1", "conf": 0.9, "bbox": [0.1, 0.25, 0.3, 0.5]}
BOX = [10, 20, 40, 60]  # of FOX on 100 x 80 px
CATEGORIES = {"10": "vehicle", "1": "animal", "2": "person"}


def image(file: str, *detections: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"file": file, "detections": [*detections], **more}


@pytest.fixture
def folder(tmp_path: Path, make_photo: MakePhoto) -> Folder:
    """Two photos of 100 x 80 px."""
    folder = Folder(str(tmp_path))
    for name in ("cam1/a.jpg", "cam2/a.jpg"):
        folder.write(name, make_photo(100, 80))
    return folder


def read(folder: Folder, *images: Any, images_uri: str = "") -> Annotations:
    results = {"images": images, "detection_categories": CATEGORIES, "info": {}}
    folder.write("results.json", json.dumps(results).encode())
    return read_megadetector(folder.uri_of("results.json"), images_uri)


def test_detections_are_boxes_with_a_score_in_shares_of_the_photo(folder: Folder) -> None:
    annotations = read(folder, image("cam1/a.jpg", FOX), image("cam2/a.jpg"))
    table, faults = checked_table(annotations)
    assert table["boxes"].to_pylist() == [[pytest.approx(BOX)], []]
    assert [box.score for box in annotations.images[0].boxes] == [0.9]
    assert (annotations.class_names, faults) == (["animal", "person", "vehicle"], [])


def test_detections_below_the_score_are_left_out_and_counted(folder: Folder) -> None:
    low = FOX | {"conf": 0.1}
    annotations = read(folder, image("cam1/a.jpg", FOX, low), image("cam2/a.jpg", low)).above(0.5)
    assert [len(image.boxes) for image in annotations.images] == [1, 0]
    assert annotations.notes == [
        "3 boxes have a score: 2 below --min_score 0.5 left out, so that 1 images have none"
    ]


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "cam1/a.jpg", "failure": "Failure image access", "detections": None},
        {"file": "cam1/a.jpg", "failure": "Failure image access"},
        {"file": "cam1/a.jpg", "failure": "Failure inference", "detections": []},
        {"file": "cam1/a.jpg"},
    ],
)
def test_a_photo_that_megadetector_could_not_read_is_none_without_objects(
    folder: Folder, entry: dict[str, Any]
) -> None:
    table, (fault,) = checked_table(read(folder, entry))
    assert len(table) == 0
    assert fault.kind is FaultKind.UNREADABLE
    assert fault.where == f"{folder.uri}/results.json: images[0]"
    assert "MegaDetector could not read cam1/a.jpg: " in str(fault)


@pytest.mark.parametrize("file", [r"cam1\a.jpg", r"E:\season3\cam1\a.jpg", "/mnt/cards/cam1/a.jpg"])
def test_files_of_another_machine_are_found_by_their_tail(folder: Folder, file: str) -> None:
    annotations = read(folder, image(file, FOX))
    assert annotations.images[0].uri == folder.uri_of("cam1/a.jpg")
    assert "found by the tail" in annotations.notes[0]
    elsewhere = read(folder, image(file, FOX), images_uri=folder.uri_of("cam1"))
    assert elsewhere.images[0].uri == folder.uri_of("cam1/a.jpg")


def test_videos_are_left_out_and_counted(folder: Folder) -> None:
    annotations = read(folder, image("cam1/a.jpg", FOX), image("cam1/clip.MP4", FOX))
    assert len(annotations.images) == 1
    assert annotations.notes == ["1 videos, or other files than photos, were left out"]


def test_a_category_that_is_not_listed_is_no_detection_and_named(folder: Folder) -> None:
    table, (fault,) = checked_table(read(folder, image("cam1/a.jpg", FOX | {"category": "0"})))
    assert table["boxes"].to_pylist() == [[]]
    assert (fault.kind, fault.where) == (
        FaultKind.UNWANTED_CLASS,
        f"{folder.uri}/results.json: images[0].detections[0]",
    )


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"conf": 1.5}, "1.5 is no score"),
        ({"conf": None}, "other types"),
        ({"bbox": [1, 2, 3]}, "not enough values"),
        ({"bbox": "wide"}, "could not convert"),
        ({"category": ["1"]}, "other types"),
    ],
)
def test_a_photo_goes_with_a_detection_that_cannot_be_read(
    folder: Folder, broken: dict[str, Any], named: str
) -> None:
    table, (fault, loss) = checked_table(read(folder, image("cam1/a.jpg", FOX, FOX | broken)))
    assert len(table) == 0
    assert (fault.kind, loss.kind) == (FaultKind.UNREADABLE, FaultKind.INCOMPLETE_IMAGE)
    assert named in str(fault)


def test_microsoft_s_list_has_corners_in_pixels_and_names_of_classes(folder: Folder) -> None:
    found = {"category": "person", "confidence": 0.8, "bbox": BOX}
    results = [image("cam1/a.jpg", found), image("cam2/a.jpg")]
    folder.write("results.json", json.dumps(results).encode())
    annotations = read_megadetector(folder.uri, "")  # the only .json of the folder
    table, faults = checked_table(annotations)
    assert (table["boxes"].to_pylist(), table["class_ids"].to_pylist()) == ([[BOX], []], [[1], []])
    assert (annotations.class_names, faults) == (["animal", "person", "vehicle"], [])


@pytest.mark.parametrize(
    "content", [{}, {"detection_categories": {"x": "animal"}, "images": []}, [1], "text"]
)
def test_other_json_is_refused(folder: Folder, content: Any) -> None:
    folder.write("results.json", json.dumps(content).encode())
    with pytest.raises(InputError, match="is no file of MegaDetector's results"):
        read_megadetector(folder.uri_of("results.json"), "")
