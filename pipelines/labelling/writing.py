"""The write stage: a block of detected images becomes the two files of its part."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.labelling.blocks import DETECTED, PART_KEYS
from pipelines.tables import DETECTIONS, FAILED, IMAGES, LABELLED, Ledger, part_name


@dataclass(frozen=True)
class Part:
    """What one part adds to the ledger, and what it cost."""

    number: int
    ledger: Ledger
    stage_seconds: Mapping[str, float]
    """Seconds that its images kept each stage busy."""
    retries: int
    """Requests for its images that had to be repeated."""
    size_bytes: int
    """Of its images, as they were listed."""
    table_bytes: int
    """Of its files."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """From a row of what `write_part` returns."""
        ledger = Ledger(
            listed=0,
            labelled=row["labelled"],
            empty=row["empty"],
            failed_by_kind=json.loads(row["failed_by_kind"]),
            detections=row["detections"],
        )
        stages = ("fetch", "detect", "write")
        seconds = {stage: row[f"{stage}_seconds"] for stage in stages}
        return cls(
            row["part"], ledger, seconds, row["retries"], row["size_bytes"], row["table_bytes"]
        )

    def told(self) -> dict[str, Any]:
        """As a line of a log has it."""
        return {
            "part": self.number,
            "labelled": self.ledger.labelled,
            "failed": dict(self.ledger.failed_by_kind),
            "detections": self.ledger.detections,
            "retries": self.retries,
            "seconds": {stage: round(value, 3) for stage, value in self.stage_seconds.items()},
        }


class Tables(Protocol):
    """What takes a table under a name, and tells its size in bytes; a Folder does."""

    def write_table(self, name: str, table: pa.Table) -> int: ...


class PartFolders(Protocol):
    """Where the two files of a part go; RunFolders says so."""

    @property
    def images(self) -> Tables: ...

    @property
    def detections(self) -> Tables: ...


def write_part(detected: pa.Table, folders: PartFolders) -> pa.Table:
    """The write stage: blocks.DETECTED of one part to two files, and one summary row.

    `detections` is written first: the `images` file is the commit. A part that is written again
    overwrites its own files with the same rows.

    Raises:
        RuntimeError: it is not one whole part.
    """
    started = time.perf_counter()
    detected = detected.combine_chunks().cast(DETECTED)
    name = part_name(_whole_part(detected))
    images = image_rows(detected)
    table_bytes = folders.detections.write_table(name, detection_rows(detected))
    table_bytes += folders.images.write_table(name, images)

    labelled = pc.equal(images["status"].cast(pa.string()), LABELLED)
    empty = pc.and_(labelled, pc.equal(images["num_detections"], 0))
    kinds = Counter(kind for kind in images["error_kind"].to_pylist() if kind)
    summary = {
        "part": detected["part"][0].as_py(),
        "labelled": pc.sum(labelled).as_py(),
        "empty": pc.sum(empty).as_py(),
        "failed_by_kind": json.dumps(kinds),
        "detections": pc.sum(images["num_detections"]).as_py(),
        "retries": pc.sum(detected["retries"]).as_py(),
        "size_bytes": pc.sum(detected["size_bytes"], min_count=0).as_py(),
        "table_bytes": table_bytes,
        "fetch_seconds": pc.sum(detected["fetch_seconds"]).as_py(),
        "detect_seconds": pc.sum(detected["detect_seconds"]).as_py(),
        "write_seconds": time.perf_counter() - started,
    }
    return pa.Table.from_pylist([summary])


def _whole_part(detected: pa.Table) -> int:
    """The part that a table is. Ray may cut blocks; a file with half a part would lose images."""
    part: int
    [(part, rows)] = {*zip(*(detected[key].to_pylist() for key in PART_KEYS), strict=True)}
    if rows != len(detected):
        raise RuntimeError(f"part {part} has {rows} rows, and {len(detected)} came to be written")
    return part


def image_rows(detected: pa.Table) -> pa.Table:
    """schema.IMAGES of blocks.DETECTED."""
    failed = pc.is_valid(detected["error_kind"])
    columns = {
        name: detected[name] for name in IMAGES.names if name not in ("status", "num_detections")
    }
    columns["status"] = pc.if_else(failed, FAILED, LABELLED).cast(IMAGES.field("status").type)
    columns["num_detections"] = pc.list_value_length(detected["found"])
    return pa.Table.from_pydict(columns, schema=IMAGES)


def detection_rows(detected: pa.Table) -> pa.Table:
    """schema.DETECTIONS of blocks.DETECTED: one row per box."""
    parents = pc.list_parent_indices(detected["found"])
    counts = pc.list_value_length(detected["found"]).to_pylist()
    found = pa.Table.from_struct_array(pc.list_flatten(detected["found"]))
    columns = {name: found[name] for name in found.column_names}
    columns["image_uri"] = detected["image_uri"].take(parents)
    columns["image_width"] = detected["width"].take(parents)
    columns["image_height"] = detected["height"].take(parents)
    columns["detection_index"] = [index for count in counts for index in range(count)]
    return pa.Table.from_pydict(columns, schema=DETECTIONS)
