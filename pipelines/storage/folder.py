"""Where bytes live: local folders and S3 prefixes, read and written the same way.

S3's endpoint, region and credentials come from the standard AWS variables and files
(AWS_ENDPOINT_URL, AWS_PROFILE, …), never from a URI, so that no secret can reach a table or a log.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from pipelines.errors import InputError
from pipelines.storage import s3
from pipelines.storage.arrow import arrow_s3_filesystem
from pipelines.storage.local import TEMPORARY, is_passing, locked, walk_files, write_then_rename
from pipelines.storage.objects import list_objects
from pipelines.storage.s3 import TABLE_RETRIES, RetryPolicy
from pipelines.storage.uris import S3_SCHEME, is_s3, normalise_uri, split_s3_uri
from pipelines.storage.words import why

STORAGE_ERRORS = s3.ERRORS
"""What a read or a write of either kind raises when the storage says no."""


def read_bytes(uri: str) -> bytes:
    """The bytes of one file.

    Raises:
        InputError: there is no such file, or it may not be read.
    """
    folder, name = folder_and_name(uri)
    try:
        return folder.read(name)
    except STORAGE_ERRORS as error:
        raise InputError(f"{folder.uri_of(name)} cannot be read: {why(error)}") from error


def require_file(uri: str) -> None:
    """Raises InputError unless there is such a file."""
    folder, name = folder_and_name(uri)
    try:
        if folder.exists(name):
            return
    except STORAGE_ERRORS as error:
        raise InputError(f"{uri} cannot be read: {why(error)}") from error
    raise InputError(f"{uri} cannot be read: {why(FileNotFoundError())}")


def write_bytes(uri: str, data: bytes) -> None:
    """Write one file, whole or not at all.

    Raises:
        InputError: nothing can be written there.
    """
    folder, name = folder_and_name(uri)
    try:
        folder.write(name, data)
    except STORAGE_ERRORS as error:
        raise InputError(f"{folder.uri_of(name)} cannot be written: {why(error)}") from error


def folder_and_name(uri: str) -> tuple["Folder", str]:
    """The folder that a file lies in, and the file's name there."""
    folder, _, name = normalise_uri(uri).rpartition("/")
    return Folder(folder or "/"), name


