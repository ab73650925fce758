"""A snapshot of a table: runs, and which of its files hold their rows, at one moment.

A run's rows lie in `part-*.parquet`, or, where its record says `"compacted": g`, in the files
`compact-<g>-*.parquet` of `images` and `detections`. Files of other generations belong to a
compaction that is under way or was killed: they repeat rows, and no reader of ours takes them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from pipelines.errors import InputError
from pipelines.storage import Folder, s3
from pipelines.tables.layout import VIEWS, generation_of_file, owner_of, run_of
from pipelines.tables.records import Record, generation_of, read_named, run_names

READINGS = 100
"""Of a table that changes while it is read, before it is given up."""


@dataclass(frozen=True)
class Snapshot:
    """Some runs of a table and their files, as names below the table, at one moment."""

    records: Sequence[Record]
    images: Sequence[str]
    detections: Sequence[str]
    unread: Sequence[str]
    """Files of these runs that hold none of their rows: detections whose images file was never
    written, other generations, names that nothing of ours writes."""


def read_snapshot(table: Folder, read_records: Callable[[], Sequence[Record]]) -> Snapshot:
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


def files_of(table: Folder, run: str) -> dict[str, list[str]]:
    """All files of a run, whichever date and generation, by images, detections and manifests."""
    return {
        folder: [name for name in table.list(folder) if owner_of(name) == run]
        for folder in (*VIEWS, "manifests")
    }


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
) -> Snapshot:
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
    return Snapshot(records, read_images, read_detections, unread)
