"""The write stage: a part of a run becomes two files, and one summary row for the driver.

No torch in here: the processes that write need not wait for it.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger import Ledger
from pipelines.schema import DETECTED, DETECTIONS, FAILED, IMAGES, LABELLED
from pipelines.storage import RunFolders


@dataclass(frozen=True)
class Part:
    """What one part adds to the ledger, and the seconds its images kept each stage busy."""

    ledger: Ledger
    stage_seconds: Mapping[str, float]

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
        return cls(ledger, {stage: row[f"{stage}_seconds"] for stage in stages})


def write_part(detected: pa.Table, folders: RunFolders) -> pa.Table:
    """The write stage: schema.DETECTED to two files, and one summary row.

    `detections` is written first: the `images` file is the commit. Both are named after the images
    in the part, so that a retried task overwrites its own files with the same rows.
    """
    started = time.perf_counter()
    detected = detected.combine_chunks().cast(DETECTED)
    name = _part_name(detected["image_uri"].to_pylist())
    images = image_rows(detected)
    folders.detections.write_table(name, detection_rows(detected))
    folders.images.write_table(name, images)

    labelled = pc.equal(images["status"].cast(pa.string()), LABELLED)
    empty = pc.and_(labelled, pc.equal(images["num_detections"], 0))
    kinds = Counter(kind for kind in images["error_kind"].to_pylist() if kind)
    summary = {
        "labelled": pc.sum(labelled).as_py(),
        "empty": pc.sum(empty).as_py(),
        "failed_by_kind": json.dumps(kinds),
        "detections": pc.sum(images["num_detections"]).as_py(),
        "fetch_seconds": pc.sum(detected["fetch_seconds"]).as_py(),
        "detect_seconds": pc.sum(detected["detect_seconds"]).as_py(),
        "write_seconds": time.perf_counter() - started,
    }
    return pa.Table.from_pylist([summary])


def image_rows(detected: pa.Table) -> pa.Table:
    """schema.IMAGES of schema.DETECTED."""
    failed = pc.is_valid(detected["error_kind"])
    columns = {
        name: detected[name] for name in IMAGES.names if name not in ("status", "num_detections")
    }
    columns["status"] = pc.if_else(failed, FAILED, LABELLED).cast(IMAGES.field("status").type)
    columns["num_detections"] = pc.list_value_length(detected["found"])
    return pa.Table.from_pydict(columns, schema=IMAGES)


def detection_rows(detected: pa.Table) -> pa.Table:
    """schema.DETECTIONS of schema.DETECTED: one row per box."""
    parents = pc.list_parent_indices(detected["found"])
    counts = pc.list_value_length(detected["found"]).to_pylist()
    found = pa.Table.from_struct_array(pc.list_flatten(detected["found"]))
    columns = {name: found[name] for name in found.column_names}
    columns["image_uri"] = detected["image_uri"].take(parents)
    columns["image_width"] = detected["width"].take(parents)
    columns["image_height"] = detected["height"].take(parents)
    columns["detection_index"] = [index for count in counts for index in range(count)]
    return pa.Table.from_pydict(columns, schema=DETECTIONS)


def _part_name(uris: list[str]) -> str:
    digest = hashlib.sha256("\0".join(sorted(uris)).encode()).hexdigest()
    return f"part-{digest[:16]}.parquet"
