"""Files of a local disk: walked, written whole or not at all, locked."""

import errno
import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

TEMPORARY = ".tmp"
_LOCK = ".lock"


def user_cache() -> Path:
    """What this program keeps for the user, on this machine; it may be deleted at any time.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "yolox-ray")


def etag_of_file(status: os.stat_result) -> str:
    """A local file's ETag, as web servers make it: another one once the file was written again."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


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


def is_passing(name: str) -> bool:
    """Whether it is a lock, or what a process is writing or was when it was killed."""
    return PurePosixPath(name).name.startswith(".") and name.endswith((TEMPORARY, _LOCK))


def write_then_rename(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile's: its files are for their owner only, and tables are for others too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
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
def locked(path: Path) -> Iterator[None]:
    """Alone among all processes that lock this path, on this machine or by NFS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, which is replaced; it stays, for another may be waiting for it.
    with path.with_name(f".{path.name}{_LOCK}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
