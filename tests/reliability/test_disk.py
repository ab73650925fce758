"""A disk that is full, somewhere amid the run."""

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import mounted
from tests.reliability.harness import NUM_PARTS, RUN, Files, Job, Rows, audit, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("onlooker")]


@pytest.fixture
def small_disk(tmp_path: Path, chance: random.Random) -> Iterator[Path]:
    """A file system of its own, which holds some of the parts."""
    with mounted(tmp_path / "small", f"{chance.randrange(150, 250)}k") as folder:
        yield folder


@pytest.fixture
def table(small_disk: Path) -> str:
    return str(small_disk / "table")


def test_a_disk_that_is_full(job: Job, unbroken: Rows, small_disk: Path) -> None:
    process, files = job.start(), Files(job.table)
    assert process.wait() == 1
    assert "error: the table cannot be read or written: " in process.errors()
    assert "No space left on device" in process.errors()
    assert "the same command goes on with the rest" in process.errors()
    assert 0 < len(files.parts()) < NUM_PARTS
    assert b'"status": "complete"' not in files.read(f"runs/{RUN}.json")
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    job.finish()
    audit(files, job.folder / "copy")
    assert rows_of(files, job.folder / "copy") == unbroken
