import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.label_studio import read_label_studio
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]

SIZE = {"original_width": 100, "original_height": 80}
VALUE: dict[str, Any] = {"x": 10, "y": 25, "width": 30, "height": 50, "rectanglelabels": ["cat"]}
CAT: dict[str, Any] = {"id": "r1", "type": "rectanglelabels", "value": VALUE, **SIZE}
BOX = [10, 20, 40, 60]  # of VALUE on 100 x 80 px


def region(**value: Any) -> dict[str, Any]:
    """A cat elsewhere or of another shape."""
    return {"id": "r2", "value": {"rectanglelabels": ["cat"], **value}, **SIZE}


def task(*results: dict[str, Any], image: str = "/data/upload/1/a.jpg", **more: Any) -> Any:
    return {"id": 7, "data": {"image": image}, "annotations": [{"result": [*results]}], **more}


@pytest.fixture
def folder(tmp_path: Path, make_photo: MakePhoto) -> Folder:
    folder = Folder(str(tmp_path))
    folder.write("images/a.jpg", make_photo(100, 80))
    return folder


def read(
    folder: Folder, *tasks: Any, images: str = "", classes: tuple[str, ...] = ()
) -> Annotations:
    folder.write("export.json", json.dumps(tasks).encode())
    return read_label_studio(folder.uri_of("export.json"), images, classes)


def boxes_of(annotations: Annotations) -> list[list[list[float]]]:
    table, faults = checked_table(annotations)
    assert faults == []
    boxes: list[list[list[float]]] = table["boxes"].to_pylist()
    return boxes


def test_a_rectangle_is_in_hundredths_of_the_photo(folder: Folder) -> None:
    annotations = read(folder, task(CAT))
    assert boxes_of(annotations) == [[BOX]]
    assert annotations.class_names == ["cat"]
    assert annotations.images[0].uri == folder.uri_of("images/a.jpg")


def test_the_short_export_is_read_too(folder: Folder) -> None:
    short = {"id": 7, "image": "/data/upload/1/a.jpg", "annotation_id": 3, "box": [VALUE | SIZE]}
    assert boxes_of(read(folder, short | {"weather": "fine", "tags": ["blurred"]})) == [[BOX]]


@pytest.mark.parametrize(
    ("value", "box"),
    [
        # About its first corner, and in pixels: 30 x 40 px lie on their side.
        ({**VALUE, "x": 60, "rotation": 90}, [20, 20, 60, 50]),
        ({"points": [[10, 25], [40, 25], [40, 75]], "polygonlabels": ["cat"]}, BOX),
        ({"x": 25, "y": 50, "radiusX": 15, "radiusY": 25, "ellipselabels": ["cat"]}, BOX),
        (
            {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 90},
            [30, 30, 70, 50],  # half-axes of 10 and 20 px change places
        ),
        ({"x": 10, "y": 25, "width": 30, "height": 50, "labels": ["cat"]}, BOX),
    ],
)
def test_what_is_turned_or_no_rectangle_has_the_box_around_it(
    folder: Folder, value: dict[str, Any], box: list[float]
) -> None:
    drawn = {"id": "r", "value": {"rectanglelabels": ["cat"], **value}, **SIZE}
    assert boxes_of(read(folder, task(drawn))) == [[pytest.approx(box, abs=1e-4)]]


def test_a_rectangle_and_its_label_may_be_two_results(folder: Folder) -> None:
    place = {key: VALUE[key] for key in ("x", "y", "width", "height")}
    results = [
        {"id": "r", "type": "rectangle", "value": place, **SIZE},
        {"id": "r", "type": "labels", "value": {**place, "labels": ["cat"]}, **SIZE},
        {"id": "r", "type": "textarea", "value": {**place, "text": ["a note"]}},
        {"id": "c", "type": "choices", "value": {"choices": ["outdoors"]}},
        {"type": "relation", "from_id": "r", "to_id": "r"},
    ]
    assert boxes_of(read(folder, task(*results))) == [[BOX]]
    short = {
        "image": "a.jpg",
        "annotation_id": 1,
        "rect": [place],
        "label": [place | {"labels": ["cat"]}],
    }
    assert boxes_of(read(folder, short)) == [[BOX]]


def test_a_region_with_two_labels_is_two_boxes(folder: Folder) -> None:
    table, faults = checked_table(
        read(folder, task(region(**VALUE | {"rectanglelabels": ["cat", "dog"]})))
    )
    assert (table["boxes"].to_pylist(), table["class_ids"].to_pylist()) == ([[BOX, BOX]], [[0, 1]])
    assert faults == []


def test_classes_are_all_labels_in_alphabetical_order_or_those_given(folder: Folder) -> None:
    dog = region(**VALUE | {"x": 50, "rectanglelabels": ["dog"]})
    assert read(folder, task(dog, CAT)).class_names == ["cat", "dog"]
    given = read(folder, task(dog, CAT), classes=("dog", "hen"))
    table, (fault,) = checked_table(given)
    assert (given.class_names, table["class_ids"].to_pylist()) == (["dog", "hen"], [[0]])
    assert (fault.kind, fault.where) == (
        FaultKind.UNWANTED_CLASS,
        f"{folder.uri}/export.json: task 7: region r1",
    )


@pytest.mark.parametrize(
    "annotations",
    [
        [],
        [{"result": [CAT], "was_cancelled": True}],
    ],
)
def test_a_task_that_nobody_annotated_is_left_out_and_counted(
    folder: Folder, annotations: list[Any]
) -> None:
    untouched = task(image="/data/upload/1/b.jpg") | {"annotations": annotations}
    read_ = read(folder, task(CAT), untouched)
    assert len(read_.images) == 1
    assert read_.notes[-1] == (
        "1 tasks that nobody has annotated, or that were skipped, were left out"
    )


