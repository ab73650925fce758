"""The layout of a table: where each file lies, and what its name says.

manifests/<run>/part-*.parquet
images/date=<date>/run=<run>/part-<id>.parquet        or compact-<generation>-<number>.parquet
detections/date=<date>/run=<run>/part-<id>.parquet    likewise
runs/<run>.json, runs/<run>.lease
"""

import re
from dataclasses import dataclass

from pipelines.storage import Folder

VIEWS = ("images", "detections")


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


def record_name(run: str) -> str:
    """The file of a run's record."""
    return f"runs/{run}.json"


def part_name(part: int) -> str:
    """What both files of a part are called."""
    return f"part-{part:08d}.parquet"


def run_of(name: str) -> str:
    """The run that a file `images/date=…/run=…/part-….parquet` belongs to."""
    return name.rpartition("/run=")[2].partition("/")[0]


def owner_of(name: str) -> str:
    """The run that any file of a table belongs to, by its path; "" where that names none."""
    match = _OWNED.match(name)
    return match[match.lastindex or 0] if match else ""


def generation_of_file(name: str) -> int | None:
    """The generation that a file belongs to by its name; None for a name of no generation."""
    match = _FILE_NAME.fullmatch(name.rpartition("/")[2])
    return match and int(match["generation"] or 0)


def compact_name(generation: int, number: int) -> str:
    return f"compact-{generation}-{number:05d}.parquet"


_OWNED = re.compile(
    r"(?:images|detections)/date=[^/]+/run=([^/]+)/"
    r"|manifests/([^/]+)/"
    r"|runs/\.?(.+?)\.(?:json|lease)(?:\.[0-9a-f]+\.tmp)?$"
)
_FILE_NAME = re.compile(r"(?:part-.+|compact-(?P<generation>\d+)-\d+)\.parquet")
