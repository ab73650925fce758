"""drop_run(): a run and its files leave the table, its record first.

Without its record a run is invisible to readers at once, and its name is free again once its files
are gone. A drop that was killed is finished by the same command.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder, Lease, holder_of
from pipelines.tables.layout import record_name
from pipelines.tables.records import read_named, read_records, require_run, run_names
from pipelines.tables.runs import COMPLETE
from pipelines.tables.snapshot import delete_all, files_of, temporary_files


@dataclass(frozen=True)
class Removal:
    """How many files were deleted, by what they were."""

    run: str
    record: int
    images: int
    detections: int
    manifest: int
    temporary: int
    """What a killed process was writing."""


def drop_run(uri: str, run: str) -> Removal:
    """Delete the record of a run, then its images, its detections and its manifest.

    Raises:
        InputError: there is no such table or run, somebody is at work on it, other runs skipped
            images that it has, or one that is being listed may be about to.
    """
    table = Folder(uri)
    try:
        if not any(files_of(table, run).values()):
            require_run(table, run)
        with Lease.acquire(table, run):
            return _drop(table, run)
    except STORAGE_ERRORS as error:
        raise InputError(f"run {run!r} of {table.uri} cannot be dropped: {error}") from error


@dataclass(frozen=True)
class Kept:
    """A run that is old enough, and why it was not dropped."""

    run: str
    why: str


def drop_old_runs(uri: str, older_than_days: int, keep: int) -> Iterator[Removal | Kept]:
    """Drop runs whose date lies more than so many days back, but never the newest `keep` complete.

    The newest go first: a run that others need can go once they have gone.

    Yields:
        What was deleted of a run, or why it had to be kept.

    Raises:
        InputError: there is no such table.
    """
    table = Folder(uri)
    limit = (datetime.now(UTC).date() - timedelta(days=older_than_days)).isoformat()
    records = read_records(table)[::-1]
    complete = [record["run"] for record in records if record.get("status") == COMPLETE]
    for record in records:
        if (record.get("date") or limit) < limit and record["run"] not in complete[:keep]:
            try:
                yield drop_run(uri, record["run"])
            except InputError as error:
                yield Kept(record["run"], str(error))


def _drop(table: Folder, run: str) -> Removal:
    files = files_of(table, run)
    temporary = temporary_files(table).get(run, [])
    has_record = table.exists(record_name(run))
    if has_record:
        _refuse_needed(table, run)
        table.delete(record_name(run))
    return Removal(
        run,
        record=int(has_record),
        images=delete_all(table, files["images"]),
        detections=delete_all(table, files["detections"]),
        manifest=delete_all(table, files["manifests"]),
        temporary=delete_all(table, temporary),
    )


def _refuse_needed(table: Folder, run: str) -> None:
    """Raises InputError if images were skipped by other runs because this one has them."""
    listing = _runs_being_listed(table)
    if listing:
        raise InputError(
            f"run {run!r} may have rows of images that {', '.join(listing)} is about to skip: its "
            "images are being listed; wait until jobs.table list shows how many, or stop it"
        )
    needing = _runs_that_need(table, run)
    if needing:
        raise InputError(
            f"run {run!r} has rows of images that {', '.join(needing)} skipped because of it, and "
            "without it they would have none: drop these runs first, or keep it and label anew "
            "(the view latest shows the newest rows only)"
        )


def _runs_being_listed(table: Folder) -> Sequence[str]:
    """Runs that are held and have no record yet: what they skip is in it when their list is."""
    held = [name.removeprefix("runs/") for name in table.list("runs") if name.endswith(".lease")]
    runs = [name.removesuffix(".lease") for name in held]
    without_record = [run for run in runs if not table.exists(record_name(run))]
    return [run for run in without_record if holder_of(table, run)]


def _runs_that_need(table: Folder, run: str) -> Sequence[str]:
    others = [name for name in run_names(table) if name != run]
    records = {name: read_named(table, name) for name in others}
    return [name for name, record in records.items() if (record.get("skipped_in") or {}).get(run)]
