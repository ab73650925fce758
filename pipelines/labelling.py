"""label_images(): from an archive to tables, through Ray Data.

    to-do list ──► fetch bytes ──► Detector actors ──► write a part ──► ledger, progress (driver)

JPEG bytes travel between the stages and pixels do not. No stage raises for one bad image, since Ray
would drop its whole block: a failure is a row that the later stages pass on.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import ray

from pipelines import cluster, runs, storage
from pipelines.detect_stage import DetectStage
from pipelines.detection import DEFAULT_DETECTOR, DetectorSettings
from pipelines.errors import InputError
from pipelines.fetch import fetch_block
from pipelines.ledger import Ledger, delete_orphans, read_ledger, remaining_images
from pipelines.manifest import write_manifest
from pipelines.parts import Part, write_part
from pipelines.progress import LabellingProgress
from pipelines.runs import RunRecord, RunSettings
from pipelines.storage import Folder, RunFolders
from pipelines.weights import read_checkpoint
from yolox_core import Checkpoint, check_input_size

FETCH_CPUS = 0.25
WRITE_CPUS = 0.25
"""Both wait for the network most of the time."""

BATCHES_PER_BLOCK = 8
"""Ray spends some 10 ms on each block in each stage: blocks must be large to feed a GPU."""

ACTOR_RETRIES = 3
"""Ray's default is for ever, and an input that kills its process would be tried for ever."""


@dataclass(frozen=True, kw_only=True)
class LabellingConfig:
    """Everything that one labelling run depends on."""

    source: str
    """What to label: a local folder, an s3://bucket/prefix (every key that begins so), or a
    Parquet or CSV file with a column image_uri."""
    table: str
    """Where the tables go: a local folder or an s3://bucket/prefix."""
    checkpoint: str
    """The detector's weights: a local path or an s3:// URI; ours, official YOLOX or the seed's."""
    run: str | None = None
    """The run's name. Without it: the date and a fingerprint of the settings, and an unfinished
    run with the same settings is continued."""
    date: str | None = None
    """The partition the rows go to, YYYY-MM-DD. Without it: today (UTC)."""
    input_size: int | tuple[int, int] | None = None
    """Side, or [height, width], fed to the model, in pixels. Without it: the checkpoint's."""
    score_threshold: float = 0.01
    """Low on purpose: labels are filtered when they are queried, and a rerun costs GPU hours."""
    nms_threshold: float = 0.65
    """Of two boxes of one class that overlap by a larger IoU, the better one stays."""
    batch_size: int = 16
    """Images in one forward pass."""
    num_actors: int | None = None
    """Detectors that run side by side. Without it: one per GPU, or one per core."""
    gpus_per_actor: float | None = None
    """Without it: 1 where Ray has GPUs, else 0."""
    images_per_part: int = 256
    """Images in one file of the tables; what a crash can cost at most, per writer."""
    max_pixels: int = 100_000_000
    """Larger images are refused from their header."""
    max_image_bytes: int = 256 * 1024 * 1024
    """Larger files are not fetched."""
    max_failed_share: float = 0.05
    """A finished run with a larger share of failed images makes the job exit with 3."""

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold", "max_failed_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: must lie between 0 and 1")
        for name in ("batch_size", "images_per_part", "max_pixels", "max_image_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.num_actors is not None and self.num_actors < 1:
            raise ValueError(f"num_actors={self.num_actors}: must be at least 1")
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise ValueError(f"gpus_per_actor={self.gpus_per_actor}: must not be negative")
        if self.date is not None:
            runs.check_date(self.date)
        if self.input_size is not None:
            check_input_size(*_height_width(self.input_size))


@dataclass(frozen=True)
class LabellingSummary:
    """What a finished run has, and what this attempt did for it."""

    record: RunRecord
    labelled_now: int
    """Rows written by this attempt; 0 where there was nothing left to do."""

    @property
    def ledger(self) -> Ledger:
        return self.record.ledger


def label_images(config: LabellingConfig) -> LabellingSummary:
    """Label every image of the source that has no row yet, and close the run's ledger.

    Raises:
        InputError: something that was given cannot be used; nothing has been started.
    """
    checkpoint, weights = read_checkpoint(config.checkpoint)
    table = Folder(config.table)
    try:
        record = _open_run(config, checkpoint, table)
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"table={config.table!r} cannot be used: {error}") from error
    folders = runs.folders_of(table, record)
    if record.status == runs.COMPLETE:
        return LabellingSummary(record, labelled_now=0)

    cluster.connect()
    cpus, gpus = cluster.resources()
    plan = cluster.plan_actors(cpus, gpus, config.num_actors, config.gpus_per_actor)
    record = runs.begin_attempt(record)
    runs.write_record(table, record)
    delete_orphans(folders)
    try:
        record, written = _run(config, plan, weights, record, folders)
    except Exception:
        runs.write_record(table, replace(record, status=runs.FAILED))
        raise
    runs.write_record(table, record)
    return LabellingSummary(record, written)