@dataclass(frozen=True)
class Folder:
    """A local folder or an S3 prefix. Names are paths below it, always with `/`.

    What S3 refuses for the moment is asked for again; so a write may be sent more than once, the
    same bytes to the same key. A method raises STORAGE_ERRORS when that was in vain.
    """

    uri: str
    policy: RetryPolicy = field(default=TABLE_RETRIES, repr=False, compare=False)

    def __post_init__(self) -> None:
        uri = normalise_uri(self.uri)
        object.__setattr__(self, "uri", uri.rstrip("/") or "/")

    def below(self, name: str) -> "Folder":
        return Folder(self._path(name), self.policy)

    def uri_of(self, name: str) -> str:
        return self._path(name)

    def exists(self, name: str) -> bool:
        if not is_s3(self.uri):
            return Path(self._path(name)).is_file()
        # Not by HEAD, whose answers have no body: a 403 there does not tell expired credentials
        # from denied ones. A key sorts before all others that begin with it.
        _, key = split_s3_uri(self._path(name))
        first = next(list_objects(self._path(name), self.policy), None)
        return first is not None and first.key == key

    def read(self, name: str) -> bytes:
        if is_s3(self.uri):
            return self._get(name)[0]
        return Path(self._path(name)).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file at once: a reader sees the old one or the new one, never a part.

        On S3 that is a single PUT; on a disk a temporary file in the same folder, renamed.
        """
        if is_s3(self.uri):
            self._call("put_object", name, Body=data)
        else:
            write_then_rename(Path(self._path(name)), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is another one; whether it holds `data` now.

        Of all that create one name at the same time, one is told True, if their `data` differ: by
        its bytes a call knows its own file where S3's answer was lost.
        """
        if is_s3(self.uri):
            return self._put_if(name, data, IfNoneMatch="*")
        path = Path(self._path(name))
        with locked(path):
            if path.exists():
                return self._holds(name, data)
            write_then_rename(path, data)
            return True

    def replace(self, name: str, data: bytes, expected: bytes) -> bool:
        """Write a file if what it holds is `expected`; whether this call wrote it.

        Of all that replace one file at the same time, one is told True, if their `data` differ.
        """
        if is_s3(self.uri):
            try:
                found, etag = self._get(name)
            except FileNotFoundError:
                return False
            return found == expected and self._put_if(name, data, IfMatch=etag)
        path = Path(self._path(name))
        with locked(path):
            if not self._holds(name, expected):
                return False
            write_then_rename(path, data)
            return True

    def write_table(self, name: str, table: pa.Table) -> int:
        """Write a Parquet file, whole or not at all; its size in bytes."""
        data = to_parquet(table)
        self.write(name, data)
        return len(data)

    def delete(self, name: str) -> None:
        if is_s3(self.uri):
            self._call("delete_object", name)
        else:
            Path(self._path(name)).unlink()

    def is_empty(self) -> bool:
        """Whether nothing is there: no folder either, or one without anything in it."""
        if is_s3(self.uri):
            return next(list_objects(f"{self.uri}/", self.policy), None) is None
        path = Path(self.uri)
        return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))

    def list(self, below: str = "") -> list[str]:
        """Names of all files below a sub-folder, sorted; empty where there is no such folder."""
        root = self._path(below) if below else self.uri
        strip = len(self.uri.rstrip("/")) + 1
        names = (uri[strip:] for uri in _uris_below(root, self.policy))
        return sorted(name for name in names if not is_passing(name))

    def unfinished(self) -> tuple[str, ...]:
        """Paths of what a killed process was writing; on S3 nothing is left of that."""
        if is_s3(self.uri):
            return ()
        return tuple(sorted(str(path) for path in Path(self.uri).rglob(f".*{TEMPORARY}")))

    def dataset(self, names: Iterable[str], schema: pa.Schema) -> pads.Dataset:
        """The Parquet files of these names as one Arrow dataset; no names make an empty one.

        Fields `date` and `run` of the schema are read from the folders' names (`date=…/run=…`).
        """
        paths = [self._path(name).removeprefix(S3_SCHEME) for name in names]
        if not paths:
            return pads.dataset(schema.empty_table())
        return pads.dataset(
            paths,
            schema=schema,
            filesystem=self.arrow_filesystem(),
            format="parquet",
            partitioning=_PARTITIONS,
        )

    def arrow_filesystem(self) -> pafs.FileSystem:
        """Arrow's filesystem for this folder, whose paths have no `s3://`."""
        # Never one that wraps fsspec: Scanner.to_reader(), which DuckDB calls, keeps Python's lock
        # while it waits for threads that a filesystem in Python makes wait for that lock.
        if is_s3(self.uri):
            return arrow_s3_filesystem(split_s3_uri(self.uri)[0], self.policy)
        return pafs.LocalFileSystem()

    def _path(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"

    def _call(self, operation: str, name: str, **arguments: Any) -> Any:
        """One of S3's operations on the object of this name."""
        bucket, key = split_s3_uri(self._path(name))

        async def send(client: Any) -> Any:
            return await getattr(client, operation)(Bucket=bucket, Key=key, **arguments)

        return s3.request(send, self.policy)

    def _get(self, name: str) -> tuple[bytes, str]:
        """(bytes, ETag) of an object."""
        bucket, key = split_s3_uri(self._path(name))

        async def send(client: Any) -> tuple[bytes, str]:
            response = await client.get_object(Bucket=bucket, Key=key)
            async with response["Body"]:
                return await s3.read_body(response), response["ETag"]

        try:
            return s3.request(send, self.policy)
        except ClientError as error:
            if s3.status(error) == 404:
                raise FileNotFoundError(f"{self._path(name)} is not there: {error}") from error
            raise

    def _put_if(self, name: str, data: bytes, **condition: str) -> bool:
        """PUT on a condition; whether the object is what this call wrote."""
        try:
            self._call("put_object", name, Body=data, **condition)
            return True
        except ClientError as error:
            if s3.error_code(error) not in ("PreconditionFailed", "NoSuchKey"):
                raise
        # An earlier try may have written it although its answer was lost; aiohttp alone sends a
        # PUT twice if the connection breaks.
        return self._holds(name, data)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except FileNotFoundError:
            return False


def to_parquet(table: pa.Table) -> bytes:
    """The bytes of a table's file: zstd, row groups that a query can skip."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=64 * 1024)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _uris_below(root: str, policy: RetryPolicy) -> Iterator[str]:
    if not is_s3(root):
        for path in walk_files(root):
            yield str(path)
        return
    bucket, prefix = split_s3_uri(root)
    for item in list_objects(f"{root}/" if prefix else f"{S3_SCHEME}{bucket}/", policy):
        if not item.key.endswith("/"):  # a folder's marker
            yield f"{S3_SCHEME}{bucket}/{item.key}"


_PARTITIONS = pads.partitioning(
    pa.schema([("date", pa.date32()), ("run", pa.string())]), flavor="hive"
)
