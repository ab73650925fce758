"""Looks at the complete runs of a table all the while, as people do: python -m … TABLE.

Each look gives a JSON line: {run: [images, boxes]}, or what went wrong. One asks as jobs.query
does, the next reads the records, and the Parquet files of the runs that are complete. When the
standard input ends, both look for a last time.
"""

import json
import select
import sys
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.tables.query import query_table, run_query
from tests.reliability.harness import Files

PAUSE_S = 3.0

_SQL = """
    SELECT * FROM (SELECT run, count(*) AS images FROM images GROUP BY run)
    FULL JOIN (SELECT run, count(*) AS boxes FROM detections GROUP BY run) USING (run)
"""

Counts = dict[str, list[int]]


def ask(table: str) -> Counts:
    rows = query_table(table, False, lambda views: run_query(views, _SQL))
    return {run: counts for run, *counts in zip(*rows.to_pydict().values(), strict=True)}


def read(table: str) -> Counts:
    files = Files(table)
    names = [name for name in files.names("runs/") if name.endswith(".json")]
    records = [json.loads(files.read(name)) for name in names]
    return {
        record["run"]: [
            _rows_below(files, f"{kind}/date={record['date']}/run={record['run']}/")
            for kind in ("images", "detections")
        ]
        for record in records
        if record["status"] == "complete"
    }


def _rows_below(files: Files, folder: str) -> int:
    bodies = (pa.BufferReader(files.read(name)) for name in files.names(folder))
    return sum(pq.read_metadata(body).num_rows for body in bodies)


def _look(look: Callable[[str], Counts], table: str) -> None:
    try:
        seen: Counts | str = look(table)
    except Exception as error:
        seen = f"{look.__name__}: {error!r}"
    print(json.dumps(seen), flush=True)


def main(table: str) -> None:
    is_over = False
    while not is_over:
        is_over = bool(select.select([sys.stdin], [], [], PAUSE_S)[0])
        for look in (ask, read):
            _look(look, table)


if __name__ == "__main__":
    main(sys.argv[1])
