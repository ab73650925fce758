"""compact_table(): the many small parts of a complete run become a few large, sorted files.

Detections are sorted by class and falling score, images by their URI, so that a query for a class,
a score or an image skips what it need not read. The run record is the switch: it names the
generation of files that readers take, and is told of a new one when that is whole and verified.
Killed at any moment, the record names whole files; what it does not name, the next compaction
deletes. Who lists the folders without asking the record sees the rows of both generations from the
writing of the new files until the old ones are deleted.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder, Lease
from pipelines.tables import runs
from pipelines.tables.connection import check_memory, spilling_connection
from pipelines.tables.layout import VIEWS, compact_name, generation_of_file, record_name
from pipelines.tables.records import Record, generation_of, read_named, read_records
from pipelines.tables.schema import COMPACT_DETECTIONS, IMAGES
from pipelines.tables.snapshot import Snapshot, delete_all, read_snapshot, temporary_files

ROWS_PER_GROUP = 64 * 1024
"""What a query reads or skips: some 2 MB of detections."""

_SCHEMAS = {"images": IMAGES, "detections": COMPACT_DETECTIONS}
_SORTED_BY = {
    "images": [("image_uri", "ascending")],
    # The last two decide between equal scores, so that the same rows give the same files.
    "detections": [
        ("class_name", "ascending"),
        ("score", "descending"),
        ("image_uri", "ascending"),
        ("detection_index", "ascending"),
    ],
}


_COUNTS = {
    "images": {
        "rows": "count(*)",
        "images": "count(DISTINCT image_uri)",
        "boxes": "coalesce(sum(num_detections), 0)::BIGINT",
    },
    "detections": {"rows": "count(*)"},
}


@dataclass(frozen=True, kw_only=True)
class CompactionConfig:
    """Rewrite the many small files of complete runs as a few large, sorted ones.

    Detections are sorted by class and falling score, images by their URI. jobs.query is not
    disturbed; who lists the folders by other means sees the rows of old and new files side by side
    until the old ones are deleted. A run that is compact already is left alone.
    """

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    run: str = ""
    """Default: all complete runs."""
    target_mb: float = 128
    """Size of a file. Runs that were compacted to another size are written anew."""
    grace_seconds: float = 60
    """How long the old files stay for queries that have begun."""
    memory_mb: int = 2048
    """What sorting may use; the rest is spilled to TMPDIR."""

    def __post_init__(self) -> None:
        if self.target_mb <= 0:
            raise ValueError(f"target_mb={self.target_mb}: must be more than 0")
        if self.grace_seconds < 0:
            raise ValueError(f"grace_seconds={self.grace_seconds}: must not be negative")
        check_memory(self.memory_mb)


@dataclass(frozen=True)
class Compaction:
    """What became of a run's files."""

    run: str
    files_before: int
    files_after: int
    bytes_after: int


def compact_table(config: CompactionConfig) -> Iterator[Compaction]:
    """Compact one run or all complete runs, yielding each; at the end the old files are deleted.

    Raises:
        InputError: there is no such table or run, it is not complete, somebody else is at work on
            it, or its rows contradict its record. Runs that were yielded before are compact.
    """
    table = Folder(config.table)
    try:
        chosen = [config.run] if config.run else _complete_runs(table)
        for run in chosen:
            compaction = _compact_run(table, run, config)
            if compaction:
                yield compaction
        for run in chosen:
            _delete_superseded(table, run, config.grace_seconds)
    except (duckdb.Error, *STORAGE_ERRORS) as error:
        raise InputError(f"{table.uri} cannot be compacted: {error}") from error


def _complete_runs(table: Folder) -> list[str]:
    records = read_records(table)
    return [record["run"] for record in records if record.get("status") == runs.COMPLETE]


def _compact_run(table: Folder, run: str, config: CompactionConfig) -> Compaction | None:
    """A new generation of the run's files; None where they are as wanted already."""
    if _is_as_wanted(_contents_of(table, run), config):
        return None
    with Lease.acquire(table, run):
        # Read again: whoever held the run until now may have compacted it.
        contents = _contents_of(table, run)
        return None if _is_as_wanted(contents, config) else _rewrite(table, contents, config)


def _is_as_wanted(contents: Snapshot, config: CompactionConfig) -> bool:
    [record] = contents.records
    return record.get("compacted_mb") == config.target_mb or not contents.images


def _rewrite(table: Folder, contents: Snapshot, config: CompactionConfig) -> Compaction:
    [record] = contents.records
    run = record["run"]
    old = {view: _fingerprint(table, view, contents, config) for view in VIEWS}
    _refuse_contradiction(record, old)
    generation = _next_generation(contents)
    sizes: dict[str, int] = {}
    try:
        for view in VIEWS:
            for name, data in _sorted_files(table, contents, view, generation, config):
                table.write(name, data)
                sizes[name] = len(data)
        written = Snapshot(
            contents.records,
            images=[name for name in sizes if name.startswith("images/")],
            detections=[name for name in sizes if name.startswith("detections/")],
            unread=[],
        )
        new = {view: _fingerprint(table, view, written, config) for view in VIEWS}
        if new != old:
            raise RuntimeError(f"run {run!r} became other rows: {old}, then {new}")
    except BaseException:
        delete_all(table, sizes)
        raise
    switched = _compacted(record, generation, config.target_mb)
    if not table.replace(record_name(run), switched, record["record"].encode()):
        delete_all(table, sizes)
        raise InputError(
            f"run {run!r} was changed or dropped meanwhile: its files are as they were"
        )
    return Compaction(
        run,
        files_before=len(contents.images) + len(contents.detections),
        files_after=len(sizes),
        bytes_after=sum(sizes.values()),
    )


