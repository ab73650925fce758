"""Is a run's record whole, does it agree with itself, and with the counts of the tables?"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from pipelines.detectors import YOLOX
from pipelines.photos import ErrorKind
from pipelines.tables import runs
from pipelines.tables.audit.findings import Broken
from pipelines.tables.layout import record_name
from pipelines.tables.records import Record

STATUSES = (runs.RUNNING, runs.STOPPED, runs.COMPLETE, runs.FAILED)

RECORD = "the record is readable and agrees with itself"
LINEAGE = "the record says what made the rows"
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
    if not _is_share(record.get("score_threshold")):
        faults.append(f"score_threshold is {record.get('score_threshold')!r}")
    return [_broken(run, RECORD, fault) for fault in faults]


def contradictions(record: Record) -> list[Broken]:
    """Everything in which a well-formed record contradicts itself."""
    return [_broken(record["run"], *fault) for fault in _contradictions(record)]


def gaps_of_lineage(record: Record) -> list[Broken]:
    """What a well-formed record does not say of what made the rows, or not as it should."""
    checks = dict(_LINEAGE)
    if runs.detector_of(record) == YOLOX:  # others have no presets
        checks |= {"preset": _is_text, "preprocessing": _is_text}
    if not str(record.get("selection")).startswith("failed in "):
        checks["source"] = _is_text
    # What the record is begun with has no attempt yet; the first one writes its start.
    if record["status"] != runs.RUNNING or record.get("attempts"):
        checks |= {"started_at": _is_time, "attempts": _is_positive}
    if record["status"] == runs.COMPLETE:
        checks |= _OF_COMPLETE
    if record.get("compacted"):
        checks["compacted_at"] = _is_time
    return [
        _broken(record["run"], LINEAGE, f"{name} is {record.get(name)!r}")
        for name, is_as_it_should_be in checks.items()
        if not is_as_it_should_be(record.get(name))
    ]


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
    is_closed = record["listed"] == record["labelled"] + record["failed"] + skipped
    if record["status"] == runs.COMPLETE and not is_closed:
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_time(value: Any) -> bool:
    """A moment in UTC, ISO 8601."""
    try:
        offset = datetime.fromisoformat(value).utcoffset()
    except (TypeError, ValueError):
        return False
    return offset is not None and not offset


def _is_positive(value: Any) -> bool:
    return _is_count(value) and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and value <= 1


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_positive, value))


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_text, value.values()))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


_LINEAGE: Mapping[str, Callable[[Any], bool]] = {
    "weights_uri": _is_text,
    "weights_sha256": _is_sha256,
    "input_size": _is_size,
    "nms_threshold": _is_share,
    "max_pixels": _is_positive,
    "max_image_bytes": _is_positive,
    "code_version": _is_text,
    "package_versions": _are_texts,
}
_OF_COMPLETE: Mapping[str, Callable[[Any], bool]] = {
    "finished_at": _is_time,
    "images_per_second": _is_number,
    "elapsed_seconds": _is_number,
    "stage_seconds": _are_numbers,
}
