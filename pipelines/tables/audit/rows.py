"""What the rows of a run promise, as SQL conditions: DuckDB counts the rows that break them.

Nothing here is shared with what writes or counts the rows (`parts`, `ledger`), so that a fault of
theirs cannot hide itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from pipelines.photos import ErrorKind
from pipelines.tables.audit.findings import Broken


@dataclass(frozen=True)
class Promise:
    """A condition that every row of a relation meets."""

    name: str
    broken: str
    """What is wrong with a row that does not."""
    holds: str
    """SQL; a row where it is null breaks the promise."""


@dataclass(frozen=True)
class Rows:
    """A relation over the views manifest, images, placed and detections, and its promises."""

    relation: str
    """SQL; the column `example` names a row for people."""
    promises: Sequence[Promise]


def promises_of_rows(
    is_complete: bool, is_compacted: bool, names_parts: bool, score_threshold: float
) -> list[Rows]:
    """What the rows of one run promise.

    Args:
        is_complete: an unfinished run has no rows yet for some of its images.
        is_compacted: its rows no longer lie in the parts that the manifest names.
        names_parts: the manifests of older versions name no parts.
    """
    per_image = [*_PER_IMAGE]
    if is_complete:
        per_image.append(_HAS_ROW)
    if names_parts:
        per_image.append(_HAS_PART)
        if not is_compacted:
            per_image.append(_IN_ITS_PART)
    scores = Promise(
        "scores from the threshold to 1",
        f"a score that is not in [{score_threshold}, 1]",
        # In the precision of the column: 0.01 is no float32.
        f"isfinite(score) AND score BETWEEN {score_threshold}::FLOAT AND 1",
    )
    return [
        Rows(_EVERY_IMAGE, per_image),
        Rows("SELECT image_uri AS example, * FROM images", _IMAGE_ROWS),
        Rows("SELECT image_uri AS example, * FROM detections", [_BOXES, scores]),
        Rows(_NEIGHBOURS, _NUMBERING),
        Rows(_CLASSES, [_ONE_TO_ONE]),
    ]


def broken_promises(connection: duckdb.DuckDBPyConnection, rows: Rows) -> list[Broken]:
    """The promises that some rows of the relation break, by one pass over it."""
    aggregates = ", ".join(
        f"count(*) FILTER (({promise.holds}) IS NOT TRUE), "
        f"min(example) FILTER (({promise.holds}) IS NOT TRUE)"
        for promise in rows.promises
    )
    [values] = connection.sql(f"SELECT {aggregates} FROM ({rows.relation})").fetchall()
    counted = zip(rows.promises, values[::2], values[1::2], strict=True)
    return [
        Broken(promise.name, promise.broken, count, example)
        for promise, count, example in counted
        if count
    ]


def counts_of_tables(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """What a run record says of its tables, counted in them."""
    images = """
        SELECT
            count(*) FILTER (status::VARCHAR = 'labelled') AS labelled,
            count(*) FILTER (status::VARCHAR = 'labelled' AND num_detections = 0) AS empty,
            count(*) FILTER (status::VARCHAR = 'failed') AS failed
        FROM images
    """
    manifest = """
        SELECT count(*) AS listed, count(skipped_in) AS skipped, count(DISTINCT part) AS parts
        FROM manifest
    """
    # For count(*) DuckDB reads the first column, and the URIs are the bulk of a table.
    detections = "SELECT count(class_id) AS detections FROM detections"
    counts: dict[str, Any] = {}
    for sql in (manifest, images, detections):
        relation = connection.sql(sql)
        [values] = relation.fetchall()
        counts |= dict(zip(relation.columns, values, strict=True))
    by_kind = "SELECT error_kind::VARCHAR, count(*) FROM images WHERE error_kind IS NOT NULL"
    by_run = "SELECT skipped_in, count(*) FROM manifest WHERE skipped_in IS NOT NULL"
    for name, sql in {"failed_by_kind": by_kind, "skipped_in": by_run}.items():
        counts[name] = dict(connection.sql(f"{sql} GROUP BY ALL ORDER BY ALL").fetchall())
    return counts


SKIPPED = Rows(
    """
    SELECT manifest.image_uri AS example
    FROM manifest ANTI JOIN skipped_to
    ON manifest.image_uri = skipped_to.image_uri AND manifest.skipped_in = skipped_to.run
        AND manifest.etag = skipped_to.etag AND skipped_to.status::VARCHAR = 'labelled'
    WHERE manifest.skipped_in IS NOT NULL
    """,
    [
        Promise(
            "a skipped image has its row in the run that is named",
            "no complete run of that name has labelled this image with this etag",
            "false",  # the relation has no others
        )
    ],
)
"""Over the view skipped_to too: the images, with their `run`, of the complete runs named there."""


_KINDS = ", ".join(f"'{kind}'" for kind in ErrorKind)

# `placed` is `images` with the name of the file, as __filename, that each row lies in.
_EVERY_IMAGE = r"""
    SELECT image_uri AS example, *
    FROM (
        SELECT image_uri, count(*) AS times_listed, min(etag) AS listed_etag,
            min(size_bytes) AS listed_size, min(part) AS part,
            min(skipped_in) AS skipped_in
        FROM manifest GROUP BY image_uri
    )
    FULL JOIN (
        SELECT image_uri, count(*) AS num_rows, min(etag) AS etag, min(size_bytes) AS size_bytes,
            min(status::VARCHAR) AS status,
            min(num_detections) AS num_detections, min(width) AS width, min(height) AS height,
            TRY_CAST(min(__filename).regexp_extract('part-(\d+)\.', 1) AS INTEGER) AS lies_in
        FROM placed GROUP BY image_uri
    ) USING (image_uri)
    FULL JOIN (
        SELECT image_uri, count(*) AS num_boxes,
            min(image_width) AS min_width, max(image_width) AS max_width,
            min(image_height) AS min_height, max(image_height) AS max_height
        FROM detections GROUP BY image_uri
    ) USING (image_uri)
