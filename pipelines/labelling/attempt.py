"""One attempt at a run: the graph is started and watched, and how it ended is written down."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions

from pipelines import interruption
from pipelines.errors import RunStoppedError, StalledError, sentence_in, stopped_by_storage
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.fetching import Fetch
from pipelines.labelling.graph import Stages, labelled_parts
from pipelines.labelling.manifest import read_part
from pipelines.labelling.metrics import LabellingMetrics
from pipelines.labelling.model import Model, made_ready
from pipelines.labelling.monitor import start_monitor
from pipelines.labelling.progress import LabellingProgress
from pipelines.labelling.stages import STAGES
from pipelines.labelling.waiting import DetectorWatch
from pipelines.labelling.watchdog import watched
from pipelines.labelling.writing import Part, write_part
from pipelines.planning import ActorPlan
from pipelines.storage import STORAGE_ERRORS, Folder, Lease
from pipelines.tables import (
    Ledger,
    RunFolders,
    RunRecord,
    delete_leftovers,
    read_ledger,
    remaining_parts,
    runs,
)

FREE_RETRIES = 100
"""So many requests may be repeated whatever the number of images."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a run, by whoever holds its lease."""

    config: LabellingConfig
    model: Model
    table: Folder
    record: RunRecord
    lease: Lease
    plan: ActorPlan
    fetch: Fetch

    @property
    def folders(self) -> RunFolders:
        return runs.folders_of(self.table, self.record)


def run_attempt(attempt: Attempt) -> tuple[RunRecord, int]:
    """Label what has no row yet, and write down how that ended.

    Returns:
        The record of the complete run, and the number of rows that this attempt wrote.

    Raises:
        InputError: ONNX Runtime and torch differ over these weights.
        RunStoppedError: the run cannot go on now; its record says so too.
    """
    attempt = _with_a_runtime(attempt)
    record, table = attempt.record, attempt.table
    effort = Effort()
    try:
        runs.write_record(table, record)
        delete_leftovers(attempt.folders)
        ledger, written = _run(attempt, effort)
    except BaseException as error:
        explained = _explained(error)
        status = runs.STOPPED if isinstance(explained, KeyboardInterrupt) else runs.FAILED
        _write_ended(attempt, replace(effort.added_to(record), status=status))
        raise explained from error
    attempt.lease.check()
    record = replace(
        effort.added_to(record), status=runs.COMPLETE, finished_at=runs.now(), ledger=ledger
    )
    runs.write_record(table, record)
    return record, written


def _with_a_runtime(attempt: Attempt) -> Attempt:
    """The one that the run has had before; a new one's follows from the actors."""
    settings = attempt.record.settings
    if settings.runtime == runs.AUTO:
        settings = attempt.model.settings
    model = made_ready(replace(attempt.model, settings=settings), attempt.plan)
    record = replace(attempt.record, settings=model.settings)
    return replace(attempt, model=model, record=record)


@dataclass
class Effort:
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


def _write_ended(attempt: Attempt, record: RunRecord) -> None:
    """Write down a bad end, if that can be: the disk may be full, the run may be another's."""
    with suppress(RunStoppedError, *STORAGE_ERRORS):
        attempt.lease.check()
        runs.write_record(attempt.table, record)


def _run(attempt: Attempt, effort: Effort) -> tuple[Ledger, int]:
    """Run the graph to its end; the closed ledger, and the number of new rows."""
    before = ledger = read_ledger(attempt.folders, attempt.record.ledger)
    monitor = start_monitor()
    with LabellingProgress(attempt.record.run, before) as progress:
        metrics = LabellingMetrics(attempt.record.run, before)
        wait_s = attempt.config.wait_timeout
        detectors = DetectorWatch(attempt.plan, monitor, wait_s, progress.say, metrics)
        check = partial(_check, attempt, monitor, detectors, metrics)
        for part in watched(_parts(attempt, monitor), check):
            interruption.check()
            attempt.lease.check()
            ledger += part.ledger
            effort.add(part)
            _check_retries(attempt.config, effort.retries, ledger.done - before.done)
            progress.update(ledger, part)
            metrics.add(part, ledger)
    ledger = _closed_ledger(attempt)
    return ledger, ledger.done - before.done


def _parts(attempt: Attempt, monitor: Any) -> Iterator[Part]:
    """The rest of the run, a summary for each part that is safely written."""
    stages = Stages.of(
        attempt.config,
        attempt.model,
        attempt.plan,
        monitor,
        fetch=attempt.fetch,
        read=partial(read_part, attempt.folders.manifest),
        write=partial(write_part, folders=attempt.folders),
    )
    return labelled_parts(_remaining(attempt), stages, attempt.plan)


def _closed_ledger(attempt: Attempt) -> Ledger:
    """The ledger as the tables tell it.

    Raises:
        RunStoppedError: a listed image has no row.
    """
    delete_leftovers(attempt.folders)
    ledger = read_ledger(attempt.folders, attempt.record.ledger)
    left = _remaining(attempt)
    if left or not ledger.is_closed:
        raise RunStoppedError(
            f"the ledger of run {attempt.record.run!r} is not closed: {ledger.to_do} images to do, "
            f"{ledger.done} done, {len(left)} parts without both of their files; the same command "
            "goes on with the rest"
        )
    return ledger


def _remaining(attempt: Attempt) -> list[int]:
    assert attempt.record.parts is not None  # begin_attempt() has seen to it
    return remaining_parts(attempt.folders, attempt.record.parts)


def _check(
    attempt: Attempt,
    monitor: Any,
    detectors: DetectorWatch,
    metrics: LabellingMetrics,
    seconds_without_a_part: float,
) -> None:
    """What has to be looked at, and told again, while nothing comes out."""
    interruption.check()
    metrics.refresh()
    attempt.lease.check()
    limit = attempt.config.stall_timeout
    if not detectors.are_enough() or seconds_without_a_part < limit:
        return
    if ray.get(monitor.seconds_since_a_sign.remote()) >= limit:
        report = ray.get(monitor.report.remote(STAGES))
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
    if interruption.asked_by():
        return interruption.Interrupted()
    if isinstance(error, STORAGE_ERRORS):
        return stopped_by_storage(error)
    if isinstance(error, ray.exceptions.RayTaskError):
        told = sentence_in(error, RunStoppedError)
        return RunStoppedError(told) if told else error
    return error
