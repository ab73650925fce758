"""The record of a run, `runs/<run>.json`: what made the rows, and their counts."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

from pipelines.detectors import FAIL, TORCH, YOLOX
from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.tables.layout import RunFolders, record_name
from pipelines.tables.ledger import Ledger

RUNNING = "running"
COMPLETE = "complete"
FAILED = "failed"
STOPPED = "stopped"
"""Asked to stop; like a failed run, the same command goes on with it."""

ALL = "all"
NEW = "new"
"""Selections: every image of the source, or those that no earlier run has labelled."""

AUTO = "auto"
"""A runtime that is not chosen yet: any will do."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_YOLOX_BEFORE = "pipelines.detector:Detector"
"""What records called YOLOX until 2026-11-27, by where it lay then."""
_PACKAGES = ("torch", "torchvision", "onnxruntime", "ray", "pyarrow", "opencv-python-headless")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What decides the rows of a run: two runs with equal settings write the same rows."""

    source: str
    weights_sha256: str
    preset: str
    preprocessing: str
    input_size: tuple[int, int]
    score_threshold: float
    nms_threshold: float
    max_pixels: int
    max_image_bytes: int
    detector: str = YOLOX
    """yolox, or module:Class."""
    selection: str = ALL
    """Which of the images that the source holds."""
    runtime: str = TORCH
    """What runs yolox: torch, onnxruntime or, before the run's first actor, auto; of another
    detector nothing."""
    full_decode: bool = False
    """Whether large JPEGs were decoded in full, as all were by versions that knew no other way."""
    truncated: str = FAIL
    """What became of JPEGs that were cut short: fail, as before there was a choice, or label."""

    def labels_like(self, other: "RunSettings") -> bool:
        """Whether an image has the rows that others would give it, whatever it was listed for.

        Up to the last digits, in which runtimes differ; decoded in full is as good as in part.
        """
        theirs = replace(
            other._taking_over(self),
            source=self.source,
            selection=self.selection,
            truncated=self.truncated,
        )
        # What was labelled where such JPEGs fail was whole.
        is_whole_enough = self.truncated in (FAIL, other.truncated)
        return self == theirs and self._is_full_enough_for(other) and is_whole_enough

    def fingerprint(self) -> str:
        """8 hex digits that name these settings, but for what a run may take over."""
        # By its word of before, so that a run that an older version began is found and goes on.
        detector = _YOLOX_BEFORE if self.detector == YOLOX else self.detector
        values = asdict(replace(self, detector=detector))
        del values["runtime"], values["full_decode"]
        if self.truncated == FAIL:  # as it was before it was a setting
            del values["truncated"]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]

    def runs_like(self, other: "RunSettings") -> bool:
        """Whether others may go on with a run of these, taking over its runtime and decoding."""
        same_runtime = self.runtime == other.runtime or AUTO in (self.runtime, other.runtime)
        return same_runtime and self._is_full_enough_for(other)

    def _taking_over(self, other: "RunSettings") -> "RunSettings":
        """As these become where a run of others goes on."""
        return replace(self, runtime=other.runtime, full_decode=other.full_decode)

    def _is_full_enough_for(self, other: "RunSettings") -> bool:
        return self.full_decode or not other.full_decode

    def differences(self, other: "RunSettings") -> list[str]:
        if self.runs_like(other):
            other = other._taking_over(self)
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [
            f"{name} {mine!r}, now {theirs!r}" for name, mine, theirs in pairs if mine != theirs
        ]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run, as its JSON file has it. Times are UTC, ISO 8601."""

    run: str
    date: str
    settings: RunSettings
    weights_uri: str
    status: str = RUNNING
    started_at: str = ""
    finished_at: str | None = None
    duplicates: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Names below the source that were not listed, by their suffix or why."""
    skipped_in: Mapping[str, int] = field(default_factory=dict)
    """Skipped images by the run that has labelled them."""
    ledger: Ledger
    parts: int | None = None
    """How many the manifest is cut into; None in records of versions that did not cut it."""
    counted_parts: str = ""
    """Those that the counts of an unfinished run are of: 0-511,513. Records of before name none."""
    attempts: int = 0
    retries: int = 0
    """Requests for images that had to be repeated; this, and the times below, of all attempts but
    those that were killed before they could write it down."""
    elapsed_seconds: float = 0.0
    """From the start of the actors to the last row written."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Busy seconds of each stage, summed over its workers."""

    @property
    def images_per_second(self) -> float | None:
        return self.ledger.done / self.elapsed_seconds if self.elapsed_seconds else None

    def to_json(self) -> bytes:
        values: dict[str, Any] = {
            "run": self.run,
            "status": self.status,
            "date": self.date,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "listed": self.ledger.listed,
            "duplicates": self.duplicates,
            "left_out": dict(self.left_out),
            "labelled": self.ledger.labelled,
            "empty": self.ledger.empty,
            "failed": self.ledger.failed,
            "failed_by_kind": dict(self.ledger.failed_by_kind),
            "skipped": self.ledger.skipped,
            "skipped_in": dict(self.skipped_in),
            "detections": self.ledger.detections,
            "parts": self.parts,
            "counted_parts": self.counted_parts,
            "weights_uri": self.weights_uri,
            **asdict(self.settings),
            "images_per_second": self.images_per_second,
            "elapsed_seconds": self.elapsed_seconds,
            "stage_seconds": dict(self.stage_seconds),
            "attempts": self.attempts,
            "retries": self.retries,
            "code_version": code_version(),
            "package_versions": package_versions(),
        }
        return json.dumps(values, indent=2, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "RunRecord":
        values = json.loads(data)
        values["input_size"] = tuple(values["input_size"])
        values["detector"] = detector_of(values)
        values.setdefault("runtime", TORCH if values["detector"] == YOLOX else "")
        values.setdefault("full_decode", True)
        return cls(
            **_fields_of(cls, values),
            settings=RunSettings(**_fields_of(RunSettings, values)),
            ledger=Ledger(**_fields_of(Ledger, values)),
        )


def detector_of(record: Mapping[str, Any]) -> str:
    """The detector that a record names; the first ones named none, for there was YOLOX only."""
    name = record.get("detector", _YOLOX_BEFORE)
    return YOLOX if name == _YOLOX_BEFORE else name


def _fields_of(record_class: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(record_class)}
    return {name: value for name, value in values.items() if name in names}


def check_name(run: str) -> None:
    """Raises InputError unless a run may be called so."""
    if not _NAME.fullmatch(run):
        raise InputError(f"run={run!r}: letters, digits, '.', '_' and '-' only, for it names files")


def write_record(table: Folder, record: RunRecord) -> None:
    table.write(record_name(record.run), record.to_json())


def read_record(table: Folder, run: str) -> RunRecord | None:
    """The record of a run, or None where there is none."""
    if not table.exists(record_name(run)):
        return None
    return RunRecord.from_json(table.read(record_name(run)))


def find_record(
    table: Folder, run: str | None, date: str | None, settings: RunSettings
) -> RunRecord | None:
    """The record that a command goes on with, if there is one.

    With a name, the run of that name. Without one, a run is named by its date and its settings: the
    newest unfinished run with these settings is continued, whatever its date (a night that was
    killed before midnight goes on after it), else today's.

    Raises:
        InputError: the named run exists and was started with other settings or another date.
    """
    if run is None:
        return _find_unnamed(table, date, settings)
    return read_fitting(table, run, date, settings)


def read_fitting(
    table: Folder, run: str, date: str | None, settings: RunSettings
) -> RunRecord | None:
    """The record of the run of this name, if there is one.

    Raises:
        InputError: it was started with other settings or another date.
    """
    record = read_record(table, run)
    if record:
        differences = record.settings.differences(settings)
        if date and date != record.date:
            differences.append(f"date {record.date!r}, now {date!r}")
        if differences:
            raise InputError(
                f"run {run!r} was started with other settings ({'; '.join(differences)}): "
                "give the same settings to go on with it, or another --run"
            )
    return record


def default_run_name(table: Folder, date: str, settings: RunSettings) -> str:
    """The date and the fingerprint, and a number where that run is there already."""
    name = f"{date}-{settings.fingerprint()}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(name for name in names if not table.exists(record_name(name)))


def _find_unnamed(table: Folder, date: str | None, settings: RunSettings) -> RunRecord | None:
    ours = re.compile(rf"runs/[\d-]+-{settings.fingerprint()}(-\d+)?\.json")
    names = filter(ours.fullmatch, table.list("runs"))
    records = [RunRecord.from_json(table.read(name)) for name in names]
    records = [record for record in records if record.settings.runs_like(settings)]
    if date:
        records = [record for record in records if record.date == date]
    records.sort(key=lambda record: record.date, reverse=True)
    unfinished = [record for record in records if record.status != COMPLETE]
    of_today = [record for record in records if record.date == (date or today())]
    # What is new can be asked for again on the same day.
    complete = [] if settings.selection.split(", ")[0] == NEW else of_today
    return next(iter(unfinished + complete), None)


def folders_of(table: Folder, record: RunRecord) -> RunFolders:
    return RunFolders(table, record.run, record.date)


def labelled_alike(table: Folder, settings: RunSettings) -> list[str]:
    """Names of the complete runs whose rows for an image are those that these settings give."""
    names = [name for name in table.list("runs") if name.endswith(".json")]
    records = [RunRecord.from_json(table.read(name)) for name in names]
    return [
        record.run
        for record in records
        if record.status == COMPLETE and record.settings.labels_like(settings)
    ]


def begin_attempt(record: RunRecord) -> RunRecord:
    """The record as a start of the run writes it.

    Raises:
        InputError: the run was begun by a version whose manifest had no parts.
    """
    if record.parts is None:
        raise InputError(
            f"run {record.run!r} was begun by an older version, whose rows were written in another "
            "way: give another --run"
        )
    return replace(
        record,
        status=RUNNING,
        attempts=record.attempts + 1,
        started_at=record.started_at or now(),
    )


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def code_version() -> str:
    """The package's version, and the commit where this is a git checkout.

    Of a submitted job, which runs from a copy of the code, what YOLOX_RAY_CODE_VERSION says.
    """
    if of_the_submitter := os.environ.get("YOLOX_RAY_CODE_VERSION"):
        return of_the_submitter
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    return "+".join(filter(None, [_version("yolox-ray"), commit]))


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was put on the path rather than installed
        return "unknown"
