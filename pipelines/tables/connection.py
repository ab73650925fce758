"""DuckDB for data larger than memory: what does not fit goes to a temporary folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb

from pipelines.errors import InputError

READING_FAILED = "reading the stream registered as"
"""What DuckDB's error says when Arrow could not read a file for it."""


MIN_MEMORY_MB = 256


@contextmanager
def spilling_connection(memory_mb: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database that keeps to `memory_mb`, by default four fifths of the machine's.

    Its temporary folder lies in TMPDIR and goes with it.

    Raises:
        InputError: what is done with it needs more memory, or more room to spill to.
    """
    with TemporaryDirectory(prefix="spilled-") as folder, duckdb.connect() as connection:
        if memory_mb:
            connection.execute(f"SET memory_limit = '{memory_mb}MB'")
        # It would draw one over the output of whoever asks, after two seconds.
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        try:
            yield connection
        # The second is of a full disk; what a table's files may raise, whoever reads them tells.
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise InputError(
                f"DuckDB cannot do this in {memory_mb or 'the'} MB of memory: give it more, "
                "or room to spill to (TMPDIR)"
            ) from error


def check_memory(memory_mb: int) -> None:
    """Raises ValueError where DuckDB could not even begin."""
    if memory_mb < MIN_MEMORY_MB:
        raise ValueError(f"memory_mb={memory_mb}: must be at least {MIN_MEMORY_MB}")
