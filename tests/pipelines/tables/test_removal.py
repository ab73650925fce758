from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.storage import lease
from pipelines.storage.folder import Folder
from pipelines.tables import removal
from pipelines.tables.audit.table import AuditConfig, audit_table
from pipelines.tables.query import open_table, run_query
from pipelines.tables.records import run_names
from pipelines.tables.removal import Kept, Removal, drop_old_runs, drop_run
from pipelines.tables.snapshot import delete_all


@pytest.fixture(params=["disk", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "table"))
    return Folder(f"s3://{request.getfixturevalue('bucket').name}/table")


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "table"))


def test_a_dropped_run_leaves_nothing_and_its_neighbours_are_as_they_were(
    table: Folder, labelled_run
) -> None:
    labelled_run("kept").write(table)
    before = table.list()
    labelled_run("night").write(table)
    labelled_run("night-2").write(table)
    assert drop_run(table.uri, "night") == Removal("night", 1, 3, 3, 1, 0)
    assert drop_run(table.uri, "night-2").record == 1
    assert table.list() == before


def test_temporary_files_of_a_killed_writer_go_too(disk: Folder, labelled_run) -> None:
    folders = labelled_run().write(disk)
    Path(folders.images.uri, ".part-00000009.parquet.0a.tmp").write_bytes(b"half a file")
    assert drop_run(disk.uri, "night").temporary == 1
    assert disk.unfinished() == ()


def test_a_killed_drop_hides_the_run_and_is_finished_by_the_same_command(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_run("kept").write(disk)
    before = disk.list()
    labelled_run("night").write(disk)

    def die_after_one(folder: Folder, names: list[str]) -> int:
        delete_all(folder, names[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(removal, "delete_all", die_after_one)
        with pytest.raises(KeyboardInterrupt):
            drop_run(disk.uri, "night")
    seen = run_query(open_table(disk.uri, all_runs=True), "SELECT DISTINCT run FROM images")
    assert seen["run"].to_pylist() == ["kept"]
    *_, found = audit_table(AuditConfig(table=disk.uri))
    assert (found.run, found.status) == ("night", "no record")

    assert drop_run(disk.uri, "night") == Removal("night", 0, 2, 3, 1, 0)
    assert disk.list() == before
    with pytest.raises(InputError, match="no run 'night'"):
        drop_run(disk.uri, "night")


def test_a_run_that_others_skipped_images_for_is_kept(disk: Folder, labelled_run) -> None:
    labelled_run("first", "2026-11-20").write(disk)
    labelled_run("second", "2026-11-21", skipped=4, skipped_in="first").write(disk)
    labelled_run("third", "2026-11-22", skipped=3, skipped_in="first", status="running").write(disk)
    before = disk.list()
    with pytest.raises(InputError, match=r"second, third skipped because of it.*drop these runs"):
        drop_run(disk.uri, "first")
    assert disk.list() == before
    for run in ("second", "third", "first"):
        drop_run(disk.uri, run)
    assert disk.list() == []


def test_no_run_is_dropped_while_another_is_listed_which_may_skip_its_images(
    disk: Folder, labelled_run
) -> None:
    labelled_run("first", "2026-11-20").write(disk)
    before = disk.list()
    with lease.Lease.acquire(disk, "second"):
        with pytest.raises(InputError, match="second is about to skip"):
            drop_run(disk.uri, "first")
        # With its record, it says itself what it has skipped.
        labelled_run("second", skipped=4, skipped_in="other", status="running").write(disk)
        assert drop_run(disk.uri, "first").record == 1
    assert not set(before) & set(disk.list())


def test_a_run_with_an_unreadable_record_can_be_dropped(disk: Folder, labelled_run) -> None:
    labelled_run().write(disk)
    disk.write("runs/night.json", b"{")
    assert drop_run(disk.uri, "night").record == 1
    assert disk.list() == []


def test_a_run_that_somebody_is_at_work_on_is_kept(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.1)
    labelled_run(status="running").write(disk)
    before = [name for name in disk.list() if not name.endswith(".lease")]
    with lease.Lease.acquire(disk, "night"), pytest.raises(InputError, match="process"):
        drop_run(disk.uri, "night")
    assert disk.list() == before
    drop_run(disk.uri, "night")
    assert disk.list() == []


def test_a_table_that_is_none_is_refused(disk: Folder) -> None:
    with pytest.raises(InputError, match="is not a table"):
        drop_run(disk.uri, "night")


def _days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


def test_old_runs_go_but_for_the_newest_and_those_that_are_needed(
    disk: Folder, labelled_run
) -> None:
    labelled_run("base", _days_ago(90)).write(disk)
    labelled_run("needs base", _days_ago(10), skipped=2, skipped_in="base").write(disk)
    labelled_run("old", _days_ago(80)).write(disk)
    labelled_run("stopped", _days_ago(70), status="stopped").write(disk)
    labelled_run("newest of the old", _days_ago(31)).write(disk)
    done = {found.run: found for found in drop_old_runs(disk.uri, older_than_days=30, keep=2)}
    assert set(done) == {"base", "old", "stopped"}
    assert isinstance(done["base"], Kept)
    assert "needs base skipped because of it" in done["base"].why
    assert sorted(run_names(disk)) == ["base", "needs base", "newest of the old"]
    assert [found.run for found in drop_old_runs(disk.uri, 30, keep=0)] == [
        "newest of the old",
        "base",
    ]
