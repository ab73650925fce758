"""The records of a table's runs, as any version of this project wrote them."""

import json
from collections.abc import Mapping
from typing import Any

from pipelines.errors import InputError
from pipelines.storage import Folder
from pipelines.tables.layout import record_name

Record = Mapping[str, Any]
"""A run record as its JSON file has it; "run" is there, all else may be missing."""


def read_records(table: Folder) -> list[Record]:
    """The records of all runs, oldest first.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    names = run_names(table)
    if not names:
        raise no_table(table)
    return sorted((read_record(table, record_name(name)) for name in names), key=age)


def run_names(table: Folder) -> list[str]:
    """The names of all runs, those with an unreadable record too."""
    return [
        name.removeprefix("runs/").removesuffix(".json")
        for name in table.list("runs")
        if name.endswith(".json")
    ]


def read_record(table: Folder, name: str) -> Record:
    """One record; `record` is the whole of it, as JSON.

    Raises:
        InputError: it is not a run record, or that of another run than its file's name says.
    """
    data = table.read(name)
    try:
        values = json.loads(data)
        record = {**values, "run": values["run"], "record": data.decode()}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{table.uri_of(name)} is not a run record: {error!r}") from error
    if record_name(record["run"]) != name:
        raise InputError(
            f"{table.uri_of(name)} is the record of run {record['run']!r}: a record lies in "
            "runs/<run>.json, so give the file its name back, or delete it if it is a copy"
        )
    return record


def read_named(table: Folder, run: str) -> Record:
    """The record of one run.

    Raises:
        InputError: there is no such run, or its record cannot be read.
    """
    require_run(table, run)
    return read_record(table, record_name(run))


def require_run(table: Folder, run: str) -> None:
    """Raises InputError unless there is a record of this name."""
    if table.exists(record_name(run)):
        return
    names = run_names(table)
    if not names:
        raise no_table(table)
    raise InputError(
        f"{table.uri} has no run {run!r}: the last of its {len(names)} runs are "
        f"{', '.join(names[-3:])}"
    )


def age(record: Record) -> tuple[str, str]:
    """Sorts records from the oldest to the newest."""
    return record.get("date") or "", record["run"]


def no_table(table: Folder) -> InputError:
    return InputError(
        f"{table.uri} is not a table, for it has no run records (runs/*.json): "
        "give the folder or prefix that jobs.label wrote to"
    )


def generation_of(record: Record) -> int:
    """How often a run was compacted: 0 where its rows lie in the parts that labelling wrote."""
    return record.get("compacted") or 0
