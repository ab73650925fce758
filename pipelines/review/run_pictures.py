"""The photos of a run with what was found on them, ready for a contact sheet."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow.dataset as pads

from pipelines.photos import ImageError, ImageRef, decode_for_canvas, fetch_images
from pipelines.review.contact_sheet import Picture
from pipelines.tables import Views


def pictures_of(
    views: Views, image_uris: Sequence[str], min_score: float, max_bytes: int, max_pixels: int
) -> list[Picture]:
    """One picture per image, in the order given; a failed image shows its error kind.

    Args:
        min_score: boxes below it are not drawn.
        max_bytes: larger files are not fetched.
        max_pixels: larger images are not decoded.
    """
    wanted = pads.field("image_uri").isin(list(image_uris))
    images = {row["image_uri"]: row for row in views.images.to_table(filter=wanted).to_pylist()}
    boxes: dict[str, list[dict[str, Any]]] = {uri: [] for uri in image_uris}
    seen = wanted & (pads.field("score") >= min_score)
    for box in views.detections.to_table(filter=seen).to_pylist():
        boxes[box["image_uri"]].append(box)
    bodies = fetch_images([ImageRef(uri) for uri in image_uris], max_bytes)
    return [
        _picture(images[uri], boxes[uri], body, max_pixels)
        for uri, body in zip(image_uris, bodies, strict=True)
    ]


def _picture(
    image: Mapping[str, Any],
    boxes: Sequence[Mapping[str, Any]],
    body: bytes | ImageError,
    max_pixels: int,
) -> Picture:
    caption = PurePosixPath(image["image_uri"]).name
    if image["error_kind"]:
        return Picture(caption, image["error_kind"])
    if isinstance(body, ImageError):
        return Picture(caption, str(body.kind))
    return Picture(
        caption,
        f"{len(boxes)} objects",
        decode_for_canvas(body, max_pixels, None, partly=True).pixels,
        np.array([[box[side] for side in ("x1", "y1", "x2", "y2")] for box in boxes]).reshape(
            -1, 4
        ),
        [f"{box['class_name']} {box['score']:.2f}" for box in boxes],
        [box["class_id"] for box in boxes],
    )
