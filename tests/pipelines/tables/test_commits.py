from pathlib import Path

import pytest

from pipelines.storage.folder import Folder
from pipelines.tables.commits import Commits, parts_of, ranges_of
from pipelines.tables.layout import RunFolders, part_name


@pytest.fixture
def folders(tmp_path: Path) -> RunFolders:
    return RunFolders(Folder(str(tmp_path)), run="r", date="2026-11-21")


def _write(folders: RunFolders, part: int) -> None:
    """Both files of a part."""
    folders.detections.write(part_name(part), b"")
    folders.images.write(part_name(part), b"")


def test_a_part_is_done_when_it_has_both_of_its_files(folders: RunFolders) -> None:
    assert Commits.of(folders).parts() == set()
    _write(folders, 1)
    folders.detections.write("part-00000002.parquet", b"")  # its twin was never written
    folders.images.write("part-00000000.parquet", b"")  # it arrived when its twin was deleted
    assert Commits.of(folders).parts() == {1}


def test_what_killed_writers_left_is_deleted_and_nothing_else(folders: RunFolders) -> None:
    _write(folders, 7)
    folders.detections.write("part-00000002.parquet", b"")
    unfinished = Path(folders.images.uri, ".part-00000003.parquet.0123.tmp")
    unfinished.write_bytes(b"PAR")
    assert Commits.of(folders).delete_leftovers() == 2
    assert not unfinished.exists()
    assert folders.images.list() == folders.detections.list() == ["part-00000007.parquet"]


def test_parts_are_told_as_ranges_and_found_in_them_again() -> None:
    parts = {0, 1, 2, 3, 7, 9, 10}
    assert ranges_of(parts) == "0-3,7,9-10"
    assert parts_of("0-3,7,9-10") == parts
    assert parts_of(ranges_of(set())) == set()
