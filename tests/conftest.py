"""Shared fixtures: a real S3 server, a small checkpoint, where the shared data lies."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray
import torch
from moto.moto_server import werkzeug_app
from moto.moto_server.utilities import RegexConverter
from moto.server import ThreadedMotoServer

from pipelines import cluster
from tests.faulty_s3 import FaultyS3
from yolox_core import build_model, save_checkpoint

# Small tensors gain nothing from a second thread, which waits by spinning where cores are shared.
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

_bucket_numbers = itertools.count()


class _AnyCharacter(RegexConverter):
    """S3 takes keys with a newline, which the test server's own pattern `.+` does not match."""

    def __init__(self, url_map: Any, pattern: str) -> None:
        super().__init__(url_map, f"(?s:{pattern})")


werkzeug_app.RegexConverter = _AnyCharacter


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data, photos and weights that lies beside the project."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (golden data, photos and weights), which is not here")
    return SHARED


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """An S3 server on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_proxy(s3_server: str) -> Iterator[FaultyS3]:
    """The S3 server behind a proxy that the standard AWS variables point to."""
    with FaultyS3(s3_server) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        yield proxy


@pytest.fixture(scope="session")
def s3_endpoint(s3_proxy: FaultyS3) -> str:
    """What AWS_ENDPOINT_URL says: an S3 that works, unless a test has it fail by `faulty_s3`."""
    return s3_proxy.url


@pytest.fixture
def faulty_s3(s3_proxy: FaultyS3) -> Iterator[FaultyS3]:
    """The S3 that everything here talks to, Ray's workers included, to be given faults."""
    s3_proxy.clear()
    yield s3_proxy
    s3_proxy.clear()


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str) -> Iterator[None]:
    """A local Ray as the jobs start it; its workers know the S3 server from the environment."""
    cluster.connect()
    yield
    ray.shutdown()


class Bucket:
    """A bucket of the test's own; its `client` talks to the server itself and meets no faults."""

    def __init__(self, name: str, server: str) -> None:
        self.name = name
        self.client = boto3.client("s3", endpoint_url=server)
        self.client.create_bucket(Bucket=name)

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"s3://{self.name}/{key}"


@pytest.fixture
def bucket(s3_endpoint: str, s3_server: str) -> Bucket:
    return Bucket(f"bucket-{next(_bucket_numbers)}", s3_server)


@pytest.fixture(scope="session")
def tiny_checkpoint() -> bytes:
    """An untrained nano detector of three classes for 64 px: it finds nonsense, but finds it."""
    torch.manual_seed(0)
    file = io.BytesIO()
    save_checkpoint(
        file,
        build_model("nano", num_classes=3),
        class_names=("cat", "dog", "bird"),
        input_size=(64, 64),
        preprocessing="official",
    )
    return file.getvalue()
