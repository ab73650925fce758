"""Which boxes of two runs are the same ones.

A box of the second run takes, of the first one's boxes of its class on its photo that are not taken
yet, the one that it overlaps most, if by enough. Boxes choose by falling score. DuckDB finds the
pairs that overlap by enough, in the order in which they are to be considered; most have no rival.
"""

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from pipelines import interruption

PHOTOS_AT_ONCE = 20_000
"""Whose pairs are held in memory together."""


def match_boxes(connection: duckdb.DuckDBPyConnection, iou: float) -> None:
    """Make the table `matches` of the tables `before` and `after`."""
    connection.execute("CREATE TABLE matches (before_box BIGINT, after_box BIGINT, iou FLOAT)")
    [(photos,)] = connection.execute("SELECT count(*) FROM photos").fetchall()
    for first in range(1, photos + 1, PHOTOS_AT_ONCE):
        interruption.check()
        between = {"first": first, "last": first + PHOTOS_AT_ONCE - 1, "iou": iou}
        pairs = connection.sql(_PAIRS, params=between).to_arrow_table()
        found = pairs.take(pa.array(_chosen(pairs), pa.int64()))
        connection.register("found", found)
        connection.execute("INSERT INTO matches SELECT before_box, after_box, iou FROM found")
        connection.unregister("found")


def _chosen(pairs: pa.Table) -> Iterator[int]:
    """The rows whose boxes are both free when it is their turn."""
    taken: set[int] = set()
    matched = 0  # numbers begin with 1
    boxes = zip(pairs["after_box"].to_pylist(), pairs["before_box"].to_pylist(), strict=True)
    for row, (after_box, before_box) in enumerate(boxes):
        if after_box != matched and before_box not in taken:
            matched = after_box
            taken.add(before_box)
            yield row


# float64, for products of float32 corners lose more than a threshold of 0.5 can stand.
_SIDE = "greatest(0, least(a.{0}2, b.{0}2)::DOUBLE - greatest(a.{0}1, b.{0}1)::DOUBLE)"
_AREA = "({0}.x2::DOUBLE - {0}.x1) * ({0}.y2::DOUBLE - {0}.y1)"
_SHARED = f"{_SIDE.format('x')} * {_SIDE.format('y')}"
_IS_SAME = "(a.x1 = b.x1 AND a.y1 = b.y1 AND a.x2 = b.x2 AND a.y2 = b.y2)"

# Boxes without area overlap nothing; one that has not changed is the same all the same.
_PAIRS = f"""
    SELECT before_box, after_box, iou FROM (
        SELECT
            b.box AS before_box, a.box AS after_box, {_SHARED} AS shared,
            coalesce(
                shared / nullif({_AREA.format("a")} + {_AREA.format("b")} - shared, 0),
                {_IS_SAME}::DOUBLE
            ) AS iou
        FROM (FROM after WHERE photo BETWEEN $first AND $last) a
        JOIN (FROM before WHERE photo BETWEEN $first AND $last) b USING (photo, class)
    )
    WHERE iou >= $iou
    ORDER BY after_box, iou DESC, before_box
"""