def _contents_of(table: Folder, run: str) -> Snapshot:
    contents = read_snapshot(table, lambda: [read_named(table, run)])
    status = contents.records[0].get("status")
    if status != runs.COMPLETE:
        raise InputError(
            f"run {run!r} is {status}, and only complete runs are compacted: finish it by giving "
            "its jobs.label command again"
        )
    return contents


def _next_generation(contents: Snapshot) -> int:
    """One that no file has, not even of a killed compaction: nothing is ever overwritten."""
    names = (*contents.images, *contents.unread)
    return 1 + max(generation_of_file(name) or 0 for name in names)


def _refuse_contradiction(record: Record, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Raises InputError unless a run has the rows that its record tells of."""
    rows, boxes = record["labelled"] + record["failed"], record["detections"]
    told = {"images": {"rows": rows, "images": rows, "boxes": boxes}, "detections": {"rows": boxes}}
    for view, expected in told.items():
        found = {name: counts[view][name] for name in expected}
        if found != expected:
            raise InputError(
                f"the {view} of run {record['run']!r} have {found}, and its record tells of "
                f"{expected}: nothing was changed; jobs.table check says what is wrong"
            )


def _compacted(record: Record, generation: int, target_mb: float) -> bytes:
    """The record that makes readers take the files of this generation."""
    values = json.loads(record["record"])
    values |= {"compacted": generation, "compacted_mb": target_mb, "compacted_at": runs.now()}
    return json.dumps(values, indent=2, ensure_ascii=False).encode()


def _sorted_files(
    table: Folder, contents: Snapshot, view: str, generation: int, config: CompactionConfig
) -> Iterator[tuple[str, bytes]]:
    """(name below the table, bytes) of the files of a view's new generation; at least one."""
    [record] = contents.records
    folder = f"{view}/date={record['date']}/run={record['run']}"
    schema, order = _SCHEMAS[view], _SORTED_BY[view]
    by = ", ".join(
        f"{name} {'DESC' if direction == 'descending' else 'ASC'}" for name, direction in order
    )
    with spilling_connection(config.memory_mb) as connection:
        connection.register("rows", _dataset(table, view, contents))
        sql = f"SELECT {', '.join(schema.names)} FROM rows ORDER BY {by}"
        reader = connection.sql(sql).to_arrow_reader(ROWS_PER_GROUP)
        assert reader is not None  # None is for statements without a result
        groups = (pa.Table.from_batches([batch]).cast(schema) for batch in reader)
        files = _parquet_files(groups, schema, order, config.target_mb * 10**6)
        for number, data in enumerate(files):
            yield f"{folder}/{compact_name(generation, number)}", data


def _parquet_files(
    groups: Iterator[pa.Table],
    schema: pa.Schema,
    order: Sequence[tuple[str, str]],
    target_bytes: float,
) -> Iterator[bytes]:
    """Files of some `target_bytes`, made of whole row groups; without any, one empty file."""
    group: pa.Table | None = next(groups, schema.empty_table())
    with TemporaryDirectory(prefix="compact-") as scratch:
        path = Path(scratch, "file.parquet")
        while group is not None:
            with path.open("wb") as sink, _writer(sink, schema, order) as writer:
                while group is not None and sink.tell() < target_bytes:
                    writer.write_table(group)
                    group = next(groups, None)
            yield path.read_bytes()


def _writer(
    sink: BinaryIO, schema: pa.Schema, order: Sequence[tuple[str, str]]
) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        sorting_columns=pq.SortingColumn.from_ordering(schema, order),
        write_page_index=True,
    )


def _fingerprint(
    table: Folder, view: str, contents: Snapshot, config: CompactionConfig
) -> dict[str, int]:
    """The counts of a view, and a checksum of its rows in which their order does not matter."""
    columns = ", ".join(
        f"{field.name}::VARCHAR" if pa.types.is_dictionary(field.type) else field.name
        for field in _SCHEMAS[view]
    )
    aggregates = {**_COUNTS[view], "checksum": f"coalesce(sum(hash({columns})::HUGEINT), 0)"}
    with spilling_connection(config.memory_mb) as connection:
        connection.register("rows", _dataset(table, view, contents))
        [values] = connection.sql(f"SELECT {', '.join(aggregates.values())} FROM rows").fetchall()
    return dict(zip(aggregates, map(int, values), strict=True))


def _dataset(table: Folder, view: str, contents: Snapshot) -> pads.Dataset:
    return table.dataset(getattr(contents, view), _SCHEMAS[view])


def _delete_superseded(table: Folder, run: str, grace_seconds: float) -> None:
    """Delete the files that the record no longer names, once no query can be reading them."""
    contents = _contents_of(table, run)
    [record] = contents.records
    generation = generation_of(record)
    if not generation:
        return
    # Not those of a later generation: another compaction may be writing them.
    old = [name for name in contents.unread if _is_before(name, generation)]
    if old:
        switched = datetime.fromisoformat(record["compacted_at"])
        time.sleep(max(0.0, grace_seconds - (datetime.now(UTC) - switched).total_seconds()))
        delete_all(table, old)
    delete_all(table, temporary_files(table).get(run, ()))


def _is_before(name: str, generation: int) -> bool:
    of_file = generation_of_file(name)
    return of_file is not None and of_file < generation
