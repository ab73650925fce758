"""What a table holds: the records of its runs, and which of its files hold their rows.

A run's rows lie in `part-*.parquet`, or, where its record says `"compacted": g`, in the files
`compact-<g>-*.parquet` of `images` and `detections`. Files of other generations belong to a
compaction that is under way or was killed: they repeat rows, and no reader of ours takes them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines.errors import InputError
from pipelines.storage import s3
from pipelines.storage.folder import Folder

Record = Mapping[str, Any]
"""A run record as its JSON file has it; "run" is there, all else may be missing."""

VIEWS = ("images", "detections")

READINGS = 100
"""Of a table that changes while it is read, before it is given up."""


@dataclass(frozen=True)
class Contents:
    """Some runs of a table and their files, as names below the table, at one moment."""

    records: Sequence[Record]
    images: Sequence[str]
    detections: Sequence[str]
    unread: Sequence[str]
    """Files of these runs that hold none of their rows: detections whose images file was never
    written, other generations, names that nothing of ours writes."""


def read_contents(table: Folder, read_records: Callable[[], Sequence[Record]]) -> Contents:
    """The runs that `read_records` gives, with their files.

    A run can be dropped or compacted between the reading of its record and the listing of its
    files, which would then be neither all of the old ones nor all of the new. It is read again.

    Raises:
        InputError: the table changed each time, or as `read_records` does.
    """
    for _ in range(READINGS):
        records = read_records()
        # Images before detections: a part that is committed in between is then in neither list.
        found = [_files_of(table, view, records) for view in VIEWS]
        if not _has_changed(table, records, [*found[0], *found[1]]):
            return _sorted_out(records, *found)
    raise InputError(
        f"{table.uri} was read {READINGS} times, and runs were dropped or compacted each time: "
        "try again when that is over"
    )


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


def record_name(run: str) -> str:
    return f"runs/{run}.json"


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


def run_of(name: str) -> str:
    """The run that a file `images/date=…/run=…/part-….parquet` belongs to."""
    return name.rpartition("/run=")[2].partition("/")[0]


def owner_of(name: str) -> str:
    """The run that any file of a table belongs to, by its path; "" where that names none."""
    match = _OWNED.match(name)
    return match[match.lastindex or 0] if match else ""


def files_of(table: Folder, run: str) -> dict[str, list[str]]:
    """All files of a run, whichever date and generation, by images, detections and manifests."""
    return {
        folder: [name for name in table.list(folder) if owner_of(name) == run]
        for folder in (*VIEWS, "manifests")
    }


def generation_of(record: Record) -> int:
    """How often a run was compacted: 0 where its rows lie in the parts that labelling wrote."""
    return record.get("compacted") or 0


def generation_of_file(name: str) -> int | None:
    """The generation that a file belongs to by its name; None for a name of no generation."""
    match = _FILE_NAME.fullmatch(name.rpartition("/")[2])
    return match and int(match["generation"] or 0)


def compact_name(generation: int, number: int) -> str:
    return f"compact-{generation}-{number:05d}.parquet"


def delete_all(folder: Folder, names: Iterable[str]) -> int:
    """Delete files side by side; one that is gone already is what was wanted. Returns how many."""

    def delete(name: str) -> None:
        with suppress(FileNotFoundError):
            folder.delete(name)

    with ThreadPoolExecutor(s3.CONNECTIONS) as pool:
        return len(list(pool.map(delete, names)))


def temporary_files(table: Folder) -> dict[str, list[str]]:
    """What killed processes were writing, as names below the table, by run ("" for none)."""
    found = defaultdict(list)
    for path in table.unfinished():
        name = path.removeprefix(table.uri).lstrip("/")
        found[owner_of(name)].append(name)
    return found


_OWNED = re.compile(
    r"(?:images|detections)/date=[^/]+/run=([^/]+)/"
    r"|manifests/([^/]+)/"
    r"|runs/\.?(.+?)\.(?:json|lease)(?:\.[0-9a-f]+\.tmp)?$"
)
_FILE_NAME = re.compile(r"(?:part-.+|compact-(?P<generation>\d+)-\d+)\.parquet")


def _files_of(table: Folder, view: str, records: Sequence[Record]) -> list[str]:
    """The names of a view's files that belong to these runs."""
    match records:
        case [{"run": run, "date": str(date)}]:  # one run's folder lists faster than the table
            return table.list(f"{view}/date={date}/run={run}")
    runs = {record["run"] for record in records}
    return [name for name in table.list(view) if run_of(name) in runs]


def _has_changed(table: Folder, records: Sequence[Record], names: Iterable[str]) -> bool:
    """Whether a run was dropped or compacted since its record was read.

    Old files are deleted only after the new ones were written and the record was told: a run
    without files of a newer generation has not been compacted before it was listed.
    """
    newest: dict[str, int] = {}
    for name in names:
        run = run_of(name)
        newest[run] = max(newest.get(run, 0), generation_of_file(name) or 0)
    there = set(run_names(table))
    for record in records:
        run, generation = record["run"], generation_of(record)
        if run not in there:
            return True
        newer_files = newest.get(run, 0) > generation
        if newer_files and generation_of(read_named(table, run)) != generation:
            return True
    return False


def _sorted_out(
    records: Sequence[Record], images: Sequence[str], detections: Sequence[str]
) -> Contents:
    generations = {record["run"]: generation_of(record) for record in records}

    def is_read(name: str) -> bool:
        return generation_of_file(name) == generations[run_of(name)]

    read_images = [name for name in images if is_read(name)]
    twins = {name.replace("images/", "detections/", 1) for name in read_images}
    # A compaction sorts images and detections each in their own way: its files have no twins.
    read_detections = [
        name
        for name in detections
        if is_read(name) and (name in twins or generations[run_of(name)])
    ]
    read = {*read_images, *read_detections}
    unread = [name for name in [*images, *detections] if name not in read]
    return Contents(records, read_images, read_detections, unread)
