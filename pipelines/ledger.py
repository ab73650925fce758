"""The closed ledger: every listed image ends as exactly one row, labelled or failed.

Everything here is read back from the tables, so that a count is a count of what is safely written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from pipelines.manifest import read_manifest
from pipelines.schema import IMAGES
from pipelines.storage import RunFolders


@dataclass(frozen=True)
class Ledger:
    """Counts of images (and of boxes: `detections`) of one run."""

    listed: int
    labelled: int = 0
    empty: int = 0
    """Labelled images in which nothing was found."""
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    detections: int = 0

    @property
    def failed(self) -> int:
        return sum(self.failed_by_kind.values())

    @property
    def done(self) -> int:
        return self.labelled + self.failed

    @property
    def is_closed(self) -> bool:
        return self.listed == self.done

    @property
    def failed_share(self) -> float:
        return self.failed / self.listed

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
        )


def read_ledger(folders: RunFolders, listed: int) -> Ledger:
    """The ledger as the rows of `images` tell it.

    Raises:
        RuntimeError: an image has two rows, which the commit protocol rules out.
    """
    with duckdb.connect() as connection:
        connection.register("images", folders.images.dataset(folders.images.list(), IMAGES))
        kinds = connection.sql(
            "SELECT error_kind::VARCHAR, count(*) FROM images WHERE status = 'failed' "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        counts = connection.sql(
            "SELECT count(*) - count(DISTINCT image_uri),"
            " count(*) FILTER (status = 'labelled'),"
            " count(*) FILTER (status = 'labelled' AND num_detections = 0),"
            " coalesce(sum(num_detections), 0)::BIGINT FROM images"
        ).fetchall()
    [(doubled, labelled, empty, detections)] = counts
    if doubled:
        raise RuntimeError(f"run {folders.run!r} has {doubled} images with more than one row")
    return Ledger(listed, labelled, empty, dict(kinds), detections)


def remaining_images(folders: RunFolders, rows_per_block: int) -> Iterator[pa.Table]:
    """The manifest without the images that have a row, in blocks of (image_uri, etag, size_bytes).

    An image counts as done when its row stands in `images`: that file is the commit.
    """
    with duckdb.connect() as connection:
        connection.register("manifest", read_manifest(folders.manifest))
        connection.register("images", folders.images.dataset(folders.images.list(), IMAGES))
        reader = connection.sql(
            "SELECT image_uri, etag, size_bytes FROM manifest "
            "ANTI JOIN images USING (image_uri) ORDER BY image_uri"
        ).to_arrow_reader(rows_per_block)
        assert reader is not None  # None is for statements without a result
        for batch in reader:
            yield pa.Table.from_batches([batch])


def delete_orphans(folders: RunFolders) -> int:
    """Delete `detections` files whose `images` twin was never written; return how many."""
    committed = set(folders.images.list())
    orphans = [name for name in folders.detections.list() if name not in committed]
    for name in orphans:
        folders.detections.delete(name)
    return len(orphans)
