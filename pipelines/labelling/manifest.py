"""The manifest of a run: every image once, and the part that its row goes to.

A part is the unit of work: what one task fetches, one detector looks at and one pair of files
holds. It is fixed here, once, so that whoever does it, however often, writes the same rows to the
same files. A row group holds one part.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.labelling.listing import ROWS_PER_TABLE, Listing
from pipelines.labelling.settling import settled
from pipelines.labelling.unfinished import PARTS_PER_FILE, Unfinished, part_file, skipped_name
from pipelines.storage import Folder
from pipelines.tables import LISTED, MANIFEST, Views

Watch = Callable[[Unfinished], None]

MAX_PART_BYTES = 128 * 1024 * 1024
"""Images of one part together, as listed: a part has to fit into memory several times."""
UNLISTED_BYTES = 512 * 1024
"""What an image is taken to weigh that was listed without its size."""

_FEWEST_PARTS = 16
_FEWEST_IMAGES = 32
"""A small archive is cut finer, so that all cores have something to do; but a detector takes as
long to start as a core takes for a hundred images."""


@dataclass(frozen=True)
class ManifestSummary:
    """What a listing found."""

    listed: int
    duplicates: int
    parts: int
    left_out: Mapping[str, int]
    """Names that were not listed, by their suffix or why."""
    skipped_in: Mapping[str, int]
    """Images that an earlier run has labelled, by its name."""

    @property
    def skipped(self) -> int:
        return sum(self.skipped_in.values())


def write_manifest(
    listing: Listing,
    folder: Folder,
    images_per_part: int,
    labelled: Views | None = None,
    watch: Watch = lambda manifest: None,
    decided_by: str = "",
) -> ManifestSummary:
    """Write schema.MANIFEST in listing order, each image once: `part-*.parquet`.

    An S3 prefix is gone on with where a process that listed it was killed; else what an unfinished
    listing left is replaced.

    Args:
        listing: of the source.
        folder: of the manifest.
        images_per_part: the most images of one part.
        labelled: complete runs. What one of them has labelled, with the same ETag, becomes part of
            nothing and goes to `skipped-*.parquet`.
        watch: is told of each table of the listing.
        decided_by: what decides the manifest; an unfinished one of something else is replaced.

    Raises:
        InputError: the source cannot be listed to its end; nothing of the manifest is left, unless
            it can be gone on with.
    """
    manifest = Unfinished.read(folder, decided_by) if listing.after else None
    if manifest and listing.after:
        listing = listing.after(manifest.last_uri, manifest.left_out)
    manifest = manifest or Unfinished(decided_by)
    manifest.delete_what_came_later(folder)
    try:
        return _write(manifest, listing, folder, images_per_part, labelled, watch)
    except InputError:
        if not listing.after:
            Unfinished(decided_by).delete_what_came_later(folder)
        raise


def _write(
    manifest: Unfinished,
    listing: Listing,
    folder: Folder,
    images_per_part: int,
    labelled: Views | None,
    watch: Watch,
) -> ManifestSummary:
    counted = _counted(listing, manifest)
    tables = settled(counted, labelled) if listing.may_repeat or labelled else counted.tables
    for table in tables:
        manifest.listed += len(table)
        _take(manifest, table, folder)
        _cut(manifest, folder, images_per_part)
        manifest.last_uri = table["image_uri"][-1].as_py()
        manifest.left_out = Counter(listing.left_out)
        if listing.after and not len(table) % ROWS_PER_TABLE:  # a shorter one is the last
            manifest.save(folder)
        watch(manifest)
    _finish(manifest, folder, images_per_part)
    return ManifestSummary(
        listed=manifest.listed,
        duplicates=manifest.rows - manifest.listed,
        parts=manifest.num_parts,
        left_out=dict(listing.left_out),
        skipped_in=dict(manifest.skipped_in),
    )


def _counted(listing: Listing, manifest: Unfinished) -> Listing:
    def tables() -> Iterator[pa.Table]:
        for table in listing.tables:
            manifest.rows += len(table)
            yield table

    return replace(listing, tables=tables())


def _take(manifest: Unfinished, table: pa.Table, folder: Folder) -> None:
    """What is to be labelled waits for its part; the rest is written and counted."""
    if "skipped_in" in table.column_names:
        is_skipped = pc.is_valid(table["skipped_in"])
        skipped = table.filter(is_skipped)
        if len(skipped):
            manifest.skipped_in.update(skipped["skipped_in"].to_pylist())
            skipped = skipped.append_column("part", pa.nulls(len(skipped), pa.int32()))
            folder.write_table(
                skipped_name(manifest.num_skipped_files),
                skipped.select(MANIFEST.names).cast(MANIFEST),
            )
            manifest.num_skipped_files += 1
        table = table.filter(pc.invert(is_skipped)).select(LISTED.names).cast(LISTED)
    manifest.waiting = pa.concat_tables([manifest.waiting, table])


def _cut(manifest: Unfinished, folder: Folder, images_per_part: int) -> None:
    """Write files as long as there is a whole one."""
    is_large = manifest.num_parts or len(manifest.waiting) >= _FEWEST_PARTS * images_per_part
    *whole, rest = _slices(manifest.waiting, images_per_part) if is_large else [manifest.waiting]
    while len(whole) >= PARTS_PER_FILE:
        _write_file(manifest, whole[:PARTS_PER_FILE], folder)
        del whole[:PARTS_PER_FILE]
    manifest.waiting = pa.concat_tables([*whole, rest])


def most_images_per_part(images: int, images_per_part: int) -> int:
    """Of an archive of so many images, where they are not large."""
    if images >= _FEWEST_PARTS * images_per_part:
        return images_per_part
    return min(images_per_part, max(_FEWEST_IMAGES, -(-images // _FEWEST_PARTS)))


def _finish(manifest: Unfinished, folder: Folder, images_per_part: int) -> None:
    rows = len(manifest.waiting)
    if not manifest.num_parts:
        images_per_part = most_images_per_part(rows, images_per_part)
    parts = iter(_slices(manifest.waiting, images_per_part) if rows else [])
    while some := list(islice(parts, PARTS_PER_FILE)):
        _write_file(manifest, some, folder)
    manifest.forget(folder)


def _write_file(manifest: Unfinished, parts: list[pa.Table], folder: Folder) -> None:
    first = manifest.num_parts
    folder.write(part_file(first), _row_group_per_part(parts, first))
    manifest.num_parts += len(parts)


def read_manifest(folder: Folder) -> pads.Dataset:
    """The manifest as an Arrow dataset of schema.MANIFEST."""
    return folder.dataset(folder.list(), MANIFEST)


def read_part(folder: Folder, part: int) -> pa.Table:
    """The rows of one part, schema.MANIFEST."""
    file = pq.ParquetFile(pa.BufferReader(folder.read(part_file(part))))
    return file.read_row_group(part % PARTS_PER_FILE)


def _row_group_per_part(parts: Iterable[pa.Table], first: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, MANIFEST, compression="zstd") as writer:
        for number, part in enumerate(parts, first):
            part = part.append_column("part", pa.array([number] * len(part), pa.int32()))
            part = part.append_column("skipped_in", pa.nulls(len(part), pa.string()))
            writer.write_table(part.select(MANIFEST.names).cast(MANIFEST), len(part))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _slices(table: pa.Table, images_per_part: int) -> Iterator[pa.Table]:
    """At least one; the last may have room left."""
    start = weight = 0
    for row, size in enumerate(pc.fill_null(table["size_bytes"], UNLISTED_BYTES).to_pylist()):
        if row > start and (row - start == images_per_part or weight + size > MAX_PART_BYTES):
            yield table.slice(start, row - start)
            start, weight = row, 0
        weight += size
    yield table.slice(start)
