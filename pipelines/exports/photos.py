"""Photos are copied to where an export goes, some at a time."""

from collections.abc import Callable, Iterator

from pipelines.exports.output import Output
from pipelines.exports.selection import Failure, Photo, Selection
from pipelines.photos import ImageError, ImageRef, fetch_images

MAX_BYTES_AT_ONCE = 128 * 1024 * 1024
MAX_PHOTOS_AT_ONCE = 128
_MAX_PHOTO_BYTES = 2**31

Tell = Callable[[int], None]
"""Is told how many photos have been looked at."""


def copy_photos(selection: Selection, output: Output, folder: str, tell: Tell) -> None:
    """Copy every labelled photo to a folder of the output, under its name.

    One that cannot be read, or is another since it was labelled, becomes a failed image.
    """
    seen = 0
    for some in _in_handfuls(selection.labelled()):
        selection.mark_failed(_copy(some, output, folder))
        seen += len(some)
        tell(seen)


def _copy(photos: list[Photo], output: Output, folder: str) -> list[Failure]:
    refs = [ImageRef(photo.uri, photo.etag, photo.size_bytes) for photo in photos]
    bodies = list(zip(photos, fetch_images(refs, _MAX_PHOTO_BYTES), strict=True))
    output.write_all(
        (f"{folder}/{photo.name}", body)
        for photo, body in bodies
        if not isinstance(body, ImageError)
    )
    return [
        Failure(photo.number, body.kind, str(body))
        for photo, body in bodies
        if isinstance(body, ImageError)
    ]


def _in_handfuls(photos: Iterator[Photo]) -> Iterator[list[Photo]]:
    """So many photos that they fit into memory."""
    some: list[Photo] = []
    size_bytes = 0
    for photo in photos:
        some.append(photo)
        size_bytes += photo.size_bytes or 0
        if len(some) == MAX_PHOTOS_AT_ONCE or size_bytes >= MAX_BYTES_AT_ONCE:
            yield some
            some, size_bytes = [], 0
    if some:
        yield some
