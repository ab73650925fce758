"""One attempt at a run: the graph is started and watched, and how it ended is written down."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
import ray.exceptions

from pipelines import interruption
from pipelines.errors import RunStoppedError, StalledError, sentence_in, stopped_by_storage
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.effort import Effort
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
    Commits,
    Ledger,
    RunFolders,
    RunRecord,
    read_ledger,
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
    effort = Effort.of(record)
    try:
        runs.write_record(table, record)
        ledger, written = _run(attempt, effort)
    except BaseException as error:
        explained = _explained(error)
        status = runs.STOPPED if isinstance(explained, KeyboardInterrupt) else runs.FAILED
        _write_ended(attempt, replace(effort.in_record(), status=status))
        raise explained from error
    attempt.lease.check()
    record = replace(
        effort.in_record(),
        status=runs.COMPLETE,
        finished_at=runs.now(),
        ledger=ledger,
        counted_parts="",
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


def _write_ended(attempt: Attempt, record: RunRecord) -> None:
    """Write down a bad end, if that can be: the disk may be full, the run may be another's."""
    with suppress(RunStoppedError, *STORAGE_ERRORS):
        attempt.lease.check()
        runs.write_record(attempt.table, record)


def _run(attempt: Attempt, effort: Effort) -> tuple[Ledger, int]:
    """Run the graph to its end; the closed ledger, and the number of new rows."""
    remaining = _begin(attempt, effort)
    before, monitor = effort.ledger, start_monitor()
    with LabellingProgress(attempt.record.run, before) as progress:
        metrics = LabellingMetrics(attempt.record.run, before)
        wait_s = attempt.config.wait_timeout
        detectors = DetectorWatch(attempt.plan, monitor, wait_s, progress.say, metrics)
        check = partial(_check, attempt, monitor, detectors, metrics)
        for part in watched(_parts(attempt, remaining, monitor), check):
            interruption.check()
            attempt.lease.check()
            effort.add(part)
            _check_retries(attempt.config, effort.retries, effort.ledger.done - before.done)
            progress.update(effort.ledger, part)
            metrics.add(part, effort.ledger)
            if effort.is_to_be_told():
                runs.write_record(attempt.table, effort.in_record())
    ledger = _closed_ledger(attempt)
    return ledger, ledger.done - before.done


def _begin(attempt: Attempt, effort: Effort) -> list[int]:
    """Clear up after whoever was killed, and count what is written; the parts that are left."""
    commits = Commits.of(attempt.folders)
    commits.delete_leftovers()
    effort.count(commits)
    return [part for part in range(_num_parts(attempt)) if part not in effort.counted]


def _parts(attempt: Attempt, remaining: Sequence[int], monitor: Any) -> Iterator[Part]:
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
    return labelled_parts(remaining, stages, attempt.plan)


def _closed_ledger(attempt: Attempt) -> Ledger:
    """The ledger as the tables tell it.

    Raises:
        RunStoppedError: a listed image has no row.
    """
    commits = Commits.of(attempt.folders)
    commits.delete_leftovers()
    parts = commits.parts()
    ledger = read_ledger(attempt.folders, parts, attempt.record.ledger.to_begin_with)
    left = _num_parts(attempt) - len(parts)
    if left or not ledger.is_closed:
        raise RunStoppedError(
            f"the ledger of run {attempt.record.run!r} is not closed: {ledger.to_do} images to do, "
            f"{ledger.done} done, {left} parts without both of their files; the same command "
            "goes on with the rest"
        )
    return ledger


def _num_parts(attempt: Attempt) -> int:
    assert attempt.record.parts is not None  # begin_attempt() has seen to it
    return attempt.record.parts


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
