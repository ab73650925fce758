"""The commits of a run: which of its parts have none yet, and what killed writers left behind."""

import re
from pathlib import Path

from pipelines.tables.layout import RunFolders

_NAME = re.compile(r"part-(\d{8})\.parquet")


def remaining_parts(folders: RunFolders, num_parts: int) -> list[int]:
    """The parts that do not have both of their files.

    The `images` file is the commit; but one that a dead writer sent off may arrive after its twin
    was deleted as a leftover.
    """
    both = {*folders.images.list()} & {*folders.detections.list()}
    done = {int(name[1]) for name in map(_NAME.fullmatch, both) if name}
    return [part for part in range(num_parts) if part not in done]


def delete_leftovers(folders: RunFolders) -> int:
    """Delete what killed writers left: `detections` without their twin, unfinished files.

    Returns:
        How many files that were.
    """
    committed = set(folders.images.list())
    orphans = [name for name in folders.detections.list() if name not in committed]
    for name in orphans:
        folders.detections.delete(name)
    unfinished = [*folders.images.unfinished(), *folders.detections.unfinished()]
    for path in unfinished:
        Path(path).unlink(missing_ok=True)
    return len(orphans) + len(unfinished)
