from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.yolo import read_yolo
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

MakePhoto = Callable[..., bytes]

DATA_YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


@pytest.fixture
def yolo(tmp_path: Path, make_photo: MakePhoto) -> Folder:
    """Two photos of 100 x 80 px to train on, the second without labels, and one to validate."""
    folder = Folder(str(tmp_path))
    for name in ("train/a", "train/b", "val/c"):
        folder.write(f"images/{name}.jpg", make_photo(100, 80))
    folder.write("data.yaml", DATA_YAML.encode())
    folder.write("labels/train/a.txt", b"1 0.5 0.5 0.2 0.25\n")
    return folder


def photos_of(yolo: Folder, *splits: str) -> list[str]:
    images = read_yolo(yolo.uri, splits or ["train"]).images
    return [image.uri.removeprefix(f"{yolo.uri}/") for image in images]


def faults_of(yolo: Folder, labels: str) -> list[tuple[FaultKind, str]]:
    yolo.write("labels/train/a.txt", labels.encode())
    _, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    return [(fault.kind, fault.where.removeprefix(f"{yolo.uri}/")) for fault in faults]


def test_centres_and_sides_in_shares_become_corners_in_pixels(yolo: Folder) -> None:
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table.to_pylist()[0] == {
        "image_uri": f"{yolo.uri}/images/train/a.jpg",
        "width": 100,
        "height": 80,
        "boxes": [[40, 30, 60, 50]],
        "class_ids": [1],
        "is_crowd": [False],
        "areas": [400],
    }
    assert faults == []


def test_a_photo_without_a_label_file_has_no_boxes(yolo: Folder) -> None:
    table, _ = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table["boxes"].to_pylist()[1] == []


def test_shares_are_those_of_the_photo_as_it_is_looked_at(
    yolo: Folder, make_photo: MakePhoto
) -> None:
    yolo.write("images/train/a.jpg", make_photo(100, 80, orientation=6))
    table, _ = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table["boxes"].to_pylist()[0] == [[32, 37.5, 48, 62.5]]


def test_a_polygon_becomes_its_bounding_box(yolo: Folder) -> None:
    yolo.write("labels/train/a.txt", b"0 0.25 0.5 0.5 0.25 0.75 0.75\n")
    table, _ = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table["boxes"].to_pylist()[0] == [[25, 20, 75, 60]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2 0.5 0.5 0.2 0.2", FaultKind.UNKNOWN_CLASS),
        ("-1 0.5 0.5 0.2 0.2", FaultKind.UNKNOWN_CLASS),
        ("0.5 0.5 0.5 0.2 0.2", FaultKind.UNKNOWN_CLASS),
        ("nan 0.5 0.5 0.2 0.2", FaultKind.UNKNOWN_CLASS),
        ("0 nan 0.5 0.2 0.2", FaultKind.NOT_FINITE),
        ("0 0.5 0.5 0.2 inf", FaultKind.NOT_FINITE),
        ("0 0.1 0.1 0.9 0.1 0.5 nan", FaultKind.NOT_FINITE),
        ("0 0.5 0.5 0 0.2", FaultKind.ZERO_AREA),
        ("0 1.5 0.5 0.2 0.2", FaultKind.OUTSIDE),
        ("0 50 40 20 20", FaultKind.OUTSIDE),  # pixels, where shares belong
        ("0 0.95 0.5 0.2 0.2", FaultKind.CLIPPED),
        ("1 0.5 0.5 0.2 0.25", FaultKind.DUPLICATE_BOX),
        ("0 0.5 0.5 0.2", FaultKind.UNREADABLE),
        ("0 0.5 0.5 0.2 0.2 0.9", FaultKind.UNREADABLE),
        ("cat 0.5 0.5 0.2 0.2", FaultKind.UNREADABLE),
        ("\xff", FaultKind.UNREADABLE),
    ],
)
def test_a_fault_is_named_by_its_line(yolo: Folder, line: str, kind: FaultKind) -> None:
    labels = f"1 0.5 0.5 0.2 0.25\n\n{line}\n"
    assert faults_of(yolo, labels) == [(kind, "labels/train/a.txt:3")]


def test_a_box_that_rounding_put_beyond_the_edge_is_no_fault(yolo: Folder) -> None:
    assert faults_of(yolo, "0 0.900001 0.5 0.200001 1.000001\n") == []


def test_a_label_file_that_may_not_be_read_is_not_a_photo_without_boxes(yolo: Folder) -> None:
    yolo.write("labels/train/b.txt/folder", b"")
    table, (fault,) = checked_table(read_yolo(yolo.uri, ["train"]))
    assert (len(table), fault.kind) == (1, FaultKind.UNREADABLE)
    assert fault.where == f"{yolo.uri}/labels/train/b.txt"


