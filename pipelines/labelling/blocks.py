"""What runs between the stages of a labelling run: the schemas of Ray's blocks, never on disk."""

import pyarrow as pa

from pipelines.tables import DETECTIONS, IMAGES

PART_KEYS = ("part", "part_rows")
"""Which part a row is of, and how many rows that has: it is written whole or not at all."""

_LISTED = ("image_uri", "etag", "size_bytes")
_ERROR = ("error_kind", "error_message")
_COUNTED = ("status", "num_detections")
"""Columns of IMAGES that follow from the others; whoever writes adds them."""

_PART = [pa.field(name, pa.int32(), nullable=False) for name in PART_KEYS]
_FETCHING = [
    pa.field("fetch_seconds", pa.float64(), nullable=False),
    pa.field("retries", pa.int32(), nullable=False),
]

FETCHED = pa.schema(
    [
        *_PART,
        *(IMAGES.field(name) for name in _LISTED),
        pa.field("data", pa.large_binary()),
        *(IMAGES.field(name) for name in _ERROR),
        *_FETCHING,
    ]
)
"""Between fetching and detecting; never on disk. Data is null where there is an error."""

_OF_THE_ROW = ("image_uri", "detection_index", "image_width", "image_height")

FOUND = pa.struct([field for field in DETECTIONS if field.name not in _OF_THE_ROW])
"""One box, before it gets a row of its own, and with that the columns of its image."""

DETECTED = pa.schema(
    [
        *_PART,
        *(field for field in IMAGES if field.name not in _COUNTED),
        pa.field("found", pa.list_(FOUND), nullable=False),
        *_FETCHING,
        pa.field("detect_seconds", pa.float64(), nullable=False),
    ]
)
"""Between detecting and writing; never on disk. One row per image, boxes or none."""
