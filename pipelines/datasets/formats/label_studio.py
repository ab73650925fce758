"""Label Studio's JSON exports, in full (JSON) and short (JSON-MIN)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.formats.classes import Classes
from pipelines.datasets.formats.json_files import MALFORMED, entries, json_in, read_json, told
from pipelines.datasets.formats.label_studio_photos import photo_in, photos_of
from pipelines.datasets.formats.label_studio_regions import (
    Region,
    corners_of,
    labels_of,
    regions_of,
    size_of,
)
from pipelines.errors import InputError
from pipelines.storage import normalise_uri

_ANNOTATIONS = ("annotations", "completions")
"""Of a task in full, and what it was called before 2021."""
_ANNOTATION_ID = "annotation_id"
"""Of a task in short: null where nobody has annotated it."""

_NOT_ANNOTATED = "tasks that nobody has annotated, or that were skipped, were left out"
_SEVERAL = "tasks have several annotations: one was taken, a ground truth or else the newest"
_KEYPOINTS = "keypoints were not read"


@dataclass(frozen=True)
class _Task:
    where: str
    photo: str
    regions: Sequence[Region]


def read_label_studio(source: str, images: str, class_names: Sequence[str]) -> Annotations:
    """The tasks that somebody has annotated, with their rectangles, ellipses and polygons.

    Without `class_names` the classes are all labels of the file in alphabetical order. What is
    turned becomes the box around it.

    Args:
        source: the .json file, or a folder with nothing else of that kind.
        images: the folder of the photos; "" where they lie with the file, or on S3 as it says.

    Raises:
        InputError: the file is none of Label Studio's, or there are no photos.
    """
    uri = normalise_uri(json_in(source))
    faults: list[Fault] = []
    notes: Counter[str] = Counter()
    tasks = _tasks(uri, read_json(uri), faults, notes)
    photos = photos_of(uri, images, [task.photo for task in tasks])
    found = {label for task in tasks for region in task.regions for label in labels_of(region)}
    classes = Classes.of(class_names, found)
    read = []
    for task in tasks:
        with collected(faults):
            read.append(_image(task, photos.uri_of(task.photo, task.where), classes))
    return Annotations(
        class_names=list(classes.ids),
        images=read,
        faults=faults,
        photo_uris=photos.uris,
        in_shares=True,
        notes=[*photos.notes, *(f"{count:,} {what}" for what, count in notes.items())],
    )


def _tasks(uri: str, content: Any, faults: list[Fault], notes: Counter[str]) -> list[_Task]:
    if not isinstance(content, list) or not any(map(_is_task, content)):
        raise InputError(
            f"{uri} has no tasks of Label Studio: export the project as JSON or JSON-MIN, or give "
            "COCO or MegaDetector JSON"
        )
    tasks = []
    for where, entry in entries(uri, "task", content):
        with collected(faults):
            if task := _task(entry, where, notes):
                tasks.append(task)
    return tasks


def _is_task(entry: Any) -> bool:
    return isinstance(entry, dict) and bool(entry.keys() & {*_ANNOTATIONS, _ANNOTATION_ID})


def _task(entry: Any, where: str, notes: Counter[str]) -> _Task | None:
    """None where nobody has said what is on the photo."""
    try:
        results = _results(entry, notes)
        if results is None:
            notes[_NOT_ANNOTATED] += 1
            return None
        regions, keypoints = regions_of(results)
        if keypoints:
            notes[_KEYPOINTS] += keypoints
        return _Task(where, photo_in(entry.get("data", entry)), regions)
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is no task: {told(error)}") from error


def _results(entry: Mapping[str, Any], notes: Counter[str]) -> list[Any] | None:
    """What was drawn in one annotation of a task, if there is any."""
    in_full = next((entry[key] for key in _ANNOTATIONS if key in entry), None)
    if in_full is None:
        # In short, what was drawn stands below the names of the tools.
        lists = [value for value in entry.values() if isinstance(value, list)]
        drawn = [
            {"value": value} for values in lists for value in values if isinstance(value, dict)
        ]
        return drawn if drawn or entry.get(_ANNOTATION_ID) is not None else None
    valid = [one for one in in_full if not (one.get("was_cancelled") or one.get("skipped"))]
    if not valid:
        return None
    if len(valid) > 1:
        notes[_SEVERAL] += 1
    newest = max(
        valid, key=lambda one: (bool(one.get("ground_truth")), str(one.get("created_at") or ""))
    )
    return list(newest["result"])


def _image(task: _Task, photo: str, classes: Classes) -> AnnotatedImage:
    faults: list[Fault] = []
    boxes = []
    for index, region in enumerate(task.regions):
        where = f"{task.where}: region {region.get('id', index)}"
        for label in labels_of(region) or [""]:
            with collected(faults):
                boxes.append(_box(region, where, classes.id_of(label, where)))
    width, height = next(filter(all, map(size_of, task.regions)), (0, 0))
    return AnnotatedImage(photo, task.where, boxes, width, height, faults)


def _box(region: Region, where: str, class_id: int) -> AnnotatedBox:
    try:
        return AnnotatedBox(class_id, corners_of(region), where)
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is no box: {told(error)}") from error
