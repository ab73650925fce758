"""Whatever is killed, whenever: the same command finishes the run as if nothing had happened.

Meanwhile somebody looks at the table, and never sees half a run.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faulty_s3 import FaultyS3, Hold, Rule
from tests.reliability.harness import (
    NUM_PARTS,
    PATIENCE_S,
    RUN,
    Files,
    Job,
    Process,
    Rows,
    audit,
    kill_one,
    processes,
    rows_of,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("onlooker")]

DETECTING_S = 1.5
"""For so long at least the detectors of a run are there: to load a model, and to look at images."""


ANY_TIME = range(-NUM_PARTS // 3, NUM_PARTS)
"""Moments, by the parts that are written; those up to 0 lie before the first one."""
STARTING_S = 7.0
"""So long a run is at work before its first part, on two cores."""


def _started(
    job: Job, chance: random.Random, faulty_s3: FaultyS3, moments: Sequence[int] = ANY_TIME
) -> tuple[Process, Files]:
    """A run that is under way, at a random moment after its lease.

    Its last part is held back until `faulty_s3.clear()`, so that it cannot be over.
    """
    last = f"*/images/*/run={RUN}/part-{NUM_PARTS - 1:08d}.parquet"
    faulty_s3.add(Rule(Hold(), method="PUT", key=last))
    process, files = job.start(), Files(job.table)
    files.wait_for_lease(process)
    moment = chance.choice(moments)
    if moment <= 0:
        time.sleep(chance.uniform(0, STARTING_S))
    files.wait_for_parts(moment, process)
    return process, files


def _holds(job: Job, unbroken: Rows) -> None:
    files, copy = Files(job.table), job.folder / "copy"
    audit(files, copy)
    assert rows_of(files, copy) == unbroken


def test_a_driver_killed_by_sigkill(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    process, files = _started(job, chance, faulty_s3)
    process.kill()
    faulty_s3.clear()
    committed = files.parts()
    job.finish()
    assert set(committed) <= set(files.parts())
    _holds(job, unbroken)


@pytest.mark.moments(1, 10)  # for each of the two signals
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_run_that_is_asked_to_stop_says_how_to_go_on(
    job: Job,
    unbroken: Rows,
    chance: random.Random,
    faulty_s3: FaultyS3,
    number: int,
    code: int,
    word: str,
) -> None:
    process, files = _started(job, chance, faulty_s3, range(1, NUM_PARTS))
    # A terminal's Ctrl-C goes to all processes of its group.
    process.signal(number, group=number == signal.SIGINT)
    assert process.wait() == code
    faulty_s3.clear()
    assert f"stopped by {word}. What is written is safe; the same command goes on" in (
        process.errors()
    )
    assert f"runs/{RUN}.lease" not in files.names()
    assert b'"status": "stopped"' in files.read(f"runs/{RUN}.json")
    job.finish()
    _holds(job, unbroken)


@pytest.mark.moments(1, 1)
def test_ctrl_c_with_a_local_ray_says_how_to_go_on(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    ray_address = job.environment.pop("RAY_ADDRESS")
    process, _ = _started(job, chance, faulty_s3, range(1, NUM_PARTS))
    # To the local Ray, too, which must not die of it before the run has said how to go on.
    process.signal(signal.SIGINT, group=True)
    assert process.wait() == 130
    faulty_s3.clear()
    assert "stopped by Ctrl-C. What is written is safe; the same command goes on" in (
        process.errors()
    )
    job.environment["RAY_ADDRESS"] = ray_address
    job.finish()
    _holds(job, unbroken)


def test_a_detector_actor_killed_by_sigkill(
    job: Job, unbroken: Rows, chance: random.Random
) -> None:
    process = job.start()
    kill_one("ray::MapWorker(MapBatches(DetectStage))", chance, within_s=DETECTING_S)
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def test_a_detector_s_own_process_killed_by_sigkill(
    job: Job, unbroken: Rows, chance: random.Random
) -> None:
    process = job.start()
    kill_one("-m pipelines.detectors.fork_server", chance, within_s=DETECTING_S)
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def test_a_writer_killed_between_its_two_files(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    hold = Hold()
    part = f"run={RUN}/part-{chance.randrange(NUM_PARTS):08d}.parquet"
    faulty_s3.add(Rule(hold, method="PUT", key=f"*/images/*/{part}", times=1))
    process, files = job.start(), Files(job.table)
    assert hold.reached.wait(PATIENCE_S), process.errors()
    assert any(name.endswith(part) for name in files.names("detections/"))
    assert not any(name.endswith(part) for name in files.names("images/"))
    writers = processes("ray::MapBatches(write_stage)")
    assert writers, "there is no writer to kill"
    for writer in writers:
        os.kill(writer, signal.SIGKILL)
    faulty_s3.clear()  # the request of the dead is never carried out
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def test_two_starts_of_one_run_at_once(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    hold = Hold()  # so that the first is not done before the second has begun
    part = f"run={RUN}/part-{chance.randrange(NUM_PARTS):08d}.parquet"
    faulty_s3.add(Rule(hold, method="PUT", key=f"*/images/*/{part}"))
    process = job.start()
    assert hold.reached.wait(PATIENCE_S), process.errors()
    second = job.start()
    assert second.wait() == 2
    assert f"run '{RUN}' is being labelled by process {process.pid} on " in second.errors()
    hold.release()
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def test_started_killed_and_started_elsewhere(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    process, _ = _started(job, chance, faulty_s3)
    process.kill()
    faulty_s3.clear()
    job.cwd = tmp_path
    if shutil.which("unshare"):
        job.prefix = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
    job.finish()
    _holds(job, unbroken)


_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@pytest.fixture
def another_boot(tmp_path: Path) -> Sequence[str]:
    """What runs a command as if on another machine, by what the lease tells machines apart."""
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("another\n")
    script = f'mount --bind {boot_id} {_BOOT_ID} && exec "$@"'
    command = ("unshare", "--mount", "sh", "-c", script, "sh")
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("needs the right to mount")
    return command


@pytest.mark.moments(1, 1)  # for it waits
def test_started_killed_and_started_on_another_machine(
    job: Job,
    unbroken: Rows,
    chance: random.Random,
    faulty_s3: FaultyS3,
    another_boot: Sequence[str],
) -> None:
    process, _ = _started(job, chance, faulty_s3)
    process.kill()
    faulty_s3.clear()
    job.prefix = another_boot
    job.finish()
    holder = f"process {process.pid} on {socket.gethostname()}"
    assert f"is held by {holder}: waiting 30 s" in job.processes[-1].errors()
    _holds(job, unbroken)
