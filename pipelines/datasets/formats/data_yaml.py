"""YOLO's text labels with Ultralytics' data.yaml."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.faults import Fault, collected
from pipelines.datasets.files import is_file, is_photo, may_be_photo, read_lines
from pipelines.datasets.formats.splits import chosen
from pipelines.datasets.formats.yolo_labels import (
    Keypoints,
    LabelledPhoto,
    YoloLayout,
    label_paths,
    read_labels,
)
from pipelines.datasets.photo_names import find_photos
from pipelines.errors import InputError
from pipelines.storage import Folder, folder_and_name, read_bytes

DATA_YAML = "data.yaml"
SPLITS = ("train", "val", "valid", "test")
YAML_SUFFIXES = (".yaml", ".yml")


def read_data_yaml(uri: str, splits: Sequence[str]) -> Annotations:
    """The splits that a data.yaml names; without any its only one.

    Raises:
        InputError: the data.yaml cannot be used, or a split is not named or has no photos.
    """
    data = _read_yaml(uri)
    known = [split for split in SPLITS if data.get(split)]
    found = _Found([], [], [])
    for split in chosen(uri, splits, known):
        _find_photos(uri, data, split, found)
    return read_labels(
        YoloLayout(
            names=_names(uri, data.get("names")),
            photos=[LabelledPhoto(*photo, label_paths(photo[0])) for photo in found.photos],
            keypoints=_keypoints(uri, data.get("kpt_shape")),
            may_lack_labels=True,
            faults=found.faults,
            notes=found.notes,
        )
    )


@dataclass(frozen=True)
class _Found:
    """What the splits hold; filled split by split."""

    photos: list[tuple[str, str]]
    """(photo, where)"""
    faults: list[Fault]
    notes: list[str]


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
    return data


def _keypoints(uri: str, shape: Any) -> Keypoints:
    if shape is None:
        return Keypoints()
    numbers = [number for number in shape if str(number).isdecimal()]
    if not isinstance(shape, list) or len(shape) != 2 or len(numbers) != 2:
        raise InputError(
            f"{uri} has kpt_shape={shape!r}: give how many keypoints a box has, and 2 or 3 for the "
            "numbers of each, as in kpt_shape: [17, 3]"
        )
    return Keypoints(*map(int, numbers))


def _names(uri: str, names: Any) -> dict[int, str]:
    """Class names by the numbers that labels have for them, in the order of the numbers."""
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    try:
        return {int(number): numbered[number].strip() for number in sorted(numbered, key=int)}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{uri} has names={names!r}: give a list of class names, or a name for each number"
        ) from error


def _find_photos(uri: str, data: Mapping[str, Any], split: str, found: _Found) -> None:
    entries = data[split] if isinstance(data[split], list) else [data[split]]
    for entry in entries:
        first, *others = _locations(uri, str(data.get("path", "")), str(entry))
        photos = len(found.photos)
        used = next((at for at in (first, *others) if _add_photos(at, found)), None)
        if not used:
            raise InputError(
                f"split={split!r}: there are no photos at {' or '.join([first, *others])}: "
                f"correct `path` and `{split}` in {uri}"
            )
        if used != first:
            count = len(found.photos) - photos
            found.notes.append(f"{split}: {count:,} photos were found at {used}, not at {first}")


def _locations(uri: str, path: str, entry: str) -> list[str]:
    """Where a folder or list may lie. A data.yaml that was copied keeps the paths it had elsewhere,
    and Roboflow's has a `../` too many: then what lies beside the data.yaml counts.
    """
    beside = posixpath.dirname(uri)
    path, entry = path.replace("\\", "/"), entry.replace("\\", "/")
    roots = (_resolved(beside, path), beside)
    paths = (entry, entry.removeprefix("../"))
    expected = [_resolved(root, path) for root in roots for path in paths]
    return list(dict.fromkeys([*expected, *(f"{beside}/{tail}" for tail in _tails(entry))]))


def _tails(path: str) -> list[str]:
    """The ends of an absolute path, the longest first; not `images`, which every split has."""
    parts = path.split("/")
    is_absolute = path.startswith("/") or parts[0].endswith(":")
    tails = ["/".join(parts[start:]) for start in range(1, len(parts))] if is_absolute else []
    return [tail for tail in tails if tail not in ("", "images")]


def _add_photos(location: str, found: _Found) -> bool:
    """Whether a folder holds photos, or a list (.txt) names some."""
    if location.endswith(".txt"):
        return is_file(location) and _add_listed(location, found)
    folder = Folder(location)
    uris = [folder.uri_of(name) for name in folder.list() if may_be_photo(name)]
    found.photos.extend((uri, uri) for uri in uris)
    return bool(uris)


def _add_listed(location: str, found: _Found) -> bool:
    folder, _ = folder_and_name(location)
    lines = [(n, line.removeprefix(f"{folder.uri}/")) for n, line in read_lines(location)]
    photos = find_photos(folder, list(filter(is_photo, folder.list())), [line for _, line in lines])
    not_as_written = photos.matches.by_tail().keys() | photos.matches.doubts.keys()
    resolved = {line: _resolved(folder.uri, line) for _, line in lines}
    lost = {line for line in not_as_written if not is_file(resolved[line])}
    for number, line in lines:
        where = f"{location}:{number}"
        with collected(found.faults):
            uri = photos.uri_of(line, where) if line in lost else resolved[line]
            found.photos.append((uri, where))
    found.notes.extend(photos.notes if lost else [])
    return bool(lines)


def _resolved(base: str, path: str) -> str:
    """A path as a data.yaml or a list means it: relative to where `base` is, unless absolute."""
    if "://" in path or path.startswith("/"):
        return path
    scheme, separator, rest = base.rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(f'{rest}/{path}')}"
