"""Shared fixtures: a real S3 server, a small checkpoint, where the shared data lies."""

import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pytest
import ray
import torch
from moto.moto_server import werkzeug_app
from moto.moto_server.utilities import RegexConverter
from moto.server import ThreadedMotoServer

from pipelines import cluster
from pipelines.datasets import write_training_table
from pipelines.datasets.shapes import generate_archive
from pipelines.storage.folder import Folder
from pipelines.tables.layout import RunFolders
from pipelines.tables.schema import DETECTIONS, IMAGES, MANIFEST
from tests.faulty_s3 import FaultyS3
from yolox_core import build_model, save_checkpoint

# Ray's workers give way to all else (nice 15): beside a busy process they would hardly run at all.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (the name that Ray reads)

# Exports of checkpoints are kept for this session, and not in the cache of whoever tests.
_cache = tempfile.TemporaryDirectory(prefix="yolox-ray-tests-")
os.environ["XDG_CACHE_HOME"] = _cache.name

# Small tensors gain nothing from a second thread, which waits by spinning where cores are shared.
torch.set_num_threads(1)

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

FAULT_SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**6))
"""Of the moments at which things break: others in each session, unless FAULT_SEED is set."""

_bucket_numbers = itertools.count()


def pytest_report_header() -> str:
    # Here, for pytest asks only the topmost conftest.py for it where no folder is named.
    return f"moments of the faults: FAULT_SEED={FAULT_SEED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Rays of its own comes first, before this process is in one (`no_ray_here`)."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


class _AnyCharacter(RegexConverter):
    """S3 takes keys with a newline, which the test server's own pattern `.+` does not match."""

    def __init__(self, url_map: Any, pattern: str) -> None:
        super().__init__(url_map, f"(?s:{pattern})")


