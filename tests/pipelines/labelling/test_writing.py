from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.labelling.blocks import DETECTED
from pipelines.labelling.writing import Part, write_part
from pipelines.storage.folder import Folder
from pipelines.tables.layout import RunFolders
from pipelines.tables.ledger import Ledger
from pipelines.tables.schema import DETECTIONS, IMAGES

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def _box(class_id: int, score: float) -> dict:
    names = ("cat", "dog")
    box = {"x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}
    return {"class_id": class_id, "class_name": names[class_id], "score": score, **box}


def _row(uri: str, found: list[dict], error_kind: str | None = None) -> dict:
    return {
        "part": 7,
        "image_uri": uri,
        "width": None if error_kind else 8,
        "height": None if error_kind else 6,
        "error_kind": error_kind,
        "found": found,
        "labelled_at": NOW,
        "fetch_seconds": 0.25,
        "retries": 2,
        "detect_seconds": 0.5,
    }


ROWS = [
    _row("two", [_box(0, 0.75), _box(1, 0.5)]),
    _row("bad", [], "corrupt"),
    _row("none", []),
    _row("one", [_box(1, 0.25)]),
]


def _detected(rows: list[dict], **changes: int) -> pa.Table:
    rows = [row | {"part_rows": len(rows)} | changes for row in rows]
    return pa.Table.from_pylist(rows, schema=DETECTED)


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(Folder(str(tmp_path)), run="r", date="2026-11-21")


def test_a_part_becomes_two_files_of_one_name(folders: RunFolders) -> None:
    write_part(_detected(ROWS), folders)
    [name] = folders.images.list()
    assert folders.detections.list() == [name] == ["part-00000007.parquet"]
    images = folders.images.dataset([name], IMAGES).to_table().to_pylist()
    assert [(row["image_uri"], row["status"], row["num_detections"]) for row in images] == [
        ("two", "labelled", 2),
        ("bad", "failed", 0),
        ("none", "labelled", 0),
        ("one", "labelled", 1),
    ]
    boxes = folders.detections.dataset([name], DETECTIONS).to_table().to_pylist()
    assert [
        (
            row["image_uri"],
            row["detection_index"],
            row["class_name"],
            row["score"],
            row["image_width"],
        )
        for row in boxes
    ] == [("two", 0, "cat", 0.75, 8), ("two", 1, "dog", 0.5, 8), ("one", 0, "dog", 0.25, 8)]


def test_the_summary_row_is_what_the_ledger_needs(folders: RunFolders) -> None:
    [row] = write_part(_detected(ROWS), folders).to_pylist()
    part = Part.from_row(row)
    assert part.ledger == Ledger(
        0, labelled=3, empty=1, failed_by_kind={"corrupt": 1}, detections=3
    )
    assert part.stage_seconds["fetch"] == 1.0
    assert part.stage_seconds["detect"] == 2.0
    assert part.retries == 8


def test_a_part_that_is_written_again_overwrites_its_own_files(folders: RunFolders) -> None:
    write_part(_detected(ROWS), folders)
    write_part(_detected(ROWS), folders)
    assert len(folders.images.list()) == len(folders.detections.list()) == 1
    write_part(_detected(ROWS, part=8), folders)
    assert len(folders.images.list()) == 2


def test_half_a_part_is_never_written(folders: RunFolders) -> None:
    with pytest.raises(RuntimeError, match="part 7 has 4 rows, and 3 came to be written"):
        write_part(_detected(ROWS, part_rows=4).slice(1), folders)
    assert folders.images.list() == folders.detections.list() == []


def test_two_parts_are_never_written_as_one(folders: RunFolders) -> None:
    both = pa.concat_tables([_detected(ROWS[:1]), _detected(ROWS[1:], part=8)])
    with pytest.raises(ValueError, match="too many values"):
        write_part(both, folders)


def test_a_part_without_any_box_has_an_empty_detections_file(folders: RunFolders) -> None:
    write_part(_detected(ROWS[1:3]), folders)
    assert folders.detections.dataset(folders.detections.list(), DETECTIONS).count_rows() == 0
    assert len(folders.detections.list()) == 1
