"""Small pictures of photos, made where the photos are: by Ray's workers for S3, else here."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2

from pipelines import cluster, storage
from pipelines.photos import ImageError, ImageRef, decode_for_canvas, fetch_images
from pipelines.review.config import ReviewConfig

Thumbnail = bytes | ImageError
"""A JPEG, or why there is none."""

_AT_ONCE = 32
_QUALITY = 82


def thumbnails(images: Sequence[dict[str, Any]], config: ReviewConfig) -> Iterator[Thumbnail]:
    """One for each image, in order; a photo that has changed since it was labelled has none."""
    pieces = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    if not any(storage.is_s3(image["image_uri"]) for image in images):
        for piece in pieces:
            yield from _some(piece, config)
        return
    # Here: a second that a folder need not wait.
    import ray

    cluster.connect()
    task = ray.remote(_some)
    for done in [task.remote(piece, config) for piece in pieces]:
        yield from ray.get(done)


def _some(images: Sequence[dict[str, Any]], config: ReviewConfig) -> list[Thumbnail]:
    refs = [ImageRef(image["image_uri"], image["etag"]) for image in images]
    bodies = fetch_images(refs, config.max_image_bytes)
    with ThreadPoolExecutor(cluster.usable_cores()) as pool:
        return list(pool.map(lambda body: _thumbnail(body, config), bodies))


def _thumbnail(body: bytes | ImageError, config: ReviewConfig) -> Thumbnail:
    if isinstance(body, ImageError):
        return body
    try:
        photo = decode_for_canvas(body, config.max_pixels, (config.side, config.side), partly=True)
    except ImageError as error:
        return error
    height, width = photo.pixels.shape[:2]
    shrink = min(1.0, config.side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(photo.pixels, size, interpolation=cv2.INTER_AREA)
    jpeg: bytes = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
    return jpeg
