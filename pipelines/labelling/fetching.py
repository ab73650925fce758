"""The fetch stage: a block of listed images becomes a block of their bytes, or of typed errors."""

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.labelling.blocks import FETCHED, PART_KEYS
from pipelines.photos import Fetched, ImageError, ImageRef, fetch

Fetch = Callable[[pa.Table], pa.Table]
"""From (part, part_rows, image_uri, etag, size_bytes) to blocks.FETCHED."""


def fetch_block(
    listed: pa.Table,
    max_bytes: int,
    fetch: Callable[[Sequence[ImageRef], int], list[Fetched]] = fetch,
) -> pa.Table:
    """From (part, part_rows, image_uri, etag, size_bytes) to blocks.FETCHED.

    An image that was listed without its ETag gets that of the bytes that were read.
    """
    started = time.perf_counter()
    columns = (listed[name].to_pylist() for name in ("image_uri", "etag", "size_bytes"))
    fetched = fetch([ImageRef(*row) for row in zip(*columns, strict=True)], max_bytes)
    errors = [image.body if isinstance(image.body, ImageError) else None for image in fetched]
    seconds = (time.perf_counter() - started) / max(len(fetched), 1)
    values = {
        **{key: listed[key] for key in PART_KEYS},
        "image_uri": listed["image_uri"],
        "etag": pc.coalesce(listed["etag"], pa.array([i.etag for i in fetched], pa.string())),
        "size_bytes": listed["size_bytes"],
        "data": [None if isinstance(image.body, ImageError) else image.body for image in fetched],
        "error_kind": [error and str(error.kind) for error in errors],
        "error_message": [error and str(error) for error in errors],
        "fetch_seconds": [seconds] * len(fetched),
        "retries": [image.retries for image in fetched],
    }
    return pa.Table.from_pydict(values, schema=FETCHED)
