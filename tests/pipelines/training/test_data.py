from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.datasets import training_table, write_training_table
from pipelines.errors import InputError
from pipelines.training.data import read_training_data
from tests.training_rows import row

NAMES = ["cat", "dog"]
BOX = [[0.0, 0, 8, 8]]


def write(path: Path, rows: list[dict], names: list[str] = NAMES) -> str:
    write_training_table(str(path), training_table(rows, names))
    return str(path)


BAD_TABLES = {
    "has no images": [],
    "has no boxes": [row("a", [], [])],
    "only those of crowds": [row("a", [[0.0, 0, 8, 8]], [0], is_crowd=[True])],
    "class ids from 0 to 2": [row("a", BOX * 2, [0, 2])],
    "class ids from -1 to 0": [row("a", BOX * 2, [0, -1])],
    "differ in length": [row("a", BOX, [0, 1])],
    "NaN or infinite": [row("a", [[0, 0, float("nan"), 8]], [0])],
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_a_table_that_cannot_be_learned_from_is_refused(tmp_path: Path, message: str) -> None:
    good = write(tmp_path / "good.parquet", [row("a", BOX, [0])])
    bad = write(tmp_path / "bad.parquet", BAD_TABLES[message])
    with pytest.raises(InputError, match=rf"bad\.parquet has .*{message.removeprefix('has ')}"):
        read_training_data(good, bad)


def test_tables_of_different_classes_are_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.parquet", [row("a", BOX, [0])])
    val = write(tmp_path / "val.parquet", [row("a", BOX, [0])], names=["dog", "cat"])
    with pytest.raises(InputError, match="same names in the same order"):
        read_training_data(train, val)


def test_a_class_that_can_be_measured_and_not_learned_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cats = write(tmp_path / "cats.parquet", [row("a", BOX, [0])])
    crowd = [row("a", BOX * 2, [0, 1], is_crowd=[False, True])]
    crowds_of_dogs = write(tmp_path / "crowds.parquet", crowd)
    both = write(tmp_path / "both.parquet", [row("a", BOX * 2, [0, 1])])
    for train, val in ((cats, cats), (cats, crowds_of_dogs), (both, cats)):
        read_training_data(train, val)
    assert caplog.messages == []
    read_training_data(crowds_of_dogs, both)
    [told] = caplog.messages
    assert "both.parquet has boxes of classes that" in told
    assert told.endswith("their AP will be 0: dog")


def test_good_tables_are_read(tmp_path: Path) -> None:
    table = write(tmp_path / "table.parquet", [row("a", BOX, [0]), row("b", [], [])])
    data = read_training_data(table, table)
    assert data.class_names == ("cat", "dog")
    assert isinstance(data.train, pa.Table)
    assert len(data.val) == 2
