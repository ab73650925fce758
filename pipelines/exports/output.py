"""Where an export goes: a folder that is there whole or not at all, or an S3 prefix.

On a disk everything is written beside the folder and renamed at the end. S3 renames nothing: what
was written is deleted if the export fails, and every format writes last the file that makes a data
set of the others, so that what a killed export leaves is none.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow.fs as pafs

from pipelines.errors import InputError
from pipelines.storage import (
    S3_SCHEME,
    STORAGE_ERRORS,
    Folder,
    is_s3,
    normalise_uri,
    s3,
)

_FILES_AT_ONCE = 4 * s3.CONNECTIONS
"""Held in memory together, on their way to S3."""


class Output(Protocol):
    """Takes the files of an export. Names are paths below it, always with `/`."""

    def write_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write many small files, given as (name, bytes)."""

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file of any size, to be written bit by bit."""


@contextmanager
def new_output(uri: str) -> Iterator[Output]:
    """An output that is there when the block ends, and not if it raises.

    Raises:
        InputError: something is there already, or it cannot be written.
    """
    uri = normalise_uri(uri).rstrip("/") or "/"
    try:
        refuse_used(uri)
        with _on_s3(Folder(uri)) if is_s3(uri) else _on_disk(Path(uri)) as output:
            yield output
    except STORAGE_ERRORS as error:
        raise InputError(f"output={uri!r} cannot be written: {error}") from error


def refuse_used(uri: str) -> None:
    """Raises InputError unless an output is empty or not there yet."""
    if not Folder(uri).is_empty():
        raise InputError(
            f"output={uri!r} is not empty: give another folder, or empty it, for an export never "
            "mixes with what is there"
        )


class _Disk:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = {root}

    def write_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        for name, data in files:
            self._path(name).write_bytes(data)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self._path(name).open("wb") as file:
            yield file

    def _path(self, name: str) -> Path:
        path = self._root / name
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        return path


@contextmanager
def _on_disk(folder: Path) -> Iterator[Output]:
    if folder.is_mount():
        raise InputError(f"output={str(folder)!r} is where a disk is mounted: give a folder in it")
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    staging.mkdir(parents=True)
    try:
        yield _Disk(staging)
        if folder.exists():  # and empty: else rename() refuses it
            folder.rmdir()
        staging.rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


class _Prefix:
    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.written: list[str] = []

    def write_all(self, files: Iterable[tuple[str, bytes]]) -> None:
        rest = iter(files)
        with ThreadPoolExecutor(s3.CONNECTIONS) as pool:
            while some := list(islice(rest, _FILES_AT_ONCE)):
                self.written += [name for name, _ in some]
                list(pool.map(lambda file: self._folder.write(*file), some))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The file is made on the disk first: nobody sees half of it, and it may be any size."""
        with tempfile.NamedTemporaryFile(prefix="export-") as file:
            yield file  # type: ignore[misc]  # a wrapper that has all of BinaryIO
            file.flush()
            self.written.append(name)
            pafs.copy_files(
                file.name,
                self._folder.uri_of(name).removeprefix(S3_SCHEME),
                source_filesystem=pafs.LocalFileSystem(),
                destination_filesystem=self._folder.arrow_filesystem(),
            )

    def forget(self, name: str) -> None:
        with suppress(*STORAGE_ERRORS):
            self._folder.delete(name)


@contextmanager
def _on_s3(folder: Folder) -> Iterator[Output]:
    output = _Prefix(folder)
    try:
        yield output
    except BaseException:
        with ThreadPoolExecutor(s3.CONNECTIONS) as pool:
            list(pool.map(output.forget, output.written))
        raise
