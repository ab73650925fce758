import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.annotations import (
    class_names_of,
    read_coco,
    read_training_table,
    training_table,
    write_training_table,
)
from pipelines.errors import InputError
from pipelines.schema import TRAINING

COCO: dict[str, Any] = {
    "images": [
        {"id": 40, "file_name": "cat.jpg", "width": 100, "height": 80},
        {"id": 7, "file_name": "sub/nothing.jpg", "width": 10, "height": 20},
    ],
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


def test_coco_boxes_become_corners_and_class_ids_the_order_of_category_ids(tmp_path: Path) -> None:
    table = read_coco(written(tmp_path, COCO), "s3://bucket/photos/")
    assert class_names_of(table) == ["cat", "dog"]
    assert table.to_pylist()[0] == {
        "image_uri": "s3://bucket/photos/cat.jpg",
        "width": 100,
        "height": 80,
        "boxes": [[1, 2, 4, 6], [0, 0, 100, 80]],
        "class_ids": [1, 0],
        "is_crowd": [False, True],
        "areas": [9.5, 60],
    }


def test_a_coco_image_without_annotations_stays_without_targets(tmp_path: Path) -> None:
    row = read_coco(written(tmp_path, COCO), "s3://bucket/photos").to_pylist()[1]
    assert row["image_uri"] == "s3://bucket/photos/sub/nothing.jpg"
    assert row["boxes"] == row["class_ids"] == row["is_crowd"] == row["areas"] == []


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ([], "not a COCO instances file"),
        ({"images": [], "annotations": []}, "'categories'"),
        ({**COCO, "images": []}, "40"),
        ({**COCO, "categories": []}, "90"),
        ({**COCO, "images": [{**COCO["images"][0], "width": "wide"}]}, "not a COCO"),
    ],
)
def test_what_is_no_coco_file_is_refused_by_name(tmp_path: Path, broken: Any, named: str) -> None:
    with pytest.raises(InputError, match=r"instances\.json") as caught:
        read_coco(written(tmp_path, broken), "photos")
    assert named in str(caught.value)


def test_a_training_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = read_coco(written(tmp_path, COCO), "s3://bucket/photos")
    write_training_table(f"{tmp_path}/deeper/train.parquet", table)
    read, class_names = read_training_table(f"{tmp_path}/deeper/train.parquet")
    assert read.equals(table)
    assert read.schema.equals(TRAINING)
    assert class_names == ["cat", "dog"]


def test_a_training_table_of_no_images_keeps_its_class_names(tmp_path: Path) -> None:
    write_training_table(f"{tmp_path}/empty.parquet", training_table([], ["cat"]))
    table, class_names = read_training_table(f"{tmp_path}/empty.parquet")
    assert (table.num_rows, class_names) == (0, ["cat"])


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (pa.table({"image_uri": ["a.jpg"]}), "no column width, height, boxes"),
        (TRAINING.empty_table(), "no class names"),
    ],
)
def test_another_table_is_refused_by_what_it_lacks(
    tmp_path: Path, table: pa.Table, named: str
) -> None:
    pq.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(InputError, match=named):
        read_training_table(str(tmp_path / "other.parquet"))


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("no")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_training_table(str(tmp_path / "train.parquet"))
