import json
from pathlib import Path

import pytest

from pipelines.datasets.formats.recognition import Format, recognise
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

COCO = b'{"images": [], "annotations": [], "categories": []}'
MEGADETECTOR = b'{"images": [], "detection_categories": {"1": "animal"}}'
TASKS = b'\n[{"id": 1, "data": {}, "annotations": []}]'


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["data.yaml", "images/a.jpg", "labels/a.txt"], "yolo"),
        (["dataset.yml", "a.jpg"], "yolo"),
        (["obj.data", "obj.names", "train.txt"], "yolo"),
        (["classes.txt", "notes.json", "images/a.jpg"], "yolo"),
        (["Annotations/a.xml", "JPEGImages/a.jpg"], "voc"),
        (["annotations/a.xml", "images/a.jpg"], "voc"),
        (["a.xml", "a.jpg"], "voc"),
        (["train/a.xml", "train/a.jpg"], "voc"),
        (["train/_annotations.coco.json", "train/a.jpg"], "coco"),
        (["_annotations.coco.json", "a.jpg"], "coco"),
        (["annotations/instances_default.json", "images/a.jpg"], "coco"),
        (["train.json", "val.json"], "coco"),
        (["runs/night.json", "images/date=2026-11-21/run=night/part-0.parquet"], "detections"),
    ],
)
def test_a_folder_is_known_by_what_lies_in_it(
    folder: Folder, names: list[str], expected: Format
) -> None:
    for name in names:
        folder.write(name, COCO)
    assert recognise(folder.uri) == expected


@pytest.mark.parametrize("name", ["export.json", ""])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (COCO, "coco"),
        (b"\xef\xbb\xbf" + COCO, "coco"),
        (b"{ broken", "coco"),
        (MEGADETECTOR, "megadetector"),
        (b'[{"file": "a.jpg", "detections": []}]', "megadetector"),
        (TASKS, "label_studio"),
        (b"\xef\xbb\xbf" + TASKS, "label_studio"),
    ],
)
def test_json_is_known_by_what_it_says_alone_in_its_folder_or_not(
    folder: Folder, content: bytes, expected: Format, name: str
) -> None:
    folder.write("export.json", content)
    assert recognise(folder.uri_of(name) if name else folder.uri) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("classes.txt", "yolo"), ("obj.names", "yolo"), ("my.data", "yolo")]
)
def test_a_file_that_names_the_classes_stands_for_its_folder(
    folder: Folder, name: str, expected: Format
) -> None:
    folder.write(name, b"")
    assert recognise(folder.uri_of(name)) == expected


@pytest.mark.parametrize(
    ("names", "source", "way_out"),
    [
        ([], "", "there is nothing at this place: is the path right"),
        (["a.jpg", "b.PNG"], "", "photos and no annotations"),
        (["a.jpg", "a.txt"], "", r"add a classes\.txt"),
        (["a.docx", "b"], "", r"it holds \.docx, b: give the file or folder"),
        (["export.zip"], "export.zip", "unpack it and give the folder"),
        (["a.xml"], "a.xml", "give the folder of the XML files"),
        (["a.txt"], "a.txt", r"the folder that also holds data\.yaml, obj\.data or classes\.txt"),
        (["train.parquet"], "train.parquet", r"ready for jobs\.train"),
        (["LICENSE"], "LICENSE", "without suffix"),
    ],
)
def test_what_is_none_of_them_is_refused_with_a_way_out(
    folder: Folder, names: list[str], source: str, way_out: str
) -> None:
    for name in names:
        folder.write(name, b"")
    with pytest.raises(InputError, match=f"is none of COCO .*: .*{way_out}"):
        recognise(folder.uri_of(source) if source else folder.uri)


def test_coco_results_are_refused_with_what_to_do_with_them(folder: Folder) -> None:
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9}]
    folder.write("results.json", json.dumps(results).encode())
    with pytest.raises(InputError, match=r"put it as `annotations` into the COCO file"):
        recognise(folder.uri_of("results.json"))
