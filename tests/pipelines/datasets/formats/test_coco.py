import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import class_names_of, read_coco
from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.coco import parse_coco
from pipelines.errors import InputError

CAT: dict[str, Any] = {"id": 40, "file_name": "cat.jpg", "width": 100, "height": 80}
BOX: dict[str, Any] = {"id": 5, "image_id": 40, "category_id": 17, "bbox": [1, 2, 3, 4]}
COCO: dict[str, Any] = {
    "images": [CAT, {"id": 7, "file_name": "./sub/nothing.jpg", "width": 10, "height": 20}],
    "categories": [{"id": 90, "name": "dog"}, {"id": 17, "name": "cat"}],
    "annotations": [
        {"image_id": 40, "category_id": 90, "bbox": [1, 2, 3, 4], "area": 9.5, "iscrowd": 0},
        {"image_id": 40, "category_id": 17, "bbox": [0, 0, 100, 80], "area": 60, "iscrowd": 1},
    ],
}


def written(folder: Path, coco: object) -> str:
    path = folder / "instances.json"
    path.write_text(json.dumps(coco))
    return str(path)


def faults_of(folder: Path, **changes: Any) -> list[tuple[FaultKind, str]]:
    """(kind, where) of what is wrong with COCO, so changed."""
    uri = written(folder, COCO | changes)
    annotations = parse_coco(uri, "s3://bucket/photos")
    _, faults = checked_table(annotations, keep_incomplete=True)
    return [(fault.kind, fault.where.removeprefix(f"{uri}: ")) for fault in faults]


def test_coco_boxes_become_corners_and_class_ids_the_order_of_category_ids(tmp_path: Path) -> None:
    table = read_coco(written(tmp_path, COCO), "s3://bucket/photos/")
    assert class_names_of(table) == ["cat", "dog"]
    assert table.to_pylist()[0] == {
        "etag": None,
        "image_uri": "s3://bucket/photos/cat.jpg",
        "width": 100,
        "height": 80,
        "boxes": [[1, 2, 4, 6], [0, 0, 100, 80]],
        "class_ids": [1, 0],
        "is_crowd": [False, True],
        "areas": [9.5, 60],
        "sources": ["annotation", "annotation"],
    }


def test_a_coco_image_without_annotations_stays_without_targets(tmp_path: Path) -> None:
    row = read_coco(written(tmp_path, COCO), "s3://bucket/photos").to_pylist()[1]
    assert row["image_uri"] == "s3://bucket/photos/sub/nothing.jpg"
    assert row["boxes"] == row["class_ids"] == row["is_crowd"] == row["areas"] == []


def test_an_annotation_without_area_has_that_of_its_box(tmp_path: Path) -> None:
    table = read_coco(written(tmp_path, COCO | {"annotations": [BOX]}), "s3://bucket/photos")
    assert table["areas"].to_pylist() == [[12], []]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ([], "no list of images, annotations, categories"),
        ({"images": [], "annotations": {}, "categories": []}, "no list of annotations"),
        (COCO | {"images": []}, r"annotations\[0\]: there is no image 40"),
        (COCO | {"categories": []}, r"annotations\[0\]: there is no category 90"),
        (COCO | {"images": [CAT | {"width": "wide"}]}, "image 40: is not a COCO image"),
        (COCO | {"images": [CAT | {"width": 0}]}, "image 40: it has no width and height"),
        (COCO | {"categories": [{"id": 1}]}, "categories that are not COCO's"),
        (COCO | {"categories": [{"id": 1, "name": "cat"}] * 2}, "several categories of the same"),
        (COCO | {"categories": [{"id": i, "name": "cat"} for i in (17, 90)]}, r"\['cat'\] stand"),
    ],
)
def test_what_contradicts_itself_is_no_truth_to_evaluate_against(
    tmp_path: Path, broken: Any, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        read_coco(written(tmp_path, broken), "photos")


@pytest.mark.parametrize("text", ["{", "\xff", "[" * 100_000])
def test_what_is_no_json_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "instances.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"instances\.json is not JSON: "):
        read_coco(f"{tmp_path}/instances.json", "photos")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"image_id": 41}, FaultKind.MISSING_IMAGE),
        ({"image_id": [40]}, FaultKind.UNREADABLE),
        ({"category_id": 1}, FaultKind.UNKNOWN_CLASS),
        ({"bbox": [1, 2, 3]}, FaultKind.UNREADABLE),
        ({"bbox": "none"}, FaultKind.UNREADABLE),
        ({"bbox": [10**400, 2, 3, 4]}, FaultKind.UNREADABLE),
        ({"bbox": [float("nan"), 2, 3, 4]}, FaultKind.NOT_FINITE),
        ({"area": float("inf")}, FaultKind.NOT_FINITE),
        ({"bbox": [1, 2, 0, 4]}, FaultKind.ZERO_AREA),
        ({"bbox": [1, 2, 3, -4]}, FaultKind.ZERO_AREA),
        ({"bbox": [100, 2, 3, 4]}, FaultKind.OUTSIDE),
        ({"bbox": [90, 2, 30, 4]}, FaultKind.CLIPPED),
    ],
)
def test_a_fault_is_named_by_the_id_of_its_annotation(
    tmp_path: Path, change: dict[str, Any], kind: FaultKind
) -> None:
    assert faults_of(tmp_path, annotations=[BOX | change]) == [(kind, "annotation 5")]


