"""Arrow schemas: the columns of every table on disk, in one place.

A change here is a change of contract: raise SCHEMA_VERSION and say why in DECISIONS.md.
"""

import pyarrow as pa

SCHEMA_VERSION = "2"
SCHEMA_VERSIONS = ("1", SCHEMA_VERSION)
"""That are read. Images of version 1 had no `decoded_share`, and are read as if it was null."""

LABELLED = "labelled"
FAILED = "failed"

_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_BOX = pa.list_(pa.float32(), 4)

_METADATA = {
    "schema_version": SCHEMA_VERSION,
    "boxes": "xyxy, pixels of the original image after EXIF orientation, clipped to it",
}

LISTED = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
    ]
)
"""What a source holds; never on disk. A local file's etag is made of its time and size."""

MANIFEST = pa.schema(
    [*LISTED, pa.field("part", pa.int32()), pa.field("skipped_in", pa.string())],
    metadata={"schema_version": SCHEMA_VERSION},
)
"""What was listed. `part` is the one that the image's row goes to; it is null where the run
`skipped_in` has that row already."""

IMAGES = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("status", _DICTIONARY, nullable=False),
        pa.field("num_detections", pa.int32(), nullable=False),
        pa.field("error_kind", _DICTIONARY),
        pa.field("error_message", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("decoded_share", pa.float32()),
    ],
    metadata=_METADATA,
)
"""One row per listed image. Width and height are null where the image failed before decoding.
`decoded_share`, between 0 and 1, is of an image that was labelled although its file was cut short:
the share of its pixels that were there. Null where all were, or where the image failed."""

IMAGES_OF_VERSION_1 = IMAGES.remove(IMAGES.get_field_index("decoded_share"))

DETECTIONS = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("detection_index", pa.int32(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("class_name", _DICTIONARY, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("x1", pa.float32(), nullable=False),
        pa.field("y1", pa.float32(), nullable=False),
        pa.field("x2", pa.float32(), nullable=False),
        pa.field("y2", pa.float32(), nullable=False),
        pa.field("image_width", pa.int32(), nullable=False),
        pa.field("image_height", pa.int32(), nullable=False),
    ],
    metadata=_METADATA,
)
"""One row per box, numbered within its image by falling score."""

COMPACT_DETECTIONS = DETECTIONS.set(
    DETECTIONS.get_field_index("class_name"), DETECTIONS.field("class_name").with_type(pa.string())
)
"""DETECTIONS in compacted files, which are sorted by class: Arrow skips row groups by what Parquet
knows of strings, but not of dictionaries."""

TRAINING = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(_BOX), nullable=False),
        pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("is_crowd", pa.list_(pa.bool_()), nullable=False),
        pa.field("areas", pa.list_(pa.float32()), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("sources", pa.list_(pa.string())),
    ],
    metadata=_METADATA,
)
"""Images with their targets. `areas` (pixels²) is what COCO's small/medium/large go by. `etag` is
that of the photo on S3 that was annotated, if known. `sources` says where each box comes from:
"annotation", "model", "accepted" (of the model, and a person who looked let it stand) or "person".
Tables from before 2026-11-28 lack these two columns, and are read as if they were null."""

CLASS_NAMES_KEY = b"class_names"
"""Schema metadata of a training table: the class names as a JSON list, index = class_id."""
