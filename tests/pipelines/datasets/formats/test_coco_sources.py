import json
from pathlib import Path

import pytest

from pipelines.datasets.annotations import Annotations
from pipelines.datasets.checks import checked_table
from pipelines.datasets.formats.coco_sources import read_coco_source
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

PHOTO = b"never read: its size is known"


def coco(*file_names: str, category: str = "cat") -> bytes:
    """A box on each image, of 100 x 80 px."""
    images = [
        {"id": index, "file_name": name, "width": 100, "height": 80}
        for index, name in enumerate(file_names)
    ]
    boxes = [{"image_id": image["id"], "category_id": 7, "bbox": [1, 2, 3, 4]} for image in images]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": category}]}
    return json.dumps(content).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def write(folder: Folder, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        folder.write(name, content)


def found(folder: Folder, annotations: Annotations) -> list[str]:
    """The photos of the table, whose boxes are all there."""
    table, faults = checked_table(annotations)
    assert faults == []
    assert table["boxes"].to_pylist() == [[[1, 2, 4, 6]]] * len(table)
    return [uri.removeprefix(f"{folder.uri}/") for uri in table["image_uri"].to_pylist()]


ROBOFLOW = {
    "train/_annotations.coco.json": coco("a.jpg"),
    "train/a.jpg": PHOTO,
    "valid/_annotations.coco.json": coco("b.jpg"),
    "valid/b.jpg": PHOTO,
    "README.roboflow.txt": b"",
}
CVAT = {
    "annotations/instances_Train.json": coco("a.jpg", "sub/b.jpg"),
    "images/Train/a.jpg": PHOTO,
    "images/Train/sub/b.jpg": PHOTO,
}
COCOS_OWN = {
    "annotations/instances_train2017.json": coco("a.jpg"),
    "annotations/instances_val2017.json": coco("b.jpg"),
    "annotations/captions_val2017.json": b"{}",
    "train2017/a.jpg": PHOTO,
    "val2017/b.jpg": PHOTO,
}
OTHER_CLASSES = {"valid/_annotations.coco.json": coco("b.jpg", category="dog")}
LABEL_STUDIO = {"result.json": coco(r"images\a.jpg"), "images/a.jpg": PHOTO}
BY_SPLIT = {"train.json": coco("a.jpg"), "val.json": coco("b.jpg"), "a.jpg": PHOTO, "b.jpg": PHOTO}


@pytest.mark.parametrize(
    ("files", "splits", "photos"),
    [
        (ROBOFLOW, ["train"], ["train/a.jpg"]),
        (ROBOFLOW, ["val"], ["valid/b.jpg"]),
        (ROBOFLOW, ["valid", "train"], ["valid/b.jpg", "train/a.jpg"]),
        (CVAT, [], ["images/Train/a.jpg", "images/Train/sub/b.jpg"]),
        (CVAT, ["train"], ["images/Train/a.jpg", "images/Train/sub/b.jpg"]),
        (COCOS_OWN, ["train"], ["train2017/a.jpg"]),
        (COCOS_OWN, ["val2017"], ["val2017/b.jpg"]),
        (LABEL_STUDIO, [], ["images/a.jpg"]),
        (BY_SPLIT, ["val"], ["b.jpg"]),
    ],
)
def test_a_folder_is_enough_however_it_is_laid(
    folder: Folder, files: dict[str, bytes], splits: list[str], photos: list[str]
) -> None:
    write(folder, files)
    assert found(folder, read_coco_source(folder.uri, "", splits)) == photos


@pytest.mark.parametrize(
    ("files", "name", "photos"),
    [
        (ROBOFLOW, "valid/_annotations.coco.json", ["valid/b.jpg"]),
        (COCOS_OWN, "annotations/instances_val2017.json", ["val2017/b.jpg"]),
        (LABEL_STUDIO, "result.json", ["images/a.jpg"]),
    ],
)
def test_a_file_finds_the_photos_that_lie_with_it(
    folder: Folder, files: dict[str, bytes], name: str, photos: list[str]
) -> None:
    write(folder, files)
    assert found(folder, read_coco_source(folder.uri_of(name), "", [])) == photos


def test_photos_may_lie_elsewhere(folder: Folder) -> None:
    write(folder, {"export/train/_annotations.coco.json": coco("a.jpg"), "archive/a.jpg": PHOTO})
    read = read_coco_source(folder.uri_of("export"), folder.uri_of("archive"), [])
    assert found(folder, read) == ["archive/a.jpg"]


def test_photos_need_no_suffix_in_a_folder_that_is_said_to_hold_them(folder: Folder) -> None:
    write(folder, {"instances.json": coco("0017"), "archive/0017": PHOTO})
    read = read_coco_source(folder.uri_of("instances.json"), folder.uri_of("archive"), [])
    assert found(folder, read) == ["archive/0017"]


@pytest.mark.parametrize(
    ("files", "splits", "named"),
    [
        (ROBOFLOW, [], r"has the splits \['train', 'valid'\]: name one with --split"),
        (ROBOFLOW, ["test"], r"split='test'.* it has \['train', 'valid'\]"),
        (ROBOFLOW | OTHER_CLASSES, ["train", "val"], r"\['cat'\] and \['dog'\]"),
        ({"annotations/instances_default.json": coco("a.jpg")}, [], "need --images"),
        ({"notes.txt": b""}, [], "holds no COCO file"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_there_is(
    folder: Folder, files: dict[str, bytes], splits: list[str], named: str
) -> None:
    write(folder, files)
    with pytest.raises(InputError, match=named):
        read_coco_source(folder.uri, "", splits)
