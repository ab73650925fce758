"""Machines and disks that fail: a node removed, a disk full."""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from tests.reliability.conftest import node
from tests.reliability.harness import NUM_PARTS, RUN, Files, Job, audit, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def three_nodes(s3_endpoint: str) -> Iterator[Cluster]:
    """The driver's, and two that work."""
    cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus=1))
    for _ in range(2):
        cluster.add_node(**node(num_cpus=2))
    yield cluster
    cluster.shutdown()


def test_a_node_that_is_removed(
    job: Job, unbroken: Rows, chance: random.Random, three_nodes: Cluster
) -> None:
    job.environment = {"RAY_ADDRESS": three_nodes.address}
    process, files = job.start(), Files(job.table)
    files.wait_for_parts(chance.randrange(1, NUM_PARTS // 2), process)
    three_nodes.remove_node(chance.choice(three_nodes.list_all_nodes()[1:]), allow_graceful=False)
    three_nodes.add_node(**node(num_cpus=2))
    assert process.wait() == 0, process.errors()
    audit(files, job.folder / "copy")
    assert rows_of(files, job.folder / "copy") == unbroken


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 300 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full(job: Job, unbroken: Rows, small_disk: Path) -> None:
    job.table = str(small_disk / "table")
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
