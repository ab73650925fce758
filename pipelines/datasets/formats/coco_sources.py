"""Where COCO files and their photos lie: alone, or as Roboflow, CVAT and COCO itself lay them."""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.datasets.annotations import Annotations, joined
from pipelines.datasets.files import is_photo
from pipelines.datasets.formats.coco import parse_coco
from pipelines.datasets.formats.splits import chosen
from pipelines.errors import InputError
from pipelines.storage import Folder, folder_and_name

ROBOFLOW = "_annotations.coco.json"
"""In the folder of each split, beside its photos."""
ANNOTATIONS = "annotations"
INSTANCES = "instances_"
"""CVAT's and COCO's own files in ANNOTATIONS begin so, and end with the name of the split."""


@dataclass(frozen=True)
class CocoFile:
    name: str
    """Below the source."""
    split: str
    photo_folders: Sequence[str]
    """Where its photos may lie, below the source: the first that has any counts."""


def read_coco_source(source: str, images: str, splits: Sequence[str]) -> Annotations:
    """The annotations of a COCO file, or of some splits of a folder.

    Args:
        source: a .json file, or a folder: Roboflow's, CVAT's, COCO's own, or one with .json files.
        images: the folder of the photos; "" where they lie with the annotations.
        splits: of a folder; may be empty where it has one.

    Raises:
        InputError: there are no annotations, no photos, or no such split, or the splits have
            different classes.
    """
    if source.endswith(".json"):
        if splits:
            raise InputError(f"--split chooses among the files of a folder: {source} is one file")
        folder, file = _alone(source)
        return _read(folder, file, images, [] if images else folder.list())
    folder = Folder(source)
    names = folder.list()
    files = {file.split: file for file in coco_files(names)}
    if not files:
        raise InputError(f"{source} holds no COCO file: give its path (.json) as --source")
    read = [_read(folder, files[split], images, names) for split in chosen(source, splits, files)]
    return joined(source, read)


def coco_files(names: Sequence[str]) -> list[CocoFile]:
    """The COCO files of a folder by what lies below it."""
    roboflow = [name for name in names if posixpath.basename(name) == ROBOFLOW]
    if roboflow:
        folders = [posixpath.dirname(name) for name in roboflow]
        return [CocoFile(n, below, [below]) for n, below in zip(roboflow, folders, strict=True)]
    for below in (ANNOTATIONS, ""):
        found = [n for n in names if posixpath.dirname(n) == below and n.endswith(".json")]
        instances = [n for n in found if posixpath.basename(n).startswith(INSTANCES)]
        if found:
            return [_of_split(name) for name in instances or found]
    return []


def _of_split(name: str) -> CocoFile:
    split = posixpath.basename(name).removeprefix(INSTANCES).removesuffix(".json")
    return CocoFile(name, split, [f"images/{split}", split, "images", ""])


def _alone(uri: str) -> tuple[Folder, CocoFile]:
    """A file, and the folder that its photos lie below, as far as one can tell."""
    folder, name = folder_and_name(uri)
    if posixpath.basename(folder.uri) != ANNOTATIONS:
        return folder, CocoFile(name, "", [""])
    above, below = folder_and_name(folder.uri)
    return above, _of_split(f"{below}/{name}")


def _read(folder: Folder, file: CocoFile, images: str, names: Sequence[str]) -> Annotations:
    """names: of what lies below the folder; not needed with `images`."""
    uri = folder.uri_of(file.name)
    if images:
        present = Folder(images).list()
        if not present:
            raise InputError(f"images={images!r} holds no photos: give the folder of the photos")
        return parse_coco(uri, images, present)
    for below in file.photo_folders:
        present = _below(names, below)
        if any(map(is_photo, present)):
            return parse_coco(uri, folder.below(below).uri, present)
    raise InputError(f"{uri} has no photos with it: COCO annotations need --images, their folder")


def _below(names: Sequence[str], below: str) -> list[str]:
    """Those that lie below a folder, by their paths below it."""
    start = f"{below}/" if below else ""
    return [name.removeprefix(start) for name in names if name.startswith(start)]
