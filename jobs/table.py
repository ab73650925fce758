r"""Care for a table that jobs.label wrote: list, check, drop and compact its runs, open it to SQL.

python -m jobs.table list --table s3://bucket/labels
python -m jobs.table check --table s3://bucket/labels
python -m jobs.table drop --table s3://bucket/labels --run 2026-11-21-0a1b2c3d
python -m jobs.table drop --table s3://bucket/labels --older_than 30d --keep 3
python -m jobs.table compact --table s3://bucket/labels
python -m jobs.table ddl --table s3://bucket/labels --engine athena

Each command has a --help of its own.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse_command
from jobs.printing import print_table
from pipelines import tables

EXIT_BROKEN_PROMISE = 1


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """List all runs, oldest first, with their state, their counts and the size of their files."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """Delete a run, or all old ones: the record first, which hides it from readers, then files.

    A drop that was killed is finished by the same command. A run is kept while other runs have
    skipped images because of it, or somebody is at work on it.
    """

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    run: str = ""
    """Its name, as list shows it."""
    older_than: str = ""
    """Instead of a run: all whose date lies more than so many days back, for example 30d."""
    keep: int = 1
    """With older_than: so many of the newest complete runs stay, however old."""

    def __post_init__(self) -> None:
        if bool(self.run) == bool(self.older_than):
            raise ValueError(
                f"run={self.run!r}, older_than={self.older_than!r}: give one of the two"
            )
        if self.older_than and not re.fullmatch(r"\d+d", self.older_than):
            raise ValueError(f"older_than={self.older_than!r}: must be a number of days, as 30d")
        if self.keep < 0:
            raise ValueError(f"keep={self.keep}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class DdlConfig:
    """Print the SQL statements that make a table queryable elsewhere.

    For Athena and Spark they name the runs that are complete now: print them again after a night.
    """

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    engine: Literal["athena", "duckdb", "spark"]
    """Athena gets partition projection."""


@exit_on_input_error
def main() -> None:
    commands = {
        "ddl": DdlConfig,
        "list": ListConfig,
        "check": tables.AuditConfig,
        "drop": DropConfig,
        "compact": tables.CompactionConfig,
    }
    match parse_command(commands, __doc__):
        case ListConfig() as config:
            print_table(tables.list_runs(config.table))
        case tables.AuditConfig() as config:
            _check(config)
        case DropConfig() as config:
            _drop(config)
        case tables.CompactionConfig() as config:
            _compact(config)
        case DdlConfig() as config:
            print(tables.ddl(config.table, config.engine))


def _check(config: "tables.AuditConfig") -> None:
    audits = []
    for audit in tables.audit_table(config):
        audits.append(audit)
        if not audit.broken:
            print(": ".join([audit.run, "; ".join([f"{audit.status}, fine", *audit.notes])]))
    broken = _broken_promises(audits)
    if broken.num_rows:
        print_table(broken, "Promises that are not kept")
        sys.exit(EXIT_BROKEN_PROMISE)


def _broken_promises(audits: "Sequence[tables.RunAudit]") -> pa.Table:
    rows = [(audit.run or "-", broken) for audit in audits for broken in audit.broken]
    return pa.table(
        {
            "run": pa.array([run for run, _ in rows], pa.string()),
            "promise": pa.array([broken.promise for _, broken in rows], pa.string()),
            "what": pa.array([broken.what for _, broken in rows], pa.string()),
            "count": pa.array([broken.count for _, broken in rows], pa.int64()),
            "example": pa.array([broken.example for _, broken in rows], pa.string()),
        }
    )


def _drop(config: DropConfig) -> None:
    if config.run:
        _tell_of(tables.drop_run(config.table, config.run))
        return
    found = 0
    for done in tables.drop_old_runs(config.table, int(config.older_than[:-1]), config.keep):
        found += 1
        _tell_of(done)
    if not found:
        print(f"no run is older than {config.older_than} and not among the {config.keep} to keep")


def _tell_of(removal: "tables.Removal | tables.Kept") -> None:
    if isinstance(removal, tables.Kept):
        print(f"run {removal.run} is kept: {removal.why}", flush=True)
        return
    print(
        f"run {removal.run} is dropped; files deleted: {removal.record} record, "
        f"{removal.images} images, {removal.detections} detections, {removal.manifest} manifest, "
        f"{removal.temporary} temporary",
        flush=True,
    )


def _compact(config: "tables.CompactionConfig") -> None:
    compacted = 0
    for done in tables.compact_table(config):
        compacted += 1
        print(
            f"{done.run}: {done.files_before:,} files became {done.files_after:,} "
            f"of {done.bytes_after / 10**6:,.1f} MB in all",
            flush=True,
        )
    print("the old files are deleted" if compacted else "nothing left to compact")


if __name__ == "__main__":
    main()