def _open_run(config: LabellingConfig, checkpoint: Checkpoint, table: Folder) -> RunRecord:
    """The record that this command goes on with; a new one comes with a complete manifest."""
    _refuse_table_inside_source(config)
    settings = RunSettings(
        source=storage.normalise_uri(config.source),
        weights_sha256=checkpoint.sha256,
        preset=checkpoint.preset,
        preprocessing=checkpoint.preprocessing,
        input_size=_height_width(config.input_size or checkpoint.input_size),
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_pixels=config.max_pixels,
        max_image_bytes=config.max_image_bytes,
    )
    record = runs.find_record(table, config.run, config.date, settings)
    if record:
        return record
    date = config.date or runs.today()
    run = config.run or runs.default_run_name(date, settings)
    # The record is written after the manifest: where there is a record, the manifest is whole.
    listing = write_manifest(config.source, RunFolders(table, run, date).manifest)
    record = RunRecord(
        run=run,
        date=date,
        settings=settings,
        weights_uri=config.checkpoint,
        duplicates=listing.duplicates,
        ledger=Ledger(listing.listed),
    )
    runs.write_record(table, record)
    return record


def _refuse_table_inside_source(config: LabellingConfig) -> None:
    source, table = storage.normalise_uri(config.source), storage.normalise_uri(config.table)
    if f"{table.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
        raise InputError(
            f"table={config.table!r} lies inside source={config.source!r}, where its own files "
            "would be listed as images: put it beside the images"
        )


def _run(
    config: LabellingConfig,
    plan: cluster.ActorPlan,
    weights: bytes,
    record: RunRecord,
    folders: RunFolders,
) -> tuple[RunRecord, int]:
    """Run the graph to its end; the record with its closed ledger, and the number of new rows."""
    started = time.monotonic()
    before = ledger = read_ledger(folders, record.ledger.listed)
    stage_seconds = Counter(record.stage_seconds)
    with LabellingProgress(before) as progress:
        remaining = before.listed - before.done
        for part in _labelled_parts(config, plan, weights, record, folders, remaining):
            ledger += part.ledger
            stage_seconds.update(part.stage_seconds)
            progress.update(ledger)
    ledger = read_ledger(folders, record.ledger.listed)
    if not ledger.is_closed:
        raise RuntimeError(
            f"the ledger of run {record.run!r} is not closed: {ledger.listed} listed, "
            f"{ledger.done} done; the same command goes on with the rest"
        )
    record = replace(
        record,
        status=runs.COMPLETE,
        finished_at=runs.now(),
        ledger=ledger,
        stage_seconds=dict(stage_seconds),
        elapsed_seconds=record.elapsed_seconds + time.monotonic() - started,
    )
    return record, ledger.done - before.done


def _labelled_parts(
    config: LabellingConfig,
    plan: cluster.ActorPlan,
    weights: bytes,
    record: RunRecord,
    folders: RunFolders,
    remaining: int,
) -> Iterator[Part]:
    rows_per_block = _rows_per_block(config.batch_size, remaining, plan.num_actors)
    blocks = [ray.put(block) for block in remaining_images(folders, rows_per_block)]
    if not blocks:
        return
    settings = DetectorSettings(
        input_size=record.settings.input_size,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_pixels=config.max_pixels,
        batch_size=config.batch_size,
        threads=plan.cpus,
        device="cuda" if plan.gpus else "cpu",
    )
    summaries = (
        ray.data.from_arrow_refs(blocks)  # type: ignore[arg-type]  # Ray has two ObjectRef types
        .map_batches(
            partial(fetch_block, max_bytes=config.max_image_bytes),
            batch_format="pyarrow",
            num_cpus=FETCH_CPUS,
        )
        .map_batches(
            DetectStage,
            fn_constructor_kwargs={
                "detector": DEFAULT_DETECTOR,
                "checkpoint": weights,
                "settings": settings,
            },
            batch_format="pyarrow",
            batch_size=rows_per_block,
            compute=ray.data.ActorPoolStrategy(size=min(plan.num_actors, len(blocks))),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            max_restarts=ACTOR_RETRIES,
            max_task_retries=ACTOR_RETRIES,
        )
        .map_batches(
            partial(write_part, folders=folders),
            batch_format="pyarrow",
            batch_size=config.images_per_part,
            num_cpus=WRITE_CPUS,
        )
    )
    for row in summaries.iter_rows():
        yield Part.from_row(row)


def _rows_per_block(batch_size: int, remaining: int, num_actors: int) -> int:
    """Large blocks, but at least two for each actor, so that all of them are busy to the end."""
    return max(1, min(BATCHES_PER_BLOCK * batch_size, math.ceil(remaining / (2 * num_actors))))


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
