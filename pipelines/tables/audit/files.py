"""Are all files of a run there, whole, in their place, and no others?"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.storage import S3_SCHEME, STORAGE_ERRORS, Folder
from pipelines.tables import runs
from pipelines.tables.audit.findings import Broken
from pipelines.tables.layout import VIEWS, generation_of_file, owner_of
from pipelines.tables.records import Record, generation_of, read_named, run_names
from pipelines.tables.schema import (
    COMPACT_DETECTIONS,
    DETECTIONS,
    IMAGES,
    IMAGES_OF_VERSION_1,
    MANIFEST,
    SCHEMA_VERSIONS,
)
from pipelines.tables.snapshot import Snapshot, temporary_files

READABLE = "every file can be read"
SCHEMA = "every file has the columns of the schema"
METADATA = "every file says the schema's version and its box convention"
ZSTD = "every file is compressed with zstd"
TWINS = "every part has an images and a detections file"
BELONGS = "every file belongs to the rows of a run"
NO_LEFTOVERS = "no temporary files are left"

USABLE = (METADATA, ZSTD)
"""The rows of a file that breaks one of these can be read all the same."""

_FILES_AT_ONCE = 16
_SCHEMAS = {
    "manifest": (MANIFEST, pa.schema(list(MANIFEST)[:4])),  # older ones name no parts
    "images": (IMAGES, IMAGES_OF_VERSION_1),
    "detections": (DETECTIONS, COMPACT_DETECTIONS),
}


@dataclass(frozen=True)
class RunFiles:
    """The files that hold the rows of a run, as names below its table."""

    manifest: Sequence[str]
    images: Sequence[str]
    detections: Sequence[str]

    def named(self) -> Iterator[tuple[str, str]]:
        """(kind, name) of every file."""
        for kind in _SCHEMAS:
            yield from ((kind, name) for name in getattr(self, kind))

    def without(self, names: Iterable[str]) -> Self:
        left_out = set(names)
        kept = {
            kind: [name for name in getattr(self, kind) if name not in left_out]
            for kind in _SCHEMAS
        }
        return replace(self, **kept)


@dataclass(frozen=True)
class Misplaced:
    """Files that should not lie where they do."""

    broken: Sequence[Broken]
    notes: Sequence[str]
    """Those that a run may leave lying while it is not finished, or while it is compacted."""


def misplaced_files(contents: Snapshot, temporary: Sequence[str], is_held: bool) -> Misplaced:
    """What lies in a run's folders besides the files of its rows, and what is missing there.

    Args:
        temporary: what killed processes were writing in this run, or what its holder is.
        is_held: somebody is at work on the run; if it is complete, a compaction.
    """
    [record] = contents.records
    is_complete = record["status"] == runs.COMPLETE
    orphans = [name for name in contents.unread if _is_orphan(name, record)]
    others = [name for name in contents.unread if not _is_orphan(name, record)]
    twinless = _broken(TWINS, "images files without their detections file", _without_twin(contents))
    orphaned = _broken(TWINS, "detections files without their images file", orphans)
    left = _broken(NO_LEFTOVERS, "temporary files", temporary)
    unnamed = _broken(BELONGS, "files that the record does not name", others)
    if is_complete and is_held:
        excused, broken = [left, unnamed], [twinless, orphaned]
    elif is_complete:
        excused, broken = [], [twinless, orphaned, left, unnamed]
    else:
        excused, broken = [left, orphaned], [twinless, unnamed]
    notes = [f"{b.count} {b.what}" for b in excused if b.count]
    return Misplaced([b for b in broken if b.count], notes)


def faulty_files(table: Folder, files: RunFiles) -> dict[str, Broken]:
    """The files whose end cannot be read or tells of another schema or codec, by their names."""
    filesystem = table.arrow_filesystem()

    def fault(kind: str, name: str) -> Broken | None:
        try:
            with pq.ParquetFile(_arrow_path(table, name), filesystem=filesystem) as file:
                found, stored = file.schema_arrow, file.metadata
        except (pa.ArrowException, *STORAGE_ERRORS) as error:
            return _unreadable(name, error)
        if not any(found.equals(schema) for schema in _SCHEMAS[kind]):
            return Broken(SCHEMA, f"other columns than {kind} have", 1, name)
        if what := _misstatement(found, _SCHEMAS[kind][0]):
            return Broken(METADATA, what, 1, name)
        if codecs := _codecs(stored) - {"ZSTD"}:
            return Broken(ZSTD, f"columns with {', '.join(sorted(codecs))}", 1, name)
        return None

    return _each(files, fault)


def unreadable_files(table: Folder, files: RunFiles) -> dict[str, Broken]:
    """The files that cannot be read from beginning to end, by their names."""
    filesystem = table.arrow_filesystem()

    def fault(kind: str, name: str) -> Broken | None:
        try:
            with pq.ParquetFile(_arrow_path(table, name), filesystem=filesystem) as file:
                for _ in file.iter_batches():
                    pass
        except (pa.ArrowException, *STORAGE_ERRORS) as error:
            return _unreadable(name, error)
        return None

    return _each(files, fault)


def stray_files(table: Folder) -> dict[str, list[Broken]]:
    """Files that belong to no record, by the run that they name ("" for none)."""
    temporary = temporary_files(table)
    # The records after the files: a run that begins meanwhile has its record then.
    names = [name for view in (*VIEWS, "manifests") for name in table.list(view)]
    dates = {run: _date_of(table, run) for run in run_names(table)}
    without_record, elsewhere = defaultdict(list), defaultdict(list)
    for name in (*names, *itertools.chain(*temporary.values())):
        run = owner_of(name)
        if run not in dates:
            without_record[run].append(name)
        elif _date_in(name) and dates[run] not in (None, _date_in(name)):
            elsewhere[run].append(name)
    found: dict[str, list[Broken]] = defaultdict(list)
    for run, lost in without_record.items():
        found[run].append(_broken(BELONGS, "files without a run record", lost))
    for run, lost in elsewhere.items():
        found[run].append(_broken(BELONGS, "files under another date than the run's", lost))
    return found


def _each(files: RunFiles, fault: Callable[[str, str], Broken | None]) -> dict[str, Broken]:
    named = list(files.named())
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        faults = pool.map(fault, *zip(*named, strict=True)) if named else iter(())
        return {name: broken for (_, name), broken in zip(named, faults, strict=True) if broken}


def _misstatement(found: pa.Schema, schema: pa.Schema) -> str | None:
    """What a file says of itself that is not so."""
    said = found.metadata or {}
    for key, value in (schema.metadata or {}).items():
        text = said.get(key, b"").decode()
        allowed = SCHEMA_VERSIONS if key == b"schema_version" else (value.decode(),)
        if text not in allowed:
            return f"{key.decode()} is {text!r} and not {' or '.join(map(repr, allowed))}"
    return None


def _unreadable(name: str, error: Exception) -> Broken:
    return Broken(READABLE, "damaged or not there", 1, f"{name}: {' '.join(str(error).split())}")


def _broken(promise: str, what: str, names: Sequence[str]) -> Broken:
    return Broken(promise, what, len(names), min(names, default=""))


def _is_orphan(name: str, record: Record) -> bool:
    """Detections that were written, and their images file was not."""
    of_part = generation_of_file(name) == 0
    return of_part and name.startswith("detections/") and not generation_of(record)


def _without_twin(contents: Snapshot) -> list[str]:
    [record] = contents.records
    if generation_of(record):  # its files have no twins, but there is one of each kind
        return [] if contents.detections else list(contents.images)
    detections = set(contents.detections)
    return [
        name
        for name in contents.images
        if name.replace("images/", "detections/", 1) not in detections
    ]


def _date_of(table: Folder, run: str) -> str | None:
    """None where the record cannot be read, which the run's own audit says."""
    try:
        return str(read_named(table, run).get("date"))
    except InputError:
        return None


def _date_in(name: str) -> str | None:
    """The date of a file's folder; None for the files that have none."""
    match = re.search(r"/date=([^/]+)/", name)
    return match and match[1]


def _codecs(stored: pq.FileMetaData) -> set[str]:
    """What the columns are compressed with."""
    groups = (stored.row_group(group) for group in range(stored.num_row_groups))
    return {group.column(i).compression for group in groups for i in range(group.num_columns)}


def _arrow_path(table: Folder, name: str) -> str:
    return table.uri_of(name).removeprefix(S3_SCHEME)
