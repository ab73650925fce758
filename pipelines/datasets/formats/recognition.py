"""Which format a source has, from its name and from what it holds."""

import posixpath
from collections.abc import Sequence
from typing import Literal, get_args

from pipelines.datasets.files import is_file, is_photo
from pipelines.datasets.formats.coco_sources import coco_files
from pipelines.datasets.formats.darknet import DATA_SUFFIX
from pipelines.datasets.formats.data_yaml import DATA_YAML, YAML_SUFFIXES
from pipelines.datasets.formats.megadetector import CATEGORIES
from pipelines.datasets.formats.voc_layouts import ANNOTATIONS, is_xml
from pipelines.datasets.formats.yolo_folder import CLASS_LISTS
from pipelines.errors import InputError
from pipelines.storage import Folder, read_bytes

Format = Literal["coco", "voc", "yolo", "label_studio", "megadetector", "detections"]

_KNOWN = (
    "COCO (a .json file, or a folder of Roboflow's, CVAT's or COCO's own), Label Studio and "
    "MegaDetector (.json files), "
    f"VOC (a folder with {ANNOTATIONS}/, or XML files beside photos), YOLO ({DATA_YAML}, obj.data, "
    f"{CLASS_LISTS[0]} or their folder) and a table of jobs.label (a folder with runs/)"
)
_INSTEAD = {
    ".zip": "unpack it and give the folder",
    ".gz": "unpack it and give the folder",
    ".xml": "give the folder of the XML files",
    ".txt": f"give the folder that also holds {DATA_YAML}, obj.data or {CLASS_LISTS[0]}",
    ".parquet": "a training table is ready for jobs.train; of detections give the table's folder",
}
"""What to do with a file that is none of them."""


def recognise(source: str) -> Format:
    """The format of a source.

    Raises:
        InputError: it is none of them.
    """
    if source.endswith((*YAML_SUFFIXES, DATA_SUFFIX)):
        return "yolo"
    if source.endswith(".json"):
        return _of_json(source)
    if is_file(source):
        return _of_file(source)
    folder = Folder(source)
    if folder.exists(DATA_YAML):
        return "yolo"
    if any(map(is_xml, folder.list(ANNOTATIONS))):
        return "voc"
    if folder.list("runs"):
        return "detections"
    return _of_folder(folder, folder.list())


def _of_json(uri: str) -> Format:
    # Not parsed, which takes half a minute for COCO's own: the keys stand in it anyway.
    body = read_bytes(uri)
    if not body[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return "megadetector" if f'"{CATEGORIES}"'.encode() in body else "coco"
    if b'"file"' in body and b'"detections"' in body:
        return "megadetector"
    if b'"image_id"' in body and b'"bbox"' in body:
        raise InputError(
            f"{uri} is a list of COCO results, which says neither image nor class by name: put it "
            "as `annotations` into the COCO file of the images, and give that"
        )
    return "label_studio"


def _of_file(uri: str) -> Format:
    if uri.endswith(CLASS_LISTS):
        return "yolo"
    suffix = posixpath.splitext(uri)[1].lower()
    instead = _INSTEAD.get(suffix, "give a folder or one of the files of that list")
    raise _unknown(uri, f"it is a file ({suffix or 'without suffix'}): {instead}")


def _of_folder(folder: Folder, names: Sequence[str]) -> Format:
    top = [name for name in names if "/" not in name]
    if any(name.endswith((*YAML_SUFFIXES, DATA_SUFFIX)) or name in CLASS_LISTS for name in top):
        return "yolo"
    if any(map(is_xml, names)):
        return "voc"
    if files := coco_files(names):
        # One that lies alone may be of any tool.
        first = files[0].name
        return "coco" if len(files) > 1 or "/" in first else _of_json(folder.uri_of(first))
    raise _unknown(folder.uri, _what_there_is(names))


def _what_there_is(names: Sequence[str]) -> str:
    if not names:
        return "there is nothing at this place: is the path right?"
    if any(name.endswith(".txt") for name in names):
        return f"if the .txt files are YOLO's labels, add a {CLASS_LISTS[0]}, a class in each line"
    if any(map(is_photo, names)):
        return "it holds photos and no annotations: give the file or folder of the annotations"
    suffixes = sorted({posixpath.splitext(name)[1] or name for name in names})
    return f"it holds {', '.join(suffixes[:5])}: give the file or folder of the annotations"


def _unknown(source: str, reason: str) -> InputError:
    return InputError(
        f"source={source!r} is none of {_KNOWN}: {reason}; --format {'|'.join(get_args(Format))} "
        "skips this look"
    )