def test_what_is_no_photo_is_named_and_labels_beside_the_photos_are_none(yolo: Folder) -> None:
    yolo.write("images/train/notes.doc", b"remember the milk")
    yolo.write("images/train/a.txt", b"")
    yolo.write("images/train.cache", b"")
    _, (fault,) = checked_table(read_yolo(yolo.uri, ["train"]))
    assert (fault.kind, fault.where) == (
        FaultKind.UNREADABLE,
        f"{yolo.uri}/images/train/notes.doc",
    )


def test_a_list_names_its_photos_relative_to_itself(yolo: Folder, make_photo: MakePhoto) -> None:
    yolo.write("lists/some.txt", f"../images/val/c.jpg\n\n{yolo.uri}/images/train/a.jpg\n".encode())
    yolo.write("data.yaml", b"train: lists/some.txt\nnames: [cat, dog]\n")
    assert photos_of(yolo) == ["images/val/c.jpg", "images/train/a.jpg"]


def test_what_a_list_names_wrongly_is_named_by_the_line_of_the_list(yolo: Folder) -> None:
    yolo.write("some.txt", b"./images/train/a.jpg\nlost.jpg\nimages/train/a.jpg\n")
    yolo.write("data.yaml", b"train: some.txt\nnames: [cat, dog]\n")
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert len(table) == 1
    assert [(fault.kind, fault.where) for fault in faults] == [
        (FaultKind.DUPLICATE_IMAGE, f"{yolo.uri}/some.txt:3"),
        (FaultKind.MISSING_IMAGE, f"{yolo.uri}/some.txt:2"),
    ]


def test_splits_and_the_folders_of_a_split_are_joined(yolo: Folder) -> None:
    everything = ["images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg"]
    assert photos_of(yolo, "train", "val") == everything
    yolo.write("data.yaml", b"train: [images/train, images/val]\nnames: [cat, dog]\n")
    assert photos_of(yolo) == everything


@pytest.mark.parametrize(
    "where",
    [
        "path: .\ntrain: images/train",
        "path: images\ntrain: train",
        "path: /content/drive/elsewhere\ntrain: images/train",
        "train: ../images/train",  # as Roboflow has it
    ],
)
def test_folders_are_found_from_path_or_beside_the_data_yaml(yolo: Folder, where: str) -> None:
    yolo.write("data.yaml", f"{where}\nnames: [cat, dog]\n".encode())
    assert photos_of(yolo) == ["images/train/a.jpg", "images/train/b.jpg"]


def test_an_absolute_path_is_taken_as_it_is(yolo: Folder) -> None:
    text = f"path: {yolo.uri}\ntrain: images/train\nnames: [cat, dog]\n"
    yolo.write("elsewhere/my.yaml", text.encode())
    assert len(read_yolo(f"{yolo.uri}/elsewhere/my.yaml", ["train"]).images) == 2


def test_the_source_is_the_data_yaml_or_its_folder(yolo: Folder) -> None:
    by_file, by_folder = (
        read_yolo(source, ["train"]) for source in (f"{yolo.uri}/data.yaml", yolo.uri)
    )
    assert by_file == by_folder


@pytest.mark.parametrize(
    ("names", "expected", "number", "class_id"),
    [
        ("[only]", ["only"], 0, 0),
        ("{7: cat, 9: dog}", ["cat", "dog"], 9, 1),
        ("{10: late, 9: early}", ["early", "late"], 9, 0),
        ("[no, on, 1]", ["no", "on", "1"], 2, 2),
    ],
)
def test_names_stay_as_written_and_numbers_become_contiguous(
    yolo: Folder, names: str, expected: list[str], number: int, class_id: int
) -> None:
    yolo.write("data.yaml", f"train: images/train\nnames: {names}\n".encode())
    yolo.write("labels/train/a.txt", f"{number} 0.5 0.5 0.2 0.2\n".encode())
    annotations = read_yolo(yolo.uri, ["train"])
    assert annotations.class_names == expected
    assert annotations.images[0].boxes[0].class_id == class_id


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("names: [cat", "is not YAML: .*line 1"),
        ("just text", "is not a data.yaml"),
        ("train: images/train", "names=None"),
        ("train: images/train\nnames: cat", "names='cat'"),
        ("train: images/train\nnames: {cat: 1}", "names={'cat': '1'}"),
        ("train: images/train\nnames: [[cat]]", r"names=\[\['cat'\]\]"),
        ("train: images/train\nnames: [cat, cat]", r"\['cat'\] stand for several"),
        ("val: images/val\nnames: [cat]", r"split='train'.*\['val'\]"),
        ("train: pictures\nnames: [cat]", "no photos at .*/pictures: correct"),
        ("train:\nnames: [cat]", "split='train'"),
        ("train: images/train\nnames: [cat]\nkpt_shape: [17, 3]", "keypoints"),
        ("train: !!python/object/apply:os.getcwd []\nnames: [cat]", "split='train'"),
    ],
)
def test_a_data_yaml_that_cannot_be_used_is_refused_by_name(
    yolo: Folder, text: str, named: str
) -> None:
    yolo.write("data.yaml", text.encode())
    with pytest.raises(InputError, match=named):
        read_yolo(yolo.uri, ["train"])
