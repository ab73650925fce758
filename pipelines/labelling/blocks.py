"""What runs between the stages of a labelling run: the schemas of Ray's blocks, never on disk."""

import pyarrow as pa

from pipelines.tables import DETECTIONS, IMAGES

PART_KEYS = ("part", "part_rows")
"""Which part a row is of, and how many rows that has: it is written whole or not at all."""

_IMAGE = [
    *(pa.field(name, pa.int32(), nullable=False) for name in PART_KEYS),
    *(IMAGES.field(name) for name in ("image_uri", "etag", "size_bytes")),
]
_ERROR = [IMAGES.field(name) for name in ("error_kind", "error_message")]

FETCHED = pa.schema(
    [
        *_IMAGE,
        pa.field("data", pa.large_binary()),
        *_ERROR,
        pa.field("fetch_seconds", pa.float64(), nullable=False),
        pa.field("retries", pa.int32(), nullable=False),
    ]
)
"""Between fetching and detecting; never on disk. Data is null where there is an error."""

_OF_THE_ROW = ("image_uri", "detection_index", "image_width", "image_height")

FOUND = pa.struct([field for field in DETECTIONS if field.name not in _OF_THE_ROW])
"""One box, before it gets a row of its own, and with that the columns of its image."""

DETECTED = pa.schema(
    [
        *_IMAGE,
        *(IMAGES.field(name) for name in ("width", "height")),
        *_ERROR,
        pa.field("found", pa.list_(FOUND), nullable=False),
        IMAGES.field("labelled_at"),
        pa.field("fetch_seconds", pa.float64(), nullable=False),
        pa.field("retries", pa.int32(), nullable=False),
        pa.field("detect_seconds", pa.float64(), nullable=False),
    ]
)
"""Between detecting and writing; never on disk. One row per image, boxes or none."""
