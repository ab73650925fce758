from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.storage.folder import Folder
from pipelines.tables.layout import RunFolders, part_name
from pipelines.tables.ledger import Ledger, read_ledger
from pipelines.tables.schema import IMAGES


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(Folder(str(tmp_path)), run="r", date="2026-11-21")


def _commit(folders: RunFolders, part: int, rows: list[tuple[str, str | None, int]]) -> None:
    table = pa.Table.from_pylist(
        [
            {
                "image_uri": uri,
                "status": "failed" if error_kind else "labelled",
                "error_kind": error_kind,
                "num_detections": boxes,
                "labelled_at": datetime.now(UTC),
            }
            for uri, error_kind, boxes in rows
        ],
        schema=IMAGES,
    )
    folders.images.write_table(part_name(part), table)


def test_the_ledger_counts_what_is_written(folders: RunFolders) -> None:
    _commit(folders, 1, [("1", None, 3), ("2", None, 0)])
    _commit(folders, 2, [("3", "gone", 0), ("4", "corrupt", 0), ("5", "gone", 0)])
    ledger = read_ledger(folders, {1, 2}, Ledger(listed=9, skipped=3))
    assert ledger == Ledger(9, 2, 1, {"corrupt": 1, "gone": 2}, 3, skipped=3)
    assert (ledger.failed, ledger.done, ledger.to_do, ledger.is_closed) == (3, 5, 6, False)
    assert ledger.failed_share == 3 / 5


def test_what_is_known_of_some_parts_is_added_to_and_their_files_are_not_read(folders) -> None:
    folders.images.write(part_name(1), b"not to be read")
    _commit(folders, 2, [("3", "gone", 0), ("4", None, 2)])
    known = Ledger(listed=9, labelled=1, failed_by_kind={"gone": 1}, detections=3, skipped=3)
    assert read_ledger(folders, {2}, known) == Ledger(9, 2, 0, {"gone": 2}, 5, skipped=3)
    assert known.to_begin_with == Ledger(listed=9, skipped=3)


def test_a_ledger_is_closed_when_every_listed_image_is_done_or_skipped(folders) -> None:
    _commit(folders, 1, [("1", None, 3), ("2", "gone", 0)])
    assert read_ledger(folders, {1}, Ledger(listed=5, skipped=3)).is_closed
    assert Ledger(listed=2, skipped=2).is_closed
    assert Ledger(listed=2, skipped=2).failed_share == 0


def test_a_run_that_has_written_nothing_has_an_empty_ledger(folders: RunFolders) -> None:
    assert read_ledger(folders, set(), Ledger(2)) == Ledger(2)


def test_ledgers_add_up() -> None:
    total = Ledger(9, 1, 1, {"gone": 1}, 0) + Ledger(0, 2, 0, {"gone": 1, "corrupt": 2}, 5)
    assert total == Ledger(9, 3, 1, {"corrupt": 2, "gone": 2}, 5)
