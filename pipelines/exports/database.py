"""A database on the disk for one job: what does not fit into memory does not have to."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb

from pipelines.errors import InputError

MIN_MEMORY_MB = 256


@contextmanager
def scratch_database(memory_mb: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in TMPDIR, which goes with it.

    Raises:
        InputError: what is done with it needs more memory, or more room on the disk.
    """
    with (
        TemporaryDirectory(prefix="scratch-") as folder,
        duckdb.connect(f"{folder}/scratch.duckdb") as connection,
    ):
        connection.execute(f"SET memory_limit = '{memory_mb}MB'")
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_progress_bar = false")
        try:
            yield connection
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise InputError(
                f"{memory_mb} MB of memory (--memory_mb) and the room in TMPDIR are not enough, "
                f"give more of either: {error}"
            ) from error


def check_memory(memory_mb: int) -> None:
    """Raises ValueError where DuckDB could not even begin."""
    if memory_mb < MIN_MEMORY_MB:
        raise ValueError(f"memory_mb={memory_mb}: must be at least {MIN_MEMORY_MB}")
