"""COCO's `instances_*.json`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.formats.json_files import MALFORMED, entries, read_json, score_of, told
from pipelines.datasets.formats.segmentation import corners_of
from pipelines.datasets.photo_names import Photos, believed_photos, find_photos
from pipelines.datasets.training_table import training_table
from pipelines.errors import InputError
from pipelines.storage import Folder, normalise_uri

_SECTIONS = ("images", "annotations", "categories")


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
        if not image.is_sized
    ]
    if faults := [*annotations.all_faults(), *unsized]:
        raise InputError(
            f"{faults[0].where}: {faults[0]}, one of {len(faults)} faults in the file: "
            "python -m jobs.prepare lists them and makes a table without them"
        )
    return training_table((image.row() for image in annotations.images), annotations.class_names)


def parse_coco(
    annotations_uri: str, images_uri: str, photo_names: Collection[str] | None = None
) -> Annotations:
    """What the file says, entry by entry.

    Class ids are made contiguous, in the order of COCO's category ids. Crowd boxes stay, flagged
    in `is_crowd`. An annotation without a box has that around its polygons or its mask. Areas are
    COCO's, which are those of the segmentation where there is one.

    Args:
        photo_names: what there is below `images_uri`; None where every file name is believed.

    Raises:
        InputError: the file cannot be read or is no COCO JSON.
    """
    uri, folder = normalise_uri(annotations_uri), Folder(images_uri)
    coco = _read(uri)
    names = _class_names(uri, coco["categories"])  # by category id
    above_all = names.pop(_roboflows_first(coco), None)
    wanted = [entry["file_name"] for entry in coco["images"] if _has_name(entry)]
    photos = (
        believed_photos(folder) if photo_names is None else find_photos(folder, photo_names, wanted)
    )
    faults: list[Fault] = []
    images = _images(uri, coco["images"], photos, faults)
    return Annotations(
        class_names=list(names.values()),
        images=_with_boxes(uri, coco["annotations"], images, list(names), faults),
        faults=faults,
        photo_uris=photos.uris,
        notes=[*_notes(above_all), *photos.notes],
    )


def _notes(above_all: str | None) -> list[str]:
    if above_all is None:
        return []
    return [f"the category {above_all!r} stands above all others and has no boxes: it is no class"]


def _read(uri: str) -> Mapping[str, Any]:
    coco = read_json(uri)
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
    except MALFORMED as error:
        raise InputError(f"{uri} has categories that are not COCO's: {told(error)}") from error
    if len(in_order) < len(categories):
        raise InputError(f"{uri} has several categories of the same id: give each its own")
    return in_order


def _roboflows_first(coco: Mapping[str, Any]) -> Any | None:
    """The id of the category that Roboflow puts before all others, if it is there.

    It has the name of the whole dataset, which is the supercategory of the others, and no boxes.
    """
    for category in coco["categories"]:
        if category.get("supercategory") == "none" and not _is_used(category["id"], coco):
            others = [other for other in coco["categories"] if other is not category]
            if others and all(o.get("supercategory") == category["name"] for o in others):
                return category["id"]
    return None


def _is_used(category_id: Any, coco: Mapping[str, Any]) -> bool:
    boxes = (entry for entry in coco["annotations"] if isinstance(entry, dict))
    return any(box.get("category_id") == category_id for box in boxes)


def _has_name(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("file_name"), str)


def _images(
    uri: str, listed: Sequence[Any], photos: Photos, faults: list[Fault]
) -> dict[Any, AnnotatedImage]:
    """By their ids."""
    images: dict[Any, AnnotatedImage] = {}
    for where, entry in entries(uri, "image", listed):
        with collected(faults):
            image = _image(entry, where, photos, images)
            images[entry["id"]] = image
    return images


def _image(
    entry: Any, where: str, photos: Photos, listed: Mapping[Any, AnnotatedImage]
) -> AnnotatedImage:
    try:
        if entry["id"] in listed:
            message = f"has the id of {listed[entry['id']].uri}"
            raise Fault(FaultKind.DUPLICATE_IMAGE, where, message)
        return AnnotatedImage(
            photos.uri_of(entry["file_name"], where),
            where,
            width=int(entry.get("width") or 0),
            height=int(entry.get("height") or 0),
        )
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is not a COCO image: {told(error)}") from error


def _with_boxes(
    uri: str,
    annotations: Sequence[Any],
    images: Mapping[Any, AnnotatedImage],
    category_ids: Sequence[Any],
    faults: list[Fault],
) -> list[AnnotatedImage]:
    class_ids = {category_id: index for index, category_id in enumerate(category_ids)}
    boxes: dict[Any, list[AnnotatedBox]] = {image_id: [] for image_id in images}
    lost: dict[Any, list[Fault]] = {image_id: [] for image_id in images}
    for where, entry in entries(uri, "annotation", annotations):
        with collected(faults):
            image_id = _image_id(entry, where, images)
            with collected(lost[image_id]):
                boxes[image_id].append(_box(entry, where, class_ids))
    return [
        replace(image, boxes=boxes[image_id], faults=lost[image_id])
        for image_id, image in images.items()
    ]


def _image_id(entry: Any, where: str, images: Mapping[Any, AnnotatedImage]) -> Any:
    try:
        if entry["image_id"] in images:
            return entry["image_id"]
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is not a COCO box: {told(error)}") from error
    raise Fault(FaultKind.MISSING_IMAGE, where, f"there is no image {entry['image_id']!r}")


def _box(entry: Any, where: str, class_ids: Mapping[Any, int]) -> AnnotatedBox:
    try:
        if entry["category_id"] not in class_ids:
            message = f"there is no category {entry['category_id']!r}"
            raise Fault(FaultKind.UNKNOWN_CLASS, where, message)
        area = entry.get("area")
        return AnnotatedBox(
            class_ids[entry["category_id"]],
            _corners(entry),
            where,
            is_crowd=bool(entry.get("iscrowd")),
            area=None if area is None else float(area),
            score=score_of(entry.get("score")),
        )
    except MALFORMED as error:
        raise Fault(FaultKind.UNREADABLE, where, f"is not a COCO box: {told(error)}") from error


def _corners(entry: Mapping[str, Any]) -> Corners:
    if not entry.get("bbox"):
        return corners_of(entry.get("segmentation"))
    x, y, width, height = map(float, entry["bbox"])
    return x, y, x + width, y + height
