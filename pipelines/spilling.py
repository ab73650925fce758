"""DuckDB for data larger than memory: what does not fit goes to a temporary folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb

READING_FAILED = "reading the stream registered as"
"""What DuckDB's error says when Arrow could not read a file for it."""


MIN_MEMORY_MB = 256


@contextmanager
def spilling_connection(memory_mb: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database that keeps to `memory_mb`, by default four fifths of the machine's.

    Its temporary folder lies in TMPDIR and goes with it.
    """
    with TemporaryDirectory(prefix="spilled-") as folder, duckdb.connect() as connection:
        if memory_mb:
            connection.execute(f"SET memory_limit = '{memory_mb}MB'")
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def check_memory(memory_mb: int) -> None:
    """Raises ValueError where DuckDB could not even begin."""
    if memory_mb < MIN_MEMORY_MB:
        raise ValueError(f"memory_mb={memory_mb}: must be at least {MIN_MEMORY_MB}")
