"""Ours beside Roboflow's supervision, which reads COCO, VOC and YOLO well: the same boxes.

It was held against 0.31.2. What it does otherwise on purpose is said where it shows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.formats.coco_sources import read_coco_source
from pipelines.datasets.formats.voc import read_voc
from pipelines.datasets.formats.yolo import read_yolo
from pipelines.storage.folder import Folder

sv = pytest.importorskip("supervision")

MakePhoto = Callable[..., bytes]
Boxes = dict[str, list[tuple[str, list[float]]]]
"""(class, corners) in their order, by the path of the photo."""


def ours(annotations: Annotations) -> Boxes:
    table, _ = checked_table(annotations)
    names = annotations.class_names
    return {
        row["image_uri"]: [
            (names[class_id], box)
            for class_id, box in zip(row["class_ids"], row["boxes"], strict=True)
        ]
        for row in table.to_pylist()
    }


def theirs(dataset: "sv.DetectionDataset") -> Boxes:
    return {
        path: [
            (dataset.classes[class_id], np.round(box, 3).tolist())
            for class_id, box in zip(found.class_id, found.xyxy, strict=True)
        ]
        for path, found in dataset.annotations.items()
    }


def assert_same(mine: Boxes, other: Boxes) -> None:
    assert mine.keys() == other.keys()
    for path, boxes in mine.items():
        assert [name for name, _ in boxes] == [name for name, _ in other[path]], path
        for (_, box), (_, corners) in zip(boxes, other[path], strict=True):
            assert box == pytest.approx(corners, abs=1e-3), path


def test_the_boxes_of_bccd_s_voc_are_the_same(shared: Path) -> None:
    bccd = shared / "data/bccd"
    dataset = sv.DetectionDataset.from_pascal_voc(
        str(bccd / "JPEGImages"), str(bccd / "Annotations")
    )
    other = theirs(dataset)
    # It keeps the two boxes of BCCD that have no area.
    flat = {
        (path, name) for path, boxes in other.items() for name, box in boxes if box[2] - box[0] == 1
    }
    usable = {path: [b for b in boxes if b[1][2] - b[1][0] > 1] for path, boxes in other.items()}
    assert len(flat) == 2
    assert_same(ours(read_voc(str(bccd), [], [])), usable)


def test_the_boxes_of_79_coco_photos_are_the_same(shared: Path) -> None:
    coco = shared / "data/coco_val79"
    dataset = sv.DetectionDataset.from_coco(str(coco / "images"), str(coco / "instances.json"))
    mine = ours(read_coco_source(str(coco), "", []))
    assert_same({str(Path(uri).resolve()): boxes for uri, boxes in mine.items()}, theirs(dataset))


@pytest.mark.parametrize("case", ["yolo_predictions", "yolo_pose"])
def test_the_boxes_of_yolo_are_the_same(shared: Path, case: str) -> None:
    folder = shared / "cases" / case
    dataset = sv.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert_same(ours(read_yolo(str(folder), ["train"])), theirs(dataset))


LINES = [
    "0 0.5 0.5 0.2 0.25",
    "1 0.25 0.5 0.5 0.25 0.75 0.75",  # a polygon
    "1 0.1 0.1 0.9 0.1 0.9 0.3 0.1 0.3",
    "0 0.123456 0.654321 0.111111 0.222222",
]


def test_boxes_and_polygons_of_yolo_are_the_same(tmp_path: Path, make_photo: MakePhoto) -> None:
    folder = Folder(str(tmp_path))
    folder.write("data.yaml", b"train: images\nnames: [cat, dog]\n")
    for number, line in enumerate(LINES):
        folder.write(f"images/{number}.jpg", make_photo(200, 160))
        folder.write(f"labels/{number}.txt", line.encode())
    dataset = sv.DetectionDataset.from_yolo(
        f"{tmp_path}/images", f"{tmp_path}/labels", f"{tmp_path}/data.yaml"
    )
    assert_same(ours(read_yolo(folder.uri, ["train"])), theirs(dataset))
