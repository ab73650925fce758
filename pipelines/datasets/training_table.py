"""Training tables (schema.TRAINING): made from rows, written, read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.storage import read_bytes, to_parquet, write_bytes
from pipelines.tables import CLASS_NAMES_KEY, TRAINING


def training_table(rows: Iterable[Mapping[str, Any]], class_names: Sequence[str]) -> pa.Table:
    """Rows with the columns of schema.TRAINING, and the class names in the schema's metadata."""
    names = {CLASS_NAMES_KEY: json.dumps(list(class_names)).encode()}
    schema = TRAINING.with_metadata({**TRAINING.metadata, **names})
    return pa.Table.from_pylist(list(rows), schema=schema)


def class_names_of(table: pa.Table) -> list[str]:
    """The class names that a training table carries, index = class_id."""
    names: list[str] = json.loads(table.schema.metadata[CLASS_NAMES_KEY])
    return names


def write_training_table(uri: str, table: pa.Table) -> None:
    """Write a training table as one Parquet file, whole or not at all.

    Raises:
        InputError: nothing can be written there.
    """
    write_bytes(uri, to_parquet(table))


def read_training_table(uri: str) -> tuple[pa.Table, list[str]]:
    """A training table and its class names.

    Raises:
        InputError: the file cannot be read, or lacks columns or class names.
    """
    return parse_training_table(read_bytes(uri), uri)


def parse_training_table(data: bytes, uri: str) -> tuple[pa.Table, list[str]]:
    """As `read_training_table`, of the bytes that lie there."""
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise InputError(f"{uri} is not a Parquet file: {error}") from error
    lacking = [column for column in TRAINING if column.name not in table.column_names]
    missing = [column.name for column in lacking if not column.nullable]
    if missing:
        raise InputError(
            f"{uri} is not a training table, for it has no column {', '.join(missing)}: "
            "python -m jobs.prepare makes one of annotations and of detections"
        )
    for column in lacking:
        table = table.append_column(column, pa.nulls(len(table), column.type))
    if CLASS_NAMES_KEY not in (table.schema.metadata or {}):
        raise InputError(
            f"{uri} has no class names: they belong in its schema metadata, "
            f"key {CLASS_NAMES_KEY.decode()!r}, as a JSON list"
        )
    return table.select(TRAINING.names), class_names_of(table)
