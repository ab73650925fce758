"""JSON and CSV that are written bit by bit, however long they get."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv


def write_object(file: BinaryIO, sections: Mapping[str, Any]) -> None:
    """A JSON object; a value that is an iterator becomes a list, a line for each of its items."""
    before = "{\n"
    for name, value in sections.items():
        file.write(f"{before}{_json(name)}: ".encode())
        if isinstance(value, Iterator):
            write_list(file, value)
        else:
            file.write(_json(value).encode())
        before = ",\n"
    file.write(b"\n}\n")


def write_list(file: BinaryIO, items: Iterable[Any]) -> None:
    """A JSON list, a line for each of its items."""
    before = b"["
    for item in items:
        file.write(before + b"\n" + _json(item).encode())
        before = b","
    file.write(b"[]" if before == b"[" else b"\n]")


def write_csv(file: BinaryIO, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """CSV with a header line; null is an empty field without quotes."""
    with pacsv.CSVWriter(file, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))


_json = json.JSONEncoder(ensure_ascii=False).encode
"""Made once, for an export encodes millions of items."""
