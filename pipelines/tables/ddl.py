"""Statements that make a table queryable by other engines, over the files as they lie.

The files of a run are there before its record says that it is complete, so each engine is told
which runs are: DuckDB by the records themselves, Athena and Spark by their names, as they are now.
"""

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from pipelines import storage
from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.tables.records import read_records
from pipelines.tables.runs import COMPLETE
from pipelines.tables.schema import DETECTIONS, IMAGES

Engine = Literal["athena", "duckdb", "spark"]
"""Whose SQL it is."""

_SCHEMAS = {"images": IMAGES, "detections": DETECTIONS}


def ddl(uri: str, engine: Engine) -> str:
    """The statements for `images` and `detections`, each ended by a semicolon.

    Raises:
        InputError: there is no such table, or it lies where the engine cannot read it.
    """
    table = Folder(uri)
    try:
        records = read_records(table)
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"table={uri!r} cannot be read: {error}") from error
    complete = [record for record in records if record.get("status") == COMPLETE]
    runs = [record["run"] for record in complete]
    if engine == "duckdb":
        return "\n".join(_of_duckdb(table, name) for name in _SCHEMAS)
    if not runs:
        raise InputError(f"{table.uri} has no complete run yet: there is nothing to name")
    if engine == "spark":
        return "\n".join(_of_spark(table, name, runs) for name in _SCHEMAS)
    if not storage.is_s3(table.uri):
        raise InputError(f"{table.uri} is no s3:// prefix, and Athena reads nothing else")
    since = min(record["date"] for record in complete)
    return "\n".join(_of_athena(table, name, runs, since) for name in _SCHEMAS)


def _of_duckdb(table: Folder, name: str) -> str:
    files = _quoted(table.uri_of(f"{name}/*/*/*.parquet"))
    records = _quoted(table.uri_of("runs/*.json"))
    return (
        f"CREATE OR REPLACE VIEW {name} AS\n"
        f"SELECT * FROM read_parquet({files}, union_by_name = true, hive_partitioning = true,\n"
        "    hive_types = {'date': DATE, 'run': VARCHAR})\n"
        f"WHERE run IN (SELECT run FROM read_json({records},\n"
        "    columns = {'run': 'VARCHAR', 'status': 'VARCHAR'}) WHERE status = 'complete');"
    )


def _of_spark(table: Folder, name: str, runs: Sequence[str]) -> str:
    # Hadoop's name for S3; what Spark makes of a path without a scheme depends on its settings.
    path = table.uri_of(name).replace(storage.S3_SCHEME, "s3a://")
    path = path if "://" in path else f"file://{path}"
    chosen = ", ".join(map(_escaped, runs))
    return (
        f"CREATE OR REPLACE TEMPORARY VIEW all_{name}\n"
        f"USING parquet OPTIONS (path {_escaped(path)}, mergeSchema true);\n"
        f"CREATE OR REPLACE TEMPORARY VIEW {name} AS\n"
        f"SELECT * FROM all_{name} WHERE run IN ({chosen});"
    )


def _of_athena(table: Folder, name: str, runs: Sequence[str], since: str) -> str:
    columns = ",\n".join(f"    `{field.name}` {_type(field.type)}" for field in _SCHEMAS[name])
    location = table.uri_of(name)
    properties = {
        "projection.enabled": "true",
        "projection.date.type": "date",
        "projection.date.format": "yyyy-MM-dd",
        "projection.date.range": f"{since},NOW",
        "projection.run.type": "enum",
        "projection.run.values": ",".join(runs),
        "storage.location.template": f"{location}/date=${{date}}/run=${{run}}/",
    }
    told = ",\n".join(f"    {_quoted(key)} = {_quoted(text)}" for key, text in properties.items())
    return (
        f"CREATE EXTERNAL TABLE {name} (\n{columns}\n)\n"
        "PARTITIONED BY (`date` date, `run` string)\n"
        f"STORED AS PARQUET\nLOCATION {_quoted(location + '/')}\n"
        f"TBLPROPERTIES (\n{told}\n);"
    )


def _type(arrow: pa.DataType) -> str:
    """Hive's name of a type."""
    if pa.types.is_dictionary(arrow) or pa.types.is_string(arrow):
        return "string"
    if pa.types.is_timestamp(arrow):
        return "timestamp"
    return {pa.int32(): "int", pa.int64(): "bigint", pa.float32(): "float"}[arrow]


def _escaped(text: str) -> str:
    """As Spark has it, for which two quotes in a row end a text and begin another."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quoted(text: str) -> str:
    """As the standard has it."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
