"""MegaDetector's results: the JSON of its batches, and the list that Microsoft's version writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import is_photo
from pipelines.datasets.formats.json_files import MALFORMED, json_in, read_json, score_of, told
from pipelines.datasets.photo_names import Photos, find_photos, list_photos
from pipelines.errors import InputError
from pipelines.storage import normalise_uri

CATEGORIES = "detection_categories"


@dataclass(frozen=True)
class _Results:
    """What both kinds of files say."""

    images: Sequence[Any]
    class_names: Mapping[str, str]
    """By what detections have for them, in the order of the classes."""
    score: str
    """The key of it."""
    in_shares: bool
    """x, y, width and height in shares of the photo; otherwise x1, y1, x2, y2 in pixels."""


def read_megadetector(source: str, images: str) -> Annotations:
    """The photos that it could read, with all its detections and their scores.

    Classes are its categories, in the order of their numbers; the species that a classifier added
    are not read, and no videos.

    Args:
        source: the .json file, or a folder with nothing else of that kind.
        images: the folder of the photos; "" where they lie with the file.

    Raises:
        InputError: the file is none of MegaDetector's, or there are no photos.
    """
    uri = normalise_uri(json_in(source))
    results = _results(uri, read_json(uri))
    listed = [entry for entry in results.images if not _is_video(entry)]
    wanted = [entry["file"] for entry in listed if isinstance(entry, dict) and "file" in entry]
    photos = find_photos(
        *list_photos(uri, images), [name for name in wanted if isinstance(name, str)]
    )
    faults: list[Fault] = []
    found = []
    for index, entry in enumerate(listed):
        with collected(faults):
            found.append(_image(entry, f"{uri}: images[{index}]", photos, results))
    videos = len(results.images) - len(listed)
    return Annotations(
        class_names=list(results.class_names.values()),
        images=found,
        faults=faults,
        photo_uris=photos.uris,
        in_shares=results.in_shares,
        notes=[
            *photos.notes,
            *([f"{videos:,} videos, or other files than photos, were left out"] if videos else []),
        ],
    )


def _results(uri: str, content: Any) -> _Results:
    try:
        if isinstance(content, list):
            return _Results(content, _own_classes(content), "confidence", in_shares=False)
        names = {
            number: content[CATEGORIES][number] for number in sorted(content[CATEGORIES], key=int)
        }
        return _Results([*content["images"]], names, "conf", in_shares=True)
    except MALFORMED as error:
        raise InputError(f"{uri} is no file of MegaDetector's results: {told(error)}") from error


def _own_classes(images: Sequence[Any]) -> dict[str, str]:
    """Microsoft's version writes names, and no list of them."""
    found = {box["category"] for image in images for box in image["detections"] or ()}
    return {name: name for name in ("animal", "person", "vehicle", *sorted(found))}


def _is_video(entry: Any) -> bool:
    return isinstance(entry, dict) and "file" in entry and not is_photo(str(entry["file"]))


def _image(entry: Any, where: str, photos: Photos, results: _Results) -> AnnotatedImage:
    try:
        file, detections = entry["file"], entry.get("detections")
        if detections is None or entry.get("failure"):
            # It was not looked at, which is another thing than that nothing was found.
            reason = entry.get("failure") or "it has no detections, not even an empty list"
            raise Fault(
                FaultKind.UNREADABLE, where, f"MegaDetector could not read {file}: {reason}"
            )
        faults: list[Fault] = []
        boxes = []
        for index, detection in enumerate(detections):
            with collected(faults):
                boxes.append(_box(detection, f"{where}.detections[{index}]", results))
        return AnnotatedImage(photos.uri_of(file, where), where, boxes, faults=faults)
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is no image: {told(error)}") from error


def _box(detection: Any, where: str, results: _Results) -> AnnotatedBox:
    try:
        category = detection["category"]
        if category not in results.class_names:
            # The format allows it, and says that it means no detection.
            message = f"{CATEGORIES} has no {category!r}"
            raise Fault(FaultKind.UNWANTED_CLASS, where, message)
        class_id = list(results.class_names).index(category)
        score = score_of(float(detection[results.score]))
        return AnnotatedBox(class_id, _corners(detection["bbox"], results), where, score=score)
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is no detection: {told(error)}") from error


def _corners(bbox: Any, results: _Results) -> Corners:
    x1, y1, third, fourth = map(float, bbox)
    return (x1, y1, x1 + third, y1 + fourth) if results.in_shares else (x1, y1, third, fourth)
