"""SQL over the tables: the views `images`, `detections` and `runs`, by DuckDB on Arrow datasets.

Filters and column choices reach the Parquet files, and a filter on `date` or `run` leaves whole
files unopened. The views `latest` and `latest_detections` show each image once, as the newest
complete run saw it. A user's SQL sees these views and nothing else: no network, no settings, no
files but those that its own query spills.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS, Folder
from pipelines.tables.connection import READING_FAILED, spilling_connection
from pipelines.tables.records import Record, read_records
from pipelines.tables.runs import COMPLETE
from pipelines.tables.schema import COMPACT_DETECTIONS, IMAGES
from pipelines.tables.snapshot import read_snapshot

Answer = TypeVar("Answer")

_PARTITION = [pa.field("date", pa.date32()), pa.field("run", pa.string())]

_TIME = pa.timestamp("us", tz="UTC")
RUNS = pa.schema(
    [
        pa.field("run", pa.string()),
        pa.field("status", pa.string()),
        pa.field("date", pa.date32()),
        pa.field("started_at", _TIME),
        pa.field("finished_at", _TIME),
        pa.field("source", pa.string()),
        pa.field("listed", pa.int64()),
        pa.field("duplicates", pa.int64()),
        pa.field("labelled", pa.int64()),
        pa.field("empty", pa.int64()),
        pa.field("failed", pa.int64()),
        pa.field("failed_by_kind", pa.map_(pa.string(), pa.int64())),
        pa.field("skipped", pa.int64()),
        pa.field("skipped_in", pa.map_(pa.string(), pa.int64())),
        pa.field("detections", pa.int64()),
        pa.field("images_per_second", pa.float64()),
        pa.field("weights_uri", pa.string()),
        pa.field("weights_sha256", pa.string()),
        pa.field("preset", pa.string()),
        pa.field("input_size", pa.list_(pa.int32())),
        pa.field("score_threshold", pa.float64()),
        pa.field("nms_threshold", pa.float64()),
        pa.field("code_version", pa.string()),
        pa.field("attempts", pa.int64()),
        pa.field("compacted", pa.int64()),
        pa.field("stage_seconds", pa.map_(pa.string(), pa.float64())),
        pa.field("package_versions", pa.map_(pa.string(), pa.string())),
        pa.field("record", pa.string()),
    ]
)
"""The view `runs`. What a record lacks is null; `record` is the whole of it, as JSON."""


@dataclass(frozen=True)
class Views:
    """What a query sees of a table: the rows of some of its runs."""

    images: pads.Dataset
    """schema.IMAGES with `date` and `run`."""
    detections: pads.Dataset
    """schema.COMPACT_DETECTIONS with `date` and `run`."""
    runs: pa.Table
    """RUNS, oldest first."""


def open_table(uri: str, all_runs: bool = False) -> Views:
    """The complete runs of a table, or all of its runs.

    Raises:
        InputError: there is no table, it cannot be read, or it has no complete run.
    """
    return _open(uri, lambda runs: _complete_or_all(uri, runs, all_runs))


def open_run(uri: str, run: str = "") -> Views:
    """One run of a table, whatever its status; without a name, the newest complete one.

    Raises:
        InputError: there is no such table or run, or it cannot be read.
    """
    return _open(uri, lambda runs: [_named_or_newest(uri, runs, run)])


def open_runs(uri: str, runs: Collection[str]) -> Views:
    """The runs of a table that have these names.

    Raises:
        InputError: there is no table, or it cannot be read.
    """
    return _open(uri, lambda records: [record for record in records if record["run"] in runs])


class ReadError(InputError):
    """The files of a table cannot be read: they are broken, or were deleted since it was opened."""


def query_table(uri: str, all_runs: bool, ask: Callable[[Views], Answer]) -> Answer:
    """What `ask` makes of the views of a table, opened anew if its files vanish meanwhile.

    A compaction leaves the old files for a minute and a drop does not leave them at all, so a long
    query may lose them.

    Raises:
        InputError: as `open_table` and `ask` do.
    """
    return _ask(lambda: open_table(uri, all_runs), ask)


def query_run(uri: str, run: str, ask: Callable[[Views], Answer]) -> Answer:
    """What `ask` makes of the views of one run, as `query_table` does.

    Raises:
        InputError: as `open_run` and `ask` do.
    """
    return _ask(lambda: open_run(uri, run), ask)


def read_rows(
    view: pads.Dataset, columns: Sequence[str] | None = None, filter: pads.Expression | None = None
) -> pa.Table:
    """The rows of a view, in the order of its files.

    Raises:
        ReadError: the table cannot be read.
    """
    try:
        return view.to_table(columns, filter=filter)
    except (pa.ArrowException, *STORAGE_ERRORS) as error:
        raise ReadError(f"the table cannot be read: {error}") from error


def run_query(views: Views, sql: str) -> pa.Table:
    """The rows that one SQL query gives.

    Raises:
        ReadError: the table cannot be read.
        InputError: DuckDB refuses the query, in its own words.
    """
    with spilling_connection() as connection:
        connection.register("images", views.images)
        connection.register("detections", views.detections)
        connection.register("runs", views.runs)
        for view, rows in _VIEWS.items():
            connection.execute(f"CREATE TEMP VIEW {view} AS {rows}")
        for setting in _SETTINGS:
            connection.execute(f"SET {setting}")
        try:
            relation = connection.sql(sql)
            if relation is None:
                raise InputError("the query gives no rows: ask with SELECT, SHOW or DESCRIBE")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            message = " ".join(str(error).partition("\n\nLINE ")[0].split())
            if READING_FAILED in message:
                raise ReadError(f"the table cannot be read: {message}") from error
            raise InputError(message) from error
        except STORAGE_ERRORS as error:
            raise ReadError(f"the table cannot be read: {error}") from error


def summarise(views: Views) -> dict[str, pa.Table]:
    """The usual picture, by title: runs, days, classes, failures."""
    return {title: run_query(views, sql) for title, sql in _SUMMARY.items()}


# The newest run of each image is found from `images` alone, by two of its columns.
_NEWEST = """
    SELECT image_uri, arg_max(run, age) AS run
    FROM images JOIN (
        SELECT run, row_number() OVER (ORDER BY finished_at NULLS FIRST, run) AS age
        FROM runs WHERE status = 'complete'
    ) USING (run)
    GROUP BY image_uri
