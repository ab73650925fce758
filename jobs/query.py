r"""Ask a table with SQL, over the views images, detections, runs, latest and latest_detections.

python -m jobs.query --table s3://bucket/labels \
    "SELECT class_name, count(*) AS seen FROM detections GROUP BY ALL ORDER BY seen DESC"

Only the rows of complete runs are seen. The views images and detections carry the columns date
and run; DESCRIBE images lists them all. Filters on date and run leave whole files unread. The view
latest has one row for each image of the archive, that of the newest complete run that has it, and
latest_detections the boxes of these rows: runs that skip what was labelled before are seen whole.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse
from jobs.printing import print_table, to_csv, to_json, to_parquet
from pipelines import storage, tables

_WRITERS: dict[str, Callable[[pa.Table], bytes]] = {
    "csv": to_csv,
    "json": to_json,
    "parquet": to_parquet,
}


@dataclass(frozen=True, kw_only=True)
class QueryConfig:
    """What to ask, and how to show the answer."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    sql: str = ""
    """The query, in DuckDB's SQL."""
    summary: bool = False
    """Instead of a query: runs, images per day, detections per class, failures by kind."""
    all_runs: bool = False
    """See the rows of unfinished and failed runs too."""
    format: Literal["table", "csv", "json", "parquet"] = "table"
    output: str = ""
    """The file or s3:// object to write, instead of the standard output."""

    def __post_init__(self) -> None:
        if self.summary == bool(self.sql):
            raise ValueError("give either a query in quotes or --summary")
        if self.summary and self.format != "table":
            raise ValueError("--summary is several tables: it has no --format, only queries do")
        if self.format == "parquet" and not self.output:
            raise ValueError("--format parquet needs --output, the file to write")
        if self.format == "table" and self.output:
            raise ValueError("--output needs --format csv, json or parquet")


@exit_on_input_error
def main() -> None:
    config = parse(QueryConfig, __doc__, positional="sql")
    if config.summary:
        for title, table in tables.query_table(
            config.table, config.all_runs, tables.summarise
        ).items():
            print_table(table, title)
        return
    answer = tables.query_table(
        config.table, config.all_runs, lambda views: tables.run_query(views, config.sql)
    )
    if config.format == "table":
        print_table(answer)
    else:
        _hand_over(_WRITERS[config.format](answer), config.output)


def _hand_over(data: bytes, output: str) -> None:
    if not output:
        sys.stdout.buffer.write(data)
        return
    storage.write_bytes(output, data)


if __name__ == "__main__":
    main()
