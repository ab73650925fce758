"""What a run would take, from what was listed and from how a sample of it went."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipelines.labelling.manifest import MAX_PART_BYTES, most_images_per_part
from pipelines.labelling.writing import Part
from pipelines.planning import ActorPlan
from pipelines.storage import to_parquet
from pipelines.tables import DETECTIONS, IMAGES

_KEYS_PER_LIST = 1000
_FILES_PER_PART = 2


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the source holds."""

    images: int
    """To be labelled."""
    skipped: int
    """That an earlier run has labelled."""
    left_out: Mapping[str, int]
    size_bytes: int
    """Of the images to be labelled, as far as it was listed."""
    sample: pa.Table
    """Some of them, schema.LISTED."""

    @property
    def names(self) -> int:
        return self.images + self.skipped + sum(self.left_out.values())


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How the sample went."""

    plan: ActorPlan
    parts: Sequence[Part]
    """In the order in which they came to their end."""
    first_part_s: float
    """When the first one had, since the command began."""
    leaving_s: float
    """From the end of the last one: a Ray that was started is ended."""

    @property
    def num_actors(self) -> int:
        """That had something to do."""
        return min(self.plan.num_actors, len(self.parts))

    @property
    def images(self) -> int:
        return sum(part.ledger.done for part in self.parts)

    @property
    def start_up_s(self) -> float:
        """Until an actor was at its pace: what the first part took longer than others is in it."""
        return max(0.0, self.first_part_s - self.parts[0].ledger.done / self.images_per_second)

    @property
    def images_per_second(self) -> float:
        """Of one actor, by what its images kept it busy; the first part of each, in which all warms
        up, does not count where there are others."""
        parts = self.parts[self.num_actors :] or self.parts
        busy = sum(part.stage_seconds["detect"] for part in parts)
        return sum(part.ledger.done for part in parts) / max(busy, 1e-9)

    def share_failed(self) -> dict[str, float]:
        """By kind."""
        counts: dict[str, int] = {}
        for part in self.parts:
            for kind, count in part.ledger.failed_by_kind.items():
                counts[kind] = counts.get(kind, 0) + count
        return {kind: count / self.images for kind, count in sorted(counts.items())}


@dataclass(frozen=True, kw_only=True)
class Duration:
    """Of a run with so many actors."""

    num_actors: int
    seconds: float
    gpu_hours: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What `--dry_run` tells."""

    images: int
    skipped: int
    left_out: Mapping[str, int]
    size_bytes: int
    sampled: int
    share_failed: Mapping[str, float]
    """Of the sample, by kind."""
    detections: int
    table_bytes: int
    requests: Mapping[str, int]
    """To S3, by its operation."""
    start_up_seconds: float
    images_per_second: float
    """Of all actors that the cluster has, without the start-up."""
    durations: Sequence[Duration]
    """Of the whole command, its start-up and its leaving included."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(
    found: Found,
    trial: Trial,
    images_per_part: int,
    num_actors: Sequence[int],
    reads_s3: bool,
    writes_s3: bool,
) -> Estimate:
    """What labelling all that was found will take.

    Args:
        images_per_part: of the run, which are fewer where images are large.
        num_actors: for each of these there is a duration; the first is what the cluster has.
        reads_s3: whether source and images lie in S3.
        writes_s3: whether the table does.
    """
    parts = _parts(found, images_per_part)
    detections = sum(part.ledger.detections for part in trial.parts) / trial.images
    retries = sum(part.retries for part in trial.parts) / trial.images
    return Estimate(
        images=found.images,
        skipped=found.skipped,
        left_out=dict(found.left_out),
        size_bytes=found.size_bytes,
        sampled=trial.images,
        share_failed=trial.share_failed(),
        detections=round(found.images * detections),
        table_bytes=_table_bytes(found, trial, parts),
        requests={
            "list": math.ceil(found.names / _KEYS_PER_LIST) if reads_s3 else 0,
            "get": round(found.images * (1 + retries)) if reads_s3 else 0,
            "put": _FILES_PER_PART * parts if writes_s3 else 0,
        },
        start_up_seconds=trial.start_up_s,
        images_per_second=trial.images_per_second * num_actors[0],
        durations=[_duration(found, trial, number) for number in num_actors],
    )


def _duration(found: Found, trial: Trial, num_actors: int) -> Duration:
    labelling_s = found.images / (trial.images_per_second * num_actors)
    seconds = trial.start_up_s + labelling_s + trial.leaving_s
    gpu_hours = seconds * num_actors * trial.plan.gpus / 3600
    return Duration(num_actors=num_actors, seconds=seconds, gpu_hours=gpu_hours)


def _table_bytes(found: Found, trial: Trial, parts: int) -> int:
    """Apart from what each file costs, however few rows it has."""
    empty = sum(len(to_parquet(schema.empty_table())) for schema in (IMAGES, DETECTIONS))
    rows = sum(part.table_bytes - empty for part in trial.parts) / trial.images
    return round(parts * empty + found.images * rows)


def _parts(found: Found, images_per_part: int) -> int:
    by_size = MAX_PART_BYTES * found.images // max(found.size_bytes, 1)
    most = min(most_images_per_part(found.images, images_per_part), by_size)
    return math.ceil(found.images / max(1, most))
