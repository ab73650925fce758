from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.ledger import Ledger, delete_orphans, read_ledger, remaining_images
from pipelines.schema import IMAGES, MANIFEST
from pipelines.storage import Folder, RunFolders


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(Folder(str(tmp_path)), run="r", date="2026-11-21")


def _commit(folders: RunFolders, name: str, rows: list[tuple[str, str | None, int]]) -> None:
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
    folders.images.write_table(name, table)


def _list(folders: RunFolders, uris: list[str]) -> None:
    rows = [{"image_uri": uri} for uri in uris]
    folders.manifest.write_table("part-0.parquet", pa.Table.from_pylist(rows, schema=MANIFEST))


def test_the_ledger_counts_what_is_written(folders: RunFolders) -> None:
    _commit(folders, "a", [("1", None, 3), ("2", None, 0)])
    _commit(folders, "b", [("3", "gone", 0), ("4", "corrupt", 0), ("5", "gone", 0)])
    ledger = read_ledger(folders, listed=6)
    assert ledger == Ledger(6, 2, 1, {"corrupt": 1, "gone": 2}, 3)
    assert (ledger.failed, ledger.done, ledger.is_closed) == (3, 5, False)
    assert ledger.failed_share == 0.5


def test_a_run_that_has_written_nothing_has_an_empty_ledger(folders: RunFolders) -> None:
    assert read_ledger(folders, listed=2) == Ledger(2)


def test_an_image_with_two_rows_is_an_alarm(folders: RunFolders) -> None:
    _commit(folders, "a", [("1", None, 3)])
    _commit(folders, "b", [("1", None, 3)])
    with pytest.raises(RuntimeError, match="1 images with more than one row"):
        read_ledger(folders, listed=1)


def test_what_remains_is_the_manifest_without_the_written_rows(folders: RunFolders) -> None:
    _list(folders, ["a 1", "b#2", "c\n3", "d%4", "e5"])
    _commit(folders, "x", [("b#2", None, 1), ("c\n3", "corrupt", 0)])
    blocks = list(remaining_images(folders, rows_per_block=2))
    assert [block["image_uri"].to_pylist() for block in blocks] == [["a 1", "d%4"], ["e5"]]
    assert blocks[0].schema.names == ["image_uri", "etag", "size_bytes"]


def test_detections_without_their_commit_are_deleted(folders: RunFolders) -> None:
    _commit(folders, "committed", [("1", None, 3)])
    folders.detections.write("committed", b"")
    folders.detections.write("orphan", b"")
    assert delete_orphans(folders) == 1
    assert folders.detections.list() == ["committed"]


def test_ledgers_add_up() -> None:
    total = Ledger(9, 1, 1, {"gone": 1}, 0) + Ledger(0, 2, 0, {"gone": 1, "corrupt": 2}, 5)
    assert total == Ledger(9, 3, 1, {"corrupt": 2, "gone": 2}, 5)
