"""The audit of a whole table, run by run; then of the files that belong to none."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder, holder_of
from pipelines.tables import runs
from pipelines.tables.audit.files import (
    USABLE,
    RunFiles,
    faulty_files,
    misplaced_files,
    stray_files,
    unreadable_files,
)
from pipelines.tables.audit.findings import Broken
from pipelines.tables.audit.record import (
    RECORD,
    contradictions,
    gaps_of_lineage,
    malformed,
    miscounts,
)
from pipelines.tables.audit.rows import SKIPPED, broken_promises, counts_of_tables, promises_of_rows
from pipelines.tables.connection import check_memory, spilling_connection
from pipelines.tables.layout import RunFolders, record_name
from pipelines.tables.records import (
    Record,
    generation_of,
    no_table,
    read_named,
    require_run,
    run_names,
)
from pipelines.tables.schema import COMPACT_DETECTIONS, IMAGES, MANIFEST
from pipelines.tables.snapshot import Snapshot, read_snapshot, temporary_files


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Hold every promise of a table to its files, and list those that are not kept.

    Exit code 0: all are kept; 1: some are not; 2: the table cannot be read. Runs that are still
    written to are held to what is written.
    """

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    run: str = ""
    """Default: all runs, and that no file lies outside of them."""
    memory_mb: int = 2048
    """What DuckDB may use; the rest is spilled to TMPDIR."""

    def __post_init__(self) -> None:
        check_memory(self.memory_mb)


@dataclass(frozen=True)
class RunAudit:
    """What was found out about one run."""

    run: str
    status: str
    broken: Sequence[Broken]
    notes: Sequence[str] = ()
    """What may lie about while somebody is at work on the run."""


def audit_table(config: AuditConfig) -> Iterator[RunAudit]:
    """Audit one run; or all of them by their names, and then the files that belong to none.

    Raises:
        InputError: there is no such table or run, or the storage fails.
    """
    table = Folder(config.table)
    try:
        if config.run:
            require_run(table, config.run)
        names = [config.run] if config.run else run_names(table)
        if not names:
            raise no_table(table)
        temporary = temporary_files(table)
        for run in names:
            yield from _audit_run(table, run, temporary.get(run, ()), config.memory_mb)
        if not config.run:
            for run, broken in sorted(stray_files(table).items()):
                yield _audit_strays(table, run, broken)
    except (duckdb.Error, *STORAGE_ERRORS) as error:
        raise InputError(f"{table.uri} cannot be read: {error}") from error


def _audit_strays(table: Folder, run: str, broken: Sequence[Broken]) -> RunAudit:
    holder = run and holder_of(table, run)
    if holder and not table.exists(record_name(run)):
        # A run has its record once its images are listed; a dropped one until its files are gone.
        return RunAudit(run, "no record", [], [f"its files are in the hands of {holder}"])
    return RunAudit(run, "no record", broken)


class _ChangedMeanwhileError(Exception):
    """The files of a run are no longer those that were listed."""


def _audit_run(
    table: Folder, run: str, temporary: Sequence[str], memory_mb: int
) -> Iterator[RunAudit]:
    """One audit: anew if the run is compacted meanwhile, and none if it is dropped."""
    name = record_name(run)
    while table.exists(name):
        try:
            record = read_named(table, run)
        except InputError as error:
            yield RunAudit(run, "unreadable", [Broken(RECORD, str(error), 1, name)])
            return
        broken = malformed(record, run)
        if broken:
            yield RunAudit(run, str(record.get("status")), broken)
            return
        try:
            audit = _audit_files(table, run, temporary, memory_mb)
        except _ChangedMeanwhileError:
            continue
        yield audit
        return


