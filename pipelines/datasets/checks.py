"""From what annotations say to what training can use: every image once, every box on its image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.faults import (
    COST_THE_IMAGE,
    COST_THE_LAST_BOX,
    Fault,
    FaultKind,
    collected,
)
from pipelines.datasets.files import Measured, read_sizes, why_not_fetched
from pipelines.datasets.training_table import training_table
from pipelines.photos import ErrorKind, ImageError

ROUNDING_PX = 1.0
"""Up to so far beyond its image a box is clipped without a word."""
MIN_SIDE_PX = 1e-3
"""float32 corners on a large photo cannot tell less from nothing."""


def checked_table(
    annotations: Annotations, *, keep_incomplete: bool = False
) -> tuple[pa.Table, list[Fault]]:
    """The training table of all that is usable, and the faults.

    Boxes are clipped to their images. Sizes that the annotations lack are read from the photos.

    Args:
        keep_incomplete: keep an image of which some annotation could not be read, with the boxes
            that are left.
    """
    faults = annotations.all_faults()
    images = _with_sizes(_present_once(annotations, faults), faults)
    rows = []
    for image in images:
        image = _in_pixels(image) if annotations.in_shares else image
        with collected(faults):
            rows.append(_usable(image, keep_incomplete, faults).row())
    return training_table(rows, annotations.class_names), faults


def _present_once(annotations: Annotations, faults: list[Fault]) -> list[AnnotatedImage]:
    """The images whose photo is there; of several entries for one photo the first."""
    first: dict[str, AnnotatedImage] = {}
    photo_uris = annotations.photo_uris
    for image in annotations.images:
        with collected(faults):
            if image.uri in first:
                message = f"{image.uri} stands at {first[image.uri].where} already"
                raise Fault(FaultKind.DUPLICATE_IMAGE, image.where, _with_loss(message, image))
            if not _is_text(image.uri):
                message = _with_loss(f"{image.uri} is no UTF-8 text: rename the photo", image)
                raise Fault(FaultKind.UNREADABLE, image.where, message)
            if photo_uris is not None and image.uri not in photo_uris:
                message = f"{image.uri} is not there"
                raise Fault(FaultKind.MISSING_IMAGE, image.where, _with_loss(message, image))
            first[image.uri] = image
    return list(first.values())


def _is_text(name: str) -> bool:
    """Whether a table can hold it: a name in GBK, say, can be listed and opened, but is no text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _with_loss(message: str, image: AnnotatedImage) -> str:
    return f"{message}; boxes dropped with it: {len(image.boxes)}"


def _with_sizes(images: Sequence[AnnotatedImage], faults: list[Fault]) -> Iterator[AnnotatedImage]:
    unsized = [image.uri for image in images if not image.is_sized]
    sizes = dict(zip(unsized, read_sizes(unsized), strict=True))
    for image in images:
        match sizes.get(image.uri, Measured(image.width, image.height, image.etag)):
            case ImageError(kind=kind) as error:
                gone = kind is ErrorKind.GONE
                fault_kind = FaultKind.MISSING_IMAGE if gone else FaultKind.UNREADABLE
                message = _with_loss(f"{image.uri}: {why_not_fetched(error)}", image)
                faults.append(Fault(fault_kind, image.where, message))
            case Measured(width, height, etag):
                yield replace(image, width=width, height=height, etag=etag)


def _in_pixels(image: AnnotatedImage) -> AnnotatedImage:
    width, height = image.width, image.height
    boxes = [
        replace(box, corners=(x1 * width, y1 * height, x2 * width, y2 * height))
        for box in image.boxes
        for x1, y1, x2, y2 in [box.corners]
    ]
    return replace(image, boxes=boxes)


def _usable(image: AnnotatedImage, keep_incomplete: bool, faults: list[Fault]) -> AnnotatedImage:
    """The image with the boxes that show some of it.

    Raises:
        Fault: what is on it is not known.
    """
    found: list[Fault] = []
    usable = replace(image, boxes=_usable_boxes(image.boxes, image.width, image.height, found))
    faults += found
    costly = COST_THE_IMAGE if usable.boxes else COST_THE_LAST_BOX
    lost = [fault for fault in (*image.faults, *found) if fault.kind in costly]
    if lost and not keep_incomplete:
        message = f"{image.uri}: {lost[0].kind} at {lost[0].where}"
        raise Fault(FaultKind.INCOMPLETE_IMAGE, image.where, _with_loss(message, usable))
    return usable


def _usable_boxes(
    boxes: Sequence[AnnotatedBox], width: int, height: int, faults: list[Fault]
) -> list[AnnotatedBox]:
    """Those that show some of the image, clipped to it, each once."""
    usable: dict[object, AnnotatedBox] = {}
    for box in boxes:
        with collected(faults):
            clipped = _clipped(box, width, height)
            key = (clipped.class_id, clipped.corners, clipped.is_crowd)
            if key in usable:
                message = f"{_shown(box)} stands at {usable[key].where} already"
                raise Fault(FaultKind.DUPLICATE_BOX, box.where, message)
            usable[key] = clipped
            if _overhang_px(box, width, height) > ROUNDING_PX:
                message = f"{_shown(box)} reaches beyond {width} x {height} px"
                faults.append(Fault(FaultKind.CLIPPED, box.where, message))
    return list(usable.values())


def _clipped(box: AnnotatedBox, width: int, height: int) -> AnnotatedBox:
    """The part of a box that lies on the image.

    Raises:
        Fault: there is none, or the box is none.
    """
    if not all(map(math.isfinite, (*box.corners, box.area or 0))):
        raise Fault(FaultKind.NOT_FINITE, box.where, f"{_shown(box)}, area {box.area}")
    if _shorter_side(box.corners) < MIN_SIDE_PX:
        raise Fault(FaultKind.ZERO_AREA, box.where, _shown(box))
    x1, y1, x2, y2 = box.corners
    corners = (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))
    if _shorter_side(corners) < MIN_SIDE_PX:
        message = f"{_shown(box)} is not on {width} x {height} px"
        raise Fault(FaultKind.OUTSIDE, box.where, message)
    return replace(box, corners=corners)


def _shorter_side(corners: Corners) -> float:
    x1, y1, x2, y2 = corners
    return min(x2 - x1, y2 - y1)


def _overhang_px(box: AnnotatedBox, width: int, height: int) -> float:
    x1, y1, x2, y2 = box.corners
    return max(-x1, -y1, x2 - width, y2 - height)


def _shown(box: AnnotatedBox) -> str:
    return "box " + ", ".join(f"{corner:g}" for corner in box.corners)
