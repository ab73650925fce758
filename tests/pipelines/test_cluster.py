import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.cluster import usable_cores

ROOT = Path(__file__).parents[2]


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 6),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "3200000 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_of_a_container_its_quota_counts_and_not_the_cores_of_its_host(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    assert usable_cores(_write(tmp_path, files)) == cores


@pytest.mark.ray
def test_a_program_that_leaves_its_local_ray_leaves_nothing_of_it_behind() -> None:
    code = """
from pathlib import Path
import os
from pipelines import cluster
def below(pid):
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for children in lists for child in children.read_text().split()]
    return children + [found for child in children for found in below(child)]
cluster.connect()
print(*below(os.getpid()))
cluster.leave_local()
raise AssertionError("it has not left")
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    started = [Path("/proc", pid) for pid in ran.stdout.split()]
    assert len(started) >= 5
    deadline = time.monotonic() + 20
    while any(map(_is_running, started)):
        assert time.monotonic() < deadline, "its processes live on"
        time.sleep(0.1)


def _is_running(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
