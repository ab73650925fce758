"""Pixels of more than 8 bits, as a viewer would show them."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.photos.errors import ErrorKind, ImageError

_OUTLIERS = 0.1
"""Per cent of the pixels at either end of their range: dead, hot and dazzled ones."""
_NARROW = 1 / 8
"""Share of its range below which a photo is a measurement, of warmth say, and has no black."""


def to_eight_bits(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """The same shape in 0..255, of unsigned, signed or floating-point pixels.

    From 0 to 1 for numbers that stay below 1, else to the largest number of as many bits as the
    brightest pixels need (4,095 for a camera of 12 bits); from the darkest to the brightest pixels
    where they are nearly the same, or below 0. What is no number becomes black.

    Raises:
        ImageError: no pixel is a number.
    """
    low, high = _window(pixels)
    scaled = (pixels.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return scaled.clip(0, 255, out=scaled).round(out=scaled).astype(np.uint8)


def _window(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    """What becomes black, and what white."""
    some = pixels[:: 1 + pixels.shape[0] // 512, :: 1 + pixels.shape[1] // 512]
    some = some[np.isfinite(some)]
    if not len(some):
        raise ImageError(ErrorKind.CORRUPT, "no pixel is a finite number")
    low, high = (float(limit) for limit in np.percentile(some, (_OUTLIERS, 100 - _OUTLIERS)))
    full = 1.0 if pixels.dtype.kind == "f" and high <= 1 else _largest_of_its_bits(high)
    if low < high and (low < 0 or high - low < _NARROW * full):
        return low, high
    return 0.0, full


def _largest_of_its_bits(value: float) -> float:
    """255, 511, 1023, …: the first that is not below it."""
    return 2.0 ** max(8, math.ceil(math.log2(max(value, 0) + 1))) - 1