@pytest.mark.parametrize(
    "nothing",
    [task(), {"id": 7, "image": "a.jpg", "annotation_id": 3}],
)
def test_an_annotation_without_regions_says_that_nothing_is_there(
    folder: Folder, nothing: Any
) -> None:
    assert boxes_of(read(folder, nothing)) == [[]]


def test_of_several_annotations_a_ground_truth_counts_or_else_the_newest(folder: Folder) -> None:
    def drawn(x: int, day: int, **more: Any) -> dict[str, Any]:
        return {"result": [region(**VALUE | {"x": x})], "created_at": f"2026-11-0{day}", **more}

    later = task(annotations=[drawn(0, 1), drawn(20, 3), drawn(40, 2)])
    assert boxes_of(read(folder, later)) == [[[20, 20, 50, 60]]]
    truth = task(annotations=[drawn(0, 1, ground_truth=True), drawn(20, 3)])
    assert boxes_of(read(folder, truth)) == [[[0, 20, 30, 60]]]
    assert read(folder, truth).notes[-1].startswith("1 tasks have several annotations")


def test_keypoints_are_counted_and_not_read(folder: Folder) -> None:
    point = {"id": "k", "value": {"x": 1, "y": 2, "width": 0.5, "keypointlabels": ["nose"]}}
    read_ = read(folder, task(CAT, point))
    assert boxes_of(read_) == [[BOX]]
    assert (read_.class_names, read_.notes[-1]) == (["cat"], "1 keypoints were not read")


@pytest.mark.parametrize(
    ("broken", "kind", "named"),
    [
        (region(format="rle", rle=[0, 1]), FaultKind.UNREADABLE, "with the brush"),
        (region(x=1, height=5), FaultKind.UNREADABLE, "it has no 'y'"),
        (region(points=[[1, "left"]]), FaultKind.UNREADABLE, "could not convert"),
        (region(**VALUE) | {"image_rotation": 90}, FaultKind.UNREADABLE, "turned while"),
        ({"id": "r2", "value": VALUE | {"rotation": 5}}, FaultKind.UNREADABLE, "original_width"),
        (region(**VALUE | {"rectanglelabels": []}), FaultKind.UNKNOWN_CLASS, "no class"),
        (region(**VALUE | {"x": float("nan")}), FaultKind.NOT_FINITE, "nan"),
    ],
)
def test_a_photo_goes_with_a_region_that_cannot_be_read(
    folder: Folder, broken: dict[str, Any], kind: FaultKind, named: str
) -> None:
    table, (fault, loss) = checked_table(read(folder, task(CAT, broken)))
    assert len(table) == 0
    assert (fault.kind, loss.kind) == (kind, FaultKind.INCOMPLETE_IMAGE)
    assert fault.where == f"{folder.uri}/export.json: task 7: region r2"
    assert named in str(fault)


@pytest.mark.parametrize(
    "image",
    [
        "/data/local-files/?d=images/a.jpg",
        r"/data/local-files/?d=images%5Ca.jpg",
        "https://host/photos/a.jpg?token=1",
        r"C:\photos\a.jpg",
        "s3://elsewhere/images/a.jpg",
    ],
)
def test_a_photo_is_found_by_the_tail_of_what_the_server_calls_it(
    folder: Folder, image: str
) -> None:
    annotations = read(folder, task(CAT, image=image), images=folder.uri_of("images"))
    assert [i.uri for i in annotations.images] == [folder.uri_of("images/a.jpg")]
    assert boxes_of(annotations) == [[BOX]]
    assert "found by the tail of their name" in annotations.notes[0]


def test_a_photo_that_was_uploaded_may_lie_here_under_its_name_of_before(folder: Folder) -> None:
    annotations = read(folder, task(CAT, image="/data/upload/1/0a1b2c3d-a.jpg"))
    assert boxes_of(annotations) == [[BOX]]
    assert annotations.notes == [
        "1 photos were found by their name before Label Studio had them: "
        "0a1b2c3d-a.jpg is images/a.jpg"
    ]
    folder.write("images/0a1b2c3d-a.jpg", b"never read: its size is known")
    annotations = read(folder, task(CAT, image="/data/upload/1/0a1b2c3d-a.jpg"))
    assert annotations.images[0].uri == folder.uri_of("images/0a1b2c3d-a.jpg")


def test_a_photo_on_s3_is_taken_from_there(folder: Folder) -> None:
    annotations = read(folder, task(CAT, image="s3://bucket/cam1/a.jpg"))
    assert boxes_of(annotations) == [[BOX]]
    assert annotations.images[0].uri == "s3://bucket/cam1/a.jpg"


def test_a_photo_that_is_not_there_and_a_task_without_one_are_named(folder: Folder) -> None:
    read_ = read(folder, task(CAT, image="lost.jpg"), task(CAT, image="hello"), "no task")
    _, faults = checked_table(read_)
    assert [(fault.kind, fault.where.partition(": ")[2]) for fault in faults] == [
        (FaultKind.UNREADABLE, "task 7"),
        (FaultKind.UNREADABLE, "tasks[2]"),
        (FaultKind.MISSING_IMAGE, "task 7"),
    ]


@pytest.mark.parametrize("content", [[], {}, [1], [{"shapes": []}], {"tasks": []}])
def test_other_json_is_refused_with_what_to_export(folder: Folder, content: Any) -> None:
    folder.write("export.json", json.dumps(content).encode())
    with pytest.raises(InputError, match="export the project as JSON or JSON-MIN"):
        read_label_studio(folder.uri_of("export.json"), "", [])
