"""The rows as CSV, and the failed images for formats that have no place for them."""

import pyarrow as pa

from pipelines.exports.output import Output
from pipelines.exports.selection import Selection
from pipelines.exports.text import write_csv

IMAGES = "images.csv"
DETECTIONS = "detections.csv"
FAILED = "failed.csv"


def write_tables(selection: Selection, output: Output) -> None:
    """`images.csv`, a row per image, labelled or failed, and `detections.csv`, a row per box."""
    with output.open(DETECTIONS) as file:
        write_csv(file, selection.answers(_BOXES), _DETECTIONS)
    with output.open(IMAGES) as file:
        answers = (_with_names(selection, table) for table in selection.answers(_PHOTOS))
        write_csv(file, answers, _IMAGES)


def write_failed(selection: Selection, output: Output) -> None:
    """`failed.csv`, unless no image failed."""
    if selection.counts().failed:
        with output.open(FAILED) as file:
            write_csv(file, selection.answers(_FAILURES), _FAILED)


def _with_names(selection: Selection, table: pa.Table) -> pa.Table:
    names = [selection.name_of(uri) for uri in table["image_uri"].to_pylist()]
    return table.append_column("file_name", pa.array(names, pa.string()))


_TEXT = pa.string()
_LISTED = [("image_uri", _TEXT), ("run", _TEXT)]
_FAILED = pa.schema([*_LISTED, ("error_kind", _TEXT), ("error_message", _TEXT)])
_IMAGES = pa.schema(
    [
        *_LISTED,
        ("date", pa.date32()),
        ("etag", _TEXT),
        ("size_bytes", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", _TEXT),
        ("num_detections", pa.int32()),
        ("error_kind", _TEXT),
        ("error_message", _TEXT),
        ("labelled_at", pa.timestamp("us", tz="UTC")),
        ("decoded_share", pa.float32()),
        ("file_name", _TEXT),
    ]
)
_DETECTIONS = pa.schema(
    [
        *_LISTED,
        ("date", pa.date32()),
        ("detection_index", pa.int32()),
        ("class_id", pa.int32()),
        ("class_name", _TEXT),
        *((name, pa.float32()) for name in ("score", "x1", "y1", "x2", "y2")),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
    ]
)

_BETWEEN = "number BETWEEN $first AND $last"
_PHOTOS = f"""
    SELECT
        image_uri, run, date, etag, size_bytes, width, height, status,
        (SELECT count(*) FROM boxes WHERE boxes.number = photos.number) AS num_detections,
        error_kind, error_message, labelled_at, decoded_share
    FROM photos WHERE {_BETWEEN} ORDER BY number
"""
_BOXES = f"""
    SELECT
        image_uri, run, date, detection_index, class_id, class_name, score, x1, y1, x2, y2,
        width AS image_width, height AS image_height
    FROM (FROM boxes WHERE {_BETWEEN}) JOIN (FROM photos WHERE {_BETWEEN}) USING (number)
    ORDER BY number, detection_index
"""
_FAILURES = f"""
    SELECT image_uri, run, error_kind, error_message
    FROM photos WHERE status != 'labelled' AND {_BETWEEN} ORDER BY number
"""
