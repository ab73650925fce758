"""The cases of ../shared/cases that are about annotations: what people's tools really write.

All photos there are 64 x 48 px. What is right is said in cases/README.md.
"""

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import Prepared, class_names_of
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.preparation import PrepareConfig, prepare
from pipelines.errors import InputError

Prepare = Callable[..., Prepared]

IN_THE_MIDDLE = [24, 18, 40, 30]  # 0.5 0.5 0.25 0.25 of 64 x 48 px


@pytest.fixture
def prepared(shared: Path, tmp_path: Path) -> Prepare:
    """A case as `python -m jobs.prepare --source <the case>` reads it."""

    def make(case: str, **flags: Any) -> Prepared:
        source, output = str(shared / "cases" / case), str(tmp_path / "train.parquet")
        return prepare(PrepareConfig(source=source, output=output, **flags))

    return make


def rows(made: Prepared) -> dict[str, tuple[list[list[float]], list[str]]]:
    """(boxes, their classes) by the name of the photo."""
    names = class_names_of(made.table)
    return {
        row["image_uri"].rpartition("/")[2]: (
            row["boxes"],
            [names[class_id] for class_id in row["class_ids"]],
        )
        for row in made.table.to_pylist()
    }


def shown(made: Prepared) -> list[tuple[FaultKind, str]]:
    """(kind, file with its line) of every fault."""
    return [(fault.kind, fault.where.rpartition("/")[2]) for fault in made.faults]


def test_both_boxes_of_one_voc_object_are_read(prepared: Prepare) -> None:
    boxes, classes = rows(prepared("voc"))["two_boxes_in_one_object.jpg"]
    assert boxes == [[0, 0, 20, 20], [29, 9, 60, 40]]
    assert classes == ["car", "car"]


def test_voc_in_gbk_is_read(prepared: Prepare) -> None:
    made = prepared("voc")
    assert class_names_of(made.table) == ["car", "猫"]
    assert rows(made)["gbk.jpg"] == ([[0, 0, 20, 20]], ["猫"])


def test_a_photo_whose_object_has_no_box_is_left_out_and_never_one_without_objects(
    prepared: Prepare, tmp_path: Path
) -> None:
    made = prepared("voc")
    assert "polygon_only.jpg" not in rows(made)
    assert shown(made) == [
        (FaultKind.UNREADABLE, "polygon_only.xml:1"),
        (FaultKind.INCOMPLETE_IMAGE, "polygon_only.xml"),
    ]
    listed = list(csv.DictReader((tmp_path / "train.faults.csv").open()))
    assert [fault["kind"] for fault in listed] == ["unreadable", "incomplete_image"]
    assert "polygon" in listed[0]["what"]


def test_a_photo_whose_object_has_no_box_is_kept_if_that_is_asked_for(prepared: Prepare) -> None:
    made = prepared("voc", keep_incomplete=True)
    assert rows(made)["polygon_only.jpg"] == ([], [])
    assert shown(made) == [(FaultKind.UNREADABLE, "polygon_only.xml:1")]


def test_labelimg_s_xml_beside_the_photos_is_read(prepared: Prepare) -> None:
    made = prepared("labelimg")
    one_cat = ([[0, 0, 20, 20]], ["cat"])
    assert rows(made) == {"0.jpg": one_cat, "1.jpg": one_cat}
    assert (made.faults, made.notes) == ([], [])


@pytest.mark.parametrize("source", ["label_studio_yolo", "label_studio_yolo/classes.txt"])
def test_label_studio_s_yolo_is_read(prepared: Prepare, source: str) -> None:
    made = prepared(source)
    one_dog = ([IN_THE_MIDDLE], ["dog"])
    assert rows(made) == {"0.jpg": one_dog, "1.jpg": one_dog}
    assert class_names_of(made.table) == ["cat", "dog"]
    assert (made.faults, made.notes) == ([], [])


@pytest.mark.parametrize("source", ["cvat_yolo", "cvat_yolo/obj.data"])
def test_cvat_s_yolo_is_read_and_it_is_said_that_its_paths_are_others(
    prepared: Prepare, source: str
) -> None:
    made = prepared(source, split="train")
    one_dog = ([IN_THE_MIDDLE], ["dog"])
    assert rows(made) == {"0.jpg": one_dog, "1.jpg": one_dog}
    assert class_names_of(made.table) == ["cat", "dog"]
    assert made.faults == []
    assert made.notes == [
        "2 of 2 photos were found by the tail of their name: "
        "data/obj_train_data/0.jpg is obj_train_data/0.jpg"
    ]


@pytest.mark.parametrize("source", ["roboflow_coco", "roboflow_coco/train"])
def test_roboflow_s_coco_needs_no_more_than_its_folder(prepared: Prepare, source: str) -> None:
    made = prepared(source)
    one_cat = ([[10, 10, 30.5, 40]], ["cat"])
    assert rows(made) == {"0_jpg.rf.0a0.jpg": one_cat, "1_jpg.rf.0a1.jpg": one_cat}
    assert made.faults == []


def test_roboflow_s_name_for_the_dataset_is_no_class(prepared: Prepare) -> None:
    made = prepared("roboflow_coco", split="train")
    assert class_names_of(made.table) == ["cat"]
    assert made.notes == [
        "the category 'animals' stands above all others and has no boxes: it is no class"
    ]


def test_predictions_are_boxes_of_which_a_score_decides(prepared: Prepare) -> None:
    made = prepared("yolo_predictions", split="train")
    one_cat = ([IN_THE_MIDDLE], ["cat"])
    assert rows(made) == {"0.jpg": one_cat, "1.jpg": one_cat}
    assert made.faults == []
    assert made.notes == ["2 boxes have a score: 0 below --min_score 0.5 left out"]
    with pytest.raises(InputError, match="no boxes to learn from"):
        prepared("yolo_predictions", split="train", min_score=0.94)


def test_of_poses_the_boxes_are_read_and_the_keypoints_counted(prepared: Prepare) -> None:
    made = prepared("yolo_pose", split="train")
    one_cat = ([IN_THE_MIDDLE], ["cat"])
    assert rows(made) == {"0.jpg": one_cat, "1.jpg": one_cat}
    assert made.faults == []
    assert made.notes == ["6 keypoints of 2 boxes were not read"]


@pytest.mark.parametrize(
    ("source", "way_out"),
    [
        ("label_studio_yolo/labels/0.txt", "classes.txt"),
        ("label_studio_yolo/labels", "classes.txt"),
        ("labelimg/0.xml", "give the folder of the XML files"),
        ("label_studio_yolo/images", "photos and no annotations"),
        ("labelimg/0.jpg", "give a folder"),
        ("no_such_case", "is the path right"),
        ("no_such_case.json", "it is not there"),
        ("no_such_case.yaml", "it is not there"),
        ("labelimg/0.jpg/data.yaml", "no folder"),
        ("label_studio_yolo/notes.json", "no list of images, annotations"),
    ],
)
def test_what_is_not_understood_is_told_with_a_way_out_and_no_error_number(
    prepared: Prepare, source: str, way_out: str
) -> None:
    with pytest.raises(InputError, match=way_out) as refused:
        prepared(source)
    assert source in str(refused.value)
    assert "Errno" not in str(refused.value)
    for number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
        assert os.strerror(number) not in str(refused.value)
