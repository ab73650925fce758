"""compare(): two runs over the same photos, box by box."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from pipelines.comparison.config import ComparisonConfig
from pipelines.comparison.matching import match_boxes
from pipelines.comparison.rows import copy_rows
from pipelines.tables import spilling_connection

MAX_GROUPS = 1000

_CORNERS = ("x1", "y1", "x2", "y2")
CHANGES = pa.schema(
    [
        pa.field("image_uri", pa.string()),
        pa.field("class_name", pa.string()),
        pa.field("change", pa.string()),
        pa.field("before_index", pa.int32()),
        pa.field("after_index", pa.int32()),
        pa.field("before_score", pa.float32()),
        pa.field("after_score", pa.float32()),
        pa.field("iou", pa.float32()),
        *(pa.field(f"before_{corner}", pa.float32()) for corner in _CORNERS),
        *(pa.field(f"after_{corner}", pa.float32()) for corner in _CORNERS),
    ]
)
"""A row per matched, new or lost box; what the other run lacks is null. The indices are those of
`detections`."""


@dataclass(frozen=True)
class Counts:
    """Of photos that both runs labelled, and of their boxes."""

    photos: int
    changed: int
    """Photos with a new or a lost box."""
    before: int
    after: int
    matched: int
    new: int
    lost: int


@dataclass(frozen=True)
class Comparison:
    """What changed between two runs, in a database of its own."""

    config: ComparisonConfig
    connection: duckdb.DuckDBPyConnection

    def counts(self) -> Counts:
        [counts] = self.connection.execute(_COUNTS).fetchall()
        return Counts(*counts)

    def photos(self) -> Mapping[str, int]:
        """How the runs differ in their photos, those that one of them did not label included."""
        [row] = self.connection.sql(_PHOTOS).to_arrow_table().to_pylist()
        counts: dict[str, int] = row
        return counts

    def classes(self) -> pa.Table:
        """Boxes of each class, and how the scores of those that matched have moved."""
        return self.connection.sql(_CLASSES).to_arrow_table()

    def groups(self) -> pa.Table:
        """Changes by prefix or by day, those first that changed most; at most MAX_GROUPS."""
        if self.config.by == "day":
            sql, below = _GROUPS.format(name=_DAY, title="day"), {}
        else:
            sql = _GROUPS.format(name=_FOLDER, title="prefix")
            folders = f"^([^/]*/){{0,{self.config.depth}}}"
            below = {"root": self._root(), "folders": folders}
        return self.connection.sql(sql, params=below).to_arrow_table()

    def most_changed(self, top: int | None = None) -> pa.Table:
        """The photos with most new and lost boxes, at most `top`, or as many as the config says."""
        most = {"top": self.config.top if top is None else top}
        return self.connection.sql(_MOST, params=most).to_arrow_table()

    def changes_on(self, image_uris: Sequence[str]) -> pa.Table:
        """Every matched, new and lost box of some photos, as CHANGES."""
        uris = {"uris": list(image_uris)}
        return self.connection.sql(_CHANGES_ON, params=uris).to_arrow_table().cast(CHANGES)

    def changes(self, photos_at_once: int = 20_000) -> Iterator[pa.RecordBatch]:
        """Every matched, new and lost box, photo by photo, as CHANGES."""
        for first in range(1, self.counts().photos + 1, photos_at_once):
            between = {"first": first, "last": first + photos_at_once - 1}
            table = self.connection.sql(_CHANGES, params=between).to_arrow_table()
            yield from table.cast(CHANGES).to_batches()

    def _root(self) -> str:
        """The deepest folder that holds all photos: what the first and the last have in common."""
        [ends] = self.connection.execute(_ENDS).fetchall()
        return f"{posixpath.commonprefix(ends).rpartition('/')[0]}/"


@contextmanager
def compare(config: ComparisonConfig) -> Iterator[Comparison]:
    """Two runs, compared; the comparison can be asked until the block ends.

    Raises:
        InputError: there is no such table or run, it cannot be read, or no photo was labelled by
            both.
    """
    with spilling_connection(config.memory_mb) as connection:
        copy_rows(connection, config)
        match_boxes(connection, config.iou)
        for statement in (_JOIN_BOXES, _COUNT_BY_PHOTO):
            connection.execute(statement)
        yield Comparison(config, connection)


_JOIN_BOXES = """
    CREATE TABLE boxes AS
    SELECT
        coalesce(b.photo, a.photo) AS photo,
        coalesce(b.class, a.class) AS class,
        CASE WHEN a.box IS NULL THEN 'lost' WHEN b.box IS NULL THEN 'new' ELSE 'matched' END
            AS change,
        b.detection_index AS before_index, a.detection_index AS after_index,
        b.score AS before_score, a.score AS after_score, iou,
        b.x1 AS before_x1, b.y1 AS before_y1, b.x2 AS before_x2, b.y2 AS before_y2,
        a.x1 AS after_x1, a.y1 AS after_y1, a.x2 AS after_x2, a.y2 AS after_y2
    FROM (FROM before LEFT JOIN matches ON before.box = before_box) b
    FULL JOIN after a ON a.box = b.after_box
    ORDER BY photo, class, before_index NULLS LAST, after_index
