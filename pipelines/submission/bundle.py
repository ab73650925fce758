"""What travels to the cluster: the code, and the files that the command names."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import InputError

PACKAGES = ("jobs", "pipelines", "yolox_core")
_ROOT = Path(__file__).parents[2]
_CONFIG = "--config"
_NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Bundle:
    """A folder that becomes the job's working folder."""

    folder: Path
    job: Sequence[str]
    """The job's name and flags, which name files in there."""

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


@contextmanager
def bundled(job: Sequence[str], files: Sequence[str]) -> Iterator[Bundle]:
    """A folder with the code, `files`, and the YAML file that a `--config` of the job names.

    Raises:
        InputError: one of the files is not there, or has the name of another.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for package in PACKAGES:
            shutil.copytree(_ROOT / package, folder / package, ignore=_NOT_CODE)
        for file in files:
            _add(folder, file)
        yield Bundle(folder, list(_with_config(folder, job)))


def _with_config(folder: Path, job: Sequence[str]) -> Iterator[str]:
    """The same words, but a `--config` names its copy in the folder."""
    before = ""
    for word in job:
        flag, _, file = word.partition("=") if word.startswith(f"{_CONFIG}=") else ("", "", word)
        if before == _CONFIG or flag:
            _add(folder, file)
            yield f"{flag}={Path(file).name}" if flag else Path(file).name
        else:
            yield word
        before = word


def _add(folder: Path, file: str) -> None:
    source = Path(file)
    if not source.exists():
        raise InputError(f"files: {file!r} is not there: give files and folders of this machine")
    copy = folder / source.resolve().name
    if copy.exists():
        raise InputError(f"files: {file!r} has the name of something that travels already")
    if source.is_dir():
        shutil.copytree(source, copy, ignore=_NOT_CODE)
    else:
        shutil.copy(source, copy)
