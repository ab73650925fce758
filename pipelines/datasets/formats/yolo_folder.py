"""YOLO as labelImg and Label Studio lay it: classes.txt, photos, and a label file of each."""

import posixpath
from collections.abc import Mapping, Sequence

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.files import is_photo
from pipelines.datasets.formats.splits import chosen
from pipelines.datasets.formats.yolo_labels import (
    LabelledPhoto,
    YoloLayout,
    read_labels,
    read_names,
)
from pipelines.datasets.photo_names import Matches, match_names, tail_notes
from pipelines.errors import InputError
from pipelines.storage import Folder

CLASS_LISTS = ("classes.txt", "obj.names")
_IMAGES, _LABELS = "images", "labels"
"""Folders of either kind of file, which are no part of a photo's own path."""


def read_yolo_folder(source: str, splits: Sequence[str], images: str = "") -> Annotations:
    """All photos of a folder, or those of some of its sub-folders.

    `images/train/a.jpg`, `train/images/a.jpg` and `train/a.jpg` have the labels of `train/a`.

    Args:
        splits: sub-folders; all of them if it is empty.
        images: the folder of the photos; "" where they lie with the labels.

    Raises:
        InputError: there are no class names, no photos, or no such sub-folder.
    """
    folder, photos = Folder(source), Folder(images or source)
    names = folder.list()
    classes = next((name for name in CLASS_LISTS if name in names), None)
    if classes is None:
        raise InputError(f"{source} has no {CLASS_LISTS[0]}, which names the classes line by line")
    photo_names = [name for name in (photos.list() if images else names) if is_photo(name)]
    if not photo_names:
        raise InputError(f"{photos.uri} holds no photos: say with --images where they are")
    parts = _parts(source, splits, photo_names)
    labels = {name: _key(name) for name in _label_names(names) if _is_in(parts, name)}
    keys = {name: _key(name) for name in photo_names if _is_in(parts, name)}
    matches = match_names(labels.values(), set(keys.values()))
    uris = {matches.found.get(key): folder.uri_of(name) for name, key in labels.items()}
    return read_labels(
        YoloLayout(
            names=read_names(folder.uri_of(classes)),
            photos=[_labelled(photos.uri_of(name), uris.get(key)) for name, key in keys.items()],
            faults=_of_no_photo(folder, labels, matches),
            notes=tail_notes(matches),
        )
    )


def _labelled(photo: str, labels: str | None) -> LabelledPhoto:
    return LabelledPhoto(photo, photo, [labels] if labels else [])


def _label_names(names: Sequence[str]) -> list[str]:
    """Of the text files those in folders called `labels`, if there are any, or else all."""
    texts = [name for name in names if name.endswith(".txt") and name not in CLASS_LISTS]
    return [name for name in texts if _LABELS in name.split("/")[:-1]] or texts


def _key(name: str) -> str:
    stem, _ = posixpath.splitext(name)
    *folders, last = stem.split("/")
    return "/".join([*(folder for folder in folders if folder not in (_IMAGES, _LABELS)), last])


def _parts(source: str, splits: Sequence[str], names: Sequence[str]) -> list[str]:
    """The first parts of the keys that are wanted; none where all are."""
    known = {_key(name).partition("/")[0] for name in names if "/" in _key(name)}
    return chosen(source, splits, known) if splits else []


def _is_in(parts: Sequence[str], name: str) -> bool:
    return not parts or _key(name).partition("/")[0] in parts


def _of_no_photo(folder: Folder, labels: Mapping[str, str], matches: Matches) -> list[Fault]:
    faults = []
    for name, key in labels.items():
        if key in matches.doubts:
            message = f"its photo {matches.doubts[key]}: lay photos and labels out alike"
            faults.append(Fault(FaultKind.AMBIGUOUS_IMAGE, folder.uri_of(name), message))
        elif key not in matches.found:
            message = f"there is no photo {key}.*"
            faults.append(Fault(FaultKind.MISSING_IMAGE, folder.uri_of(name), message))
    return faults
