import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.table import main
from pipelines.storage.folder import Folder
from pipelines.tables.audit.table import AuditConfig, audit_table
from pipelines.tables.query import open_table, run_query

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "labels"))


@pytest.fixture
def run_job(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    def run_job(*args: str) -> str:
        monkeypatch.setattr("sys.argv", ["jobs.table", *args])
        main()
        printed: str = capsys.readouterr().out
        return printed

    return run_job


def test_list_shows_every_run(table: Folder, labelled_run, run_job) -> None:
    labelled_run("first", "2026-11-20", num_images=1200, per_part=1000).write(table)
    labelled_run("second", status="running").write(table)
    printed = run_job("list", "--table", table.uri)
    assert printed.index("first") < printed.index("second")
    assert "1,200" in printed
    assert "running" in printed


def test_check_has_a_line_for_each_run_that_is_fine(table: Folder, labelled_run, run_job) -> None:
    labelled_run("first", "2026-11-20").write(table)
    going = labelled_run("second", status="stopped")
    del going.images[2]
    going.write(table)
    assert run_job("check", "--table", table.uri).splitlines() == [
        "first: complete, fine",
        "second: stopped, fine; 1 detections files without their images file",
    ]


def test_check_lists_what_is_broken_and_exits_with_1(
    table: Folder, labelled_run, run_job, capsys
) -> None:
    labelled_run("first", "2026-11-20").write(table)
    run = labelled_run("second")
    run.record["labelled"] = 7
    run.write(table)
    with pytest.raises(SystemExit) as stop:
        run_job("check", "--table", table.uri)
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "first: complete, fine" in printed
    assert "second: " not in printed
    assert "listed = labelled" in printed
    assert run_job("check", "--table", table.uri, "--run", "first")


def test_drop_says_what_it_deleted_and_needs_a_name(
    table: Folder, labelled_run, run_job, capsys
) -> None:
    labelled_run().write(table)
    with pytest.raises(SystemExit) as stop:
        run_job("drop", "--table", table.uri)
    assert stop.value.code == 2
    assert run_job("drop", "--table", table.uri, "--run", "night") == (
        "run night is dropped; files deleted: 1 record, 3 images, 3 detections, 1 manifest, "
        "0 temporary\n"
    )


def test_compact_says_what_became_of_each_run(table: Folder, labelled_run, run_job) -> None:
    labelled_run("first", "2026-11-20").write(table)
    labelled_run("second").write(table)
    command = ("compact", "--table", table.uri, "--grace_seconds", "0")
    assert run_job(*command).splitlines() == [
        "first: 6 files became 2 of 0.0 MB in all",
        "second: 6 files became 2 of 0.0 MB in all",
        "the old files are deleted",
    ]
    assert run_job(*command) == "nothing left to compact\n"


def _is_switched(table: Folder) -> bool:
    return "compacted" in json.loads(table.read("runs/night.json"))


def _has_begun(table: Folder) -> bool:
    return any("/compact-" in name for name in table.list("images"))


@pytest.mark.parametrize("moment", [_has_begun, _is_switched])
def test_a_killed_compaction_leaves_the_table_right_and_the_next_one_clears_up(
    table: Folder, labelled_run, run_job, moment: Callable[[Folder], bool]
) -> None:
    labelled_run(num_images=20_000, per_part=1000).write(table)
    sql = "SELECT count(*), count(DISTINCT image_uri), sum(num_detections)::BIGINT FROM images"
    expected = run_query(open_table(table.uri), sql)
    # Small files, so that the writing lasts; killed while it waits for readers in the second case.
    flags = ["compact", f"--table={table.uri}", "--target_mb=0.001"]
    command = [sys.executable, "-m", "jobs.table", *flags]
    job = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    _wait_until(lambda: moment(table))
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait(timeout=60) == -signal.SIGKILL
    assert _is_switched(table) == (moment is _is_switched)

    assert run_query(open_table(table.uri), sql) == expected
    [audit] = audit_table(AuditConfig(table=table.uri))
    named = {broken.promise for broken in audit.broken}
    assert "every file belongs to the rows of a run" in named
    assert named <= {"every file belongs to the rows of a run", "no temporary files are left"}

    run_job(*flags, "--grace_seconds=0")
    assert run_query(open_table(table.uri), sql) == expected
    [audit] = audit_table(AuditConfig(table=table.uri))
    assert audit.broken == []


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, "the job came never so far"
        time.sleep(0.001)


def test_a_killed_drop_is_finished_by_the_same_command(
    table: Folder, labelled_run, run_job
) -> None:
    folders = labelled_run().write(table)
    for number in range(5000):  # so many that the deleting lasts
        Path(folders.images.uri, f"part-{number:08d}.parquet").touch()
    command = [sys.executable, "-m", "jobs.table", "drop", f"--table={table.uri}", "--run=night"]
    job = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    _wait_until(lambda: not table.exists("runs/night.json"))
    os.killpg(job.pid, signal.SIGKILL)
    assert job.wait(timeout=60) == -signal.SIGKILL
    assert folders.manifest.list()
    assert run_job("drop", f"--table={table.uri}", "--run=night")
    assert table.list() == []
