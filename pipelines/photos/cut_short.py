"""JPEGs whose bytes end too early: how many of their rows are there, and where those lie."""

import io
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.photos.formats import JPEG

Box: TypeAlias = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""

_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"
_NOISE = b"\xaa\x55\x33\xcc" * 64
"""What might have followed; no marker is in it."""
_BLOCK = 8
"""Rows and columns that a JPEG keeps together."""
_GREY = 128
"""What a JPEG's missing blocks are."""


def lacks_its_end(data: bytes) -> bool:
    """Whether these are the bytes of a JPEG that has begun with its pixels, and has no end."""
    if not data.startswith(JPEG) or data.rstrip(b"\0").endswith(_END):
        return False
    # What phones write behind the end, a film say, is not the end's lack.
    return data.rfind(_END) < data.rfind(_START_OF_SCAN)


def with_end(data: bytes, before: bytes = b"") -> bytes:
    """As a decoder wants it. Zeros at the end are room that a camera had set aside."""
    pixels = data.rstrip(b"\0")
    # A pixel's 0xff is always followed by a zero.
    return pixels + (b"\0" if pixels.endswith(b"\xff") else b"") + before + _END


def count_rows(data: bytes) -> int:
    """How many of a JPEG's rows are all there, before EXIF orientation.

    They are those that stay the same whatever would have followed, up to the details of one block.
    Of a progressive JPEG each row is made of bytes from all over the file, so none is there unless
    all are.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            height, is_progressive = image.height, "progressive" in image.info
            shrink = 1 if is_progressive or min(image.size) < _BLOCK else _BLOCK
        before, after = (_shrunk(with_end(data, tail), shrink) for tail in (b"", _NOISE))
    except OSError:  # cut amid a header of one of its scans
        return 0
    rows = zip(before, after, strict=True)
    differing = next((at for at, (a, b) in enumerate(rows) if not np.array_equal(a, b)), None)
    if differing is None:
        return height
    # The last row before takes some of its colour from those that are not there.
    return 0 if is_progressive else max(0, shrink * differing - 1)


def _shrunk(data: bytes, shrink: int) -> npt.NDArray[np.uint8]:
    """(H / shrink, W / shrink, 3), not turned: at 8 one pixel for each block, which costs little.

    By PIL, whose libjpeg does not print what it makes of damage.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (max(1, image.width // shrink), max(1, image.height // shrink)))
        return np.asarray(image.convert("RGB"))


def place_of_rows(rows: int, size: tuple[int, int], orientation: int) -> Box:
    """Where the first rows of a photo lie once EXIF has turned it.

    Args:
        size: (height, width) before it is turned.
    """
    height, width = size
    match orientation:
        case 3 | 4:
            return (0, height - rows, width, height)
        case 5 | 8:
            return (0, 0, rows, width)
        case 6 | 7:
            return (height - rows, 0, height, width)
    return (0, 0, width, rows)


def grey_beyond(pixels: npt.NDArray[np.uint8], there: Box) -> npt.NDArray[np.uint8]:
    """The (H, W, 3) pixels, with grey for those that lie outside."""
    x1, y1, x2, y2 = there
    greyed = np.full_like(pixels, _GREY)
    greyed[y1:y2, x1:x2] = pixels[y1:y2, x1:x2]
    return greyed
