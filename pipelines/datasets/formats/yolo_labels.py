"""YOLO's label files: a line for each box, whatever the layout that they lie in."""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import as_text, read_files, read_lines, why_not_fetched
from pipelines.datasets.formats.json_files import score_of
from pipelines.photos import ErrorKind, ImageError

_BOX, _POLYGON = 4, 6
"""The numbers of a box and of the smallest polygon, without the class."""
_BESIDE = 0.01
"""So far beyond its photo, in shares of it, a polygon may reach."""

_Label = tuple[str, bytes | ImageError]
"""Of a file: its URI, and what is in it or why that is not known."""


@dataclass(frozen=True)
class LabelledPhoto:
    uri: str
    where: str
    """What names the photo: itself, or a line of a list."""
    label_uris: Sequence[str]
    """Where its labels may lie: the first that is there counts."""


@dataclass(frozen=True)
class Keypoints:
    """How many there are behind each box, and the numbers of each: Ultralytics' kpt_shape."""

    points: int = 0
    numbers_each: int = 0

    @property
    def numbers(self) -> int:
        return self.points * self.numbers_each


@dataclass(frozen=True)
class _Lines:
    """What the lines of a source mean."""

    class_ids: Mapping[float, int]
    keypoints: Keypoints


@dataclass(frozen=True, kw_only=True)
class YoloLayout:
    """What a source says beside its label files."""

    names: Mapping[int, str]
    """The classes by the numbers that labels have for them, in the order of the numbers."""
    photos: Sequence[LabelledPhoto]
    keypoints: Keypoints = Keypoints()
    may_lack_labels: bool = False
    """Whether a photo without a label file is one without objects, as Ultralytics has it. To
    darknet an empty file says so, and labelImg and Label Studio write one."""
    faults: Sequence[Fault] = ()
    notes: Sequence[str] = ()


def label_paths(photo: str) -> list[str]:
    """`…/images/…/a.jpg` has `…/labels/…/a.txt`, or as any photo a label file beside itself."""
    stem, _ = posixpath.splitext(photo)
    before, separator, below = stem.rpartition("/images/")
    return [*([f"{before}/labels/{below}.txt"] if separator else []), f"{stem}.txt"]


def read_names(uri: str) -> dict[int, str]:
    """Class names by their numbers, from a file with one in each line."""
    return {number - 1: name for number, name in read_lines(uri)}


def read_labels(layout: YoloLayout) -> Annotations:
    """The boxes of the photos. Class ids are the numbers of the classes, made contiguous.

    A line is `class cx cy w h` in shares of the photo's width and height after EXIF orientation;
    `class x y x y x y …`, a polygon, becomes its bounding box. A number more is the score of a
    prediction. Of a line with keypoints the box is read.
    """
    class_ids: dict[float, int] = {number: index for index, number in enumerate(layout.names)}
    labels = _labels_of(layout.photos)
    faults = list(layout.faults)
    images = []
    for photo, label in zip(layout.photos, labels, strict=True):
        with collected(faults):
            if label or layout.may_lack_labels:
                images.append(_image(photo, label, _Lines(class_ids, layout.keypoints)))
    missing = _of_missing(labels.count(None), len(labels), layout.may_lack_labels)
    return Annotations(
        class_names=list(layout.names.values()),
        images=images,
        faults=faults,
        in_shares=True,
        notes=[*layout.notes, *missing, *_of_keypoints(images, layout.keypoints)],
    )


def _labels_of(photos: Sequence[LabelledPhoto]) -> list[_Label | None]:
    """Of each photo the label file and what is in it; None where there is none."""
    labels: list[_Label | None] = [None] * len(photos)
    for turn in range(max((len(photo.label_uris) for photo in photos), default=0)):
        asked = [
            (index, photo.label_uris[turn])
            for index, photo in enumerate(photos)
            if labels[index] is None and turn < len(photo.label_uris)
        ]
        bodies = read_files([uri for _, uri in asked])
        for (index, uri), body in zip(asked, bodies, strict=True):
            if not (isinstance(body, ImageError) and body.kind is ErrorKind.GONE):
                labels[index] = (uri, body)
    return labels


