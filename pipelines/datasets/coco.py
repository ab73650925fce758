"""COCO's `instances_*.json`."""

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.training_table import training_table
from pipelines.errors import InputError
from pipelines.storage import Folder, normalise_uri, read_bytes

_SECTIONS = ("images", "annotations", "categories")
_MALFORMED = (LookupError, TypeError, ValueError, ArithmeticError)
"""What an entry raises that lacks a key, or whose values are not of COCO's types."""


def read_coco(annotations_uri: str, images_uri: str) -> pa.Table:
    """The file as it is, to evaluate against: COCO's own code counts its boxes to the letter.

    Args:
        images_uri: the folder or prefix that `file_name` is relative to.

    Returns:
        A training table (schema.TRAINING).

    Raises:
        InputError: the file cannot be read, is no COCO JSON, or contradicts itself.
    """
    annotations = parse_coco(annotations_uri, images_uri)
    unsized = [
        Fault(FaultKind.UNREADABLE, image.where, "it has no width and height")
        for image in annotations.images
        if not (image.width and image.height)
    ]
    if faults := [*annotations.faults, *unsized]:
        raise InputError(
            f"{faults[0].where}: {faults[0]}, one of {len(faults)} faults in the file: "
            "python -m jobs.prepare lists them and makes a table without them"
        )
    return training_table((image.row() for image in annotations.images), annotations.class_names)


def parse_coco(annotations_uri: str, images_uri: str) -> Annotations:
    """What the file says, entry by entry.

    Class ids are made contiguous, in the order of COCO's category ids. Crowd boxes stay, flagged
    in `is_crowd`. Areas are COCO's, which are those of the segmentation where there is one.

    Raises:
        InputError: the file cannot be read or is no COCO JSON.
    """
    uri, folder = normalise_uri(annotations_uri), Folder(images_uri)
    coco = _read_json(uri)
    class_names = _class_names(uri, coco["categories"])  # by category id
    class_ids = {category_id: index for index, category_id in enumerate(class_names)}
    faults: list[Fault] = []
    images: dict[Any, AnnotatedImage] = {}
    for where, entry in _entries(uri, "image", coco["images"]):
        with collected(faults):
            image = _image(entry, where, folder, images)
            images[entry["id"]] = image
    boxes_of: dict[Any, list[AnnotatedBox]] = {image_id: [] for image_id in images}
    for where, entry in _entries(uri, "annotation", coco["annotations"]):
        with collected(faults):
            box = _box(entry, where, class_ids, images)
            boxes_of[entry["image_id"]].append(box)
    return Annotations(
        class_names=list(class_names.values()),
        images=[replace(image, boxes=boxes_of[image_id]) for image_id, image in images.items()],
        faults=faults,
    )


def _read_json(uri: str) -> Mapping[str, Any]:
    data = read_bytes(uri)
    try:
        coco = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{uri} is not JSON: {error}") from error
    lists = coco if isinstance(coco, dict) else {}
    missing = [key for key in _SECTIONS if not isinstance(lists.get(key), list)]
    if missing:
        raise InputError(
            f"{uri} is not a COCO instances file, for it has no list of {', '.join(missing)}"
        )
    return lists


def _class_names(uri: str, categories: Sequence[Any]) -> dict[Any, str]:
    """By category id, in the order of the ids."""
    try:
        names = {category["id"]: str(category["name"]) for category in categories}
        in_order = {category_id: names[category_id] for category_id in sorted(names)}
    except _MALFORMED as error:
        raise InputError(f"{uri} has categories that are not COCO's: {error!r}") from error
    if len(in_order) < len(categories):
        raise InputError(f"{uri} has several categories of the same id: give each its own")
    return in_order


def _entries(uri: str, kind: str, entries: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """(where, entry): by its id, or by its place in the list where it has none."""
    for index, entry in enumerate(entries):
        entry_id = entry.get("id") if isinstance(entry, dict) else None
        name = f"{kind} {entry_id}" if entry_id is not None else f"{kind}s[{index}]"
        yield f"{uri}: {name}", entry


def _image(
    entry: Any, where: str, folder: Folder, listed: Mapping[Any, AnnotatedImage]
) -> AnnotatedImage:
    try:
        if entry["id"] in listed:
            message = f"has the id of {listed[entry['id']].uri}"
            raise Fault(FaultKind.DUPLICATE_IMAGE, where, message)
        return AnnotatedImage(
            folder.uri_of(posixpath.normpath(entry["file_name"])),
            where,
            width=int(entry.get("width") or 0),
            height=int(entry.get("height") or 0),
        )
    except _MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is not a COCO image: {error!r}") from error


def _box(
    entry: Any, where: str, class_ids: Mapping[Any, int], images: Mapping[Any, AnnotatedImage]
) -> AnnotatedBox:
    try:
        if entry["image_id"] not in images:
            message = f"there is no image {entry['image_id']!r}"
            raise Fault(FaultKind.MISSING_IMAGE, where, message)
        if entry["category_id"] not in class_ids:
            message = f"there is no category {entry['category_id']!r}"
            raise Fault(FaultKind.UNKNOWN_CLASS, where, message)
        x, y, width, height = map(float, entry["bbox"])
        area = entry.get("area")
        return AnnotatedBox(
            class_ids[entry["category_id"]],
            (x, y, x + width, y + height),
            where,
            is_crowd=bool(entry.get("iscrowd")),
            area=None if area is None else float(area),
        )
    except _MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is not a COCO box: {error!r}") from error
