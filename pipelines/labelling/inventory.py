"""An S3 Inventory as a source: how a bucket of a billion objects is listed without listing it.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import InputError
from pipelines.storage import Folder, S3Object

_ARN = "arn:aws:s3:::"
_COLUMNS = {
    "Key": "key",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
}
"""What its CSV calls a column, and what its Parquet does. The bucket stands in the manifest."""
_NEEDED = ("Key", "Size")


def is_inventory(content: Any) -> bool:
    """Whether what a JSON file holds is the manifest of one."""
    return isinstance(content, dict) and {"fileFormat", "files"} <= set(content)


def objects_of_inventory(uri: str, manifest: Mapping[str, Any]) -> Iterator[S3Object]:
    """Each object of the manifest's `sourceBucket` that is there now.

    Raises:
        InputError: it is in ORC, has no keys or sizes, or one of its files cannot be read.
    """
    kind, bucket = manifest["fileFormat"], manifest.get("sourceBucket")
    reader = {"CSV": _rows_of_csv, "Parquet": _rows_of_parquet}.get(kind)
    if reader is None or not bucket:
        raise InputError(
            f"source={uri!r} is an S3 Inventory in {kind} of the bucket {bucket!r}: it must be in "
            "CSV or Parquet, and name its sourceBucket"
        )
    folder = Folder(f"{storage.S3_SCHEME}{manifest['destinationBucket'].removeprefix(_ARN)}")
    for file in manifest["files"]:
        try:
            for row in reader(uri, manifest, folder, file["key"]):
                if _is_there(row):
                    yield _object(row)
        except (*storage.STORAGE_ERRORS, pa.ArrowException) as error:
            raise InputError(f"source={uri!r}: {file['key']!r} cannot be read: {error}") from error


def _object(row: Mapping[str, Any]) -> S3Object:
    etag, time = row.get("ETag") or "", row.get("LastModifiedDate")
    return S3Object(
        row["Key"],
        etag.strip('"') or None,
        row["Size"],
        datetime.fromisoformat(time) if isinstance(time, str) else time,
    )


def _is_there(row: Mapping[str, Any]) -> bool:
    """Of a bucket with versions, the newest that is no deletion."""
    # Text in CSV, truth values in Parquet, and absent where a bucket has no versions.
    is_latest = str(row.get("IsLatest", True)).lower() == "true"
    return is_latest and str(row.get("IsDeleteMarker", False)).lower() == "false"


def _rows_of_csv(
    uri: str, manifest: Mapping[str, Any], folder: Folder, key: str
) -> Iterator[dict[str, Any]]:
    names = [name.strip() for name in manifest["fileSchema"].split(",")]
    _check_columns(uri, names)
    filesystem = folder.arrow_filesystem()
    path = f"{folder.uri.removeprefix(storage.S3_SCHEME).rstrip('/')}/{key}"
    with filesystem.open_input_stream(path, compression="gzip") as stream:
        batches = pyarrow.csv.open_csv(
            stream,
            pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={**dict.fromkeys(names, pa.string()), "Size": pa.int64()},
                include_columns=[name for name in names if name in _COLUMNS],
            ),
        )
        for batch in batches:
            for row in batch.to_pylist():
                yield row | {"Key": unquote_plus(row["Key"])}


def _rows_of_parquet(
    uri: str, manifest: Mapping[str, Any], folder: Folder, key: str
) -> Iterator[dict[str, Any]]:
    path = f"{folder.uri.removeprefix(storage.S3_SCHEME).rstrip('/')}/{key}"
    with folder.arrow_filesystem().open_input_file(path) as source:
        file = pq.ParquetFile(source)
        there = {ours: name for ours, name in _COLUMNS.items() if name in file.schema_arrow.names}
        _check_columns(uri, list(there))
        for batch in file.iter_batches(columns=list(there.values())):
            for row in batch.to_pylist():
                yield {ours: row[name] for ours, name in there.items()}


def _check_columns(uri: str, names: Sequence[str]) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InputError(
            f"source={uri!r} is an S3 Inventory without {' and '.join(missing)}: let it have these "
            "fields, and better ETag and LastModifiedDate too"
        )
