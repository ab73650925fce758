"""The rows of two runs, copied into a database: the photos that both labelled, and their boxes."""

import duckdb
import pyarrow as pa

from pipelines.comparison.config import ComparisonConfig
from pipelines.errors import InputError
from pipelines.storage import STORAGE_ERRORS
from pipelines.tables import Views, query_run

SIDES = ("before", "after")


def copy_rows(connection: duckdb.DuckDBPyConnection, config: ComparisonConfig) -> None:
    """Make the tables `photos`, `photo_counts`, `classes`, `before` and `after`.

    A box has a number in the order of photos, classes and falling scores, which is the order that
    boxes are matched in.

    Raises:
        InputError: there is no such table or run, it cannot be read, or the two have no photo that
            both labelled.
    """
    after_table = config.after_table or config.table

    def copy(before: Views, after: Views) -> None:
        _copy(connection, before, after, config.min_score)

    try:
        query_run(
            config.table,
            config.before,
            lambda before: query_run(after_table, config.after, lambda after: copy(before, after)),
        )
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, *STORAGE_ERRORS) as error:
        raise InputError(f"{config.table} cannot be read: {error}") from error
    if not connection.execute("SELECT count(*) FROM photos").fetchall()[0][0]:
        raise InputError(
            f"no photo was labelled both by {config.before!r} and by {config.after!r}: images are "
            "matched by their URI"
        )


def _copy(
    connection: duckdb.DuckDBPyConnection, before: Views, after: Views, min_score: float
) -> None:
    rows = {
        "before_images": before.images,
        "after_images": after.images,
        "before_detections": before.detections,
        "after_detections": after.detections,
    }
    for name, view in rows.items():
        connection.register(name, view)
    for statement in (_PHOTO_COUNTS, _PHOTOS, _CLASSES):
        connection.execute(statement)
    for side in SIDES:
        connection.execute(_BOXES.format(side=side), {"min_score": min_score})
    for name in rows:
        connection.unregister(name)


_STATUSES = """
    FROM (SELECT image_uri, status::VARCHAR AS status FROM before_images) before
    FULL JOIN (SELECT image_uri, status::VARCHAR AS status, labelled_at FROM after_images) after
    USING (image_uri)
"""
_PHOTO_COUNTS = f"""
    CREATE OR REPLACE TABLE photo_counts AS
    SELECT before.status AS before, after.status AS after, count(*) AS photos
    {_STATUSES} GROUP BY ALL
"""
_PHOTOS = f"""
    CREATE OR REPLACE TABLE photos AS
    SELECT row_number() OVER () AS photo, * FROM (
        SELECT image_uri, labelled_at {_STATUSES}
        WHERE before.status = 'labelled' AND after.status = 'labelled'
        ORDER BY image_uri
    )
"""
_CLASSES = """
    CREATE OR REPLACE TABLE classes AS
    SELECT class_name, row_number() OVER (ORDER BY min(class_id), class_name) AS class
    FROM (
        SELECT DISTINCT class_id, class_name::VARCHAR AS class_name FROM before_detections
        UNION ALL
        SELECT DISTINCT class_id, class_name::VARCHAR AS class_name FROM after_detections
    )
    GROUP BY class_name
"""
_BOXES = """
    CREATE OR REPLACE TABLE {side} AS
    SELECT row_number() OVER () AS box, * FROM (
        SELECT photo, class, score, detection_index, x1, y1, x2, y2
        FROM {side}_detections AS detections
        JOIN photos USING (image_uri)
        JOIN classes ON classes.class_name = detections.class_name::VARCHAR
        -- As float32, which the scores are: 0.7 is not above 0.7.
        WHERE score >= $min_score::FLOAT
        ORDER BY photo, class, score DESC, detection_index
    )
"""
