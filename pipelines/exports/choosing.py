"""The rows that a query names: which images, as which run saw them, and which of their boxes."""

import duckdb
import pyarrow as pa

from pipelines.errors import InputError
from pipelines.tables import Views, run_query

NAMES = ("image_uri", "run")
_WAY_OUT = "for example SELECT image_uri, run FROM latest WHERE width > 1000"


def choose(views: Views, sql: str) -> pa.Table:
    """image_uri, run and, as a list, detection_index: null where a query names no boxes.

    A row whose detection_index is null names its image only.

    Raises:
        InputError: the query is refused, lacks a column, or names an image in two runs.
    """
    # In brackets of its own, so that one statement stays one; a comment ends with its line.
    rows = f"(\n{sql.strip().rstrip(';')}\n)"
    columns = run_query(views, f"DESCRIBE SELECT * FROM {rows}")["column_name"].to_pylist()
    if missing := [name for name in NAMES if name not in columns]:
        raise InputError(
            f"the rows of --sql have no column {' and no '.join(missing)}, by which they name "
            f"images as a run saw them: {_WAY_OUT}"
        )
    boxes = _BOXES if "detection_index" in columns else "NULL::INTEGER[]"
    names = ", ".join(f"{name}::VARCHAR AS {name}" for name in NAMES)
    chosen = run_query(views, f"SELECT {names}, {boxes} AS boxes FROM {rows} GROUP BY ALL")
    _refuse_two_runs(chosen)
    return chosen


_BOXES = """
    coalesce(
        list(DISTINCT detection_index::INTEGER) FILTER (WHERE detection_index IS NOT NULL),
        []::INTEGER[]
    )
"""


def _refuse_two_runs(chosen: pa.Table) -> None:
    with duckdb.connect() as connection:
        connection.register("chosen", chosen)
        twice = connection.execute(
            "SELECT image_uri, min(run), max(run) FROM chosen WHERE image_uri IS NOT NULL "
            "GROUP BY image_uri HAVING count(*) > 1 ORDER BY image_uri LIMIT 1"
        ).fetchone()
    if twice:
        uri, one, other = twice
        raise InputError(
            f"--sql names {uri} in run {one!r} and in run {other!r}, and an export has each photo "
            "once: ask the view latest, or give --run"
        )
