"""The box around a COCO segmentation: polygons, or a mask as the lengths of its runs (RLE)."""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from pipelines.datasets.annotations import Corners

_LOW_BITS, _MORE, _SIGN = 0x1F, 0x20, 0x10
"""Of a character of a packed mask: five bits of a number, and whether another five follow."""


def corners_of(segmentation: Any) -> Corners:
    """The smallest box that holds all of it.

    Raises:
        ValueError: it is none, or shows nothing.
    """
    if isinstance(segmentation, dict):
        return _corners_of_mask(segmentation)
    parts = [segmentation] if _is_flat(segmentation) else (segmentation or [])
    points = [float(value) for part in parts for value in part]
    xs, ys = points[::2], points[1::2]
    if not xs or len(xs) != len(ys) or any(len(part) < 6 for part in parts):
        raise ValueError("it has neither a bbox nor a polygon of three points or a mask (RLE)")
    if not all(map(math.isfinite, points)):  # min() and max() may miss a NaN
        return math.nan, math.nan, math.nan, math.nan
    return min(xs), min(ys), max(xs), max(ys)


def _is_flat(segmentation: Any) -> bool:
    """Whether it is one polygon where a list of polygons belongs, as some tools write it."""
    return bool(segmentation) and isinstance(segmentation[0], int | float)


def _corners_of_mask(mask: dict[str, Any]) -> Corners:
    height, width = map(int, mask["size"])
    counts = mask["counts"]
    # Not pycocotools, which reads beyond the end of a packed mask that is cut short, and divides
    # by the height.
    runs = list(_unpacked(counts) if isinstance(counts, str) else map(int, counts))
    if min(height, width, *runs) < 0 or sum(runs) != height * width:
        raise ValueError(f"its mask has {sum(runs)} pixels, and its size is {height} x {width}")
    filled = [run for run in list(pairwise([0, *accumulate(runs)]))[1::2] if run[0] < run[1]]
    if not filled:
        raise ValueError("its mask is empty")
    return _around(filled, height)


def _unpacked(counts: str) -> Iterable[int]:
    """The lengths of runs of pixels without and with the object, in turns."""
    runs: list[int] = []
    value = bits = 0
    for character in counts.encode():
        chunk = character - 48
        value |= (chunk & _LOW_BITS) << bits
        bits += 5
        if not chunk & _MORE:
            value -= (1 << bits) if chunk & _SIGN else 0
            # From the fourth on it is the difference to the last but one.
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return runs


def _around(runs: Sequence[tuple[int, int]], height: int) -> Corners:
    """The box of runs of pixels that are numbered column by column."""
    lefts = [start // height for start, _ in runs]
    rights = [(end - 1) // height for _, end in runs]
    # A run that goes on in the next column has the bottom of one and the top of the other.
    tops = [
        start % height if left == right else 0
        for (start, _), left, right in zip(runs, lefts, rights, strict=True)
    ]
    bottoms = [
        (end - 1) % height if left == right else height - 1
        for (_, end), left, right in zip(runs, lefts, rights, strict=True)
    ]
    return min(lefts), min(tops), max(rights) + 1, max(bottoms) + 1
