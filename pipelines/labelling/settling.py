"""Each image of a listing once, and which of them an earlier run has labelled."""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice

import duckdb
import pyarrow as pa

from pipelines.labelling.listing import ROWS_PER_TABLE, Listing
from pipelines.tables import LISTED, Views

_TABLES_AT_A_TIME = 8
"""The rows of earlier runs are read through once for these."""


def settled(listing: Listing, labelled: Views | None) -> Iterator[pa.Table]:
    """The first row of each image, with `skipped_in`: the complete run that has labelled it.

    On the disk, since a listing may be long; at once where it may repeat itself, else a few tables
    at a time, each of which becomes one.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(f"{folder}/listing.duckdb") as connection,
    ):
        for setting in _SETTINGS:
            connection.execute(f"SET {setting}")
        connection.execute("CREATE TABLE labelled (image_uri VARCHAR, etag VARCHAR, run VARCHAR)")
        if labelled:
            connection.register("images", labelled.images)
            connection.register("runs", labelled.runs)
            connection.execute(_FILL_LABELLED)
        if listing.may_repeat:
            _store(connection, listing.tables)
            yield from _read(connection)
        while some := list(islice(listing.tables, _TABLES_AT_A_TIME)):
            _store(connection, some)
            yield pa.concat_tables(_read(connection))


def _read(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    reader = connection.sql(_SETTLED).to_arrow_reader(ROWS_PER_TABLE)
    assert reader is not None  # None is for statements without a result
    for batch in reader:
        yield pa.Table.from_batches([batch])


def _store(connection: duckdb.DuckDBPyConnection, tables: Iterable[pa.Table]) -> None:
    """As the table `listed`, whose column `row` numbers the rows."""
    rows = 0
    empty = LISTED.empty_table().append_column("row", pa.array([], pa.int64()))
    connection.register("listing", empty)
    connection.execute("CREATE OR REPLACE TABLE listed AS SELECT * FROM listing")
    for table in tables:
        numbers = pa.array(range(rows, rows + len(table)), pa.int64())
        connection.register("listing", table.append_column("row", numbers))
        connection.execute("INSERT INTO listed SELECT * FROM listing")
        rows += len(table)


_SETTINGS = (
    "enable_progress_bar = false",
    "TimeZone = 'UTC'",
    "memory_limit = '128MB'",
    "threads = 2",
)

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
