import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.errors import InputError, RunStoppedError
from pipelines.storage import lease as leases
from pipelines.storage.folder import Folder
from pipelines.storage.lease import Lease, holder_of, lease_name
from pipelines.storage.s3 import RetryPolicy
from tests.conftest import ROOT, Bucket
from tests.faulty_s3 import FaultyS3, Rule, lost_answer


@pytest.fixture(params=["disk", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path))
    return Folder(f"s3://{request.getfixturevalue('bucket').name}/table")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.2)
    monkeypatch.setattr(leases, "TAKE_OVER_AFTER_S", 2.0)
    monkeypatch.setattr(leases, "_LOOK_EVERY_S", 0.1)


def _elsewhere(table: Folder, **changes: object) -> bytes:
    """The lease of a driver on another machine."""
    holder = {"host": "far", "pid": 7, "started": "1", "machine": "m", "id": "x", "beat": 1}
    data = json.dumps(holder | changes).encode()
    table.write(lease_name("r"), data)
    return data


def test_a_lease_is_given_back(table: Folder) -> None:
    with Lease.acquire(table, "r"):
        assert table.list("runs") == ["runs/r.lease"]
        assert "process" in (holder_of(table, "r") or "")
    assert table.list("runs") == []
    assert holder_of(table, "r") is None


def test_a_second_start_is_refused_and_told_who_has_the_run(table: Folder) -> None:
    with Lease.acquire(table, "r") as held:
        with pytest.raises(
            InputError, match=r"run 'r' is being labelled by process \d+ on .*--run"
        ):
            Lease.acquire(table, "r")
        Lease.acquire(table, "another").release()
        held.check()


def test_a_lease_that_never_changes_is_taken_over_after_a_while(table: Folder) -> None:
    _elsewhere(table)
    said: list[str] = []
    started = time.monotonic()
    with Lease.acquire(table, "r", said.append):
        assert time.monotonic() - started >= leases.TAKE_OVER_AFTER_S
    assert said == [
        "run 'r' is held by process 7 on far: waiting 2 s for a sign of life before taking it over"
    ]


def test_a_lease_that_is_no_lease_is_taken_over_too(table: Folder) -> None:
    table.write(lease_name("r"), b"\xff not JSON")
    Lease.acquire(table, "r").release()


def test_a_driver_that_lost_its_lease_is_told_by_whom(table: Folder) -> None:
    with Lease.acquire(table, "r") as lost:
        taken = _elsewhere(table)
        time.sleep(1)
        with pytest.raises(RunStoppedError, match="taken over by process 7 on far"):
            lost.check()
    assert table.read(lease_name("r")) == taken  # it is not given back by the one that lost it


def test_a_beat_whose_answer_was_lost_is_still_ours(
    bucket: Bucket, faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RETRIES", RetryPolicy(attempts=1))
    table = Folder(f"s3://{bucket.name}/table")
    with Lease.acquire(table, "r") as lease:
        lost = faulty_s3.add(Rule(lost_answer, method="PUT", key="*/r.lease", times=4))
        time.sleep(2)
        lease.check()
    assert faulty_s3.struck(lost)
    assert table.list("runs") == []


_HOLD = """
import sys, time
from pipelines.storage.lease import Lease
from pipelines.storage.folder import Folder
Lease.acquire(Folder(sys.argv[1]), "r")
print("held", flush=True)
time.sleep(60)
"""


def test_the_lease_of_a_killed_process_of_this_machine_is_taken_over_at_once(
    table: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TAKE_OVER_AFTER_S", 600.0)
    command = [sys.executable, "-c", _HOLD, table.uri]
    holder = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert str(holder.pid) in (holder_of(table, "r") or "")
    holder.kill()
    holder.wait()
    assert holder_of(table, "r") is None
    Lease.acquire(table, "r").release()
