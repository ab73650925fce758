"""label_images(): from an archive to tables, through Ray Data.

    part numbers ──► fetch bytes ──► Detector actors ──► write a part ──► ledger, progress (driver)

A block is a part from end to end: what a task does again, it does to the same images and files.
JPEG bytes travel between the stages and pixels do not. No stage raises for one bad image, since Ray
would drop its whole block: a failure is a row that the later stages pass on.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions

from pipelines import cluster, storage
from pipelines.detectors import DEFAULT_DETECTOR, DetectorSettings, load_detector_class
from pipelines.errors import InputError, RunStoppedError, StalledError, sentence_in
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.fetching import fetch_block
from pipelines.labelling.heartbeat import start_activity
from pipelines.labelling.listing import Listing, list_failed, list_source
from pipelines.labelling.manifest import write_manifest
from pipelines.labelling.progress import LabellingProgress
from pipelines.labelling.stages import (
    STAGES,
    DetectStage,
    Fetch,
    fetch_stage,
    stopped_by_storage,
    write_stage,
)
from pipelines.labelling.watchdog import watched
from pipelines.labelling.writing import Part
from pipelines.storage import Folder, Lease
from pipelines.tables import (
    Ledger,
    RunFolders,
    RunRecord,
    RunSettings,
    delete_leftovers,
    open_run,
    open_runs,
    read_ledger,
    remaining_parts,
    runs,
)

FETCH_CPUS = 0.25
WRITE_CPUS = 0.25
"""Both wait for the network most of the time."""

ACTOR_STARTS_IN_VAIN = 3
"""In a row: a node can go while a model is loaded, but a model that never loads is at fault."""

FREE_RETRIES = 100
"""So many requests may be repeated whatever the number of images."""


@dataclass(frozen=True)
class LabellingSummary:
    """What a finished run has, and what this attempt did for it."""

    record: RunRecord
    labelled_now: int
    """Rows written by this attempt; 0 where there was nothing left to do."""

    @property
    def ledger(self) -> Ledger:
        return self.record.ledger


def label_images(config: LabellingConfig, fetch: Fetch | None = None) -> LabellingSummary:
    """Label every image of the source that has no row yet, and close the run's ledger.

    Args:
        fetch: what the fetch stage does, if not `fetch_block`.

    Raises:
        InputError: something that was given cannot be used; nothing has been started.
        RunStoppedError: the run cannot go on now; the same command goes on with the rest.
    """
    model = _read_model(config)
    table = Folder(config.table)
    try:
        run = _name_run(config, model.settings, table)
        lease = Lease.acquire(table, run)
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"table={config.table!r} cannot be used: {error}") from error
    with lease:
        record = _open_run(config, model.settings, table, run)
        if record.status == runs.COMPLETE:
            return LabellingSummary(record, labelled_now=0)
        fetch = fetch or partial(fetch_block, max_bytes=config.max_image_bytes)
        return _label(_Task(config, model, table, record, lease, fetch))


@dataclass(frozen=True)
class _Model:
    """What labels the images, and the settings that decide their rows."""

    weights: bytes
    settings: RunSettings


def _read_model(config: LabellingConfig) -> _Model:
    load_detector_class(config.detector)
    if config.detector == DEFAULT_DETECTOR:
        # Here, since they import torch: seconds that another detector's run need not wait.
        from pipelines.detectors import check_canvas, read_checkpoint

        if config.input_size is not None:
            check_canvas(*_height_width(config.input_size))
        checkpoint, weights = read_checkpoint(config.checkpoint)
        preset, preprocessing = checkpoint.preset, str(checkpoint.preprocessing)
        input_size = checkpoint.input_size
    else:
        weights = storage.read_bytes(config.checkpoint)
        preset, preprocessing, input_size = "", "", (640, 640)
    settings = RunSettings(
        source=storage.normalise_uri(config.source) if config.source else "",
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        preset=preset,
        preprocessing=preprocessing,
        input_size=_height_width(config.input_size or input_size),
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_pixels=config.max_pixels,
        max_image_bytes=config.max_image_bytes,
        detector=config.detector,
        selection=_selection(config),
    )
    return _Model(weights, settings)


def _selection(config: LabellingConfig) -> str:
    if config.retry_failed:
        return " ".join(["failed in", config.retry_failed, *sorted(config.retry_kinds)])
    return runs.NEW if config.incremental else runs.ALL


def _name_run(config: LabellingConfig, settings: RunSettings, table: Folder) -> str:
    if config.source:
        _refuse_table_inside_source(config)
    record = runs.find_record(table, config.run, config.date, settings)
    if record:
        return record.run
    return config.run or runs.default_run_name(table, config.date or runs.today(), settings)


def _refuse_table_inside_source(config: LabellingConfig) -> None:
    source, table = storage.normalise_uri(config.source), storage.normalise_uri(config.table)
    if f"{table.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
        raise InputError(
            f"table={config.table!r} lies inside source={config.source!r}, where its own files "
            "would be listed as images: put it beside the images"
        )


def _open_run(config: LabellingConfig, settings: RunSettings, table: Folder, run: str) -> RunRecord:
    """The record that this command goes on with; a new one comes with a complete manifest."""
    record = runs.find_record(table, run, config.date, settings)
    if record:
        return record
    date = config.date or runs.today()
    earlier = runs.labelled_alike(table, settings) if config.incremental else []
    # The record is written after the manifest: where there is a record, the manifest is whole.
    listing = write_manifest(
        _list(config),
        RunFolders(table, run, date).manifest,
        config.images_per_part,
        open_runs(table.uri, earlier) if earlier else None,
    )
    record = RunRecord(
        run=run,
        date=date,
        settings=settings,
        weights_uri=config.checkpoint,
        duplicates=listing.duplicates,
        skipped_in=listing.skipped_in,
        ledger=Ledger(listing.listed, skipped=listing.skipped),
        parts=listing.parts,
    )
    runs.write_record(table, record)
    return record


def _list(config: LabellingConfig) -> Listing:
    if config.retry_failed:
        return list_failed(open_run(config.table, config.retry_failed), config.retry_kinds)
    return list_source(config.source)


@dataclass(frozen=True)
class _Task:
    """One attempt at a run."""

    config: LabellingConfig
    model: _Model
    table: Folder
    record: RunRecord
    lease: Lease
    fetch: Fetch

    @property
    def folders(self) -> RunFolders:
        return runs.folders_of(self.table, self.record)


def _label(task: _Task) -> LabellingSummary:
    """Run the attempt and write down how it ended."""
    record = runs.begin_attempt(task.record)
    cluster.connect()
    plan = cluster.plan_actors(
        *cluster.resources(), task.config.num_actors, task.config.gpus_per_actor
    )
    runs.write_record(task.table, record)
    task = replace(task, record=record)
    delete_leftovers(task.folders)
    effort = _Effort()
    try:
        ledger, written = _run(task, plan, effort)
    except BaseException as error:
        status = runs.STOPPED if isinstance(error, KeyboardInterrupt) else runs.FAILED
        _write_ended(task, replace(effort.added_to(record), status=status))
        raise _explained(error) from error
    task.lease.check()
    record = replace(
        effort.added_to(record), status=runs.COMPLETE, finished_at=runs.now(), ledger=ledger
    )
    runs.write_record(task.table, record)
    return LabellingSummary(record, written)


@dataclass
class _Effort:
    """What one attempt has cost so far."""

    started: float = field(default_factory=time.monotonic)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    retries: int = 0

    def add(self, part: Part) -> None:
        self.stage_seconds.update(part.stage_seconds)
        self.retries += part.retries

    def added_to(self, record: RunRecord) -> RunRecord:
        return replace(
            record,
            elapsed_seconds=record.elapsed_seconds + time.monotonic() - self.started,
            stage_seconds=dict(Counter(record.stage_seconds) + self.stage_seconds),
            retries=record.retries + self.retries,
        )


def _write_ended(task: _Task, record: RunRecord) -> None:
    """Write down a bad end, if that can be: the disk may be full, the run may be another's."""
    with suppress(RunStoppedError, *storage.STORAGE_ERRORS):
        task.lease.check()
        runs.write_record(task.table, record)


