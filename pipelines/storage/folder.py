"""Where bytes live: local folders and S3 prefixes, read and written the same way.

S3's endpoint, region and credentials come from the standard AWS variables and files
(AWS_ENDPOINT_URL, AWS_PROFILE, …), never from a URI, so that no secret can reach a table or a log.
"""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import botocore.session
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from botocore.config import Config
from botocore.exceptions import ClientError

from pipelines.errors import InputError
from pipelines.storage import s3
from pipelines.storage.s3 import TABLE_RETRIES, RetryPolicy

S3_SCHEME = "s3://"

STORAGE_ERRORS = s3.ERRORS
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


def etag_of_file(status: os.stat_result) -> str:
    """A local file's ETag, as web servers make it: another one once the file was written again."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def read_bytes(uri: str) -> bytes:
    """The bytes of one file.

    Raises:
        InputError: there is no such file, or it may not be read.
    """
    folder, name = folder_and_name(uri)
    try:
        return folder.read(name)
    except STORAGE_ERRORS as error:
        raise InputError(f"{folder.uri_of(name)} cannot be read: {error}") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write one file, whole or not at all.

    Raises:
        InputError: nothing can be written there.
    """
    folder, name = folder_and_name(uri)
    try:
        folder.write(name, data)
    except STORAGE_ERRORS as error:
        raise InputError(f"{uri} cannot be written: {error}") from error


def folder_and_name(uri: str) -> tuple["Folder", str]:
    """The folder that a file lies in, and the file's name there."""
    folder, _, name = normalise_uri(uri).rpartition("/")
    return Folder(folder or "/"), name


def list_objects(uri: str, policy: RetryPolicy = TABLE_RETRIES) -> Iterator[dict[str, Any]]:
    """Every object whose URI begins so, sorted by key: S3's Key, ETag, Size and LastModified.

    A page that did not come whole is asked for again, so that no key is lost or given twice.

    Raises:
        STORAGE_ERRORS: there is no such bucket, or it may not or cannot be listed.
    """
    token = None
    while True:
        page = s3.request(partial(_list_page, uri, token), policy)
        yield from page.get("Contents", [])
        token = page.get("NextContinuationToken")
        if token is None:
            return


async def _list_page(uri: str, token: str | None, client: Any) -> dict[str, Any]:
    bucket, prefix = split_s3_uri(uri)
    where = {"ContinuationToken": token} if token else {}
    page: dict[str, Any] = await client.list_objects_v2(Bucket=bucket, Prefix=prefix, **where)
    return page


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
        return first is not None and first["Key"] == key

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
            _write_then_rename(Path(self._path(name)), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file unless there is another one; whether it holds `data` now.

        Of all that create one name at the same time, one is told True, if their `data` differ: by
        its bytes a call knows its own file where S3's answer was lost.
        """
        if is_s3(self.uri):
            return self._put_if(name, data, IfNoneMatch="*")
        path = Path(self._path(name))
        with _locked(path):
            if path.exists():
                return self._holds(name, data)
            _write_then_rename(path, data)
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
        with _locked(path):
            if not self._holds(name, expected):
                return False
            _write_then_rename(path, data)
            return True

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file, whole or not at all: zstd, row groups that a query can skip."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=64 * 1024)
        self.write(name, sink.getvalue().to_pybytes())

    def delete(self, name: str) -> None:
        if is_s3(self.uri):
            self._call("delete_object", name)
        else:
            Path(self._path(name)).unlink()

    def list(self, below: str = "") -> list[str]:
        """Names of all files below a sub-folder, sorted; empty where there is no such folder."""
        root = self._path(below) if below else self.uri
        strip = len(self.uri.rstrip("/")) + 1
        names = (uri[strip:] for uri in _uris_below(root, self.policy))
        return sorted(name for name in names if not _is_passing(name))

    def unfinished(self) -> tuple[str, ...]:
        """Paths of what a killed process was writing; on S3 nothing is left of that."""
        if is_s3(self.uri):
            return ()
        return tuple(sorted(str(path) for path in Path(self.uri).rglob(f".*{_TEMPORARY}")))

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
            return _arrow_s3_filesystem(split_s3_uri(self.uri)[0], self.policy)
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


def _uris_below(root: str, policy: RetryPolicy) -> Iterator[str]:
    if not is_s3(root):
        for path in walk_files(root):
            yield str(path)
        return
    bucket, prefix = split_s3_uri(root)
    for item in list_objects(f"{root}/" if prefix else f"{S3_SCHEME}{bucket}/", policy):
        # Some consoles make a folder by writing an empty object whose key ends in `/`.
        if not item["Key"].endswith("/"):
            yield f"{S3_SCHEME}{bucket}/{item['Key']}"


def walk_files(root: str) -> Iterator[Path]:
    """Every file below a local folder, links to files and to folders followed; none if it is gone.

    Raises:
        OSError: a folder cannot be read, or a link leads to a folder around itself.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        subfolders.sort()
        for link in (path for name in subfolders if (path := Path(folder, name)).is_symlink()):
            if link.parent.resolve().is_relative_to(link.resolve()):
                raise OSError(errno.ELOOP, "a link to a folder around itself", str(link))
        for name in sorted(names):
            yield Path(folder, name)


def _arrow_s3_filesystem(bucket: str, policy: RetryPolicy) -> pafs.S3FileSystem:
    """Arrow's S3 client, told what botocore finds in the AWS variables and files."""
    session = botocore.session.get_session()
    config = Config(
        connect_timeout=policy.connect_timeout_s,
        read_timeout=policy.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": policy.attempts},
    )
    client = session.create_client("s3", config=config)
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
        connect_timeout=policy.connect_timeout_s,
        retry_strategy=pafs.AwsDefaultS3RetryStrategy(max_attempts=policy.attempts),
    )


_TEMPORARY = ".tmp"
_LOCK = ".lock"
_PARTITIONS = pads.partitioning(
    pa.schema([("date", pa.date32()), ("run", pa.string())]), flavor="hive"
)


def _is_passing(name: str) -> bool:
    """Whether it is a lock, or what a process is writing or was when it was killed."""
    return PurePosixPath(name).name.startswith(".") and name.endswith((_TEMPORARY, _LOCK))


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among all processes that lock this path, on this machine or by NFS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, which is replaced; it stays, for another may be waiting for it.
    with path.with_name(f".{path.name}{_LOCK}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
