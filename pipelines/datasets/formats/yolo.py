"""YOLO's text labels in each of their layouts."""

from collections.abc import Sequence

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.files import is_file
from pipelines.datasets.formats.darknet import DATA_SUFFIX, read_darknet
from pipelines.datasets.formats.data_yaml import DATA_YAML, YAML_SUFFIXES, read_data_yaml
from pipelines.datasets.formats.yolo_folder import CLASS_LISTS, read_yolo_folder
from pipelines.errors import InputError
from pipelines.storage import Folder, folder_and_name, normalise_uri

_LAYOUTS = (*YAML_SUFFIXES, DATA_SUFFIX)


def read_yolo(source: str, splits: Sequence[str], images: str = "") -> Annotations:
    """The annotations of some splits.

    Args:
        source: a data.yaml, an obj.data, a classes.txt, or the folder that holds one.
        images: the folder of the photos, if they do not lie with the labels.

    Raises:
        InputError: it cannot be used, or there is no such split.
    """
    uri = normalise_uri(source)
    if uri.endswith(CLASS_LISTS) and is_file(uri):
        uri = folder_and_name(uri)[0].uri
    layout = uri if uri.endswith(_LAYOUTS) else yolo_file(Folder(uri))
    if layout is None:
        return read_yolo_folder(uri, splits, images)
    if layout.endswith(DATA_SUFFIX):
        return read_darknet(layout, splits, images)
    if images:
        raise InputError(f"{layout} says where the photos are: leave out --images")
    return read_data_yaml(layout, splits)


def yolo_file(folder: Folder) -> str | None:
    """The data.yaml or obj.data that a folder holds, by whatever name if it is the only one."""
    if folder.exists(DATA_YAML):
        return folder.uri_of(DATA_YAML)
    top = [name for name in folder.list() if "/" not in name]
    for suffixes in (YAML_SUFFIXES, DATA_SUFFIX):
        found = [name for name in top if name.endswith(suffixes)]
        if len(found) == 1:
            return folder.uri_of(found[0])
    return None
