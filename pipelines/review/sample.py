"""Which photos a review shows, and what the table says of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from pipelines.errors import InputError
from pipelines.review.config import ReviewConfig
from pipelines.tables import Views, query_run, query_table, read_rows, run_query

Row = dict[str, Any]


@dataclass(frozen=True)
class BoxKind:
    """What became of a box when a run was compared; its first letter stands at the box."""

    name: str
    dashes: str = ""
    """Of its outline, in pixels of the screen, as SVG's stroke-dasharray; none: a solid line."""
    of_run: bool = True
    """The run under review has found it. Others count only when a person keeps them."""
    agrees: bool = False
    """Both sides have it: its row says what its score `was`."""


@dataclass(frozen=True)
class Sample:
    """Rows of the tables."""

    images: list[Row]
    """In the order in which they are shown first."""
    boxes: dict[str, list[Row]]
    """Of an image_uri, by falling score; where there are kinds, each names its `kind`."""
    class_names: list[str]
    """Index = class_id; "" for one that the sample has no box of."""
    num_images: int
    """From which they were drawn."""
    of_what: str
    """For people: the run, or what was asked for."""
    kinds: Sequence[BoxKind] = ()
    """Of boxes, where the run was compared with something."""
    foreign_classes: Collection[str] = ()
    """Class names that the run does not have: no box can be given one."""


def draw_sample(config: ReviewConfig) -> Sample:
    """Draw the photos of a review.

    Raises:
        InputError: there is no such table or run, the SQL is refused or names no image_uri, or
            nothing is there to be looked at.
    """
    if config.sql:
        return query_table(config.table, False, lambda views: _draw(views, config))
    return query_run(config.table, config.run, lambda views: _draw(views, config))


def _draw(views: Views, config: ReviewConfig) -> Sample:
    wanted, columns = _wanted(views, config), ", ".join(_IMAGE)
    drawn = _DRAWN.format(columns=columns, seed=config.seed, most=config.max_photos)
    images = run_query(views, f"{wanted} {drawn}")
    if not len(images):
        raise InputError(
            "there is no photo to look at: the run, or what the SQL asks for, has none"
        )
    total = run_query(views, f"{wanted} SELECT count(*) FROM wanted")
    boxes = run_query(views, f"{wanted} {_BOXES.format(uris=_listed(images))}").to_pylist()
    names = {box["class_id"]: box["class_name"] for box in boxes}
    run = images["run"][0].as_py()
    return Sample(
        images=images.to_pylist(),
        boxes=_by_image(boxes),
        class_names=[names.get(number, "") for number in range(max(names, default=-1) + 1)],
        num_images=total.column(0)[0].as_py(),
        of_what=f"SQL {config.sql}" if config.sql else f"run {run}",
    )


_IMAGE = ["image_uri", "etag", "width", "height", "error_kind", "error_message", "run"]


def images_named(views: Views, image_uris: Sequence[str]) -> list[Row]:
    """The images of a run that have these URIs, in this order; those that it lacks are left out."""
    named = pads.field("image_uri").isin(list(image_uris))
    rows = {row["image_uri"]: row for row in read_rows(views.images, _IMAGE, named).to_pylist()}
    return [rows[uri] for uri in image_uris if uri in rows]


def _wanted(views: Views, config: ReviewConfig) -> str:
    """The beginning of a query: `wanted`, the images to draw from, and `seen`, their boxes."""
    if not config.sql:
        return "WITH wanted AS (FROM images), seen AS (FROM detections)"
    sql = config.sql.strip().rstrip(";")
    columns = run_query(views, f"SELECT * FROM ({sql}) LIMIT 0").column_names
    if "image_uri" not in columns:
        raise InputError(
            f"sql={config.sql!r} gives the columns {', '.join(columns)}: one must be image_uri"
        )
    return (
        f"WITH asked AS (SELECT DISTINCT image_uri FROM ({sql})), "
        "wanted AS (FROM latest SEMI JOIN asked USING (image_uri)), "
        "seen AS (FROM latest_detections SEMI JOIN asked USING (image_uri))"
    )


# The stratum of a photo is its rarest class: the common ones are on the others' photos, too.
_DRAWN = """
    , frequencies AS (SELECT class_name, count(*) AS frequency FROM seen GROUP BY class_name)
    , rarest AS (
        SELECT image_uri, arg_min(class_name, (frequency, class_name)) AS class_name
        FROM seen JOIN frequencies USING (class_name) GROUP BY image_uri
    )
    , ranked AS (
        SELECT wanted.*, row_number() OVER (
            PARTITION BY coalesce(error_kind, class_name, '')
            ORDER BY hash(image_uri || '{seed}'), image_uri
        ) AS place
        FROM wanted LEFT JOIN rarest USING (image_uri)
    )
    SELECT {columns} FROM ranked
    ORDER BY place, hash(image_uri || '{seed}'), image_uri LIMIT {most}
"""

_BOXES = """
    SELECT image_uri, class_id, class_name, score, x1, y1, x2, y2 FROM seen
    WHERE image_uri IN ({uris}) ORDER BY image_uri, score DESC
"""


def _listed(images: pa.Table) -> str:
    quoted = (uri.replace("'", "''") for uri in images["image_uri"].to_pylist())
    return ", ".join(f"'{uri}'" for uri in quoted)


def _by_image(boxes: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for box in boxes:
        found.setdefault(box["image_uri"], []).append(box)
    return found
