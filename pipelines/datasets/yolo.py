"""YOLO's text labels with Ultralytics' data.yaml."""

import math
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import read_files
from pipelines.errors import InputError
from pipelines.photos import ErrorKind, ImageError
from pipelines.storage import Folder, normalise_uri, read_bytes

DATA_YAML = "data.yaml"
SPLITS = ("train", "val", "test")
YAML_SUFFIXES = (".yaml", ".yml")

_NO_PHOTOS = (".txt", ".cache", ".npy")
"""Labels, and what Ultralytics writes beside them."""


def read_yolo(source: str, splits: Sequence[str]) -> Annotations:
    """The splits (`train`, `val`, `test`) that a data.yaml names.

    A line is `class cx cy w h` in shares of the photo's width and height after EXIF orientation;
    `class x y x y x y …`, a polygon, becomes its bounding box. A photo without a label file has no
    boxes. Class ids are those of `names`, made contiguous in their order.

    Args:
        source: the data.yaml, or the folder that holds it.

    Raises:
        InputError: the data.yaml cannot be used, or a split is not named or has no photos.
    """
    uri = normalise_uri(source)
    uri = uri if uri.endswith(YAML_SUFFIXES) else Folder(uri).uri_of(DATA_YAML)
    data = _read_yaml(uri)
    names = _names(uri, data.get("names"))
    class_ids: dict[float, int] = {number: index for index, number in enumerate(names)}
    photos = [photo for split in splits for photo in _photos_of_split(uri, data, split)]
    label_uris = [_label_uri(photo) for photo, _ in photos]
    bodies = read_files(label_uris)
    faults: list[Fault] = []
    images = []
    for (photo, where), label_uri, body in zip(photos, label_uris, bodies, strict=True):
        with collected(faults):
            boxes = _boxes(body, label_uri, class_ids, faults)
            images.append(AnnotatedImage(photo, where, boxes))
    return Annotations(
        class_names=list(names.values()), images=images, faults=faults, in_shares=True
    )


def _read_yaml(uri: str) -> Mapping[str, Any]:
    text = read_bytes(uri)
    try:
        # Of the safe loaders the one that leaves scalars as they are written: a class named `no`
        # or `on` is not a truth value.
        data = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{uri} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{uri} is not a data.yaml, which says names, train and val")
    if "kpt_shape" in data:
        raise InputError(f"{uri} describes keypoints (kpt_shape): its lines are not boxes")
    return data


def _names(uri: str, names: Any) -> dict[int, str]:
    """Class names by the numbers that labels have for them, in the order of the numbers."""
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        return {int(number): numbered[number].strip() for number in sorted(numbered, key=int)}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{uri} has names={names!r}: give a list of class names, or a name for each number"
        ) from error


def _photos_of_split(uri: str, data: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    """(photo, where) of every photo of a split."""
    if not data.get(split):
        known = [name for name in SPLITS if data.get(name)]
        raise InputError(f"split={split!r}: {uri} does not name it, it has {known}")
    entries = data[split] if isinstance(data[split], list) else [data[split]]
    photos = []
    for entry in entries:
        locations = _locations(uri, str(data.get("path", "")), str(entry))
        found = next(filter(None, map(_photos_at, locations)), None)
        if not found:
            raise InputError(
                f"split={split!r}: there are no photos at {' or '.join(locations)}: "
                f"correct `path` and `{split}` in {uri}"
            )
        photos += found
    return photos


def _locations(uri: str, path: str, entry: str) -> list[str]:
    """Where a folder or list may lie. A data.yaml that was copied keeps the `path` it had
    elsewhere, and Roboflow's has a `../` too many: then what lies beside the data.yaml counts.
    """
    beside = posixpath.dirname(uri)
    roots = (_resolved(beside, path), beside)
    entries = (entry, entry.removeprefix("../"))
    return list(dict.fromkeys(_resolved(root, entry) for root in roots for entry in entries))


def _photos_at(location: str) -> list[tuple[str, str]]:
    """(photo, where) of all that a folder holds, or a list (.txt) names; empty without either."""
    if not location.endswith(".txt"):
        folder = Folder(location)
        uris = [folder.uri_of(name) for name in folder.list() if not name.endswith(_NO_PHOTOS)]
        return [(uri, uri) for uri in uris]
    beside, _, name = location.rpartition("/")
    if not Folder(beside).exists(name):
        return []
    lines = _text(read_bytes(location)).splitlines()
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [(_resolved(beside, line), f"{location}:{number}") for number, line in numbered if line]


def _resolved(base: str, path: str) -> str:
    """A path as a data.yaml or a list means it: relative to where `base` is, unless absolute."""
    if "://" in path or path.startswith("/"):
        return path
    scheme, separator, rest = base.rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(f'{rest}/{path}')}"


def _label_uri(photo: str) -> str:
    """`…/images/…/a.jpg` has `…/labels/…/a.txt`; a photo elsewhere has it beside itself."""
    stem, _ = posixpath.splitext(photo)
    before, separator, below = stem.rpartition("/images/")
    return f"{before}/labels/{below}.txt" if separator else f"{stem}.txt"


def _boxes(
    body: bytes | ImageError, uri: str, class_ids: Mapping[float, int], faults: list[Fault]
) -> list[AnnotatedBox]:
    if isinstance(body, ImageError):
        if body.kind is ErrorKind.GONE:
            return []
        # Not a photo without boxes: what is on it is merely not known.
        raise Fault(FaultKind.UNREADABLE, uri, str(body))
    boxes = []
    for number, line in enumerate(_text(body).splitlines(), start=1):
        with collected(faults):
            if line.strip():
                boxes.append(_box(line, f"{uri}:{number}", class_ids))
    return boxes


def _text(body: bytes) -> str:
    # What is not UTF-8 is no number and no photo either, and is named with its line.
    return body.decode("utf-8-sig", errors="replace")


def _box(line: str, where: str, class_ids: Mapping[float, int]) -> AnnotatedBox:
    try:
        number, *shares = map(float, line.split())
        corners = _corners(shares)
    except ValueError as error:
        raise Fault(FaultKind.UNREADABLE, where, f"{line[:80]!r}: {error}") from error
    if number not in class_ids:
        known = ", ".join(f"{known:g}" for known in class_ids)
        raise Fault(FaultKind.UNKNOWN_CLASS, where, f"class {number:g}: `names` has {known}")
    return AnnotatedBox(class_ids[number], corners, where)


def _corners(shares: Sequence[float]) -> Corners:
    if len(shares) == 4:
        cx, cy, width, height = shares
        return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    if len(shares) < 6 or len(shares) % 2:
        raise ValueError("a box has 5 numbers, a polygon 7 or another odd number above that")
    if not all(map(math.isfinite, shares)):  # min() and max() may miss a NaN
        return math.nan, math.nan, math.nan, math.nan
    xs, ys = shares[::2], shares[1::2]
    return min(xs), min(ys), max(xs), max(ys)
