"""What a source holds: the photos below a folder or a prefix, or what a list names."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as pads

from pipelines import storage
from pipelines.errors import InputError
from pipelines.labelling.inventory import is_inventory, objects_of_inventory
from pipelines.labelling.lists import (
    LIST_SUFFIXES,
    TABLE_SUFFIXES,
    names_of_list,
    read_list,
    rows_of_table,
)
from pipelines.labelling.selection import Selection, matches, split_glob
from pipelines.storage import S3Object
from pipelines.tables import FAILED, LISTED, Views

Item = TypeVar("Item")
Row = dict[str, Any]

ROWS_PER_TABLE = 16_384
"""Rows that are held at a time, however long the listing is."""

_GLOB_ON_DISK = "*?["
_GLOB_IN_S3 = "*"
"""Keys are taken to the letter, `?` and brackets and all, as long as there is no `*`."""


@dataclass(frozen=True)
class Listing:
    """Tables of schema.LISTED, in listing order. It has begun, and is not empty."""

    tables: Iterator[pa.Table]
    may_repeat: bool
    """Whether an image can be in it twice; neither a disk nor S3 lists a name twice."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Names that were met and not listed so far, by their suffix or why."""
    after: Callable[[str, Counter[str]], "Listing"] | None = None
    """The rest of it after an image, with what was left out until then; None if it is in no order
    that says what the rest is."""


def list_source(source: str, selection: Selection | None = None) -> Listing:
    """List what a source holds.

    Args:
        source: a local folder, an `s3://bucket/prefix`, a glob in either, one photo; or what names
            each image: a Parquet or CSV file with `image_uri`, a `.txt` or `.json` list, or the
            `manifest.json` of an S3 Inventory.
        selection: which names of a folder, a prefix, a glob or an inventory are listed; the photos
            among them if not given. What names each image itself is listed as it is.

    Raises:
        InputError: the source does not exist, may not be read, holds nothing, or is no list;
            raised by the iterator where that is found out later.
    """
    uri, selection = storage.normalise_uri(source), selection or Selection()
    if uri.endswith(TABLE_SUFFIXES):
        tables = rows_of_table(uri, ROWS_PER_TABLE)
        return Listing(_begun(tables, lambda: f"source={source!r} is empty"), may_repeat=True)
    if uri.endswith(LIST_SUFFIXES):
        content = read_list(uri)
        if not is_inventory(content):
            rows: Iterator[Row] = ({"image_uri": name} for name in names_of_list(uri, content))
            begun = _begun(rows, lambda: f"source={source!r} is empty")
            return Listing(_tables(begun), may_repeat=True)
        rows = _objects_of_inventory(uri, content, selection)
    elif storage.is_s3(uri):
        return _prefix(source, uri, selection)
    else:
        rows = _files_at(uri, selection)
    begun = _begun(rows, lambda: _why_empty(source, selection))
    return Listing(_tables(begun), may_repeat=False, left_out=selection.left_out)


def _prefix(source: str, uri: str, selection: Selection) -> Listing:
    def after(last_uri: str, left_out: Counter[str]) -> Listing:
        again = replace(selection, left_out=Counter(left_out))
        rows = _objects_below(base, glob, again, storage.split_s3_uri(last_uri)[1])
        return Listing(_tables(rows), may_repeat=False, left_out=again.left_out, after=after)

    base, glob = split_glob(uri, _GLOB_IN_S3)
    begun = _begun(_objects_below(base, glob, selection), lambda: _why_empty(source, selection))
    can_go_on = storage.is_listed_in_order(uri)
    return Listing(_tables(begun), False, selection.left_out, after if can_go_on else None)


def _why_empty(source: str, selection: Selection) -> str:
    if not selection.left_out:
        return f"source={source!r} holds no files"
    left_out = ", ".join(f"{count} {why}" for why, count in selection.left_out.most_common(5))
    return (
        f"source={source!r} holds nothing that is to be listed ({left_out} left out): look at "
        "--include and --exclude, or give --all_files for names without a photo's suffix"
    )


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
    return Listing(_tables(_begun(rows, lambda: if_empty)), may_repeat=False)


def _begun(items: Iterator[Item], if_empty: Callable[[], str]) -> Iterator[Item]:
    """The same items. The first is looked up now: who cannot list it is told before all else.

    Raises:
        InputError: there are none.
    """
    first = next(items, None)
    if first is None:
        raise InputError(f"{if_empty()}: nothing to label")
    return chain([first], items)


def _tables(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    rows = iter(rows)
    while batch := list(islice(rows, ROWS_PER_TABLE)):
        yield pa.Table.from_pylist(batch, schema=LISTED)


def _objects_below(
    uri: str, glob: str | None, selection: Selection, after: str = ""
) -> Iterator[Row]:
    """The objects whose keys begin so, come after another and, where there is a glob, match it."""
    bucket, prefix = storage.split_s3_uri(uri)
    folder = prefix[: prefix.rfind("/") + 1]
    # Up to its first special letter, a glob narrows the listing itself.
    begin = uri + (glob or "").partition(_GLOB_IN_S3)[0]
    try:
        for item in storage.list_objects(begin, after=after):
            name = item.key.removeprefix(folder)
            if not item.is_folder_marker and _is_wanted(name, glob, selection):
                yield _row_of_object(bucket, item)
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"source={uri!r} cannot be listed: {error}") from error


def _is_wanted(name: str, glob: str | None, selection: Selection) -> bool:
    return (glob is None or matches(name, glob, whole=True)) and selection.takes(name)


def _objects_of_inventory(
    uri: str, manifest: Mapping[str, Any], selection: Selection
) -> Iterator[Row]:
    bucket = manifest.get("sourceBucket", "")
    for item in objects_of_inventory(uri, manifest):
        if not item.is_folder_marker and selection.takes(item.key):
            yield _row_of_object(bucket, item)


def _row_of_object(bucket: str, item: S3Object) -> Row:
    return {
        "image_uri": f"{storage.S3_SCHEME}{bucket}/{item.key}",
        "etag": item.etag,
        "size_bytes": item.size_bytes,
        "last_modified": item.last_modified,
    }


def _files_at(path: str, selection: Selection) -> Iterator[Row]:
    """One photo, or the files below a folder, or those that match a glob."""
    if os.path.isfile(path):
        return iter([_row_of_file(Path(path), os.stat(path))])
    base, glob = (path, None) if os.path.exists(path) else split_glob(path, _GLOB_ON_DISK)
    return _files_below(Path(base), glob, selection)


def _files_below(folder: Path, glob: str | None, selection: Selection) -> Iterator[Row]:
    if not folder.is_dir():
        raise InputError(
            f"source={str(folder)!r} is no folder: give a folder, an s3://bucket/prefix, a glob, "
            "one photo, or a list (.parquet, .csv, .txt or .json)"
        )
    try:
        for path in storage.walk_files(str(folder)):
            with suppress(FileNotFoundError):  # it has gone meanwhile
                status = path.lstat()
                # Reading a pipe or a socket would wait for ever.
                is_file = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)
                if is_file and _is_wanted(str(path.relative_to(folder)), glob, selection):
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
