"""A machine that is lost: a node removed."""

import random
from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

from tests.reliability.conftest import node
from tests.reliability.harness import NUM_PARTS, Files, Job, Rows, audit, rows_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("onlooker")]


@pytest.fixture
def three_nodes(s3_endpoint: str, no_ray_here: None) -> Iterator[Cluster]:
    """The driver's, and two that work."""
    cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus=1))
    for _ in range(2):
        cluster.add_node(**node(num_cpus=2))
    yield cluster
    cluster.shutdown()


@pytest.mark.moments(0, 20)
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


def test_nodes_that_come_late_and_go_are_used_while_they_are_there(
    job: Job, unbroken: Rows, no_ray_here: None
) -> None:
    """No GPU at first; then a node with one, which is taken away; then two of its own kind."""
    cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus=1))
    try:
        job.environment = {"RAY_ADDRESS": cluster.address}
        job.flags = ["--gpus_per_actor=1"]  # for two actors
        process, files = job.start(), Files(job.table)
        first = cluster.add_node(**node(num_cpus=2), num_gpus=1)
        files.wait_for_parts(2, process)
        cluster.remove_node(first, allow_graceful=False)
        assert process.is_running()
        for _ in range(2):
            cluster.add_node(**node(num_cpus=2), num_gpus=1)
        assert process.wait() == 0, process.errors()
    finally:
        cluster.shutdown()
    audit(files, job.folder / "copy")
    assert rows_of(files, job.folder / "copy") == unbroken
