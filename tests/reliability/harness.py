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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import duckdb

from benchmarks.memory import descendants

ROOT = Path(__file__).parents[2]

Rows = dict[str, list[tuple[Any, ...]]]
"""Of the tables `images` and `detections`."""

RUN = "night"
NUM_PARTS = 16
IMAGES_PER_PART = 8
NUM_IMAGES = NUM_PARTS * IMAGES_PER_PART
FLAGS = (
    "--detector=tests.stand_in:StandIn",
    f"--images_per_part={IMAGES_PER_PART}",
    "--num_actors=2",
    "--max_failed_share=0.2",  # one of eight fails, and one of the evening's ten
)

PATIENCE_S = 300
"""A run takes twenty seconds; on a machine that does other work, minutes."""

_ODD_ONES = {0: "SLOW", 3: "NAN", 7: "EMPTY"}


def body_of(number: int) -> bytes:
    """Of each part one image is slow, so that a run lasts, one fails, and one shows nothing."""
    word = _ODD_ONES.get(number % IMAGES_PER_PART, "image")
    return f"{word} {number}".encode()


@dataclass
class Job:
    """jobs.label on one source and table, started as often as it takes."""

    source: str
    table: str
    folder: Path
    """For its checkpoint and what it prints."""
    run: str = RUN
    date: str = "2026-11-25"
    flags: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """What the command is run by, for example another host name."""
    cwd: Path = ROOT
    processes: list["Process"] = field(default_factory=list)
    """All that were started."""

    def start(self) -> "Process":
        checkpoint = self.folder / "weights.bin"
        checkpoint.write_bytes(b"the stand-in's")
        command = [sys.executable, "-m", "jobs.label", *FLAGS, *self.flags]
        command += [f"--source={self.source}", f"--table={self.table}"]
        command += [f"--checkpoint={checkpoint}", f"--run={self.run}", f"--date={self.date}"]
        process = Process([*self.prefix, *command], self)
        self.processes.append(process)
        return process

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

    def wait(self) -> int:
        try:
            return self._popen.wait(PATIENCE_S)
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

    @cached_property
    def _client(self) -> Any:
        return boto3.client("s3")

    def names(self, below: str = "") -> list[str]:
        if not self._is_s3:
            root = Path(self._table)
            found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
        else:
            pages = self._client.get_paginator("list_objects_v2")
            prefix = f"{self._prefix}/"
            found = (
                item["Key"].removeprefix(prefix)
                for page in pages.paginate(Bucket=self._bucket, Prefix=prefix + below)
                for item in page.get("Contents", [])
            )
        return sorted(name for name in found if name.startswith(below))

    def read(self, name: str) -> bytes:
        if not self._is_s3:
            return Path(self._table, name).read_bytes()
        key = f"{self._prefix}/{name}"
        return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    def write(self, name: str, data: bytes) -> None:
        if not self._is_s3:
            path = Path(self._table, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=data)

    def parts(self) -> list[str]:
        """The commits so far."""
        names = self.names("images/")
        return [name for name in names if f"/run={RUN}/" in name and name.endswith(".parquet")]

    def wait_for_lease(self, process: Process) -> None:
        """Until the run is this driver's."""
        self._wait(lambda: f"runs/{RUN}.lease" in self.names("runs/"), process)

    def wait_for_parts(self, count: int, process: Process) -> None:
        self._wait(lambda: len(self.parts()) >= count, process)

    def _wait(self, is_so: Callable[[], bool], process: Process) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            assert process.is_running(), f"the run ended before the fault:\n{process.errors()}"
            assert time.monotonic() < deadline, f"nothing is written:\n{process.errors()}"
            time.sleep(0.2)

    def copy_to(self, folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        copy = Files(str(folder))
        for name in self.names():
            copy.write(name, self.read(name))
        return folder


IMAGES = f"read_parquet('{{0}}/images/*/run={RUN}/*.parquet', hive_partitioning=true)"
_DETECTIONS = f"read_parquet('{{0}}/detections/*/run={RUN}/*.parquet', hive_partitioning=true)"
_MANIFEST = f"read_parquet('{{0}}/manifests/{RUN}/*.parquet')"

_NOTHING_OF_THIS = {
    "an image listed and not done": (
        f"SELECT image_uri FROM {_MANIFEST} EXCEPT SELECT image_uri FROM {IMAGES}"
    ),
    "an image done and not listed": (
        f"SELECT image_uri FROM {IMAGES} EXCEPT SELECT image_uri FROM {_MANIFEST}"
    ),
    "an image done twice": (f"SELECT image_uri FROM {IMAGES} GROUP BY ALL HAVING count(*) > 1"),
    "a box there twice": (
        f"SELECT image_uri, detection_index FROM {_DETECTIONS} GROUP BY ALL HAVING count(*) > 1"
    ),
    "an image with other boxes than it says": (
        f"SELECT i.image_uri FROM {IMAGES} i LEFT JOIN (SELECT image_uri, count(*) AS n FROM "
        f"{_DETECTIONS} GROUP BY ALL) d USING (image_uri) WHERE num_detections != coalesce(n, 0)"
    ),
    "a failed image with boxes or without a reason": (
        f"SELECT image_uri FROM {IMAGES} "
        "WHERE status = 'failed' AND (num_detections > 0 OR error_kind IS NULL)"
    ),
    "a box of no image": (
        f"SELECT image_uri FROM {_DETECTIONS} EXCEPT SELECT image_uri FROM {IMAGES}"
    ),
}


def audit(files: Files, folder: Path) -> None:
    """Hold a finished table to the promises of its ledger."""
    copy = files.copy_to(folder)
    for violation, sql in _NOTHING_OF_THIS.items():
        assert duckdb.sql(sql.format(copy)).fetchall() == [], violation
    images = {path.name for path in copy.glob(f"images/*/run={RUN}/*")}
    detections = {path.name for path in copy.glob(f"detections/*/run={RUN}/*")}
    assert images == detections, "an orphan file"
    left = [name for name in files.names() if name.endswith((".tmp", ".lease"))]
    assert left == [], "left behind"
    record = json.loads((copy / f"runs/{RUN}.json").read_text())
    counts = duckdb.sql(
        "SELECT count(*) AS listed, count(*) FILTER (status = 'labelled') AS labelled, "
        "count(*) FILTER (status = 'labelled' AND num_detections = 0) AS empty, "
        "count(*) FILTER (status = 'failed') AS failed, sum(num_detections)::BIGINT AS detections "
        f"FROM {IMAGES.format(copy)}"
    )
    kinds = duckdb.sql(
        "SELECT error_kind, count(*) "
        f"FROM {IMAGES.format(copy)} WHERE status = 'failed' GROUP BY ALL"
    )
    assert record["status"] == "complete"
    [found] = counts.fetchall()
    for name, count in zip(counts.columns, found, strict=True):
        assert record[name] == count, f"{name}: the record says {record[name]}, the rows {count}"
    by_kind = dict(kinds.fetchall())
    assert record["failed_by_kind"] == by_kind, f"failed by kind: the rows say {by_kind}"


def rows_of(files: Files, folder: Path) -> Rows:
    """All rows of both tables, all columns but the times and where the archive lies."""
    copy = files.copy_to(folder)
    name = "parse_filename(image_uri) AS image"
    return {
        "images": duckdb.sql(
            f"SELECT * EXCLUDE (labelled_at, image_uri), {name} FROM {IMAGES.format(copy)} "
            "ORDER BY image"
        ).fetchall(),
        "detections": duckdb.sql(
            f"SELECT * EXCLUDE (image_uri), {name} FROM {_DETECTIONS.format(copy)} "
            "ORDER BY image, detection_index"
        ).fetchall(),
    }


Counts = dict[str, list[int]]
"""By run: images, boxes."""


@contextmanager
def looked_on(table: str, folder: Path, before: Counts, after: Counts) -> Iterator[None]:
    """Have an onlooker see what is complete before and after, and never anything else."""
    seen = folder / "seen.jsonl"
    command = [sys.executable, "-m", "tests.reliability.onlooker", table]
    with seen.open("w") as out:
        onlooker = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=out)
    try:
        yield
        onlooker.communicate(timeout=PATIENCE_S)
    finally:
        onlooker.kill()
        onlooker.wait()
    looks = [json.loads(line) for line in seen.read_text().splitlines()]
    wrong = [look for look in looks if look not in (before, after)]
    assert wrong == [], f"{len(wrong)} of {len(looks)} looks saw something else"
    assert looks[0] == before
    assert looks[-2:] == [after, after]


def processes(title: str) -> list[int]:
    """The processes that this one has started whose command line contains a text."""
    return [pid for pid in descendants(os.getpid()) if title in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""  # it has ended meanwhile


def kill_one(title: str, chance: random.Random, within_s: float) -> None:
    """SIGKILL to one of the processes of that title, so many seconds at most after there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while not processes(title):
        assert time.monotonic() < deadline, "there is nothing to kill"
        time.sleep(0.02)
    time.sleep(chance.uniform(0, within_s))
    os.kill(chance.choice(processes(title)), signal.SIGKILL)