"""

_PER_IMAGE = [
    Promise(
        "an image is listed once",
        "listed more than once in the manifest",
        "coalesce(times_listed, 1) = 1",
    ),
    Promise(
        "an image has one row",
        "more than one row in images",
        "coalesce(num_rows, 1) = 1",
    ),
    Promise(
        "every row is of a listed image",
        "a row in images, but not listed in the manifest",
        "num_rows IS NULL OR times_listed IS NOT NULL",
    ),
    Promise(
        "a skipped image has no row",
        "listed as skipped, and has a row all the same",
        "skipped_in IS NULL OR num_rows IS NULL",
    ),
    Promise(
        "a row has the listed etag",
        "another etag in images than in the manifest",
        "num_rows IS NULL OR listed_etag IS NULL OR etag IS NOT DISTINCT FROM listed_etag",
    ),
    Promise(
        "a row has the listed size",
        "another size_bytes in images than in the manifest",
        "num_rows IS NULL OR listed_size IS NULL OR size_bytes IS NOT DISTINCT FROM listed_size",
    ),
    Promise(
        "num_detections is the number of boxes",
        "another number of rows in detections",
        "num_rows IS NULL OR num_detections = coalesce(num_boxes, 0)",
    ),
    Promise(
        "boxes lie on labelled images",
        "boxes on an image that failed or has no row",
        "num_boxes IS NULL OR status = 'labelled'",
    ),
    Promise(
        "a box knows the size of its image",
        "another width or height in detections than in images",
        "num_boxes IS NULL OR status IS DISTINCT FROM 'labelled'"
        " OR min_width = width AND max_width = width"
        " AND min_height = height AND max_height = height",
    ),
]

_HAS_ROW = Promise(
    "every listed image has a row",
    "listed, not skipped, and without a row in images",
    "times_listed IS NULL OR skipped_in IS NOT NULL OR num_rows IS NOT NULL",
)

_HAS_PART = Promise(
    "a listed image has a part or was skipped",
    "both or neither of part and skipped_in in the manifest",
    "times_listed IS NULL OR (part IS NULL) = (skipped_in IS NOT NULL)",
)

_IN_ITS_PART = Promise(
    "a row lies in the part that the manifest names",
    "a row in another part's file",
    "part IS NULL OR num_rows IS NULL OR lies_in = part",
)

_IMAGE_ROWS = [
    Promise(
        "status and error kind agree",
        "an unknown status or kind, a failure without a kind, or a kind without a failure",
        "status::VARCHAR = 'labelled' AND error_kind IS NULL"
        f" OR status::VARCHAR = 'failed' AND error_kind::VARCHAR IN ({_KINDS})",
    ),
    Promise(
        "a labelled image has a size",
        "no width or height, or none above 0",
        "status::VARCHAR IS DISTINCT FROM 'labelled' OR width > 0 AND height > 0",
    ),
]

_BOXES = Promise(
    "boxes lie inside their image",
    "a corner that is not finite, outside the image, or not right of and below the other",
    "isfinite(x1) AND isfinite(y1) AND isfinite(x2) AND isfinite(y2)"
    " AND 0 <= x1 AND x1 < x2 AND x2 <= image_width"
    " AND 0 <= y1 AND y1 < y2 AND y2 <= image_height",
)

_NEIGHBOURS = """
    SELECT image_uri AS example, detection_index, score,
        lag(detection_index) OVER by_index AS index_before, lag(score) OVER by_index AS score_before
    FROM detections
    WINDOW by_index AS (PARTITION BY image_uri ORDER BY detection_index, score DESC)
"""

_NUMBERING = [
    Promise(
        "a detection index is there once",
        "a detection_index that another box of the image has too",
        "index_before IS DISTINCT FROM detection_index",
    ),
    Promise(
        "boxes are numbered from 0 without a gap",
        "no box of the image has the number before",
        "detection_index >= 0 AND detection_index - coalesce(index_before, -1) <= 1",
    ),
    Promise(
        "boxes are numbered by falling score",
        "a higher score than the box before",
        "score <= coalesce(score_before, score)",
    ),
]

_CLASSES = """
    SELECT concat(class_id, ' ', class_name) AS example, class_id,
        count(*) OVER (PARTITION BY class_id) AS num_names,
        count(*) OVER (PARTITION BY class_name) AS num_ids
    FROM (SELECT DISTINCT class_id, class_name::VARCHAR AS class_name FROM detections)
"""

_ONE_TO_ONE = Promise(
    "a class has one id and one name",
    "an id with several names, or a name with several ids",
    "class_id >= 0 AND num_names = 1 AND num_ids = 1",
)
