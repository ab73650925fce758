"""List a source into a manifest: every image once, as (uri, etag, size, last modified).

A source is a local folder, an `s3://bucket/prefix`, or a Parquet or CSV file with a column
`image_uri`. Everything below a folder or a prefix is listed, whatever its name: a file that turns
out not to be an image costs one row, while a filter on names would lose images silently.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.asyn import sync

from pipelines import storage
from pipelines.errors import InputError
from pipelines.schema import MANIFEST
from pipelines.storage import Folder

ROWS_PER_PART = 100_000
_MANIFEST_SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class ManifestSummary:
    """What a listing found."""

    listed: int
    duplicates: int


def write_manifest(source: str, folder: Folder) -> ManifestSummary:
    """List `source` into `part-*.parquet` files of `folder`, in listing order, each URI once.

    Raises:
        InputError: the source does not exist, may not be listed, or holds nothing.
    """
    for stale in folder.list():
        folder.delete(stale)
    uri = storage.normalise_uri(source)
    duplicates = 0
    if uri.endswith(_MANIFEST_SUFFIXES):
        table = _read_manifest_file(uri)
        rows = _first_of_each_uri(table)
        duplicates = len(table) - len(rows)
        parts: Iterable[pa.Table] = _slices(rows)
    else:
        # Neither a disk nor S3 lists a name twice.
        files = _objects_below(uri) if storage.is_s3(uri) else _files_below(Path(uri))
        parts = _tables(files)
    listed = 0
    for number, part in enumerate(parts):
        folder.write_table(f"part-{number:05d}.parquet", part)
        listed += len(part)
    if not listed:
        raise InputError(f"source={source!r} holds no files: nothing to label")
    return ManifestSummary(listed, duplicates)


def read_manifest(folder: Folder) -> pads.Dataset:
    """The manifest as an Arrow dataset of schema.MANIFEST."""
    return folder.dataset(folder.list(), MANIFEST)


def _objects_below(uri: str) -> Iterator[dict[str, Any]]:
    bucket, prefix = storage.split_s3_uri(uri)
    filesystem = storage.s3_filesystem()
    try:
        client = sync(filesystem.loop, filesystem.set_session)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        pages = aiter(pages)
        while True:
            page = sync(filesystem.loop, anext, pages, None)
            if page is None:
                return
            yield from (
                _row_of_object(bucket, item)
                for item in page.get("Contents", [])
                if not _is_folder_marker(item)
            )
    except (BotoCoreError, ClientError) as error:
        raise InputError(f"source={uri!r} cannot be listed: {error}") from error


def _is_folder_marker(item: dict[str, Any]) -> bool:
    """Some consoles make a folder by writing an empty object whose key ends in `/`."""
    return item["Size"] == 0 and bool(item["Key"].endswith("/"))


def _row_of_object(bucket: str, item: dict[str, Any]) -> dict[str, Any]:
    return {
        "image_uri": f"{storage.S3_SCHEME}{bucket}/{item['Key']}",
        "etag": item["ETag"].strip('"'),
        "size_bytes": item["Size"],
        "last_modified": item["LastModified"],
    }


def _files_below(folder: Path) -> Iterator[dict[str, Any]]:
    if not folder.is_dir():
        raise InputError(
            f"source={str(folder)!r} is no folder: give a folder, an s3://bucket/prefix, "
            "or a .parquet or .csv manifest"
        )
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            status = path.lstat()
            # Reading a pipe or a socket would wait for ever.
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield _row_of_file(path, status)


def _row_of_file(path: Path, status: os.stat_result) -> dict[str, Any]:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r} is not a UTF-8 name: rename the file") from error
    return {
        "image_uri": str(path),
        "etag": None,
        "size_bytes": status.st_size if stat.S_ISREG(status.st_mode) else None,
        "last_modified": datetime.fromtimestamp(status.st_mtime, UTC),
    }


def _tables(rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    while batch := list(islice(rows, ROWS_PER_PART)):
        yield pa.Table.from_pylist(batch, schema=MANIFEST)


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, len(table), ROWS_PER_PART):
        yield table.slice(start, ROWS_PER_PART)


def _read_manifest_file(uri: str) -> pa.Table:
    data = pa.BufferReader(storage.read_bytes(uri))
    try:
        table = pq.read_table(data) if uri.endswith(".parquet") else pyarrow.csv.read_csv(data)
        if "image_uri" not in table.column_names:
            raise InputError(
                f"source={uri!r} has the columns {', '.join(table.column_names)}: "
                "a manifest needs a column image_uri"
            )
        columns = [
            table[field.name].cast(field.type)
            if field.name in table.column_names
            else pa.nulls(len(table), field.type)
            for field in MANIFEST
        ]
    except pa.ArrowException as error:
        raise InputError(f"source={uri!r} is not a readable manifest: {error}") from error
    uris, etags, *rest = columns
    if uris.null_count:
        raise InputError(f"source={uri!r} has {uris.null_count} rows without an image_uri")
    # A relative path means one thing here and another in a worker.
    uris = pa.array([path if "://" in path else os.path.abspath(path) for path in uris.to_pylist()])
    etags = pc.utf8_trim(etags, characters='"')
    return pa.Table.from_arrays([uris, etags, *rest], schema=MANIFEST)


def _first_of_each_uri(table: pa.Table) -> pa.Table:
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    first = numbered.group_by("image_uri").aggregate([("row", "min")])["row_min"]
    return table.take(first.sort())
