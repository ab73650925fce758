"""What PIL does: it reads headers, and decodes what OpenCV does not, or not upright."""

import io
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pipelines.photos import heif
from pipelines.photos.depth import to_eight_bits
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.photos.formats import is_avif, undecodable

_NUMBERS = ("I", "F")
"""PIL's modes of pixels of 32 bits, which OpenCV refuses to make colours of."""
_ORIENTATION = 0x0112  # EXIF's tag
TURNED_BY_A_QUARTER = frozenset({5, 6, 7, 8})
"""EXIF orientations."""


class Header(NamedTuple):
    """What a file says of its pixels before they are decoded."""

    width: int
    height: int
    """In pixels, before EXIF orientation."""
    mode: str
    """PIL's."""


def read_header(data: bytes) -> Header:
    """What it says.

    Raises:
        ImageError: it is not that of an image, or is damaged.
    """
    if heif.is_heif(data):
        heif.teach_pillow()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return Header(*image.size, image.mode)
    except Exception as error:  # PIL's plugins raise whatever their parsing meets
        raise undecodable(data) from error


def is_for_pillow(data: bytes, header: Header) -> bool:
    """Whether OpenCV would not decode it, or not turn it, as it does not what AVIF turns."""
    return header.mode in _NUMBERS or heif.is_heif(data) or is_avif(data)


def decode_by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    """(H, W, 3) BGR, upright.

    Raises:
        ImageError: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(_NUMBERS):
                grey = to_eight_bits(np.asarray(upright))
                return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
            pixels = np.asarray(upright.convert("RGB"))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(ErrorKind.OUT_OF_MEMORY, "not enough memory to decode it") from error
    except Exception as error:  # PIL's plugins raise whatever their decoding meets
        raise undecodable(data) from error
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False)


def exif_orientation(data: bytes) -> int:
    """1 to 8, as EXIF numbers them."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF, which raises whatever PIL meets in it and turns no photo
        return 1
    return orientation if orientation in range(1, 9) else 1
