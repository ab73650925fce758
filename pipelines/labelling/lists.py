"""Sources that name each image: Parquet and CSV with a column image_uri, text and JSON lists."""

import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from pipelines import storage
from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.tables import LISTED

TABLE_SUFFIXES = (".parquet", ".csv")
LIST_SUFFIXES = (".txt", ".json")
_KEYS = ("image_uri", "file", "file_name")
"""What an entry of a JSON list may call an image: ours, MegaDetector's and COCO's word."""

_PARQUET = pads.ParquetFileFormat(pre_buffer=False)
"""Else the whole file would be read before its first row."""


def read_list(uri: str) -> Any:
    """What a list holds: the lines of a `.txt` file, the content of a `.json` file.

    Raises:
        InputError: it is not there, not UTF-8, or no JSON.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
        return json.loads(text) if uri.endswith(".json") else text.splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"source={uri!r} is not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"source={uri!r} is no JSON: {error}") from error


def names_of_list(uri: str, content: Any) -> Iterator[str]:
    """The URIs in what `read_list` gave: names, or entries that have one.

    Relative ones are relative to the file.

    Raises:
        InputError: it is no such list.
    """
    names = _names_in(uri, content)
    folder = uri.rpartition("/")[0]
    return (_resolved(folder, name) for name in names if name.strip())


def _names_in(uri: str, content: Any) -> list[str]:
    entries = content.get("images") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError(
            f"source={uri!r} is no list of images: give a JSON array of names, or an object whose "
            "`images` is one, or the manifest.json of an S3 Inventory"
        )
    return [_name_in(uri, entry) for entry in entries]


def _name_in(uri: str, entry: Any) -> str:
    if isinstance(entry, dict):
        entry = next((entry[key] for key in _KEYS if key in entry), None)
    if not isinstance(entry, str):
        raise InputError(
            f"source={uri!r} has an entry without a name: each must be text, or have one of "
            f"{', '.join(_KEYS)}"
        )
    return entry


def _resolved(folder: str, name: str) -> str:
    if storage.is_s3(name) or name.startswith("/"):
        return name
    if storage.is_s3(folder):
        bucket, key = storage.split_s3_uri(folder)
        return f"{storage.S3_SCHEME}{bucket}/{posixpath.normpath(posixpath.join(key, name))}"
    return os.path.normpath(os.path.join(folder, name))


def rows_of_table(uri: str, rows_per_table: int) -> Iterator[pa.Table]:
    """The rows of a Parquet or CSV file with a column image_uri, as tables of schema.LISTED.

    Raises:
        InputError: it cannot be read, or has no such column.
    """
    folder = Folder(uri.rpartition("/")[0] or "/")
    try:
        dataset = _open_table(uri, folder.arrow_filesystem())
        if "image_uri" not in dataset.schema.names:
            raise InputError(
                f"source={uri!r} has the columns {', '.join(dataset.schema.names)}: "
                "a manifest needs a column image_uri"
            )
        columns = [name for name in LISTED.names if name in dataset.schema.names]
        # With threads, Arrow reads on while nobody takes the rows: 200 MB of a manifest of 3 M.
        for batch in dataset.to_batches(
            columns=columns, batch_size=rows_per_table, batch_readahead=1, use_threads=False
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


def _open_table(uri: str, filesystem: pafs.FileSystem) -> pads.Dataset:
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
