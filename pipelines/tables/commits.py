"""The commits of a run: which of its parts have none yet, and what killed writers left behind."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pipelines.tables.layout import RunFolders

_NAME = re.compile(r"part-(\d{8})\.parquet")


@dataclass(frozen=True)
class Commits:
    """What is written of a run, as it was listed at one moment."""

    folders: RunFolders
    images: Collection[str]
    """The names of files, as `detections`."""
    detections: Collection[str]

    @classmethod
    def of(cls, folders: RunFolders) -> Self:
        return cls(folders, {*folders.images.list()}, {*folders.detections.list()})

    def parts(self) -> set[int]:
        """Those that have both of their files.

        The `images` file is the commit; but one that a dead writer sent off may arrive after its
        twin was deleted as a leftover.
        """
        both = (name for name in self.images if name in self.detections)
        return {int(name[1]) for name in map(_NAME.fullmatch, both) if name}

    def delete_leftovers(self) -> int:
        """Delete what killed writers left: `detections` without their twin, unfinished files.

        Returns:
            How many files that were.
        """
        orphans = [name for name in self.detections if name not in self.images]
        for name in orphans:
            self.folders.detections.delete(name)
        unfinished = [*self.folders.images.unfinished(), *self.folders.detections.unfinished()]
        for path in unfinished:
            Path(path).unlink(missing_ok=True)
        return len(orphans) + len(unfinished)


def ranges_of(parts: Iterable[int]) -> str:
    """Parts as a record has them: 0-511,513."""
    ranges: list[list[int]] = []
    for part in sorted(parts):
        if ranges and part == ranges[-1][1] + 1:
            ranges[-1][1] = part
        else:
            ranges.append([part, part])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)


def parts_of(ranges: str) -> set[int]:
    """The parts that `ranges_of` was given."""
    bounds = [one.partition("-") for one in ranges.split(",") if one]
    return {part for first, _, last in bounds for part in range(int(first), int(last or first) + 1)}