"""
_COUNT_BY_PHOTO = """
    CREATE TABLE photo_boxes AS
    SELECT
        photo,
        count(*) FILTER (change != 'new') AS before,
        count(*) FILTER (change != 'lost') AS after,
        count(*) FILTER (change = 'matched') AS matched,
        count(*) FILTER (change = 'new') AS new,
        count(*) FILTER (change = 'lost') AS lost
    FROM boxes GROUP BY photo
"""
_SUMS = ", ".join(
    f"coalesce(sum({name}), 0)::BIGINT AS {name}"
    for name in ("before", "after", "matched", "new", "lost")
)

_COUNTS = f"""
    SELECT count(*), count(*) FILTER (new + lost > 0), {_SUMS}
    FROM photos LEFT JOIN photo_boxes USING (photo)
"""
_PHOTOS_OF = {
    "labelled_by_both": "before = 'labelled' AND after = 'labelled'",
    "failed_after": "before = 'labelled' AND after = 'failed'",
    "failed_before": "before = 'failed' AND after = 'labelled'",
    "failed_in_both": "before = 'failed' AND after = 'failed'",
    "only_before": "after IS NULL",
    "only_after": "before IS NULL",
}
_PHOTO_SUMS = ", ".join(
    f"coalesce(sum(photos) FILTER ({rule}), 0)::BIGINT AS {name}"
    for name, rule in _PHOTOS_OF.items()
)
_PHOTOS = f"SELECT {_PHOTO_SUMS} FROM photo_counts"
_DRIFT = "after_score::DOUBLE - before_score"
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_CLASSES = f"""
    SELECT
        class_name,
        count(*) FILTER (change != 'new') AS before,
        count(*) FILTER (change != 'lost') AS after,
        count(*) FILTER (change = 'matched') AS matched,
        count(*) FILTER (change = 'new') AS new,
        count(*) FILTER (change = 'lost') AS lost,
        {", ".join(f"quantile_cont({_DRIFT}, {q}) AS drift_{q * 100:.0f}" for q in _QUANTILES)}
    FROM boxes JOIN classes USING (class) GROUP BY class, class_name ORDER BY class
"""

_DAY = "labelled_at::DATE"
_FOLDER = """
    $root || regexp_extract(substr(image_uri, length($root) + 1), $folders)
"""
_GROUPS = f"""
    SELECT
        {{name}} AS {{title}}, count(*) AS photos,
        count(*) FILTER (new + lost > 0) AS changed, {_SUMS}
    FROM photos LEFT JOIN photo_boxes USING (photo)
    GROUP BY {{name}} ORDER BY coalesce(sum(new) + sum(lost), 0) DESC, {{title}} LIMIT {MAX_GROUPS}
"""
_MOST = """
    SELECT image_uri, before, after, matched, new, lost
    FROM photo_boxes JOIN photos USING (photo)
    WHERE new + lost > 0 ORDER BY new + lost DESC, image_uri LIMIT $top
"""
_CHANGES = f"""
    SELECT {", ".join(CHANGES.names)}
    FROM (FROM boxes WHERE photo BETWEEN $first AND $last)
    JOIN (FROM photos WHERE photo BETWEEN $first AND $last) USING (photo)
    JOIN classes USING (class)
    ORDER BY photo, class, before_index NULLS LAST, after_index
"""
_CHANGES_ON = f"""
    SELECT {", ".join(CHANGES.names)}
    FROM boxes
    JOIN (FROM photos WHERE list_contains($uris, image_uri)) USING (photo)
    JOIN classes USING (class)
    ORDER BY photo, class, before_index NULLS LAST, after_index
"""
_ENDS = "SELECT min(image_uri), max(image_uri) FROM photos"
