"""YOLO as darknet and CVAT (YOLO 1.1) lay it: obj.data, obj.names, and a list for each split."""

from collections.abc import Mapping, Sequence

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import is_photo, may_be_photo, read_lines
from pipelines.datasets.formats.splits import chosen
from pipelines.datasets.formats.yolo_labels import (
    LabelledPhoto,
    YoloLayout,
    label_paths,
    read_labels,
    read_names,
)
from pipelines.datasets.photo_names import Matches, find_photos, match_names
from pipelines.errors import InputError
from pipelines.storage import Folder, folder_and_name

DATA_SUFFIX = ".data"
_NAMES = "names"


def read_darknet(uri: str, splits: Sequence[str], images: str = "") -> Annotations:
    """The splits that an obj.data names; without any its only one.

    Its paths are those of darknet's own folder: what lies below that of the obj.data is found by
    their tail.

    Args:
        images: the folder of the photos; "" where they lie with the labels.

    Raises:
        InputError: the obj.data cannot be used, or a split is not named.
    """
    folder, _ = folder_and_name(uri)
    texts = [name for name in folder.list() if not is_photo(name)]
    files = _files(uri, folder, texts)
    lists = [files[split] for split in chosen(uri, splits, files.keys() - {_NAMES})]
    lines = [(f"{at}:{number}", line) for at in lists for number, line in read_lines(at)]
    at = Folder(images) if images else folder
    photos = find_photos(at, list(filter(may_be_photo, at.list())), [line for _, line in lines])
    labels = match_names([path for _, line in lines for path in _labels(line)], texts)
    faults: list[Fault] = []
    found = []
    for where, line in lines:
        with collected(faults):
            label_uris = [folder.uri_of(name) for name in _found(line, labels, where)]
            found.append(LabelledPhoto(photos.uri_of(line, where), where, label_uris))
    names = read_names(files[_NAMES])
    return read_labels(YoloLayout(names=names, photos=found, faults=faults, notes=photos.notes))


def _files(uri: str, folder: Folder, texts: Sequence[str]) -> Mapping[str, str]:
    """The list of each split and that of the class names, as far as the obj.data names them."""
    pairs = [line.partition("=") for _, line in read_lines(uri)]
    named = {key.strip(): value.strip() for key, _, value in pairs if _is_list(key.strip(), value)}
    found = match_names(named.values(), texts).found
    if lost := {key: value for key, value in named.items() if value not in found}:
        raise InputError(f"{uri} names files that are not in {folder.uri}, or not once: {lost}")
    if _NAMES not in named:
        raise InputError(f"{uri} does not say where the class names are (names = obj.names)")
    return {key: folder.uri_of(found[value]) for key, value in named.items()}


def _is_list(key: str, value: str) -> bool:
    return key == _NAMES or value.strip().endswith(".txt")


def _labels(line: str) -> list[str]:
    """Where the labels of a photo may lie, as the list has its path."""
    return [path.lstrip("/") for path in label_paths("/" + line.replace("\\", "/"))]


def _found(line: str, labels: Matches, where: str) -> list[str]:
    paths = _labels(line)
    for doubt in (labels.doubts[path] for path in paths if path in labels.doubts):
        raise Fault(FaultKind.AMBIGUOUS_IMAGE, where, f"the label file of {line} {doubt}")
    return [labels.found[path] for path in paths if path in labels.found]