def test_the_same_box_again_is_a_duplicate_and_as_another_class_or_crowd_is_none(
    tmp_path: Path,
) -> None:
    boxes = [BOX, BOX | {"id": 6}, BOX | {"category_id": 90}, BOX | {"iscrowd": 1}]
    assert faults_of(tmp_path, annotations=boxes) == [(FaultKind.DUPLICATE_BOX, "annotation 6")]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (CAT | {"file_name": "dog.jpg"}, (FaultKind.DUPLICATE_IMAGE, "image 40")),
        (CAT | {"id": 41}, (FaultKind.DUPLICATE_IMAGE, "image 41")),
        ({"file_name": "dog.jpg"}, (FaultKind.UNREADABLE, "images[1]")),
        ("dog.jpg", (FaultKind.UNREADABLE, "images[1]")),
    ],
)
def test_an_image_that_is_listed_twice_or_not_readable_is_named(
    tmp_path: Path, image: object, expected: tuple[FaultKind, str]
) -> None:
    assert faults_of(tmp_path, images=[CAT, image]) == [expected]


POLYGON = [[10, 20, 40, 20, 40, 60]]
MASK = {"size": [80, 100], "counts": [10 * 80 + 20, 40, 80 * 89 + 20]}  # column 10, rows 20 to 60


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [(POLYGON, [10, 20, 40, 60]), (MASK, [10, 20, 11, 60])],
)
@pytest.mark.parametrize("without", [{}, {"bbox": None}, {"bbox": []}])
def test_an_annotation_without_a_box_has_that_around_its_segmentation(
    tmp_path: Path, segmentation: Any, box: list[float], without: dict[str, Any]
) -> None:
    bare = {"id": 5, "image_id": 40, "category_id": 17, "segmentation": segmentation}
    table = read_coco(written(tmp_path, COCO | {"annotations": [bare | without]}), "photos")
    assert table["boxes"].to_pylist() == [[box], []]


def test_a_box_that_is_given_counts_and_not_its_segmentation(tmp_path: Path) -> None:
    both = BOX | {"segmentation": POLYGON}
    table = read_coco(written(tmp_path, COCO | {"annotations": [both]}), "photos")
    assert table["boxes"].to_pylist() == [[[1, 2, 4, 6]], []]


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"category_id": 1}, "there is no category 1"),
        ({"bbox": None}, "neither a bbox nor a polygon"),
        ({"bbox": [1, 2, 3]}, "not enough values"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "box nan"),
        ({"score": 7}, "7 is no score between 0 and 1"),
    ],
)
def test_an_image_goes_with_an_annotation_that_cannot_be_read(
    tmp_path: Path, broken: dict[str, Any], named: str
) -> None:
    uri = written(tmp_path, COCO | {"annotations": [BOX, BOX | {"id": 6} | broken]})
    table, (fault, loss) = checked_table(parse_coco(uri, "s3://bucket/photos"))
    assert table["image_uri"].to_pylist() == ["s3://bucket/photos/sub/nothing.jpg"]
    assert named in str(fault)
    assert (loss.kind, loss.where) == (FaultKind.INCOMPLETE_IMAGE, f"{uri}: image 40")
    assert str(loss).endswith(f"{fault.kind} at {fault.where}; boxes dropped with it: 1")


