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


def _kill(job: Job, process: Process, files: Files, faulty_s3: FaultyS3) -> None:
    """SIGKILL to the driver; what it had committed stays."""
    process.kill()
    faulty_s3.clear()
    committed = files.parts()
    job.finish()
    assert set(committed) <= set(files.parts())


def _ask_to_stop(
    process: Process, files: Files, faulty_s3: FaultyS3, number: signal.Signals
) -> None:
    """SIGTERM, or Ctrl-C, which a terminal sends to all processes of the group."""
    process.signal(number, group=number == signal.SIGINT)
    assert process.wait() == 128 + number, process.errors()
    faulty_s3.clear()
    word = "Ctrl-C" if number == signal.SIGINT else number.name
    told = f"stopped by {word}. What is written is safe; the same command goes on"
    assert told in process.errors()
    assert f"runs/{RUN}.lease" not in files.names()
    assert b'"status": "stopped"' in files.read(f"runs/{RUN}.json")


def _kill_writer_between_its_two_files(
    process: Process, files: Files, faulty_s3: FaultyS3, held: tuple[str, Hold]
) -> None:
    part, hold = held
    assert hold.reached.wait(PATIENCE_S), process.errors()
    assert any(name.endswith(part) for name in files.names("detections/"))
    assert not any(name.endswith(part) for name in files.names("images/"))
    writers = processes("ray::MapBatches(write_stage)")
    assert writers, "there is no writer to kill"
    for writer in writers:
        os.kill(writer, signal.SIGKILL)
    faulty_s3.clear()  # the request of the dead is never carried out


def _held_part(
    faulty_s3: FaultyS3, chance: random.Random, times: int | None = None
) -> tuple[str, Hold]:
    """A part whose commit is held back."""
    part, hold = f"run={RUN}/part-{chance.randrange(NUM_PARTS):08d}.parquet", Hold()
    faulty_s3.add(Rule(hold, method="PUT", key=f"*/images/*/{part}", times=times))
    return part, hold


def _start_again_is_refused(job: Job, process: Process) -> None:
    second = job.start()
    assert second.wait() == 5
    assert f"run '{RUN}' is being labelled by process {process.pid} on " in second.errors()


ACTOR = "ray::MapWorker(MapBatches(DetectStage))"
OWN_PROCESS = "-m pipelines.detectors.fork_server"


def test_a_run_goes_on_after_its_actor_its_detector_s_process_and_its_writer_were_killed(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    held = _held_part(faulty_s3, chance, times=1)
    process, files = job.start(), Files(job.table)
    kill_one(ACTOR, chance, within_s=DETECTING_S)
    kill_one(OWN_PROCESS, chance, within_s=DETECTING_S)
    _kill_writer_between_its_two_files(process, files, faulty_s3, held)
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def test_a_run_goes_on_each_time_that_it_was_stopped_killed_and_started_elsewhere(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    process, files = _started(job, chance, faulty_s3, range(1, 4))
    _start_again_is_refused(job, process)
    _ask_to_stop(process, files, faulty_s3, signal.SIGTERM)
    ray_address = job.environment.pop("RAY_ADDRESS")
    process, files = _started(job, chance, faulty_s3, range(4, 7))
    # To the local Ray, too, which must not die of it before the run has said how to go on.
    _ask_to_stop(process, files, faulty_s3, signal.SIGINT)
    job.environment["RAY_ADDRESS"] = ray_address
    process, files = _started(job, chance, faulty_s3, range(7, NUM_PARTS))
    _be_elsewhere(job, tmp_path)
    _kill(job, process, files, faulty_s3)
    _holds(job, unbroken)


@pytest.mark.moments(0, 20)
def test_a_driver_killed_by_sigkill(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    process, files = _started(job, chance, faulty_s3)
    _kill(job, process, files, faulty_s3)
    _holds(job, unbroken)


@pytest.mark.moments(0, 10)  # for each of the two signals
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_run_that_is_asked_to_stop_says_how_to_go_on(
    job: Job,
    unbroken: Rows,
    chance: random.Random,
    faulty_s3: FaultyS3,
    number: signal.Signals,
) -> None:
    process, files = _started(job, chance, faulty_s3, range(1, NUM_PARTS))
    _ask_to_stop(process, files, faulty_s3, number)
    job.finish()
    _holds(job, unbroken)


@pytest.mark.moments(0, 20)
@pytest.mark.parametrize("victim", [ACTOR, OWN_PROCESS], ids=["actor", "its own process"])
def test_a_detector_killed_by_sigkill(
    job: Job, unbroken: Rows, chance: random.Random, victim: str
) -> None:
    process = job.start()
    kill_one(victim, chance, within_s=DETECTING_S)
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


@pytest.mark.moments(0, 20)
def test_a_writer_killed_between_its_two_files(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    held = _held_part(faulty_s3, chance, times=1)
    process, files = job.start(), Files(job.table)
    _kill_writer_between_its_two_files(process, files, faulty_s3, held)
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


@pytest.mark.moments(0, 20)
def test_two_starts_of_one_run_at_once(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3
) -> None:
    _, hold = _held_part(faulty_s3, chance)  # so that the first is not done before the second
    process = job.start()
    assert hold.reached.wait(PATIENCE_S), process.errors()
    _start_again_is_refused(job, process)
    hold.release()
    assert process.wait() == 0, process.errors()
    _holds(job, unbroken)


def _be_elsewhere(job: Job, folder: Path) -> None:
    """Let the job be started in another folder, under another host name."""
    job.cwd = folder
    if shutil.which("unshare"):
        job.prefix = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")


@pytest.mark.moments(0, 20)
def test_started_killed_and_started_elsewhere(
    job: Job, unbroken: Rows, chance: random.Random, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    process, files = _started(job, chance, faulty_s3)
    _be_elsewhere(job, tmp_path)
    _kill(job, process, files, faulty_s3)
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


@pytest.mark.moments(0, 1)  # for it waits for half a minute
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
