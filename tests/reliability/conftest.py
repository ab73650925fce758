import itertools
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ray.cluster_utils import Cluster

from tests.conftest import ROOT
from tests.reliability import harness
from tests.reliability.harness import Files, Job

FAULT_SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))
"""Of the moments at which things break: others in each session, unless FAULT_SEED is set."""

_MOMENTS_IN_SHORT = 2
_MOMENTS_IN_SOAK = 20
_numbers = itertools.count()


def pytest_report_header() -> str:
    return f"moments of the faults: FAULT_SEED={FAULT_SEED}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `chance` is run at two random moments, with -m soak at twenty."""
    if "chance" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("moments")
        in_short = marker.args[0] if marker else _MOMENTS_IN_SHORT
        moments = [
            pytest.param(number, marks=[pytest.mark.soak] if number >= in_short else [])
            for number in range(_MOMENTS_IN_SOAK)
        ]
        metafunc.parametrize("chance", moments, indirect=True)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{FAULT_SEED} {request.node.name}")


@pytest.fixture(scope="session")
def ray_address(s3_endpoint: str) -> Iterator[str]:
    """A Ray that outlives its drivers, as the one that a job is submitted to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # where the code is installed, whoever's job it is
        cluster = Cluster(initialize_head=True, head_node_args=node(num_cpus=3))
    yield cluster.address
    cluster.shutdown()


def node(num_cpus: int) -> dict[str, Any]:
    return {
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "object_store_memory": 200 * 1024 * 1024,
    }


@pytest.fixture(scope="session")
def archive(s3_endpoint: str) -> str:
    """The images, in S3."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="archive")
    for number in range(harness.NUM_IMAGES):
        key = f"photos/{number:06d}.jpg"
        client.put_object(Bucket="archive", Key=key, Body=harness.body_of(number))
    return "s3://archive/photos/"


@pytest.fixture
def job(archive: str, ray_address: str, tmp_path: Path) -> Job:
    """On a table of its own in S3."""
    bucket = f"tables-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    environment = {"RAY_ADDRESS": ray_address}
    return Job(archive, f"s3://{bucket}/table", tmp_path, environment=environment)


@pytest.fixture(scope="session")
def unbroken(
    archive: str, ray_address: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("unbroken")
    environment = {"RAY_ADDRESS": ray_address}
    job = Job(archive, str(folder / "table"), folder, environment=environment)
    job.finish()
    rows = harness.rows_of(Files(job.table), folder / "copy")
    assert len(rows["images"]) == harness.NUM_IMAGES
    return rows
