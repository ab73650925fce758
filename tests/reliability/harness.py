"""Runs jobs.label as its own process, breaks something, and holds the finished tables to SQL.

Nothing here that judges a table comes from the pipelines: files are fetched with boto3 or copied,
and DuckDB reads them as any Parquet reader would.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import duckdb

from tests.conftest import ROOT

RUN = "night"
NUM_PARTS = 30
IMAGES_PER_PART = 15
NUM_IMAGES = NUM_PARTS * IMAGES_PER_PART
FLAGS = (
    "--detector=tests.stand_in:StandIn",
    f"--images_per_part={IMAGES_PER_PART}",
    f"--run={RUN}",
    "--date=2026-11-25",
    "--num_actors=2",
)


def body_of(number: int) -> bytes:
    """One image of each part takes a tenth of a second, so that a run lasts."""
    word = "SLOW" if number % IMAGES_PER_PART == 0 else "image"
    return f"{word} {number}".encode()


@dataclass
class Job:
    """jobs.label on one source and table, started as often as it takes."""

    source: str
    table: str
    folder: Path
    """For its checkpoint and what it prints."""
    flags: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """What the command is run by, for example another host name."""
    cwd: Path = ROOT

    def start(self) -> "Process":
        checkpoint = self.folder / "weights.bin"
        checkpoint.write_bytes(b"the stand-in's")
        command = [sys.executable, "-m", "jobs.label", *FLAGS, *self.flags]
        command += [f"--source={self.source}", f"--table={self.table}"]
        command += [f"--checkpoint={checkpoint}"]
        return Process([*self.prefix, *command], self)

    def finish(self) -> str:
        """Run it to its end; what it printed."""
        process = self.start()
        code = process.wait()
        assert code == 0, process.errors()
        return process.output()


class Process:
    """A driver that runs."""

    def __init__(self, command: Sequence[str], job: Job) -> None:
        self._files = [job.folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self._popen = subprocess.Popen(
                command,
                cwd=job.cwd,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | job.environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def wait(self, timeout_s: float = 180) -> int:
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end:\n{self.errors()}") from None

    def is_running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the driver and, where it started a local Ray, to that."""
        self.signal(signal.SIGKILL, group=True)
        assert self._popen.wait(60) == -signal.SIGKILL

    def output(self) -> str:
        return self._files[0].read_text()

    def errors(self) -> str:
        return self._files[1].read_text()


class Files:
    """The files of a table, by names below it; S3 or a disk, without the pipelines."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._bucket, _, self._prefix = table.removeprefix("s3://").partition("/")

    @property
    def _is_s3(self) -> bool:
        return self._table.startswith("s3://")

    def names(self, below: str = "") -> list[str]:
        if not self._is_s3:
            root = Path(self._table)
            found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        else:
            pages = boto3.client("s3").get_paginator("list_objects_v2")
            prefix = f"{self._prefix}/"
            found = (
                item["Key"].removeprefix(prefix)
                for page in pages.paginate(Bucket=self._bucket, Prefix=prefix)
                for item in page.get("Contents", [])
            )
        return sorted(name for name in found if name.startswith(below))

    def read(self, name: str) -> bytes:
        if not self._is_s3:
            return Path(self._table, name).read_bytes()
        key = f"{self._prefix}/{name}"
        return boto3.client("s3").get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def parts(self) -> list[str]:
        """The commits so far."""
        return [name for name in self.names("images/") if name.endswith(".parquet")]

    def wait_for_parts(self, count: int, process: Process) -> None:
        deadline = time.monotonic() + 120
        while len(self.parts()) < count:
            assert process.is_running(), f"the run ended before the fault:\n{process.errors()}"
            assert time.monotonic() < deadline, f"nothing is written:\n{process.errors()}"
            time.sleep(0.05)

    def copy_to(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        for name in self.names():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(name))
        return folder


_IMAGES = "read_parquet('{0}/images/*/*/*.parquet', hive_partitioning=true)"
_DETECTIONS = "read_parquet('{0}/detections/*/*/*.parquet', hive_partitioning=true)"
_MANIFEST = "read_parquet('{0}/manifests/*/*.parquet')"

_NOTHING_OF_THIS = {
    "an image listed and not done": (
        f"SELECT image_uri FROM {_MANIFEST} EXCEPT SELECT image_uri FROM {_IMAGES}"
    ),
    "an image done and not listed": (
        f"SELECT image_uri FROM {_IMAGES} EXCEPT SELECT image_uri FROM {_MANIFEST}"
    ),
    "an image done twice": (
        f"SELECT run, image_uri FROM {_IMAGES} GROUP BY ALL HAVING count(*) > 1"
    ),
    "a box there twice": (
        f"SELECT run, image_uri, detection_index FROM {_DETECTIONS} "
        "GROUP BY ALL HAVING count(*) > 1"
    ),
    "an image with other boxes than it says": (
        f"SELECT i.image_uri FROM {_IMAGES} i LEFT JOIN (SELECT image_uri, count(*) AS n FROM "
        f"{_DETECTIONS} GROUP BY ALL) d USING (image_uri) WHERE num_detections != coalesce(n, 0)"
    ),
    "a box of no image": (
        f"SELECT image_uri FROM {_DETECTIONS} EXCEPT SELECT image_uri FROM {_IMAGES}"
    ),
}


def audit(files: Files, folder: Path) -> None:
    """Hold a finished table to the promises of its ledger."""
    copy = files.copy_to(folder)
    for violation, sql in _NOTHING_OF_THIS.items():
        assert duckdb.sql(sql.format(copy)).fetchall() == [], violation
    images = {path.name for path in copy.glob("images/*/*/*")}
    assert images == {path.name for path in copy.glob("detections/*/*/*")}, "an orphan file"
    left = [name for name in files.names() if name.endswith((".tmp", ".lease"))]
    assert left == [], "left behind"
    record = json.loads((copy / f"runs/{RUN}.json").read_text())
    [(rows, labelled, boxes)] = duckdb.sql(
        "SELECT count(*), count(*) FILTER (status = 'labelled'), sum(num_detections)::BIGINT "
        f"FROM {_IMAGES.format(copy)}"
    ).fetchall()
    assert record["status"] == "complete"
    assert (rows, labelled, boxes) == (
        record["listed"],
        record["labelled"],
        record["detections"],
    )


def rows_of(files: Files, folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of both tables, all columns but the times and where the archive lies."""
    copy = files.copy_to(folder)
    name = "parse_filename(image_uri) AS image"
    return {
        "images": duckdb.sql(
            f"SELECT * EXCLUDE (labelled_at, image_uri), {name} FROM {_IMAGES.format(copy)} "
            "ORDER BY image"
        ).fetchall(),
        "detections": duckdb.sql(
            f"SELECT * EXCLUDE (image_uri), {name} FROM {_DETECTIONS.format(copy)} "
            "ORDER BY image, detection_index"
        ).fetchall(),
    }


def processes(title: str) -> list[int]:
    """The processes of this machine whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if title in command and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return sorted(found)


def kill_one_of(find: Callable[[], list[int]], chance: random.Random) -> int:
    """SIGKILL to one process, waited for a while if there is none yet."""
    deadline = time.monotonic() + 60
    while not (found := find()):
        assert time.monotonic() < deadline, "there is nothing to kill"
        time.sleep(0.02)
    pid = chance.choice(found)
    os.kill(pid, signal.SIGKILL)
    return pid
