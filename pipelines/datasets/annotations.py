"""What the readers of all formats give: images with their boxes, before anybody checked them."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipelines.datasets.faults import Fault
from pipelines.errors import InputError
from pipelines.storage import is_s3

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image after EXIF orientation."""
Source = Literal["annotation", "model", "accepted", "person"]
"""Who says that a box is there: a file of annotations; a model; a model, and a person who looked
let it stand; a person, who drew, moved or renamed it."""
_INT32_END = 2**31
"""What schema.TRAINING cannot hold."""


@dataclass(frozen=True, slots=True)
class AnnotatedBox:
    class_id: int
    corners: Corners
    where: str
    """For people: the file and its line, or the annotation's id."""
    is_crowd: bool = False
    area: float | None = None
    """Pixels² of the segmentation; without one the box's own area counts."""
    score: float | None = None
    """From 0 to 1, of a model's prediction; None of what a person drew."""
    source: Source = "annotation"
    """Of a box with a score it is the model, whatever this says."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    uri: str
    where: str
    boxes: Sequence[AnnotatedBox] = ()
    width: int = 0
    """Pixels; 0 where the annotations do not say."""
    height: int = 0
    faults: Sequence[Fault] = ()
    """Its annotations that the reader could not make a box of."""
    etag: str | None = None
    """Of the photo that the boxes are for, if known."""

    @property
    def is_sized(self) -> bool:
        """Whether width and height can be those of a photo; otherwise its header tells."""
        return all(0 < side < _INT32_END for side in (self.width, self.height))

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
            # A file's is made of its time, which a copy of the photos need not keep.
            "etag": self.etag if is_s3(self.uri) else None,
            "sources": [box.source if box.score is None else "model" for box in self.boxes],
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
    """What the reader could not make an image of; those of boxes stand at their images."""
    photo_uris: Set[str] | None = None
    """The photos that are there; None where reading them will tell, or did."""
    in_shares: bool = False
    """Corners are shares of the image's width and height instead of pixels."""
    notes: Sequence[str] = ()
    """What a person should know, and what is no fault."""

    def __post_init__(self) -> None:
        repeated = {name for name in self.class_names if self.class_names.count(name) > 1}
        if repeated:
            raise InputError(
                f"the class names {sorted(repeated)} stand for several classes: "
                "detections are matched to classes by their name, so give each its own"
            )

    def all_faults(self) -> list[Fault]:
        return [*self.faults, *(fault for image in self.images for fault in image.faults)]

    def above(self, min_score: float) -> "Annotations":
        """Without the predictions of a lower score, and with a note of them."""
        images = [replace(image, boxes=_above(image.boxes, min_score)) for image in self.images]
        scored = sum(box.score is not None for image in self.images for box in image.boxes)
        lost = _count_boxes(self.images) - _count_boxes(images)
        emptied = sum(
            bool(before.boxes) and not after.boxes
            for before, after in zip(self.images, images, strict=True)
        )
        note = f"{scored:,} boxes have a score: {lost:,} below --min_score {min_score:g} left out"
        note += f", so that {emptied:,} images have none" if emptied else ""
        return replace(self, images=images, notes=[*self.notes, *([note] if scored else [])])


def joined(source: str, parts: Sequence[Annotations]) -> Annotations:
    """The splits of a source as one.

    Raises:
        InputError: they have different classes.
    """
    first = parts[0]
    for part in parts:
        if part.class_names != first.class_names:
            raise InputError(
                f"{source} has splits with the classes {first.class_names} and "
                f"{part.class_names}: prepare each by itself, or give them the same ones"
            )
    uris = [part.photo_uris for part in parts if part.photo_uris is not None]
    return replace(
        first,
        images=[image for part in parts for image in part.images],
        faults=[fault for part in parts for fault in part.faults],
        photo_uris=frozenset().union(*uris) if uris else None,
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _above(boxes: Sequence[AnnotatedBox], min_score: float) -> list[AnnotatedBox]:
    return [box for box in boxes if box.score is None or box.score >= min_score]


def _count_boxes(images: Iterable[AnnotatedImage]) -> int:
    return sum(len(image.boxes) for image in images)


def _area(box: AnnotatedBox) -> float:
    x1, y1, x2, y2 = box.corners
    return (x2 - x1) * (y2 - y1) if box.area is None else box.area
