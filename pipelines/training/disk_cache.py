"""A folder of files that the processes of a machine share, held to a size.

    <folder>/usage              the bytes of all files, locked by whoever writes
    <folder>/ab/ab34…           a checksum and what was put under a key

When it is full, what nobody has used for an hour makes room, oldest use first; what is in use never
does. An epoch reads everything once, so that to drop the oldest of what is in use would drop what
is next to be asked for.
"""

import fcntl
import hashlib
import heapq
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LEFT_FREE = 0.2
"""Share of the disk that stays free where no limit was given."""
IDLE_S = 3600.0
"""Without a use before this cache was opened, after which a file may go."""

_IDLE_AT_A_TIME = 10_000
_DIGITS = 20
"""Of the number in `usage`, which is overwritten in place: a disk that is full has room for it."""
_CHECKSUM_BYTES = 4


class DiskCache:
    """Values by key, in files. Of a damaged file, as a power cut leaves it, nothing is known."""

    def __init__(self, folder: Path, max_bytes: int | None = None) -> None:
        """`max_bytes`: of all files. Without it a fifth of the disk stays free."""
        self.folder = folder
        self._max_bytes = max_bytes
        self._idle_before = time.time() - IDLE_S
        # Known once something is to be written, and changed only by who has the lock.
        self._is_new = True
        self._limit = 0
        self._used = 0
        self._idle: list[tuple[float, str]] = []

    def get(self, key: str) -> bytes | None:
        """What was put under the key; None where nothing was, or it is damaged or gone."""
        path = self._path(key)
        try:
            sealed = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        data = sealed[_CHECKSUM_BYTES:]
        return data if sealed.startswith(_checksum(data)) else None

    def put(self, key: str, data: bytes) -> bool:
        """Write a file in place of the key's old one; False where there is no room for it.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        with self._locked() as usage:
            counted = os.pread(usage, _DIGITS, 0)
            if self._is_new or not counted:
                self._look_over()
            else:
                self._used = int(counted)
            try:
                return self._write(self._path(key), _checksum(data) + data)
            finally:
                os.pwrite(usage, b"%0*d" % (_DIGITS, self._used), 0)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Alone among all processes and threads; the descriptor of the file `usage`."""
        # Photos may be private.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usage = os.open(self.folder / "usage", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(usage, fcntl.LOCK_EX)
            yield usage
        finally:
            os.close(usage)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name

    def _write(self, path: Path, data: bytes) -> bool:
        grows_by = len(data) - (path.stat().st_size if path.exists() else 0)
        if not self._make_room(grows_by):
            return False
        _write_then_rename(path, data)
        self._used += grows_by
        return True

    def _make_room(self, size: int) -> bool:
        """Delete what is idle, as far as it takes; whether there is room then."""
        while self._used + size > self._limit:
            if not self._idle:
                self._look_over()
            if not self._idle:
                return False
            self._delete(self._idle.pop()[1])
        return True

    def _delete(self, path: str) -> None:
        """A file that was idle, unless somebody has used it since."""
        with suppress(FileNotFoundError):
            status = os.stat(path)
            if status.st_mtime < self._idle_before:
                os.unlink(path)
                self._used -= status.st_size

    def _look_over(self) -> None:
        """Count the bytes that are there, and find what is idle."""
        self._used = 0
        self._idle = heapq.nsmallest(_IDLE_AT_A_TIME, self._counted())[::-1]
        self._limit = self._limit_of_disk() if self._max_bytes is None else self._max_bytes
        self._is_new = False

    def _limit_of_disk(self) -> int:
        disk = shutil.disk_usage(self.folder)
        return self._used + disk.free - int(LEFT_FREE * disk.total)

    def _counted(self) -> Iterator[tuple[float, str]]:
        """Time of the last use and path of all that is idle, while all that is there is counted."""
        for subfolder in (entry for entry in os.scandir(self.folder) if entry.is_dir()):
            for file in os.scandir(subfolder):
                status = file.stat()
                self._used += status.st_size
                if status.st_mtime < self._idle_before:
                    yield status.st_mtime, file.path


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def _write_then_rename(path: Path, data: bytes) -> None:
    """Whole or not at all, to who reads it; not synced, for a checksum tells what is damaged."""
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
