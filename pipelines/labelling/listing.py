"""What a source holds: every file below a folder or an S3 prefix, or the rows of a manifest file.

Everything is listed, whatever its name: a file that turns out not to be an image costs one row,
while a filter on names would lose images silently.
"""

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from pipelines import storage
from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.tables import FAILED, LISTED, Views

Item = TypeVar("Item")

ROWS_PER_TABLE = 16_384
"""Rows that are held at a time, however long the listing is."""

_MANIFEST_SUFFIXES = (".parquet", ".csv")
_PARQUET = pads.ParquetFileFormat(pre_buffer=False)
"""Else the whole file would be read before its first row."""


@dataclass(frozen=True)
class Listing:
    """Tables of schema.LISTED, in listing order. It has begun, and is not empty."""

    tables: Iterator[pa.Table]
    may_repeat: bool
    """Whether an image can be in it twice; neither a disk nor S3 lists a name twice."""


def list_source(source: str) -> Listing:
    """List a local folder, an `s3://bucket/prefix`, or a Parquet or CSV file of `image_uri`s.

    Raises:
        InputError: the source does not exist, may not be read, holds nothing, or is no manifest;
            raised by the iterator where that is found out later.
    """
    uri = storage.normalise_uri(source)
    if_empty = f"source={source!r} holds no files"
    if uri.endswith(_MANIFEST_SUFFIXES):
        return Listing(_begun(_rows_of_manifest(uri), if_empty), may_repeat=True)
    files = _objects_below(uri) if storage.is_s3(uri) else _files_below(Path(uri))
    return Listing(_tables(_begun(files, if_empty)), may_repeat=False)


def list_failed(views: Views, kinds: Collection[str]) -> Listing:
    """The failed images of the runs in `views`; of these kinds only, if any are given.

    They are listed without ETag and size, to be taken as they are now: they may have been mended.
    """
    chosen = pads.field("status") == FAILED
    if kinds:
        chosen &= pads.field("error_kind").cast(pa.string()).isin(list(kinds))
    batches = views.images.to_batches(["image_uri"], filter=chosen, batch_size=ROWS_PER_TABLE)
    rows = (row for batch in batches for row in batch.to_pylist())
    if_empty = f"no image has failed as {' or '.join(kinds)}" if kinds else "no image has failed"
    return Listing(_tables(_begun(rows, if_empty)), may_repeat=False)


def _begun(items: Iterator[Item], if_empty: str) -> Iterator[Item]:
    """The same items. The first is looked up now: who cannot list it is told before all else.

    Raises:
        InputError: there are none.
    """
    first = next(items, None)
    if first is None:
        raise InputError(f"{if_empty}: nothing to label")
    return chain([first], items)


def _tables(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    rows = iter(rows)
    while batch := list(islice(rows, ROWS_PER_TABLE)):
        yield pa.Table.from_pylist(batch, schema=LISTED)


def _objects_below(uri: str) -> Iterator[dict[str, Any]]:
    bucket, _ = storage.split_s3_uri(uri)
    try:
        for item in storage.list_objects(uri):
            if not _is_folder_marker(item):
                yield _row_of_object(bucket, item)
    except storage.STORAGE_ERRORS as error:
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
    try:
        for path in storage.walk_files(str(folder)):
            with suppress(FileNotFoundError):  # it has gone meanwhile
                status = path.lstat()
                # Reading a pipe or a socket would wait for ever.
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    yield _row_of_file(path, status)
    except OSError as error:
        raise InputError(f"source={str(folder)!r} cannot be listed: {error}") from error


def _row_of_file(path: Path, status: os.stat_result) -> dict[str, Any]:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{str(path)!r} is not a UTF-8 name: rename the file") from error
    is_regular = stat.S_ISREG(status.st_mode)
    return {
        "image_uri": str(path),
        "etag": storage.etag_of_file(status) if is_regular else None,
        "size_bytes": status.st_size if is_regular else None,
        "last_modified": datetime.fromtimestamp(status.st_mtime, UTC),
    }


def _rows_of_manifest(uri: str) -> Iterator[pa.Table]:
    folder = Folder(uri.rpartition("/")[0] or "/")
    try:
        dataset = _open_manifest(uri, folder.arrow_filesystem())
        if "image_uri" not in dataset.schema.names:
            raise InputError(
                f"source={uri!r} has the columns {', '.join(dataset.schema.names)}: "
                "a manifest needs a column image_uri"
            )
        columns = [name for name in LISTED.names if name in dataset.schema.names]
        # With threads, Arrow reads on while nobody takes the rows: 200 MB of a manifest of 3 M.
        for batch in dataset.to_batches(
            columns=columns, batch_size=ROWS_PER_TABLE, batch_readahead=1, use_threads=False
        ):
            if len(batch):
                yield _listed(uri, pa.Table.from_batches([batch]))
    except FileNotFoundError as error:
        raise InputError(f"source={uri!r} cannot be read: there is no such file") from error
    # Before ArrowException: Arrow's errors of reading are OSErrors too.
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InputError(f"source={uri!r} is not a readable manifest: {error}") from error
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"source={uri!r} cannot be read: {error}") from error


def _open_manifest(uri: str, filesystem: pafs.FileSystem) -> pads.Dataset:
    is_parquet = uri.endswith(".parquet")
    as_text = pyarrow.csv.ConvertOptions(
        column_types={"image_uri": pa.string(), "etag": pa.string()},
        strings_can_be_null=True,
        null_values=[""],
    )
    return pads.dataset(
        uri.removeprefix(storage.S3_SCHEME),
        filesystem=filesystem,
        format=_PARQUET if is_parquet else pads.CsvFileFormat(convert_options=as_text),
    )


def _listed(uri: str, table: pa.Table) -> pa.Table:
    """The columns of schema.LISTED, null where the manifest lacks one."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in LISTED
    ]
    uris, etags, *rest = columns
    if uris.null_count:
        raise InputError(f"source={uri!r} has {uris.null_count} rows without an image_uri")
    # A relative path means one thing here and another in a worker.
    uris = pa.array([path if "://" in path else os.path.abspath(path) for path in uris.to_pylist()])
    etags = pc.utf8_trim(etags, characters='"')
    return pa.Table.from_arrays([uris, etags, *rest], schema=LISTED)
