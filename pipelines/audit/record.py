"""Is a run's record whole, does it agree with itself, and with the counts of the tables?"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from pipelines import runs
from pipelines.audit.findings import Broken
from pipelines.catalogue import Record, record_name
from pipelines.images import ErrorKind

STATUSES = (runs.RUNNING, runs.STOPPED, runs.COMPLETE, runs.FAILED)

RECORD = "the record is readable and agrees with itself"
CLOSED = "listed = labelled + failed + skipped"
COUNTS = "the record's counts are the tables'"

_COUNTS = ("listed", "labelled", "empty", "failed", "detections")
_MAPS = ("failed_by_kind", "skipped_in")


def malformed(record: Record, run: str) -> list[Broken]:
    """Everything without which the run cannot be audited any further."""
    counts = {name: record.get(name) for name in _COUNTS}
    counts |= {name: record.get(name, 0) for name in ("skipped", "compacted")}
    counts |= {f"{name} {key}": count for name in _MAPS for key, count in _items(record, name)}
    faults = [f"{name} is {count!r}" for name, count in counts.items() if not _is_count(count)]
    if record.get("status") not in STATUSES:
        faults.append(f"status is {record.get('status')!r}")
    if not _is_date(record.get("date")):
        faults.append(f"date is {record.get('date')!r}")
    if not isinstance(record.get("score_threshold"), int | float):
        faults.append(f"score_threshold is {record.get('score_threshold')!r}")
    return [_broken(run, RECORD, fault) for fault in faults]


def contradictions(record: Record) -> list[Broken]:
    """Everything in which a well-formed record contradicts itself."""
    return [_broken(record["run"], *fault) for fault in _contradictions(record)]


def miscounts(record: Record, counted: Mapping[str, Any]) -> list[Broken]:
    """The counts that are others in the tables.

    Args:
        counted: the names of a record's counts, with what the tables have.
    """
    # An unfinished run knows what is listed; the rest is counted when it is complete.
    known = [*_COUNTS, "failed_by_kind"] if record["status"] == runs.COMPLETE else ["listed"]
    if record.get("parts") is not None:
        known.append("parts")
    told, found = (
        {key: count for name in [*known, "skipped", "skipped_in"] for key, count in _flat(of, name)}
        for of in (record, counted)
    )
    return [
        Broken(
            COUNTS,
            f"{name}: {told.get(name, 0)} in the record, {found.get(name, 0)} in the tables",
            abs(told.get(name, 0) - found.get(name, 0)),
            record_name(record["run"]),
        )
        for name in sorted({*told, *found})
        if told.get(name, 0) != found.get(name, 0)
    ]


def _contradictions(record: Record) -> Iterator[tuple[str, str]]:
    kinds, others = (dict(_items(record, name)) for name in _MAPS)
    skipped = record.get("skipped", 0)
    if record["failed"] != sum(kinds.values()):
        yield RECORD, f"failed is {record['failed']}, and failed_by_kind {kinds}"
    if kinds.keys() - set(ErrorKind):
        yield RECORD, f"failed_by_kind has kinds that nobody knows: {kinds}"
    if skipped != sum(others.values()):
        yield RECORD, f"skipped is {skipped}, and skipped_in {others}"
    if record["empty"] > record["labelled"]:
        yield RECORD, f"empty is {record['empty']}, more than labelled, {record['labelled']}"
    if record.get("compacted") and record["status"] != runs.COMPLETE:
        yield RECORD, f"it is compacted and {record['status']}"
    if record["status"] == runs.COMPLETE:
        if not record.get("finished_at"):
            yield RECORD, "it is complete without a time when it finished"
        if record["listed"] != record["labelled"] + record["failed"] + skipped:
            yield (
                CLOSED,
                f"{record['listed']} listed, {record['labelled']} labelled, "
                f"{record['failed']} failed, {skipped} skipped",
            )


def _broken(run: str, promise: str, what: str) -> Broken:
    return Broken(promise, what, 1, record_name(run))


def _flat(counts: Mapping[str, Any], name: str) -> list[tuple[str, int]]:
    """A count, or those of a map by "map key"."""
    if name in _MAPS:
        return [(f"{name} {key}", count) for key, count in _items(counts, name)]
    return [(name, counts.get(name, 0))]


def _items(record: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    value = record.get(name) or {}
    return list(value.items()) if isinstance(value, dict) else [("", value)]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_date(value: Any) -> bool:
    try:
        return len(value) == len("2026-11-21") and bool(date.fromisoformat(value))
    except (TypeError, ValueError):
        return False
