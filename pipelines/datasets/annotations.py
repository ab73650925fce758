"""What the readers of all formats give: images with their boxes, before anybody checked them."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from pipelines.datasets.faults import Fault
from pipelines.errors import InputError

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image after EXIF orientation."""


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    class_id: int
    corners: Corners
    where: str
    """For people: the file and its line, or the annotation's id."""
    is_crowd: bool = False
    area: float | None = None
    """Pixels² of the segmentation; without one the box's own area counts."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    uri: str
    where: str
    boxes: Sequence[AnnotatedBox] = ()
    width: int = 0
    """Pixels; 0 where the annotations do not say."""
    height: int = 0

    def row(self) -> dict[str, Any]:
        """As a row of schema.TRAINING."""
        return {
            "image_uri": self.uri,
            "width": self.width,
            "height": self.height,
            "boxes": [box.corners for box in self.boxes],
            "class_ids": [box.class_id for box in self.boxes],
            "is_crowd": [box.is_crowd for box in self.boxes],
            "areas": [_area(box) for box in self.boxes],
        }


@dataclass(frozen=True, kw_only=True)
class Annotations:
    """All that a source says.

    Raises:
        InputError: two classes have the same name.
    """

    class_names: Sequence[str]
    images: Sequence[AnnotatedImage]
    faults: Sequence[Fault]
    """What the reader could not make an image or a box of."""
    photo_uris: Set[str] | None = None
    """The photos that are there; None where reading them will tell, or did."""
    in_shares: bool = False
    """Corners are shares of the image's width and height instead of pixels."""

    def __post_init__(self) -> None:
        repeated = {name for name in self.class_names if self.class_names.count(name) > 1}
        if repeated:
            raise InputError(
                f"the class names {sorted(repeated)} stand for several classes: "
                "detections are matched to classes by their name, so give each its own"
            )


def _area(box: AnnotatedBox) -> float:
    x1, y1, x2, y2 = box.corners
    return (x2 - x1) * (y2 - y1) if box.area is None else box.area
