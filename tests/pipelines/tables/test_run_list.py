from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.tables.compaction import CompactionConfig, compact_table
from pipelines.tables.run_list import list_runs


@pytest.fixture(params=["disk", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "table"))
    return Folder(f"s3://{request.getfixturevalue('bucket').name}/table")


def size_of(table: Folder, run: str) -> int:
    return sum(len(table.read(name)) for name in table.list() if f"{run}/" in name)


def test_runs_are_listed_from_the_oldest_with_their_counts_and_files(
    table: Folder, labelled_run
) -> None:
    labelled_run("b-first", "2026-11-20", num_images=10).write(table)
    labelled_run("a-second", num_images=12, skipped=4, skipped_in="b-first").write(table)
    table.write("runs/a-second.lease", b"somebody")
    first, second = list_runs(table.uri).to_pylist()
    assert first == {
        "run": "b-first",
        "state": "complete",
        "date": "2026-11-20",
        "listed": 10,
        "labelled": 8,
        "failed": 2,
        "skipped": 0,
        "detections": 12,
        "files": 7,
        "bytes": size_of(table, "b-first"),
        "compacted": False,
    }
    assert (second["run"], second["skipped"], second["labelled"]) == ("a-second", 4, 6)


def test_a_compacted_run_is_said_to_be_so(tmp_path: Path, labelled_run) -> None:
    table = Folder(str(tmp_path))
    labelled_run().write(table)
    list(compact_table(CompactionConfig(table=table.uri, grace_seconds=0)))
    [row] = list_runs(table.uri).to_pylist()
    assert (row["compacted"], row["files"]) == (True, 3)


def test_states_of_runs_that_are_not_whole_are_said(tmp_path: Path, labelled_run) -> None:
    table = Folder(str(tmp_path))
    labelled_run("going", status="running").write(table)
    for run in ("dropped", "broken", "odd"):
        labelled_run(run).write(table)
    table.delete("runs/dropped.json")
    table.write("runs/broken.json", b"{")
    table.write("runs/odd.json", b'{"run": "odd", "status": "complete", "listed": "many"}')
    listed = {row["run"]: row for row in list_runs(table.uri).to_pylist()}
    assert {run: row["state"] for run, row in listed.items()} == {
        "going": "running",
        "dropped": "no record",
        "broken": "unreadable",
        "odd": "unreadable",
    }
    assert {row["files"] for row in listed.values()} == {7}
    assert listed["broken"]["listed"] is None


def test_a_record_of_an_older_version_has_skipped_nothing(tmp_path: Path, labelled_run) -> None:
    table = Folder(str(tmp_path))
    run = labelled_run()
    del run.record["skipped"], run.record["skipped_in"]
    run.write(table)
    assert list_runs(table.uri)["skipped"].to_pylist() == [0]


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a table"):
        list_runs(str(tmp_path))