def test_a_box_without_area_costs_its_image_only_if_it_is_the_last(tmp_path: Path) -> None:
    flat = BOX | {"id": 6, "bbox": [1, 2, 0, 4]}
    for boxes, images in (([BOX, flat], 2), ([flat], 1)):
        uri = written(tmp_path, COCO | {"annotations": boxes})
        table, _ = checked_table(parse_coco(uri, "s3://bucket/photos"))
        assert len(table) == images


def test_predictions_below_the_score_are_left_out_and_counted(tmp_path: Path) -> None:
    boxes = [BOX, BOX | {"score": 0.4, "category_id": 90}, BOX | {"score": 0.6, "category_id": 90}]
    read = parse_coco(written(tmp_path, COCO | {"annotations": boxes}), "photos").above(0.5)
    assert [box.score for box in read.images[0].boxes] == [None, 0.6]
    assert read.images[0].row()["sources"] == ["annotation", "model"]
    assert read.notes == ["2 boxes have a score: 1 below --min_score 0.5 left out"]


def test_file_names_of_another_machine_are_found_by_their_tail(tmp_path: Path) -> None:
    images = [CAT | {"file_name": r"C:\data\cam1\cat.jpg"}, {"id": 7, "file_name": "/x/lost.jpg"}]
    uri = written(tmp_path, COCO | {"images": images, "annotations": [BOX]})
    read = parse_coco(uri, "s3://bucket/photos", ["cam1/cat.jpg", "cam2/cat.jpg"])
    table, (fault,) = checked_table(read)
    assert table["image_uri"].to_pylist() == ["s3://bucket/photos/cam1/cat.jpg"]
    assert (fault.kind, fault.where) == (FaultKind.MISSING_IMAGE, f"{uri}: image 7")
    assert read.notes == [
        r"1 of 1 photos were found by the tail of their name: C:\data\cam1\cat.jpg is cam1/cat.jpg"
    ]


def test_a_file_name_that_several_photos_have_costs_its_image(tmp_path: Path) -> None:
    uri = written(tmp_path, COCO | {"images": [CAT], "annotations": [BOX]})
    table, faults = checked_table(parse_coco(uri, "photos", ["cam1/cat.jpg", "cam2/cat.jpg"]))
    assert len(table) == 0
    assert faults[0].kind is FaultKind.AMBIGUOUS_IMAGE
    assert "may be any of cam1/cat.jpg, cam2/cat.jpg" in str(faults[0])


ROBOFLOW: dict[str, Any] = COCO | {
    "categories": [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 17, "name": "cat", "supercategory": "animals"},
        {"id": 90, "name": "dog", "supercategory": "animals"},
    ]
}


@pytest.mark.parametrize(
    ("changes", "class_names"),
    [
        ({}, ["cat", "dog"]),
        ({"annotations": [BOX | {"category_id": 0}]}, ["animals", "cat", "dog"]),
        ({"categories": ROBOFLOW["categories"][:1], "annotations": []}, ["animals"]),
    ],
)
def test_a_category_above_all_others_is_a_class_only_if_it_has_boxes(
    tmp_path: Path, changes: dict[str, Any], class_names: list[str]
) -> None:
    assert parse_coco(written(tmp_path, ROBOFLOW | changes), "photos").class_names == class_names


def test_json_is_read_with_the_mark_of_windows_and_without_utf_8_is_refused_by_its_line(
    tmp_path: Path,
) -> None:
    text = json.dumps(COCO).replace("cat.jpg", "狗.jpg").replace("}, {", "},\n{")
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "instances.json").write_text(text, encoding)
        read = parse_coco(f"{tmp_path}/instances.json", "s3://bucket")
        assert read.images[0].uri == "s3://bucket/狗.jpg"
    (tmp_path / "instances.json").write_text(text, "gbk")
    with pytest.raises(InputError, match=r"line 1 is not UTF-8 text, so save the file again"):
        parse_coco(f"{tmp_path}/instances.json", "s3://bucket")
