"""The manifest of a run: every image once, and the part that its row goes to.

A part is the unit of work: what one task fetches, one detector looks at and one pair of files
holds. It is fixed here, once, so that whoever does it, however often, writes the same rows to the
same files. A row group holds one part.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.labelling.listing import ROWS_PER_TABLE, Listing
from pipelines.storage import Folder
from pipelines.tables import LISTED, MANIFEST, Views

PARTS_PER_FILE = 64
MAX_PART_BYTES = 128 * 1024 * 1024
"""Images of one part together, as listed: a part has to fit into memory several times."""
UNLISTED_BYTES = 512 * 1024
"""What an image is taken to weigh that was listed without its size."""

_FEWEST_PARTS = 16
_FEWEST_IMAGES = 8
"""A small archive is cut finer, so that all cores have something to do."""


@dataclass(frozen=True)
class ManifestSummary:
    """What a listing found."""

    listed: int
    duplicates: int
    parts: int
    skipped_in: Mapping[str, int]
    """Images that an earlier run has labelled, by its name."""

    @property
    def skipped(self) -> int:
        return sum(self.skipped_in.values())


def write_manifest(
    listing: Listing, folder: Folder, images_per_part: int, labelled: Views | None = None
) -> ManifestSummary:
    """Write schema.MANIFEST in listing order, each image once: `part-*.parquet`.

    Args:
        listing: of the source.
        folder: of the manifest; what an unfinished listing left there is replaced.
        images_per_part: the most images of one part.
        labelled: complete runs. What one of them has labelled, with the same ETag, becomes part of
            nothing and goes to `skipped-*.parquet`.

    Raises:
        InputError: the source cannot be listed to its end; nothing of the manifest is left.
    """
    _clear(folder)
    try:
        return _write(listing, folder, images_per_part, labelled)
    except InputError:
        _clear(folder)
        raise


def _clear(folder: Folder) -> None:
    for name in folder.list():
        folder.delete(name)


def _write(
    listing: Listing, folder: Folder, images_per_part: int, labelled: Views | None
) -> ManifestSummary:
    counts, skipped_in = Counter[str](), Counter[str]()
    tables = _counted(listing.tables, counts, "rows")
    if listing.may_repeat or labelled:
        tables = _settled(tables, labelled)
    tables = _without_skipped(_counted(tables, counts, "listed"), folder, skipped_in)
    parts = _cut(tables, images_per_part)
    num_parts = 0
    while parts_of_file := list(islice(parts, PARTS_PER_FILE)):
        folder.write(_file_name(num_parts), _row_group_per_part(parts_of_file, num_parts))
        num_parts += len(parts_of_file)
    duplicates = counts["rows"] - counts["listed"]
    return ManifestSummary(counts["listed"], duplicates, num_parts, dict(skipped_in))


def read_manifest(folder: Folder) -> pads.Dataset:
    """The manifest as an Arrow dataset of schema.MANIFEST."""
    return folder.dataset(folder.list(), MANIFEST)


def read_part(folder: Folder, part: int) -> pa.Table:
    """The rows of one part, schema.MANIFEST."""
    file = pq.ParquetFile(pa.BufferReader(folder.read(_file_name(part))))
    return file.read_row_group(part % PARTS_PER_FILE)


def _file_name(part: int) -> str:
    """The file that a part is in."""
    return f"part-{part // PARTS_PER_FILE:06d}.parquet"


def _row_group_per_part(parts: Iterable[pa.Table], first: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, MANIFEST, compression="zstd") as writer:
        for number, part in enumerate(parts, first):
            part = part.append_column("part", pa.array([number] * len(part), pa.int32()))
            part = part.append_column("skipped_in", pa.nulls(len(part), pa.string()))
            writer.write_table(part.select(MANIFEST.names).cast(MANIFEST), len(part))
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _counted(tables: Iterable[pa.Table], counts: Counter[str], name: str) -> Iterator[pa.Table]:
    for table in tables:
        counts[name] += len(table)
        yield table


def _cut(tables: Iterator[pa.Table], images_per_part: int) -> Iterator[pa.Table]:
    """Consecutive rows as parts, by their number and by what their images weigh."""
    first: list[pa.Table] = []
    rows = 0
    for table in tables:
        first.append(table)
        rows += len(table)
        if rows >= _FEWEST_PARTS * images_per_part:
            break
    else:
        images_per_part = min(images_per_part, max(_FEWEST_IMAGES, -(-rows // _FEWEST_PARTS)))
    rest = LISTED.empty_table()
    for table in chain(first, tables):
        *whole, rest = _slices(pa.concat_tables([rest, table]), images_per_part)
        yield from whole
    if len(rest):
        yield rest


def _slices(table: pa.Table, images_per_part: int) -> Iterator[pa.Table]:
    """At least one; the last may have room left."""
    start = weight = 0
    for row, size in enumerate(pc.fill_null(table["size_bytes"], UNLISTED_BYTES).to_pylist()):
        if row > start and (row - start == images_per_part or weight + size > MAX_PART_BYTES):
            yield table.slice(start, row - start)
            start, weight = row, 0
        weight += size
    yield table.slice(start)


def _without_skipped(
    tables: Iterable[pa.Table], folder: Folder, skipped_in: Counter[str]
) -> Iterator[pa.Table]:
    """What is to be labelled, schema.LISTED; the rest is written and counted."""
    files = 0
    for table in tables:
        if "skipped_in" not in table.column_names:
            yield table
            continue
        is_skipped = pc.is_valid(table["skipped_in"])
        skipped = table.filter(is_skipped)
        if len(skipped):
            skipped_in.update(skipped["skipped_in"].to_pylist())
            skipped = skipped.append_column("part", pa.nulls(len(skipped), pa.int32()))
            folder.write_table(
                f"skipped-{files:06d}.parquet", skipped.select(MANIFEST.names).cast(MANIFEST)
            )
            files += 1
        yield table.filter(pc.invert(is_skipped)).select(LISTED.names).cast(LISTED)


def _settled(tables: Iterable[pa.Table], labelled: Views | None) -> Iterator[pa.Table]:
    """The first row of each image, with `skipped_in`. On the disk: a listing may be long."""
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(f"{folder}/listing.duckdb") as connection,
    ):
        for setting in _SETTINGS:
            connection.execute(f"SET {setting}")
        _store(connection, tables)
        connection.execute("CREATE TABLE labelled (image_uri VARCHAR, etag VARCHAR, run VARCHAR)")
        if labelled:
            connection.register("images", labelled.images)
            connection.register("runs", labelled.runs)
            connection.execute(_FILL_LABELLED)
        reader = connection.sql(_SETTLED).to_arrow_reader(ROWS_PER_TABLE)
        assert reader is not None  # None is for statements without a result
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _store(connection: duckdb.DuckDBPyConnection, tables: Iterable[pa.Table]) -> None:
    """As the table `listed`, whose column `row` numbers the rows."""
    rows = 0
    empty = LISTED.empty_table().append_column("row", pa.array([], pa.int64()))
    connection.register("listing", empty)
    connection.execute("CREATE TABLE listed AS SELECT * FROM listing")
    for table in tables:
        numbers = pa.array(range(rows, rows + len(table)), pa.int64())
        connection.register("listing", table.append_column("row", numbers))
        connection.execute("INSERT INTO listed SELECT * FROM listing")
        rows += len(table)


_SETTINGS = ("TimeZone = 'UTC'", "memory_limit = '128MB'", "threads = 2")

_FILL_LABELLED = """
    INSERT INTO labelled
    SELECT image_uri, etag, arg_max(run, finished_at)
    FROM images JOIN runs USING (run)
    WHERE images.status = 'labelled' AND etag IS NOT NULL
    GROUP BY image_uri, etag
"""

_SETTLED = """
    SELECT listed.* EXCLUDE (row), labelled.run AS skipped_in
    FROM listed LEFT JOIN labelled USING (image_uri, etag)
    WHERE row IN (SELECT min(row) FROM listed GROUP BY image_uri)
    ORDER BY row
"""
