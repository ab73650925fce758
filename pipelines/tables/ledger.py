"""The closed ledger: every listed image ends as exactly one row, labelled or failed.

A complete run's is read back from the tables, so that a count is a count of what is safely written.
An unfinished run's record has the counts of most of its parts; a resume reads the rows of the rest.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

import duckdb

from pipelines.tables.layout import RunFolders, part_name
from pipelines.tables.schema import IMAGES

_FILES_AT_A_TIME = 512
"""Arrow keeps what it has read of a file's footer, 34 kB, as long as it knows the file."""


@dataclass(frozen=True)
class Ledger:
    """Counts of images (and of boxes: `detections`) of one run."""

    listed: int
    labelled: int = 0
    empty: int = 0
    """Labelled images in which nothing was found."""
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    detections: int = 0
    skipped: int = 0
    """Listed images whose row an earlier run has."""

    @property
    def to_begin_with(self) -> "Ledger":
        """That of the same images before any of them was looked at."""
        return Ledger(self.listed, skipped=self.skipped)

    @property
    def failed(self) -> int:
        return sum(self.failed_by_kind.values())

    @property
    def done(self) -> int:
        """Rows of this run."""
        return self.labelled + self.failed

    @property
    def to_do(self) -> int:
        """Rows that this run has when it is complete."""
        return self.listed - self.skipped

    @property
    def is_closed(self) -> bool:
        return self.listed == self.done + self.skipped

    @property
    def failed_share(self) -> float:
        """Of the images that this run looked at."""
        return self.failed / max(self.done, 1)

    def __add__(self, other: "Ledger") -> "Ledger":
        kinds = sorted({*self.failed_by_kind, *other.failed_by_kind})
        return Ledger(
            listed=self.listed + other.listed,
            labelled=self.labelled + other.labelled,
            empty=self.empty + other.empty,
            failed_by_kind={
                kind: self.failed_by_kind.get(kind, 0) + other.failed_by_kind.get(kind, 0)
                for kind in kinds
            },
            detections=self.detections + other.detections,
            skipped=self.skipped + other.skipped,
        )


def read_ledger(folders: RunFolders, parts: Collection[int], known: Ledger) -> Ledger:
    """`known`, and what the rows of these parts add to it.

    That no image has two rows need not be counted: parts have no image in common, and a part has
    one file.
    """
    names = map(part_name, sorted(parts))
    ledger = known
    with duckdb.connect() as connection:
        while some := list(islice(names, _FILES_AT_A_TIME)):
            connection.register("images", folders.images.dataset(some, IMAGES))
            ledger += _counted(connection)
    return ledger


def _counted(connection: duckdb.DuckDBPyConnection) -> Ledger:
    # One query: it opens every file.
    counts = connection.sql(
        "SELECT error_kind::VARCHAR, count(*), count(*) FILTER (num_detections = 0),"
        " sum(num_detections)::BIGINT FROM images GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    by_kind = {kind: (images, empty, boxes) for kind, images, empty, boxes in counts}
    labelled, empty, detections = by_kind.pop(None, (0, 0, 0))
    failed_by_kind = {kind: images for kind, (images, _, _) in by_kind.items()}
    return Ledger(0, labelled, empty, failed_by_kind, detections)