"""

_VIEWS = {
    "latest": f"FROM images SEMI JOIN ({_NEWEST}) USING (image_uri, run)",
    "latest_detections": f"FROM detections SEMI JOIN ({_NEWEST}) USING (image_uri, run)",
}

_SETTINGS = (
    "python_enable_replacements = false",  # no Python variable is a table
    "enable_external_access = false",
    "lock_configuration = true",
)

_SUMMARY = {
    "Runs": """
        SELECT run, status, listed, labelled, failed, detections, images_per_second
        FROM runs ORDER BY date, run
    """,
    "Images per day": """
        SELECT date,
            count(*) AS images,
            count(*) FILTER (status = 'labelled') AS labelled,
            count(*) FILTER (status = 'labelled' AND num_detections = 0) AS without_objects,
            count(*) FILTER (status = 'failed') AS failed,
            sum(num_detections)::BIGINT AS detections
        FROM images GROUP BY date ORDER BY date
    """,
    "Detections per class": """
        SELECT class_name,
            count(*) AS detections,
            count(DISTINCT image_uri) AS images,
            round(avg(score), 3) AS mean_score
        FROM detections GROUP BY class_name ORDER BY detections DESC, class_name
    """,
    "Failures by kind": """
        SELECT error_kind, count(*) AS images, min(image_uri) AS example
        FROM images WHERE status = 'failed' GROUP BY error_kind ORDER BY images DESC, error_kind
    """,
}


def _ask(open_views: Callable[[], Views], ask: Callable[[Views], Answer]) -> Answer:
    try:
        return ask(open_views())
    except ReadError:
        return ask(open_views())


def _open(uri: str, choose: Callable[[Sequence[Record]], Sequence[Record]]) -> Views:
    table = Folder(uri)
    try:
        contents = read_snapshot(table, lambda: choose(read_records(table)))
        return Views(
            images=table.dataset(contents.images, _with_partition(IMAGES)),
            detections=table.dataset(contents.detections, _with_partition(COMPACT_DETECTIONS)),
            runs=_runs_table(contents.records),
        )
    except STORAGE_ERRORS as error:
        raise InputError(f"{table.uri} cannot be read: {error}") from error


def _complete_or_all(uri: str, runs: Sequence[Record], all_runs: bool) -> Sequence[Record]:
    chosen = [run for run in runs if all_runs or run.get("status") == COMPLETE]
    if not chosen:
        raise InputError(
            f"{uri} has no complete run ({_statuses(runs)}): wait for one, go on with one by "
            "running its jobs.label command again, or look at unfinished ones with --all_runs"
        )
    return chosen


def _named_or_newest(uri: str, runs: Sequence[Record], name: str) -> Record:
    if not name:
        return _complete_or_all(uri, runs, all_runs=False)[-1]
    named = [run for run in runs if run["run"] == name]
    if not named:
        raise InputError(f"{uri} has no run {name!r}: it has {_statuses(runs)}")
    return named[0]


def _statuses(runs: Sequence[Record]) -> str:
    newest = [f"{run['run']}: {run.get('status')}" for run in runs[-3:]]
    return ", ".join(["…", *newest] if len(runs) > 3 else newest)


def _with_partition(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, *_PARTITION])


def _runs_table(records: Sequence[Record]) -> pa.Table:
    columns = []
    for field in RUNS:
        values = [record.get(field.name) for record in records]
        try:
            columns.append(_array(values, field.type))
        except (pa.ArrowException, AttributeError) as error:
            raise InputError(f"a run record has no usable {field.name!r}: {error}") from error
    return pa.table(columns, schema=RUNS)


def _array(values: Iterable[Any], type: pa.DataType) -> pa.Array:
    """JSON's values as Arrow's: dates and times are ISO 8601 there, maps are objects."""
    if pa.types.is_temporal(type):
        return pa.array([value or None for value in values], pa.string()).cast(type)
    if pa.types.is_map(type):
        return pa.array([None if value is None else list(value.items()) for value in values], type)
    return pa.array(values, type)