def _audit_files(table: Folder, run: str, temporary: Sequence[str], memory_mb: int) -> RunAudit:
    was_held = holder_of(table, run) is not None
    contents = read_snapshot(table, lambda: [read_named(table, run)])
    [record] = contents.records
    still_there = [name for name in temporary if table.exists(name)]
    is_held = was_held or holder_of(table, run) is not None
    manifest = RunFolders(table, run, record["date"]).manifest
    files = RunFiles(
        manifest=[f"manifests/{run}/{name}" for name in manifest.list()],
        images=contents.images,
        detections=contents.detections,
    )
    misplaced = misplaced_files(contents, still_there, is_held)
    faulty = faulty_files(table, files)
    usable = files.without(n for n, broken in faulty.items() if broken.promise not in USABLE)
    try:
        of_rows = _audit_rows(table, record, usable, memory_mb)
    except (duckdb.Error, *STORAGE_ERRORS) as error:
        if _has_changed(table, contents):
            raise _ChangedMeanwhileError from error
        unreadable = unreadable_files(table, usable)
        if not unreadable:
            raise
        faulty |= unreadable
        of_rows = _audit_rows(table, record, usable.without(unreadable), memory_mb)
    broken = [*contradictions(record), *gaps_of_lineage(record), *misplaced.broken]
    broken += [*_grouped(faulty.values()), *of_rows]
    return RunAudit(run, record["status"], broken, misplaced.notes)


def _has_changed(table: Folder, contents: Snapshot) -> bool:
    run = contents.records[0]["run"]
    if not table.exists(record_name(run)):
        return True
    now = read_snapshot(table, lambda: [read_named(table, run)])
    return (now.images, now.detections) != (contents.images, contents.detections)


def _grouped(faults: Iterable[Broken]) -> list[Broken]:
    """One for each kind of fault, with the first file as its example."""
    groups: dict[tuple[str, str], Broken] = {}
    for fault in faults:
        key = (fault.promise, fault.what)
        known = groups.get(key)
        groups[key] = replace(known, count=known.count + 1) if known else fault
    return list(groups.values())


def _audit_rows(table: Folder, record: Record, files: RunFiles, memory_mb: int) -> list[Broken]:
    promises = promises_of_rows(
        is_complete=record["status"] == runs.COMPLETE,
        is_compacted=generation_of(record) > 0,
        names_parts="skipped" in record,
        score_threshold=record["score_threshold"],
    )
    with spilling_connection(memory_mb) as connection:
        images = table.dataset(files.images, IMAGES)
        connection.register("manifest", table.dataset(files.manifest, MANIFEST))
        connection.register("images", images)
        connection.register("placed", _placed(images))
        connection.register("detections", table.dataset(files.detections, COMPACT_DETECTIONS))
        counted = counts_of_tables(connection)
        broken = miscounts(record, counted)
        for rows in promises:
            broken += broken_promises(connection, rows)
        if counted["skipped_in"]:
            broken += _audit_skips(table, connection, counted["skipped_in"])
    return broken


def _placed(images: pads.Dataset) -> pa.RecordBatchReader:
    """The images with the name of the file of each, to be read once."""
    names = ["image_uri", "etag", "size_bytes", "status", "num_detections", "width", "height"]
    return images.scanner(columns=[*names, "__filename"]).to_reader()


def _audit_skips(
    table: Folder, connection: duckdb.DuckDBPyConnection, skipped_in: Mapping[str, int]
) -> list[Broken]:
    """Whether the runs that skipped images are said to lie in are complete and have them."""
    contents = _complete_runs(table, skipped_in)
    schema = pa.schema([*IMAGES, pa.field("run", pa.string())])
    connection.register("skipped_to", table.dataset(contents.images, schema))
    try:
        return broken_promises(connection, SKIPPED)
    except (duckdb.Error, *STORAGE_ERRORS) as error:
        if _complete_runs(table, skipped_in).images != contents.images:
            raise _ChangedMeanwhileError from error
        [promise] = SKIPPED.promises
        # Which file that is, the audit of its own run says.
        what = "the images of the runs that are named cannot be read"
        return [Broken(promise.name, what, sum(skipped_in.values()), min(skipped_in))]


def _complete_runs(table: Folder, names: Iterable[str]) -> Snapshot:
    def complete() -> list[Record]:
        there = set(run_names(table)) & set(names)
        records = [_record_or_none(table, run) for run in sorted(there)]
        return [r for r in records if r and r.get("status") == runs.COMPLETE]

    return read_snapshot(table, complete)


def _record_or_none(table: Folder, run: str) -> Record | None:
    try:
        return read_named(table, run)
    except InputError:  # its own audit says so
        return None
