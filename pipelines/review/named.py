"""Photos of a run that somebody else has chosen."""

from collections.abc import Sequence

import pyarrow.dataset as pads

from pipelines.review.sample import Row, Sample, images_named
from pipelines.tables import Views, read_rows

_BOX = ["image_uri", "class_id", "class_name", "score", "x1", "y1", "x2", "y2"]


def named_photos(views: Views, image_uris: Sequence[str], of_what: str) -> Sample:
    """The photos of one run that have these URIs, in this order; those that it lacks are left out.

    `of_what` is for people: what they are.

    Raises:
        InputError: the table cannot be read any more.
    """
    images = images_named(views, image_uris)
    named = pads.field("image_uri").isin(list(image_uris))
    boxes: dict[str, list[Row]] = {image["image_uri"]: [] for image in images}
    for box in (
        read_rows(views.detections, _BOX, named).sort_by([("score", "descending")]).to_pylist()
    ):
        boxes[box["image_uri"]].append(box)
    names = {box["class_id"]: box["class_name"] for of_one in boxes.values() for box in of_one}
    return Sample(
        images=images,
        boxes=boxes,
        class_names=[names.get(number, "") for number in range(max(names, default=-1) + 1)],
        num_images=views.images.count_rows(),
        of_what=of_what,
    )
