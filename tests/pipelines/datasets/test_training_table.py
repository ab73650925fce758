from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.datasets import read_training_table, training_table, write_training_table
from pipelines.errors import InputError
from pipelines.tables.schema import TRAINING

ROW: dict[str, Any] = {
    "image_uri": "s3://bucket/cat.jpg",
    "width": 100,
    "height": 80,
    "boxes": [[1, 2, 4, 6]],
    "class_ids": [0],
    "is_crowd": [False],
    "areas": [9.5],
    "etag": "0123abcd",
    "sources": ["person"],
}


def test_a_training_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = training_table([ROW], ["cat", "dog"])
    write_training_table(f"{tmp_path}/deeper/train.parquet", table)
    read, class_names = read_training_table(f"{tmp_path}/deeper/train.parquet")
    assert read.equals(table)
    assert read.schema.equals(TRAINING)
    assert class_names == ["cat", "dog"]


@pytest.mark.parametrize("lacks", [["sources"], ["etag", "sources"]])
def test_a_table_from_before_there_was_a_column_has_nulls(tmp_path: Path, lacks: list[str]) -> None:
    table = training_table([ROW], ["cat"])
    pq.write_table(table.drop_columns(lacks), tmp_path / "before.parquet")
    read, class_names = read_training_table(str(tmp_path / "before.parquet"))
    assert read.to_pylist() == [ROW | dict.fromkeys(lacks)]
    assert class_names == ["cat"]


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


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/train\.parquet cannot be written"):
        write_training_table(f"{tmp_path}/file/train.parquet", training_table([ROW], ["cat"]))
