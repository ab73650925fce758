"""label_images(): from an archive to tables.

What was given is looked at, the weights are read, the run is found or named, the cluster is shared
out, and whoever holds the run's lease lists the images and labels those without a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pipelines import cluster, interruption, storage
from pipelines.errors import InputError, stopped_by_storage
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.fetching import Fetch, fetch_block
from pipelines.labelling.listing import Listing, list_failed, list_source
from pipelines.labelling.manifest import write_manifest
from pipelines.labelling.model import Model, read_model
from pipelines.labelling.progress import ListingProgress
from pipelines.labelling.selection import Selection
from pipelines.labelling.unfinished import Unfinished
from pipelines.storage import Folder, Lease
from pipelines.tables import Ledger, RunFolders, RunRecord, RunSettings, open_run, open_runs, runs


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
        InputError: something that was given cannot be used; nothing has been started or written.
        RunStoppedError: the run cannot go on now; the same command goes on with the rest.
    """
    table = Folder(config.table)
    listing, weights = look_at_what_was_given(config, table)
    model = read_model(config, weights)
    run, record = _find_run(config, table, model.settings)
    if record and record.status == runs.COMPLETE:
        return LabellingSummary(record, labelled_now=0)
    plan = cluster.plan(config.num_actors, config.gpus_per_actor, config.min_actors)
    # Here, since it imports Ray: a second that a mistake need not wait.
    from pipelines.labelling.attempt import Attempt, run_attempt

    with _acquired(config, table, run) as lease:
        try:
            # Read again, now that nobody else can change it.
            record = runs.read_fitting(table, run, config.date, model.settings)
            record = record or _begin_run(config, table, run, model, listing, lease)
        except storage.STORAGE_ERRORS as error:
            raise stopped_by_storage(error) from error
        if record.status == runs.COMPLETE:
            return LabellingSummary(record, labelled_now=0)
        fetch = fetch or partial(fetch_block, max_bytes=config.max_image_bytes)
        record = runs.begin_attempt(record)
        attempt = Attempt(config, model, table, record, lease, plan, fetch)
        return LabellingSummary(*run_attempt(attempt))


def look_at_what_was_given(config: LabellingConfig, table: Folder) -> tuple[Listing, bytes]:
    """The source's listing, which has begun, and the weights' bytes.

    Whatever needs neither torch nor Ray, which take seconds to import and to start.
    """
    if config.run is not None:
        runs.check_name(config.run)
    cluster.refuse_too_many_actors(config.num_actors)
    if config.source:
        _refuse_table_inside_source(config)
    with _storage_errors_told(config):
        table.exists("runs")
    return _list(config), storage.read_bytes(config.checkpoint)


def _refuse_table_inside_source(config: LabellingConfig) -> None:
    source, table = storage.normalise_uri(config.source), storage.normalise_uri(config.table)
    if f"{table.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
        raise InputError(
            f"table={config.table!r} lies inside source={config.source!r}, where its own files "
            "would be listed as images: put it beside the images"
        )


def _list(config: LabellingConfig) -> Listing:
    if config.retry_failed:
        return list_failed(open_run(config.table, config.retry_failed), config.retry_kinds)
    return list_source(config.source, Selection(config.include, config.exclude, config.all_files))


def _find_run(
    config: LabellingConfig, table: Folder, settings: RunSettings
) -> tuple[str, RunRecord | None]:
    """The name of the run that this command goes on with, or begins; its record, if it has one."""
    with _storage_errors_told(config):
        record = runs.find_record(table, config.run, config.date, settings)
        if record:
            return record.run, record
        date = config.date or runs.today()
        return config.run or runs.default_run_name(table, date, settings), None


@contextmanager
def _acquired(config: LabellingConfig, table: Folder, run: str) -> Iterator[Lease]:
    with _storage_errors_told(config):
        lease = Lease.acquire(table, run)
    with lease:
        yield lease


@contextmanager
def _storage_errors_told(config: LabellingConfig) -> Iterator[None]:
    try:
        yield
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"table={config.table!r} cannot be used: {error}") from error


def _begin_run(
    config: LabellingConfig, table: Folder, run: str, model: Model, listing: Listing, lease: Lease
) -> RunRecord:
    """A new run's record. It is written after the manifest: where there is one, that is whole."""
    date = config.date or runs.today()
    earlier = runs.labelled_alike(table, model.settings) if config.incremental else []
    with ListingProgress() as progress:

        def watch(manifest: Unfinished) -> None:
            interruption.check()
            lease.check()
            left_out = sum(manifest.left_out.values())
            progress.update(manifest.listed, left_out, manifest.last_uri)

        listed = write_manifest(
            listing,
            RunFolders(table, run, date).manifest,
            config.images_per_part,
            open_runs(table.uri, earlier) if earlier else None,
            watch,
            f"{model.settings.fingerprint()} {config.images_per_part}",
        )
    record = RunRecord(
        run=run,
        date=date,
        settings=model.settings,
        weights_uri=config.checkpoint,
        duplicates=listed.duplicates,
        left_out=listed.left_out,
        skipped_in=listed.skipped_in,
        ledger=Ledger(listed.listed, skipped=listed.skipped),
        parts=listed.parts,
    )
    runs.write_record(table, record)
    return record
