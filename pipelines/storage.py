"""Where bytes live: local folders and S3 prefixes, read and written the same way.

S3's endpoint, region and credentials come from the standard AWS variables and files
(AWS_ENDPOINT_URL, AWS_PROFILE, …), never from a URI, so that no secret can reach a table or a log.
"""

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import botocore.session
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipelines.errors import InputError

S3_SCHEME = "s3://"
S3_CONNECTIONS = 64
"""Requests that one process keeps in flight."""

STORAGE_ERRORS = (OSError, BotoCoreError, ClientError)
"""What a read or a write of either kind raises when the storage says no."""


def is_s3(uri: str) -> bool:
    return uri.startswith(S3_SCHEME)


def normalise_uri(uri: str) -> str:
    """An `s3://bucket/key` as it is, a local path made absolute.

    Raises:
        InputError: another scheme, a chain (`a::b`), credentials in the URI, or no bucket.
    """
    if not uri:
        raise InputError("the path is empty: give a local path or s3://bucket/prefix")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return os.path.abspath(os.path.expanduser(uri))
    if scheme != "s3" or "::" in scheme:
        raise InputError(f"{scheme}:// is not supported: give a local path or s3://bucket/prefix")
    bucket = rest.partition("/")[0]
    if "@" in bucket:
        raise InputError(
            "credentials inside an s3:// URI are refused, because URIs are written to tables: "
            "use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"
        )
    if not bucket or "::" in bucket:
        raise InputError(f"{uri!r} names no bucket: give s3://bucket/prefix")
    return uri


def split_s3_uri(uri: str) -> tuple[str, str]:
    """(bucket, key) of an `s3://bucket/key`; the key is taken to the letter, `?`, `#` and all."""
    bucket, _, key = uri.removeprefix(S3_SCHEME).partition("/")
    return bucket, key


def s3_filesystem() -> s3fs.S3FileSystem:
    """This process's S3 filesystem; fsspec hands out the same one at every call.

    Listings are not cached: other processes write under the same prefixes.
    """
    return s3fs.S3FileSystem(
        use_listings_cache=False,
        config_kwargs={"max_pool_connections": S3_CONNECTIONS},
    )


def read_bytes(uri: str) -> bytes:
    """The bytes of one file.

    Raises:
        InputError: there is no such file, or it may not be read.
    """
    uri = normalise_uri(uri)
    folder, _, name = uri.rpartition("/")
    try:
        return Folder(folder or "/").read(name)
    except STORAGE_ERRORS as error:
        raise InputError(f"{uri} cannot be read: {error}") from error


@dataclass(frozen=True)
class Folder:
    """A local folder or an S3 prefix. Names are paths below it, always with `/`."""

    uri: str

    def __post_init__(self) -> None:
        uri = normalise_uri(self.uri)
        object.__setattr__(self, "uri", uri.rstrip("/") or "/")

    def below(self, name: str) -> "Folder":
        return Folder(self._path(name))

    def uri_of(self, name: str) -> str:
        return self._path(name)

    def exists(self, name: str) -> bool:
        return bool(self._filesystem.isfile(self._path(name)))

    def read(self, name: str) -> bytes:
        data: bytes = self._filesystem.cat_file(self._path(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file at once: a reader sees the old one or the new one, never a part.

        On S3 that is a single PUT; on a disk a temporary file in the same folder, renamed.
        """
        path = self._path(name)
        if is_s3(path):
            self._filesystem.pipe_file(path, data)
        else:
            _write_then_rename(Path(path), data)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file, whole or not at all: zstd, row groups that a query can skip."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=64 * 1024)
        self.write(name, sink.getvalue().to_pybytes())

    def delete(self, name: str) -> None:
        self._filesystem.rm_file(self._path(name))

    def list(self, below: str = "") -> list[str]:
        """Names of all files below a sub-folder, sorted; empty where there is no such folder."""
        root = self._path(below) if below else self.uri
        strip = len(self._filesystem._strip_protocol(self.uri).rstrip("/")) + 1
        found = self._filesystem.find(root, detail=True)
        # s3fs lists a prefix itself, as a directory, if its first file is written meanwhile.
        names = (path[strip:] for path, info in found.items() if info["type"] != "directory")
        # A temporary file that a killed process left behind is not a file of the folder.
        return sorted(name for name in names if not name.endswith(_TEMPORARY))

    def unfinished(self) -> tuple[str, ...]:
        """Paths of what a killed process was writing; on S3 nothing is left of that."""
        if is_s3(self.uri):
            return ()
        return tuple(sorted(str(path) for path in Path(self.uri).rglob(f".*{_TEMPORARY}")))

    def dataset(self, names: Iterable[str], schema: pa.Schema) -> pads.Dataset:
        """The Parquet files of these names as one Arrow dataset; no names make an empty one.

        Fields `date` and `run` of the schema are read from the folders' names (`date=…/run=…`).
        """
        paths = [self._filesystem._strip_protocol(self._path(name)) for name in names]
        if not paths:
            return pads.dataset(schema.empty_table())
        return pads.dataset(
            paths,
            schema=schema,
            filesystem=self.arrow_filesystem(),
            format="parquet",
            partitioning=_PARTITIONS,
        )

    @cached_property
    def _filesystem(self) -> AbstractFileSystem:
        return s3_filesystem() if is_s3(self.uri) else LocalFileSystem()

    def arrow_filesystem(self) -> pafs.FileSystem:
        """Arrow's filesystem for this folder, whose paths have no `s3://`."""
        # Never one that wraps fsspec: Scanner.to_reader(), which DuckDB calls, keeps Python's lock
        # while it waits for threads that a filesystem in Python makes wait for that lock.
        if is_s3(self.uri):
            return _arrow_s3_filesystem(split_s3_uri(self.uri)[0])
        return pafs.LocalFileSystem()

    def _path(self, name: str) -> str:
        return f"{self.uri.rstrip('/')}/{name}"


@dataclass(frozen=True)
class RunFolders:
    """Where the files of one run lie in its table."""

    table: Folder
    run: str
    date: str

    @property
    def manifest(self) -> Folder:
        return self.table.below(f"manifests/{self.run}")

    @property
    def images(self) -> Folder:
        return self.table.below(f"images/date={self.date}/run={self.run}")

    @property
    def detections(self) -> Folder:
        return self.table.below(f"detections/date={self.date}/run={self.run}")


def _arrow_s3_filesystem(bucket: str) -> pafs.S3FileSystem:
    """Arrow's S3 client, told what botocore finds in the AWS variables and files."""
    session = botocore.session.get_session()
    client = session.create_client("s3")
    region = client.head_bucket(Bucket=bucket).get("BucketRegion", client.meta.region_name)
    endpoint = urlsplit(client.meta.endpoint_url)
    is_aws = str(endpoint.hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
    keys = session.get_credentials().get_frozen_credentials()
    return pafs.S3FileSystem(
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token,
        region=region,
        scheme=endpoint.scheme,
        # AWS has an endpoint for each region, which Arrow knows.
        endpoint_override=None if is_aws else f"{endpoint.netloc}{endpoint.path}",
    )


_TEMPORARY = ".tmp"
_PARTITIONS = pads.partitioning(
    pa.schema([("date", pa.date32()), ("run", pa.string())]), flavor="hive"
)


def _write_then_rename(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are for their owner only, and tables are for others too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            # The rename must not reach the disk before the bytes do.
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
