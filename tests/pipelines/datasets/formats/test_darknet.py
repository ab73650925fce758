from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.yolo import read_yolo
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]

OBJ_DATA = b"classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n"


@pytest.fixture
def cvat(tmp_path: Path, make_photo: MakePhoto) -> Folder:
    """As CVAT exports it: a dog on a photo of 100 x 80 px to train on, nothing on that of val."""
    folder = Folder(str(tmp_path))
    folder.write("obj.data", OBJ_DATA)
    folder.write("obj.names", b"cat\ndog\n")
    for split, name in (("train", "a"), ("valid", "b")):
        folder.write(f"{split}.txt", f"data/obj_{split}_data/{name}.jpg\n".encode())
        folder.write(f"obj_{split}_data/{name}.jpg", make_photo(100, 80))
    folder.write("obj_train_data/a.txt", b"1 0.5 0.5 0.2 0.25\n")
    folder.write("obj_valid_data/b.txt", b"")
    return folder


def test_a_split_is_a_list_whose_photos_have_their_labels_beside_them(cvat: Folder) -> None:
    table, faults = checked_table(read_yolo(cvat.uri, ["train"]))
    assert table["image_uri"].to_pylist() == [cvat.uri_of("obj_train_data/a.jpg")]
    assert (table["boxes"].to_pylist(), table["class_ids"].to_pylist()) == (
        [[[40, 30, 60, 50]]],
        [[1]],
    )
    assert faults == []


def test_an_empty_label_file_says_that_nothing_is_there(cvat: Folder) -> None:
    table, faults = checked_table(read_yolo(cvat.uri, ["val"]))  # obj.data calls it valid
    assert (table["boxes"].to_pylist(), faults) == ([[]], [])


def test_several_splits_are_joined_and_one_of_several_has_to_be_named(cvat: Folder) -> None:
    assert len(read_yolo(cvat.uri, ["train", "val"]).images) == 2
    with pytest.raises(InputError, match=r"has the splits \['train', 'valid'\]"):
        read_yolo(cvat.uri, [])


@pytest.mark.parametrize("source", ["obj.data", "my.data", "my.data of a folder"])
def test_the_file_may_have_any_name(cvat: Folder, source: str) -> None:
    if source != "obj.data":
        cvat.delete("obj.data")
        cvat.write("my.data", OBJ_DATA)
    uri = cvat.uri if source.endswith("folder") else cvat.uri_of(source)
    assert len(read_yolo(uri, ["train"]).images) == 1


def test_photos_may_lie_elsewhere(cvat: Folder, make_photo: MakePhoto) -> None:
    cvat.delete("obj_train_data/a.jpg")  # exported without images
    cvat.write("archive/a.jpg", make_photo(100, 80))
    read = read_yolo(cvat.uri, ["train"], cvat.uri_of("archive"))
    table, faults = checked_table(read)
    assert table["image_uri"].to_pylist() == [cvat.uri_of("archive/a.jpg")]
    assert (table["class_ids"].to_pylist(), faults) == ([[1]], [])


def test_a_photo_that_is_not_there_is_named_by_its_line(cvat: Folder) -> None:
    cvat.write("train.txt", b"data/obj_train_data/a.jpg\ndata/obj_train_data/lost.jpg\n")
    cvat.write("obj_train_data/lost.txt", b"")
    table, (fault,) = checked_table(read_yolo(cvat.uri, ["train"]))
    assert len(table) == 1
    assert (fault.kind, fault.where) == (FaultKind.MISSING_IMAGE, cvat.uri_of("train.txt:2"))


def test_labels_of_photos_in_images_may_lie_in_labels(cvat: Folder, make_photo: MakePhoto) -> None:
    cvat.write("images/c.jpg", make_photo(100, 80))
    cvat.write("labels/c.txt", b"0 0.5 0.5 0.2 0.25\n")
    cvat.write("train.txt", b"build\\darknet\\images\\c.jpg\n")
    table, faults = checked_table(read_yolo(cvat.uri, ["train"]))
    assert (table["class_ids"].to_pylist(), faults) == ([[0]], [])


def test_a_label_file_that_may_be_another_photo_s_is_not_taken(
    cvat: Folder, make_photo: MakePhoto
) -> None:
    for name in ("cam1/d", "cam2/d"):
        cvat.write(f"{name}.txt", b"0 0.5 0.5 0.2 0.25\n")
    cvat.write("d.jpg", make_photo(100, 80))
    cvat.write("train.txt", b"d.jpg\n")
    (fault,) = read_yolo(cvat.uri, ["train"]).faults
    assert (fault.kind, fault.where) == (FaultKind.AMBIGUOUS_IMAGE, cvat.uri_of("train.txt:1"))
    assert "cam1/d.txt, cam2/d.txt" in str(fault)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"train = train.txt\n", "does not say where the class names are"),
        (b"train = train.txt\nnames = lost.names\n", r"not in .*'names': 'lost\.names'"),
        (b"train = lost.txt\nnames = obj.names\n", r"not in .*'train': 'lost\.txt'"),
        (b"names = obj.names\n", r"has the splits \[\]"),
        (b"\x00\xff\xfe", r"obj\.data:1 is not UTF-8"),
    ],
)
def test_an_obj_data_that_cannot_be_used_is_refused(cvat: Folder, text: bytes, named: str) -> None:
    cvat.write("obj.data", text)
    with pytest.raises(InputError, match=named):
        read_yolo(cvat.uri, [])
