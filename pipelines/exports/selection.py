"""What is exported: the rows of a run, or those that a query names, copied into a database.

They lie there sorted by photo and are read a few thousand photos at a time, as often as a format
needs; the table is read once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from pipelines import interruption
from pipelines.errors import InputError
from pipelines.exports.choosing import choose
from pipelines.exports.config import ExportConfig
from pipelines.exports.naming import common_folder, copied_name
from pipelines.storage import STORAGE_ERRORS
from pipelines.tables import Views, query_run, query_table

PHOTOS_AT_ONCE = 4096


class Box(NamedTuple):
    """One detection; corners are pixels of the photo after EXIF orientation."""

    detection_index: int
    class_number: int
    """Its place in `Selection.class_names`, from 0."""
    class_name: str
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


class Photo(NamedTuple):
    """One row of `images` with its boxes."""

    number: int
    """From 1, in the order of the URIs."""
    uri: str
    run: str
    etag: str | None
    size_bytes: int | None
    width: int
    """0 where the image failed before that was known; `height` likewise."""
    height: int
    failure: str
    """Kind and message; "" for a labelled image."""
    name: str
    """Below the folder of the photos: the path in the archive, or the name of the copy."""
    boxes: Sequence[Box]


class Failure(NamedTuple):
    """Why a photo that was labelled is none of the export's."""

    number: int
    kind: str
    message: str


@dataclass(frozen=True)
class Counts:
    photos: int
    empty: int
    """Of the labelled ones, those without boxes."""
    failed: int
    boxes: int


@dataclass(frozen=True)
class Selection:
    """The photos of an export, in a database of its own."""

    connection: duckdb.DuckDBPyConnection
    table_uri: str
    runs: Sequence[Mapping[str, Any]]
    """Of the exported rows: run, weights_uri, weights_sha256, score_threshold, nms_threshold."""
    class_names: Sequence[str]
    """All that these runs have found, in the order of their detector's ids."""
    root: str
    """The folder of the archive that all photos lie in, `/` included; "" where there is none."""
    copies: str
    """The folder or prefix of the photos' copies; "" where they stay where they are."""

    def photos(self) -> Iterator[Photo]:
        """All of them, labelled or failed, in the order of their URIs."""
        for between in self._ranges():
            yield from self._photos(between)

    def labelled(self) -> Iterator[Photo]:
        return (photo for photo in self.photos() if not photo.failure)

    def answers(self, sql: str) -> Iterator[pa.Table]:
        """What a query gives for the photos from `$first` to `$last`, a few thousand at a time."""
        for between in self._ranges():
            yield self.connection.sql(sql, params=between).to_arrow_table()

    def mark_failed(self, failures: Iterable[Failure]) -> None:
        """Make failed images of labelled ones, which lose their boxes."""
        rows = [failure._asdict() for failure in failures]
        if rows:
            self.connection.register("failures", pa.Table.from_pylist(rows))
            self.connection.execute(_MARK_FAILED)
            self.connection.execute(_DROP_BOXES)
            self.connection.unregister("failures")

    def counts(self) -> Counts:
        [counts] = self.connection.execute(_COUNT).fetchall()
        return Counts(*counts)

    def name_of(self, uri: str) -> str:
        return copied_name(uri) if self.copies else uri.removeprefix(self.root)

    def location_of(self, photo: Photo) -> str:
        return f"{self.copies}/{photo.name}" if self.copies else photo.uri

    def _ranges(self) -> Iterator[dict[str, int]]:
        for first in range(1, self.counts().photos + 1, PHOTOS_AT_ONCE):
            interruption.check()
            yield {"first": first, "last": first + PHOTOS_AT_ONCE - 1}

    def _photos(self, between: Mapping[str, int]) -> Iterator[Photo]:
        rows = self.connection.execute(_BOXES, between).fetchall()
        boxes = {
            number: [Box(*values) for _, *values in group]
            for number, group in groupby(rows, itemgetter(0))
        }
        for row in self.connection.execute(_PHOTOS, between).fetchall():
            yield Photo._make((*row, self.name_of(row[1]), boxes.get(row[0], ())))


def select(connection: duckdb.DuckDBPyConnection, config: ExportConfig, copies: str) -> Selection:
    """Copy into a database what a config asks for.

    Args:
        copies: as in a selection.

    Raises:
        InputError: there is no such table or run, it cannot be read, or the query is refused.
    """

    def copy(views: Views) -> Selection:
        chosen = choose(views, config.sql) if config.sql else None
        _copy_rows(connection, views, chosen, config.min_score)
        return _selection(connection, views, config.table, copies)

    try:
        if config.sql and not config.run:
            return query_table(config.table, False, copy)
        return query_run(config.table, config.run, copy)
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, *STORAGE_ERRORS) as error:
        raise InputError(f"{config.table} cannot be read: {error}") from error


