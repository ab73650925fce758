"""Whatever is killed, whenever: the same command finishes the run as if nothing had happened.

Meanwhile somebody looks at the table, and never sees half a run.
"""

import os
import random
import shutil
import signal
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


def _started(job: Job, chance: random.Random) -> tuple[Process, Files]:
    """A run that is under way, at a random moment."""
    process, files = job.start(), Files(job.table)
    files.wait_for_parts(chance.randrange(1, NUM_PARTS // 2), process)
    return process, files


def _holds(job: Job, unbroken: Rows) -> None:
    files, copy = Files(job.table), job.folder / "copy"
    audit(files, copy)
    assert rows_of(files, copy) == unbroken


def test_a_driver_killed_by_sigkill(job: Job, unbroken: Rows, chance: random.Random) -> None:
    process, files = _started(job, chance)
    process.kill()
    committed = files.parts()
    job.finish()
    assert set(committed) <= set(files.parts())
    _holds(job, unbroken)


@pytest.mark.moments(1, 10)  # for each of the two signals
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_run_that_is_asked_to_stop_says_how_to_go_on(
    job: Job, unbroken: Rows, chance: random.Random, number: int, code: int, word: str
) -> None:
    process, files = _started(job, chance)
    # A terminal's Ctrl-C goes to all processes of its group.
    process.signal(number, group=number == signal.SIGINT)
    assert process.wait() == code
    assert f"stopped by {word}. What is written is safe; the same command goes on" in (
        process.errors()
    )
    assert f"runs/{RUN}.lease" not in files.names()
    assert b'"status": "stopped"' in files.read(f"runs/{RUN}.json")
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
    kill_one("-m pipelines.nursery", chance, within_s=DETECTING_S)
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
    for writer in processes("ray::MapBatches(write_stage)"):
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
    job: Job, unbroken: Rows, chance: random.Random, tmp_path: Path
) -> None:
    process, _ = _started(job, chance)
    process.kill()
    job.cwd = tmp_path
    if shutil.which("unshare"):
        job.prefix = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
    job.finish()
    _holds(job, unbroken)
