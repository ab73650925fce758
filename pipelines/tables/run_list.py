"""list_runs(): every run of a table with its state, its counts and its files."""

from collections import defaultdict
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from pipelines.errors import InputError
from pipelines.storage import S3_SCHEME, STORAGE_ERRORS, Folder
from pipelines.tables.layout import VIEWS, owner_of
from pipelines.tables.records import Record, age, no_table, read_named, run_names

NO_RECORD = "no record"
UNREADABLE = "unreadable"

INVENTORY = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("state", pa.string()),
        pa.field("date", pa.string()),
        pa.field("listed", pa.int64()),
        pa.field("labelled", pa.int64()),
        pa.field("failed", pa.int64()),
        pa.field("skipped", pa.int64()),
        pa.field("detections", pa.int64()),
        pa.field("files", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("compacted", pa.bool_()),
    ]
)
"""One row per run. `state` is the record's status, or that there is no record, or no readable one;
`files` and `bytes` are those of its images, detections and manifest, whichever generation."""


@dataclass(frozen=True)
class _Size:
    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: "_Size") -> "_Size":
        return _Size(self.files + other.files, self.size_bytes + other.size_bytes)


def list_runs(uri: str) -> pa.Table:
    """INVENTORY of a table, oldest first.

    Raises:
        InputError: there is no table, or it cannot be read.
    """
    table = Folder(uri)
    try:
        sizes = _sizes(table)
        records = {run: _record(table, run) for run in run_names(table)}
    except STORAGE_ERRORS as error:
        raise InputError(f"{table.uri} cannot be read: {error}") from error
    if not records and not sizes:
        raise no_table(table)
    # A drop that was killed leaves files of a run that has no record.
    lost = {run: {"run": run, "status": NO_RECORD} for run in sizes.keys() - records.keys()}
    listed = sorted((records | lost).values(), key=age)
    rows = [_row(record, sizes.get(record["run"], _Size())) for record in listed]
    return pa.concat_tables([INVENTORY.empty_table(), *rows])


def _record(table: Folder, run: str) -> Record:
    try:
        return {"status": UNREADABLE, **read_named(table, run), "run": run}
    except InputError:
        return {"run": run, "status": UNREADABLE}


def _row(record: Record, size: _Size) -> pa.Table:
    told = {name: record.get(name) for name in INVENTORY.names} | {
        "state": record["status"],
        "skipped": record.get("skipped", 0 if "listed" in record else None),
        "compacted": bool(record.get("compacted")),
        "files": size.files,
        "bytes": size.size_bytes,
    }
    try:
        return pa.Table.from_pylist([told], schema=INVENTORY)
    except pa.ArrowException:  # a count that is no number, for example
        return _row({"run": record["run"], "status": UNREADABLE}, size)


def _sizes(table: Folder) -> dict[str, _Size]:
    """Files and bytes of each run, as the folders' listings have them."""
    filesystem, root = table.arrow_filesystem(), table.uri.removeprefix(S3_SCHEME)
    sizes: dict[str, _Size] = defaultdict(_Size)
    for view in (*VIEWS, "manifests"):
        below = pafs.FileSelector(f"{root}/{view}", recursive=True, allow_not_found=True)
        for info in filesystem.get_file_info(below):
            if info.type == pafs.FileType.File:
                run = owner_of(info.path.removeprefix(root).lstrip("/"))
                sizes[run] += _Size(1, info.size)
    sizes.pop("", None)  # what belongs to no run, jobs.table check says
    return sizes
