"""Show an Arrow table to a person, or hand it to another program."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_ROWS_SHOWN = 200
"""Of one table, to a person."""

_WIDTH_WITHOUT_TERMINAL = 100
_FEW_COLUMNS = 6
_UNBOUNDED = 1_000_000
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)


def print_table(table: pa.Table, title: str | None = None, max_rows: int = MAX_ROWS_SHOWN) -> None:
    """Print the first rows for reading, numbers grouped by thousands and right-aligned.

    Rows of many columns that do not fit side by side are printed one below the other.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    # As Text, for a value like "[red]" is no markup.
    rows = [[Text(_readable(v)) for v in row] for row in _rows(table.slice(0, max_rows))]
    shown = _side_by_side(table.schema, rows)
    unbounded = console.options.update(width=_UNBOUNDED)
    too_wide = console.measure(shown, options=unbounded).maximum > console.width
    if title:
        console.print(Text(title, style="bold"))
    if too_wide and table.num_columns > _FEW_COLUMNS:
        for row in rows:
            console.print(_below_each_other(table.column_names, row))
    else:
        console.print(shown)
    if table.num_rows > max_rows:
        console.print(f"the first {max_rows} of {table.num_rows:,} rows", highlight=False)
    elif not table.num_rows:
        console.print("no rows")


def _side_by_side(schema: pa.Schema, rows: Iterable[Iterable[Text]]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    for field in schema:
        is_number = any(is_kind(field.type) for is_kind in _NUMBERS)
        justify: Literal["left", "right"] = "right" if is_number else "left"
        shown.add_column(Text(field.name), justify=justify, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def _below_each_other(names: Iterable[str], row: Iterable[Text]) -> Table:
    shown = Table(box=box.SIMPLE, show_header=False)
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        shown.add_row(Text(name), value)
    return shown


def to_csv(table: pa.Table) -> bytes:
    """CSV with a header line; null is an empty field, a list or a map is JSON."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in _rows(table):
        writer.writerow(_json(v) if isinstance(v, list | dict) else v for v in row)
    return text.getvalue().encode()


def to_json(table: pa.Table) -> bytes:
    """A JSON array with an object per row, a line each; times are ISO 8601."""
    lines = (_json(dict(zip(table.column_names, row, strict=True))) for row in _rows(table))
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    """Column by column, for two columns of a query may have the same name."""
    columns = [
        [_plain(value, column.type) for value in column.to_pylist()] for column in table.columns
    ]
    for row in range(table.num_rows):
        yield [column[row] for column in columns]


def _plain(value: Any, type: pa.DataType) -> Any:
    """A map as a dict, and a decimal, which is what DuckDB's sums are, as an int or a float."""
    if value is None:
        return None
    if pa.types.is_map(type):
        return dict(value)
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_iso_or_text)


def _iso_or_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


def _readable(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) < 1 else f"{value:,.2f}"
        case list() | dict():
            return _json(value)
        case date():
            return value.isoformat()
        case _:
            return str(value)
