import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ray.cluster_utils import Cluster

from tests.conftest import FAULT_SEED
from tests.reliability import harness
from tests.reliability.harness import ROOT, RUN, Files, Job, Rows

_MOMENTS_IN_SHORT = 1
_MOMENTS_IN_SOAK = 20
_numbers = itertools.count()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument `chance` is run at a random moment, with -m soak at twenty."""
    if "chance" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("moments")
        in_short, in_soak = marker.args if marker else (_MOMENTS_IN_SHORT, _MOMENTS_IN_SOAK)
        moments = [
            pytest.param(number, marks=[pytest.mark.soak] if number >= in_short else [])
            for number in range(in_soak)
        ]
        metafunc.parametrize("chance", moments, indirect=True)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(f"{FAULT_SEED} {request.node.name}")


@pytest.fixture(scope="session")
def ray_address(s3_endpoint: str, no_ray_here: None) -> Iterator[str]:
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
def table() -> str:
    """In S3."""
    bucket = f"tables-{next(_numbers)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/table"


@pytest.fixture
def job(archive: str, table: str, ray_address: str, tmp_path: Path) -> Iterator[Job]:
    job = Job(archive, table, tmp_path, environment={"RAY_ADDRESS": ray_address})
    yield job
    for process in job.processes:
        if process.is_running():  # the test has failed; the next one needs the cores
            process.kill()


@pytest.fixture(scope="session")
def unbroken(archive: str, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """The rows of a run that nothing happened to: labelled, empty and failed ones in each part."""
    folder = tmp_path_factory.mktemp("unbroken")
    job = Job(archive, str(folder / "table"), folder, environment={"RAY_ADDRESS": ray_address})
    job.finish()
    files = Files(job.table)
    harness.audit(files, folder / "copy")
    record = json.loads(files.read(f"runs/{RUN}.json"))
    counts = [record[name] for name in ("listed", "empty", "failed")]
    assert counts == [harness.NUM_IMAGES, harness.NUM_PARTS, harness.NUM_PARTS]
    return harness.rows_of(files, folder / "copy")


@pytest.fixture(scope="session")
def evening(archive: str, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The table of another, small run: the first ten images, the day before."""
    folder = tmp_path_factory.mktemp("evening")
    job = Job(f"{archive}00000", str(folder / "table"), folder, "evening", "2026-11-24")
    job.environment["RAY_ADDRESS"] = ray_address
    job.finish()
    return Files(job.table)


@pytest.fixture
def onlooker(table: str, evening: Files, unbroken: Rows, tmp_path: Path) -> Iterator[None]:
    """Looks at the table, which has a run already, while the test kills one and finishes it."""
    files = Files(table)
    for name in evening.names():
        files.write(name, evening.read(name))
    record = json.loads(evening.read("runs/evening.json"))
    before = {"evening": [10, record["detections"]]}
    after = before | {RUN: [len(unbroken[kind]) for kind in ("images", "detections")]}
    with harness.looked_on(table, tmp_path, before, after):
        yield