def _image(photo: LabelledPhoto, label: _Label | None, lines: _Lines) -> AnnotatedImage:
    if label is None:
        return AnnotatedImage(photo.uri, photo.where)
    uri, body = label
    if isinstance(body, ImageError):
        # Not a photo without boxes: what is on it is merely not known.
        raise Fault(FaultKind.UNREADABLE, uri, why_not_fetched(body))
    faults: list[Fault] = []
    boxes = []
    # What is not UTF-8 is no number either, and is named with its line.
    for number, line in enumerate(as_text(body, errors="replace").splitlines(), start=1):
        with collected(faults):
            if line.strip():
                boxes.append(_box(line, f"{uri}:{number}", lines))
    return AnnotatedImage(photo.uri, photo.where, boxes, faults=faults)


def _box(line: str, where: str, lines: _Lines) -> AnnotatedBox:
    try:
        number, *numbers = _numbers(line)
        shares, score = _shares_and_score(numbers, lines.keypoints)
        corners = _corners(shares)
    except ValueError as error:
        raise Fault(FaultKind.UNREADABLE, where, f"{line[:80]!r}: {error}") from error
    if number not in lines.class_ids:
        known = ", ".join(f"{known:g}" for known in lines.class_ids)
        raise Fault(FaultKind.UNKNOWN_CLASS, where, f"there is no class {number:g}, but {known}")
    return AnnotatedBox(lines.class_ids[number], corners, where, score=score)


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError as error:
        raise ValueError("a line is numbers between spaces, that of the class first") from error


def _shares_and_score(
    shares: Sequence[float], keypoints: Keypoints
) -> tuple[Sequence[float], float | None]:
    """(box or polygon, score), of what stands behind the class."""
    behind = len(shares) - _BOX
    if behind in (0, 1):
        return shares[:_BOX], _score(shares[_BOX:])
    if keypoints.numbers:
        if behind - keypoints.numbers in (0, 1):
            return shares[:_BOX], _score(shares[_BOX + keypoints.numbers :])
        raise ValueError(
            f"with the data.yaml's keypoints a line has {keypoints.numbers + 5} numbers"
        )
    if len(shares) < _POLYGON:
        raise ValueError("a box has 5 numbers, a polygon 7 or more, and one more with a score")
    if len(shares) % 2 == 0:
        return shares, None
    if not all(-_BESIDE <= share <= 1 + _BESIDE for share in shares):
        raise ValueError(
            "this is neither a box nor a polygon with a score: if they are keypoints, the "
            "data.yaml has to say their kpt_shape"
        )
    return shares[:-1], _score(shares[-1:])


def _score(numbers: Sequence[float]) -> float | None:
    return score_of(*numbers) if numbers else None


def _corners(shares: Sequence[float]) -> Corners:
    if len(shares) == _BOX:
        cx, cy, width, height = shares
        return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if not all(map(math.isfinite, shares)):  # min() and max() may miss a NaN
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = shares[::2], shares[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _of_missing(missing: int, photos: int, may_lack_labels: bool) -> list[str]:
    if not missing:
        return []
    count = f"{missing:,} of {photos:,} photos have no label file"
    if may_lack_labels:
        return [f"{count}: to Ultralytics, whose data.yaml this is, nothing is on them"]
    return [f"{count} and were left out: an empty one would say that nothing is on them"]


def _of_keypoints(images: Sequence[AnnotatedImage], keypoints: Keypoints) -> list[str]:
    boxes = sum(len(image.boxes) for image in images)
    if not (boxes and keypoints.numbers):
        return []
    return [f"{boxes * keypoints.points:,} keypoints of {boxes:,} boxes were not read"]
