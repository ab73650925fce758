from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.yolo import read_yolo
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]


@pytest.fixture
def write(tmp_path: Path, make_photo: MakePhoto) -> Callable[..., Folder]:
    """A folder with classes.txt, photos of 100 x 80 px, and a dog in the middle in each .txt."""

    def make(*names: str) -> Folder:
        folder = Folder(str(tmp_path))
        folder.write("classes.txt", b"cat\ndog\n")
        for name in names:
            labels = b"1 0.5 0.5 0.2 0.25\n"
            folder.write(name, labels if name.endswith(".txt") else make_photo(100, 80))
        return folder

    return make


@pytest.mark.parametrize(
    ("photo", "labels"),
    [
        ("a.jpg", "a.txt"),  # labelImg
        ("images/a.jpg", "labels/a.txt"),  # Label Studio
        ("images/a.jpg", "images/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.jpg", "train/labels/a.txt"),  # Roboflow
        ("cam1/a.jpg", "cam1/a.txt"),
        ("cam1/a.PNG", "labels/a.txt"),
    ],
)
def test_photos_and_labels_are_found_however_they_are_laid(
    write: Callable[..., Folder], photo: str, labels: str
) -> None:
    folder = write(photo, labels, "README.md", "notes.json")
    table, faults = checked_table(read_yolo(folder.uri, []))
    assert table["image_uri"].to_pylist() == [folder.uri_of(photo)]
    assert table["boxes"].to_pylist() == [[[40, 30, 60, 50]]]
    assert table["class_ids"].to_pylist() == [[1]]
    assert faults == []


def test_a_photo_without_a_label_file_is_left_out_and_counted(
    write: Callable[..., Folder],
) -> None:
    folder = write("a.jpg", "b.jpg", "b.txt")
    annotations = read_yolo(folder.uri, [])
    assert [image.uri for image in annotations.images] == [folder.uri_of("b.jpg")]
    assert annotations.notes == [
        "1 of 2 photos have no label file and were left out: "
        "an empty one would say that nothing is on them"
    ]


def test_a_photo_with_an_empty_label_file_has_no_boxes(write: Callable[..., Folder]) -> None:
    folder = write("a.jpg", "a.txt")
    folder.write("a.txt", b"\n")
    table, faults = checked_table(read_yolo(folder.uri, []))
    assert (table["boxes"].to_pylist(), faults) == ([[]], [])


def test_labels_without_a_photo_are_named(write: Callable[..., Folder]) -> None:
    folder = write("images/a.jpg", "labels/a.txt", "labels/lost.txt", "README.txt")
    (fault,) = read_yolo(folder.uri, []).faults
    assert (fault.kind, fault.where) == (FaultKind.MISSING_IMAGE, folder.uri_of("labels/lost.txt"))


def test_photos_that_share_a_label_file_are_left_out(write: Callable[..., Folder]) -> None:
    folder = write("images/cam1/a.jpg", "images/cam2/a.jpg", "labels/a.txt")
    annotations = read_yolo(folder.uri, [])
    assert annotations.images == []
    (fault,) = annotations.faults
    assert (fault.kind, fault.where) == (FaultKind.AMBIGUOUS_IMAGE, folder.uri_of("labels/a.txt"))
    assert "cam1/a, cam2/a" in str(fault)


def test_photos_may_lie_elsewhere(write: Callable[..., Folder]) -> None:
    folder = write("export/labels/a.txt", "archive/2024/a.jpg")
    folder.write("export/classes.txt", b"cat\ndog\n")  # Label Studio's YOLO without images
    read = read_yolo(folder.uri_of("export"), [], folder.uri_of("archive"))
    table, faults = checked_table(read)
    assert table["image_uri"].to_pylist() == [folder.uri_of("archive/2024/a.jpg")]
    assert (table["class_ids"].to_pylist(), faults) == ([[1]], [])
    assert read.notes == ["1 of 1 photos were found by the tail of their name: a is 2024/a"]


def test_a_split_is_a_sub_folder(write: Callable[..., Folder]) -> None:
    folder = write(
        "images/train/a.jpg", "labels/train/a.txt", "images/val/a.jpg", "labels/val/a.txt"
    )
    read = read_yolo(folder.uri, ["train"])
    assert [image.uri for image in read.images] == [folder.uri_of("images/train/a.jpg")]
    assert len(read_yolo(folder.uri, []).images) == 2
    with pytest.raises(InputError, match=r"split='test'.* it has \['train', 'val'\]"):
        read_yolo(folder.uri, ["test"])


@pytest.mark.parametrize("body", [b"cat\r\ndog\r\n\r\n", "cat\ndog\n".encode("utf-16")])
def test_class_names_are_read_as_windows_writes_them(
    write: Callable[..., Folder], body: bytes
) -> None:
    folder = write("a.jpg", "a.txt")
    folder.write("classes.txt", body)
    assert read_yolo(folder.uri, []).class_names == ["cat", "dog"]


def test_an_empty_line_among_the_class_names_has_its_number(write: Callable[..., Folder]) -> None:
    folder = write("a.jpg", "a.txt")
    folder.write("classes.txt", b"cat\n\ndog\n")
    folder.write("a.txt", b"2 0.5 0.5 0.2 0.25\n")
    annotations = read_yolo(folder.uri, [])
    assert annotations.class_names == ["cat", "dog"]
    assert annotations.images[0].boxes[0].class_id == 1


def test_class_names_in_another_encoding_are_refused_by_their_line(
    write: Callable[..., Folder],
) -> None:
    folder = write("a.jpg", "a.txt")
    folder.write("classes.txt", "cat\n狗\n".encode("gbk"))
    with pytest.raises(InputError, match=r"classes\.txt:2 is not UTF-8 text"):
        read_yolo(folder.uri, [])


def test_a_folder_without_photos_is_refused(write: Callable[..., Folder]) -> None:
    with pytest.raises(InputError, match="holds no photos: say with --images"):
        read_yolo(write("labels/a.txt").uri, [])