def _run(task: _Task, plan: cluster.ActorPlan, effort: _Effort) -> tuple[Ledger, int]:
    """Run the graph to its end; the closed ledger, and the number of new rows."""
    record, folders = task.record, task.folders
    before = ledger = read_ledger(folders, record.ledger)
    activity = start_activity()
    parts = _labelled_parts(task, plan, activity)
    with LabellingProgress(before) as progress:
        for part in watched(parts, partial(_check, task, activity)):
            task.lease.check()
            ledger += part.ledger
            effort.add(part)
            _check_retries(task.config, effort.retries, ledger.done - before.done)
            progress.update(ledger)
    delete_leftovers(folders)
    ledger = read_ledger(folders, record.ledger)
    assert record.parts is not None  # begin_attempt() has seen to it
    left = remaining_parts(folders, record.parts)
    if left or not ledger.is_closed:
        raise RunStoppedError(
            f"the ledger of run {record.run!r} is not closed: {ledger.to_do} images to do, "
            f"{ledger.done} done, {len(left)} parts without both of their files; the same command "
            "goes on with the rest"
        )
    return ledger, ledger.done - before.done


def _check(task: _Task, activity: Any, seconds_without_a_part: float) -> None:
    """What has to be looked at while nothing comes out."""
    task.lease.check()
    limit = task.config.stall_timeout
    if seconds_without_a_part < limit:
        return
    if ray.get(activity.seconds_since_a_sign.remote()) >= limit:
        report = ray.get(activity.report.remote(STAGES))
        raise StalledError("\n  ".join([f"nothing has moved for {limit:.0f} s", *report]))


