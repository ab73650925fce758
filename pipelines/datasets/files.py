"""Many files at once, and the size of a photo from its header."""

import io
from collections.abc import Iterator, Sequence

from PIL import Image

from pipelines.photos import ImageError, ImageRef, fetch_images, read_size

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are not fetched."""
_FILES_AT_ONCE = 256
"""Held in memory together."""

_ORIENTATION = 0x0112  # EXIF's tag
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)


def read_files(uris: Sequence[str]) -> Iterator[bytes | ImageError]:
    """The bytes of every file, or why there are none, in the order given; side by side from S3."""
    for start in range(0, len(uris), _FILES_AT_ONCE):
        refs = [ImageRef(uri) for uri in uris[start : start + _FILES_AT_ONCE]]
        yield from fetch_images(refs, MAX_FILE_BYTES)


def read_sizes(uris: Sequence[str]) -> Iterator[tuple[int, int] | ImageError]:
    """(width, height) of every photo after EXIF orientation, or why there is none.

    Photos are read whole: a JPEG's size may stand behind previews of any length.
    """
    for data in read_files(uris):
        try:
            yield data if isinstance(data, ImageError) else _oriented_size(data)
        except ImageError as error:
            yield error


def _oriented_size(data: bytes) -> tuple[int, int]:
    width, height = read_size(data)
    return (height, width) if _is_turned(data) else (width, height)


def _is_turned(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION) in _TURNED_BY_A_QUARTER
    except Exception:  # damaged EXIF, which raises whatever PIL meets in it and turns no photo
        return False
