"""What is drawn on a photo in Label Studio, as shares of it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.datasets.annotations import Corners

Region = Mapping[str, Any]
"""All that the results of one region say: where it is, its labels, the size of the photo."""

_OF_THE_PHOTO = ("original_width", "original_height", "image_rotation")
_DRAWN = ("points", "height", "radiusX", "rle")
"""What a region has one of, if it is no keypoint and no answer to a question."""


def regions_of(results: Sequence[Any]) -> tuple[list[Region], int]:
    """(regions, how many keypoints): results of one region are one, answers to questions none."""
    merged: dict[object, dict[str, Any]] = {}
    for index, result in enumerate(results):
        value = result.get("value")
        if isinstance(value, dict):
            about = {key: result[key] for key in (*_OF_THE_PHOTO, "id") if key in result}
            merged.setdefault(_identity(result, value, index), {}).update(value | about)
    drawn = [region for region in merged.values() if "x" in region or region.keys() & {*_DRAWN}]
    regions: list[Region] = [region for region in drawn if region.keys() & {*_DRAWN}]
    return regions, len(drawn) - len(regions)


def _identity(result: Mapping[str, Any], value: Mapping[str, Any], index: int) -> object:
    """The same for a rectangle and its label, which may be two results."""
    place = tuple(str(value.get(key)) for key in ("x", "y", "width", "height", "points"))
    has_place = any(part != "None" for part in place)
    return result.get("id") or (place if has_place else index)


def labels_of(region: Region) -> list[str]:
    """Those of all tools, each once: rectanglelabels, polygonlabels, labels and so on."""
    lists = (value for key, value in region.items() if key.endswith("labels"))
    found = [str(label) for value in lists if isinstance(value, list) for label in value]
    return list(dict.fromkeys(found))


def size_of(region: Region) -> tuple[int, int]:
    """(width, height) of the photo, or zeros where it is not said."""
    sides = [region.get(key) for key in _OF_THE_PHOTO[:2]]
    width, height = (side if type(side) is int and side > 0 else 0 for side in sides)
    return width, height


def corners_of(region: Region) -> Corners:
    """The box around a region, in shares of the photo.

    Raises:
        ValueError, LookupError, TypeError: there is none, or it is not said what it takes.
    """
    if region.get("image_rotation"):
        raise ValueError("the photo was turned while it was annotated: turn the file itself")
    if "rle" in region:
        raise ValueError("it was painted with the brush: export the project as COCO instead")
    width, height = size_of(region)
    if region.get("rotation") and not (width and height):
        raise ValueError("it is turned, and the file has no original_width and original_height")
    xs, ys = zip(*_outline(region, width or 1, height or 1), strict=True)
    if not all(map(math.isfinite, (*xs, *ys))):  # min() and max() may miss a NaN
        return math.nan, math.nan, math.nan, math.nan
    return min(xs), min(ys), max(xs), max(ys)


def _outline(region: Region, width: int, height: int) -> list[tuple[float, float]]:
    """Points around it. Only in pixels is a right angle one: it turns there."""
    if "points" in region:
        return [(float(x) / 100, float(y) / 100) for x, y in region["points"]]
    x, y = float(region["x"]) * width, float(region["y"]) * height
    offsets = _rectangle if "height" in region else _ellipse
    turned = math.radians(float(region.get("rotation") or 0))
    return [
        ((x + dx) / width / 100, (y + dy) / height / 100)
        for dx, dy in offsets(region, width, height, turned)
    ]


def _rectangle(region: Region, width: int, height: int, turned: float) -> list[tuple[float, float]]:
    """Its corners from the first of them, about which it turns."""
    across, along = float(region["width"]) * width, float(region["height"]) * height
    right = (across * math.cos(turned), across * math.sin(turned))
    down = (-along * math.sin(turned), along * math.cos(turned))
    return [(0, 0), right, down, (right[0] + down[0], right[1] + down[1])]


def _ellipse(region: Region, width: int, height: int, turned: float) -> list[tuple[float, float]]:
    """Two corners of the box around it, from its centre."""
    across, along = float(region["radiusX"]) * width, float(region["radiusY"]) * height
    dx = math.hypot(across * math.cos(turned), along * math.sin(turned))
    dy = math.hypot(across * math.sin(turned), along * math.cos(turned))
    return [(-dx, -dy), (dx, dy)]