def _check_retries(config: LabellingConfig, retries: int, images: int) -> None:
    if retries > FREE_RETRIES + config.max_retries_per_image * images:
        raise RunStoppedError(
            f"{retries} requests for {images} images had to be repeated, more than "
            f"max_retries_per_image={config.max_retries_per_image:g}: look after the storage; "
            "images that failed meanwhile can be tried again with --retry_failed"
        )


def _explained(error: BaseException) -> BaseException:
    """What to raise for an error of the run: the storage's become one sentence."""
    if isinstance(error, storage.STORAGE_ERRORS):
        return stopped_by_storage(error)
    if isinstance(error, ray.exceptions.RayTaskError):
        told = sentence_in(error, RunStoppedError)
        return RunStoppedError(told) if told else error
    return error


def _labelled_parts(task: _Task, plan: cluster.ActorPlan, activity: Any) -> Iterator[Part]:
    """The rest of the run, a summary for each part that is safely written."""
    config, folders = task.config, task.folders
    assert task.record.parts is not None  # begin_attempt() has seen to it
    remaining = remaining_parts(folders, task.record.parts)
    if not remaining:
        return
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None  # a block is a part, however large
    context.max_consecutive_actor_init_deaths = ACTOR_STARTS_IN_VAIN
    context.execution_no_progress_timeout_s = -1  # never: Ray would not see a slow part go on
    settings = DetectorSettings(
        input_size=task.record.settings.input_size,
        score_threshold=config.score_threshold,
        nms_threshold=config.nms_threshold,
        max_pixels=config.max_pixels,
        batch_size=config.batch_size,
        threads=plan.cpus,
        device="cuda" if plan.gpus else "cpu",
    )
    summaries = (
        ray.data.from_items(
            [{"part": part} for part in remaining], override_num_blocks=len(remaining)
        )
        .map_batches(
            partial(fetch_stage, manifest=folders.manifest, fetch=task.fetch, activity=activity),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=FETCH_CPUS,
        )
        .map_batches(
            DetectStage,
            fn_constructor_kwargs={
                "detector": config.detector,
                "checkpoint": task.model.weights,
                "settings": settings,
                "activity": activity,
            },
            batch_format="pyarrow",
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(plan.num_actors, len(remaining))),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
        )
        .map_batches(
            partial(write_stage, folders=folders, activity=activity),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=WRITE_CPUS,
        )
    )
    for row in summaries.iter_rows():
        yield Part.from_row(row)


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