def _copy_rows(
    connection: duckdb.DuckDBPyConnection, views: Views, chosen: pa.Table | None, min_score: float
) -> None:
    names = views.runs["run"] if chosen is None else chosen["run"].unique()
    of_runs = pads.field("run").isin(names)
    rows = {"images": views.images.filter(of_runs), "detections": views.detections.filter(of_runs)}
    if chosen is not None:
        rows["chosen"] = chosen
    for name, data in rows.items():
        connection.register(name, data)
    connection.execute(_COPY_CLASSES)
    connection.execute(_COPY_PHOTOS if chosen is None else _COPY_CHOSEN_PHOTOS)
    connection.execute(_COPY_BOXES, {"min_score": min_score})
    for name in rows:
        connection.unregister(name)


def _selection(
    connection: duckdb.DuckDBPyConnection, views: Views, table_uri: str, copies: str
) -> Selection:
    def column(sql: str) -> list[Any]:
        return [value for (value,) in connection.execute(sql).fetchall()]

    runs = column("SELECT DISTINCT run FROM photos")
    ends = column("SELECT unnest([min(image_uri), max(image_uri)]) FROM photos")
    return Selection(
        connection,
        table_uri,
        runs=[row for row in views.runs.select(_LINEAGE).to_pylist() if row["run"] in runs],
        class_names=column("SELECT class_name FROM classes ORDER BY class_number"),
        root=common_folder(*ends) if all(ends) else "",
        copies=copies,
    )


_LINEAGE = ["run", "weights_uri", "weights_sha256", "score_threshold", "nms_threshold"]

_COPY_CLASSES = """
    CREATE OR REPLACE TABLE classes AS
    SELECT
        class_name::VARCHAR AS class_name,
        row_number() OVER (ORDER BY min(class_id), class_name::VARCHAR) - 1 AS class_number
    FROM detections GROUP BY class_name::VARCHAR
"""

_PHOTO_ROWS = """
    CREATE OR REPLACE TABLE photos AS
    SELECT row_number() OVER () AS number, * FROM (
        SELECT
            image_uri, run, date, etag, size_bytes, width, height, status::VARCHAR AS status,
            error_kind::VARCHAR AS error_kind, error_message, labelled_at,
            decoded_share, {boxes} AS boxes
        FROM {of}
        ORDER BY image_uri
    )
"""
_COPY_PHOTOS = _PHOTO_ROWS.format(boxes="NULL::INTEGER[]", of="images")
_COPY_CHOSEN_PHOTOS = _PHOTO_ROWS.format(
    boxes="boxes", of="images JOIN chosen USING (image_uri, run)"
)
_COPY_BOXES = """
    CREATE OR REPLACE TABLE boxes AS
    SELECT
        number, detection_index, class_id, detections.class_name::VARCHAR AS class_name,
        class_number, score, x1, y1, x2, y2
    FROM detections
    JOIN photos USING (image_uri, run)
    JOIN classes ON classes.class_name = detections.class_name::VARCHAR
    -- As float32, which the scores are: 0.7 is not above 0.7.
    WHERE score >= $min_score::FLOAT
        AND (photos.boxes IS NULL OR list_contains(photos.boxes, detection_index))
    ORDER BY number, detection_index
"""

_PHOTOS = """
    SELECT
        number, image_uri, run, etag, size_bytes, coalesce(width, 0), coalesce(height, 0),
        CASE status WHEN 'labelled' THEN ''
            ELSE concat_ws(': ', coalesce(error_kind, status), error_message) END
    FROM photos WHERE number BETWEEN $first AND $last ORDER BY number
"""
_BOXES = """
    SELECT number, detection_index, class_number, class_name, score, x1, y1, x2, y2
    FROM boxes WHERE number BETWEEN $first AND $last ORDER BY number, detection_index
"""

_MARK_FAILED = """
    UPDATE photos SET status = 'failed', error_kind = failures.kind,
        error_message = failures.message
    FROM failures WHERE photos.number = failures.number
"""
_DROP_BOXES = "DELETE FROM boxes WHERE number IN (SELECT number FROM failures)"

_COUNT = """
    SELECT
        count(*),
        count(*) FILTER (status = 'labelled' AND number NOT IN (SELECT number FROM boxes)),
        count(*) FILTER (status != 'labelled'),
        (SELECT count(*) FROM boxes)
    FROM photos
"""