werkzeug_app.RegexConverter = _AnyCharacter


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """By what is started here, too: what a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def no_ray_here() -> None:
    """For tests with a `Cluster`, which forks this process: a Ray that is in it may not outlive it.

    A fork can cut the connections of that Ray, whose shutdown then waits for ever.
    """
    ray.shutdown()


def write_training_shapes(folder: Path, num_images: int) -> pa.Table:
    """Generated shapes in `images`, and the training table of them, `truth.parquet`."""
    table = generate_archive(folder, num_images, 3, str(folder / "images"))
    write_training_table(str(folder / "truth.parquet"), table)
    return table


@dataclass(frozen=True)
class TrainedRun:
    """A training by `python -m jobs.train`: its folder has truth.parquet, images and run."""

    folder: Path
    settings: dict[str, Any]
    told: str
    """What it printed."""


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Five epochs on two workers, with all that is random; one of 44 photos is none any more."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_training_shapes(folder, 44)
    Path(table["image_uri"][5].as_py()).write_bytes(b"<html>")
    settings = {
        "train": str(folder / "truth.parquet"),
        "val": str(folder / "truth.parquet"),
        "output": str(folder / "run"),
        "preset": "nano",
        "input_size": 64,
        "epochs": 5,
        "batch_size": 4,
        "learning_rate": 0.16,
        "warmup_epochs": 0,
        "no_aug_epochs": 1,
        "mosaic": 0.7,
        "mixup": 0.5,
        "eval_every": 2,
        "num_workers": 2,
    }
    return TrainedRun(folder, settings, told_by_training(settings))


def told_by_training(settings: dict[str, Any]) -> str:
    """What `python -m jobs.train` prints, which must end well."""
    flags = [f"--{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "jobs.train", *flags]
    told = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600
    )
    return told.stdout


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


Row = dict[str, Any]


@dataclass
class LabelledRun:
    """The rows and the record of a run as labelling leaves them, to be changed and written."""

    record: Row
    manifest: list[Row]
    images: dict[int, list[Row]] = field(default_factory=dict)
    """By part, as `detections`."""
    detections: dict[int, list[Row]] = field(default_factory=dict)

    def write(self, table: Folder) -> RunFolders:
        folders = RunFolders(table, self.record["run"], self.record["date"])
        _write(folders.manifest, 0, self.manifest, MANIFEST)
        for part, rows in self.detections.items():
            _write(folders.detections, part, rows, DETECTIONS)
        for part, rows in self.images.items():
            _write(folders.images, part, rows, IMAGES)
        table.write(f"runs/{self.record['run']}.json", json.dumps(self.record).encode())
        return folders


def _write(folder: Folder, part: int, rows: Sequence[Row], schema: pa.Schema) -> None:
    folder.write_table(f"part-{part:08d}.parquet", pa.Table.from_pylist(rows, schema=schema))


@pytest.fixture
def labelled_run() -> Callable[..., LabelledRun]:
    return _labelled_run


def _labelled_run(
    run: str = "night",
    date: str = "2026-11-21",
    *,
    num_images: int = 10,
    skipped: int = 0,
    skipped_in: str = "earlier",
    per_part: int = 4,
    status: str = "complete",
) -> LabelledRun:
    """Of five images each the fourth has no boxes and the fifth failed; the first ones skipped."""
    uris = [f"s3://photos/{number:05d}.jpg" for number in range(num_images)]
    made = LabelledRun(record={}, manifest=[])
    for number, uri in enumerate(uris):
        part = None if number < skipped else (number - skipped) // per_part
        listed = {"image_uri": uri, "etag": f"e{number}", "size_bytes": 1000 + number}
        goes_to = {"part": part, "skipped_in": skipped_in if number < skipped else None}
        made.manifest.append(listed | goes_to)
        if part is not None:
            boxes = _boxes(number, uri)
            made.images.setdefault(part, []).append(listed | _image(number, len(boxes)))
            made.detections.setdefault(part, []).extend(boxes)
    rows = [row for part in made.images.values() for row in part]
    kinds = Counter(row["error_kind"] for row in rows if row["error_kind"])
    made.record = {
        "run": run,
        "status": status,
        "date": date,
        "started_at": f"{date}T01:00:00+00:00",
        "finished_at": f"{date}T03:00:00+00:00" if status == "complete" else None,
        "listed": num_images,
        "labelled": sum(row["status"] == "labelled" for row in rows),
        "empty": sum(row["status"] == "labelled" and not row["num_detections"] for row in rows),
        "failed": kinds.total(),
        "failed_by_kind": dict(kinds),
        "skipped": skipped,
        "skipped_in": {skipped_in: skipped} if skipped else {},
        "detections": sum(row["num_detections"] for row in rows),
        "parts": len(made.images),
        "weights_uri": "weights/nano.pth",
        "source": "s3://photos/",
        "weights_sha256": "0123456789abcdef" * 4,
        "preset": "nano",
        "preprocessing": "official",
        "input_size": [64, 64],
        "score_threshold": 0.01,
        "nms_threshold": 0.65,
        "max_pixels": 100_000_000,
        "max_image_bytes": 268_435_456,
        "images_per_second": len(rows) / 7200,
        "elapsed_seconds": 7200.0,
        "stage_seconds": {"detect": 7000.0},
        "attempts": 1,
        "code_version": "0.1+6542a05",
        "package_versions": {"python": "3.11.9"},
    }
    return made


def _image(number: int, num_detections: int) -> Row:
    failed = number % 5 == 4
    return {
        "width": None if failed else 640,
        "height": None if failed else 480,
        "status": "failed" if failed else "labelled",
        "num_detections": num_detections,
        "error_kind": ("corrupt", "gone")[number % 2] if failed else None,
        "error_message": "no pixels" if failed else None,
        "labelled_at": datetime(2026, 11, 21, 2, tzinfo=UTC),
    }


def _boxes(number: int, uri: str) -> list[Row]:
    count = 0 if number % 5 >= 3 else 1 + number % 3
    return [
        {
            "image_uri": uri,
            "detection_index": index,
            "class_id": (number + index) % 3,
            "class_name": ("cat", "dog", "bird")[(number + index) % 3],
            "score": 0.9 / (index + 1) - number % 7 / 100,
            "x1": 1.0,
            "y1": 2.0,
            "x2": 640.0,
            "y2": 300.0 + number % 100,
            "image_width": 640,
            "image_height": 480,
        }
        for index in range(count)
    ]
