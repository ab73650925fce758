"""From the bytes of an image file to pixels, and everything that can be wrong with them.

This is the one decoder of training, evaluation and labelling.
"""

import io
import warnings
from typing import NamedTuple, Self

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.photos.errors import ErrorKind, ImageError

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) BGR, as cv2 has it, after EXIF orientation."""

# PIL only reads headers here: the limit on pixels is ours, and odd EXIF is not our business.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")


class Photo(NamedTuple):
    """Pixels of a photo, perhaps of fewer rows and columns than the photo has."""

    pixels: Pixels
    size: tuple[int, int]
    """(height, width) of the photo itself after EXIF orientation, in pixels."""

    @classmethod
    def whole(cls, pixels: Pixels) -> Self:
        """All pixels of a photo."""
        height, width, _ = pixels.shape
        return cls(pixels, (height, width))


def decode_image(data: bytes, max_pixels: int) -> Pixels:
    """(H, W, 3) BGR pixels of an image file, the first frame where it has several.

    EXIF orientation is applied; grey, palette, CMYK and 16-bit become 8-bit BGR, alpha is dropped.

    Raises:
        ImageError: it cannot be decoded, or its header announces more than `max_pixels`.
    """
    width, height = _size_within(data, max_pixels)
    return _decoded(data, width, height, cv2.IMREAD_COLOR)


def decode_for_canvas(data: bytes, max_pixels: int, canvas: tuple[int, int]) -> Photo:
    """As `decode_image`, at a half or a quarter of the size where that is enough for a canvas.

    A JPEG's own transform gives such pixels for less, and they are nearer to the mean of the pixels
    they stand for than what a linear resize of all of them picks. What is decoded has at least
    thrice the rows and columns that a letterbox of (height, width) `canvas` makes of the photo.

    Raises:
        ImageError: as `decode_image`.
    """
    width, height = _size_within(data, max_pixels)
    reduction = _reduction(width, height, canvas) if data.startswith(_JPEG) else 1
    pixels = _decoded(data, width, height, _FLAGS[reduction])
    upright, turned = (_reduced(height, width, reduction), _reduced(width, height, reduction))
    if upright == turned and width != height:  # whether EXIF turns it cannot be told from these
        return Photo.whole(_decoded(data, width, height, cv2.IMREAD_COLOR))
    return Photo(pixels, (height, width) if pixels.shape[:2] == upright else (width, height))


_JPEG = b"\xff\xd8\xff"
_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
}


_MARGIN = 3
"""Decoded pixels for each on the canvas, along a side. With it boxes move no more than by noise of
one grey level: of those of coco_val79 enlarged to 12 Mpx, scored above 0.3, 99 % stay at IoU 0.9,
but 95 % where 2.4 will do; and a quarter is not decoded faster than a half."""


def _reduction(width: int, height: int, canvas: tuple[int, int]) -> int:
    """The largest that leaves the margin, whichever way EXIF turns the photo."""
    shrinks = (
        max(height / canvas[0], width / canvas[1]),
        max(width / canvas[0], height / canvas[1]),
    )
    return next(
        reduction
        for reduction in (4, 2, 1)
        if reduction * _MARGIN <= min(shrinks) or reduction == 1
    )


def _reduced(height: int, width: int, reduction: int) -> tuple[int, int]:
    return -(-height // reduction), -(-width // reduction)


def _size_within(data: bytes, max_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels, before EXIF orientation."""
    if not data:
        raise ImageError(ErrorKind.EMPTY_OBJECT, "zero bytes")
    width, height = read_size(data)
    # A 49 KB PNG can announce 20,000 x 20,000 px: refuse it before cv2 allocates 1.2 GB for it.
    if width * height > max_pixels:
        raise ImageError(
            ErrorKind.TOO_MANY_PIXELS, f"{width} x {height} px: more than max_pixels={max_pixels}"
        )
    return width, height


def _decoded(data: bytes, width: int, height: int, flags: int) -> Pixels:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except MemoryError as error:
        raise ImageError(ErrorKind.OUT_OF_MEMORY, f"decoding {width} x {height} px") from error
    except cv2.error as error:
        kind = ErrorKind.OUT_OF_MEMORY if error.code == cv2.Error.StsNoMem else ErrorKind.CORRUPT
        raise ImageError(kind, error.err) from error
    if pixels is None:
        raise _undecodable(data)
    return pixels.astype(np.uint8, copy=False)


def read_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header alone, before EXIF orientation.

    Raises:
        ImageError: the header is not that of an image, or is damaged.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.size
    except Exception as error:  # PIL's plugins raise whatever their parsing meets
        raise _undecodable(data) from error


_MAGIC = {
    _JPEG: "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_UNSUPPORTED_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
}
_UNSUPPORTED_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis", b"avif"}


def _undecodable(data: bytes) -> ImageError:
    """What is wrong with bytes that do not decode, by the marks of their own format."""
    image_format = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if image_format:
        if _is_cut_short(data, image_format):
            return ImageError(ErrorKind.TRUNCATED, f"{image_format} without its end")
        return ImageError(ErrorKind.CORRUPT, f"{image_format} that does not decode")
    for magic, name in _UNSUPPORTED_MAGIC.items():
        if data.startswith(magic):
            return ImageError(ErrorKind.UNSUPPORTED_FORMAT, f"{name} is not supported")
    if data[4:8] == b"ftyp" and data[8:12] in _UNSUPPORTED_BRANDS:
        return ImageError(ErrorKind.UNSUPPORTED_FORMAT, f"{data[8:12].decode()} is not supported")
    return ImageError(ErrorKind.NOT_AN_IMAGE, f"starts with {data[:16]!r}")


def _is_cut_short(data: bytes, image_format: str) -> bool:
    match image_format:
        case "JPEG":
            return not data.rstrip(b"\0").endswith(b"\xff\xd9")
        case "PNG":
            return b"IEND" not in data[-64:]
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "WebP":
            return int.from_bytes(data[4:8], "little") + 8 > len(data)
        case "BMP":
            return int.from_bytes(data[2:6], "little") > len(data)
    return False
