from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import FaultKind
from pipelines.datasets.formats.yolo import read_yolo
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
    _, faults = checked_table(read_yolo(yolo.uri, ["train"]), keep_incomplete=True)
    return [(fault.kind, fault.where.removeprefix(f"{yolo.uri}/")) for fault in faults]


def test_centres_and_sides_in_shares_become_corners_in_pixels(yolo: Folder) -> None:
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table.to_pylist()[0] == {
        "etag": None,
        "image_uri": f"{yolo.uri}/images/train/a.jpg",
        "width": 100,
        "height": 80,
        "boxes": [[40, 30, 60, 50]],
        "class_ids": [1],
        "is_crowd": [False],
        "areas": [400],
        "sources": ["annotation"],
    }
    assert faults == []


def test_a_photo_without_a_label_file_has_no_boxes_and_is_counted(yolo: Folder) -> None:
    annotations = read_yolo(yolo.uri, ["train"])
    table, _ = checked_table(annotations)
    assert table["boxes"].to_pylist()[1] == []
    assert annotations.notes == [
        "1 of 2 photos have no label file: "
        "to Ultralytics, whose data.yaml this is, nothing is on them"
    ]


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
        ("0 0.5 0.5 0.2 0.2 7", FaultKind.UNREADABLE),  # a track's number is no score
        ("0 0.4 0.4 2 0.5 0.5 2 0.6 0.6 0.5", FaultKind.UNREADABLE),  # keypoints are no polygon
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
        ("train: images/train\nnames: [cat]\nkpt_shape: 17", "kpt_shape='17'.*how many"),
        ("train: !!python/object/apply:os.getcwd []\nnames: [cat]", "split='train'"),
    ],
)
def test_a_data_yaml_that_cannot_be_used_is_refused_by_name(
    yolo: Folder, text: str, named: str
) -> None:
    yolo.write("data.yaml", text.encode())
    with pytest.raises(InputError, match=named):
        read_yolo(yolo.uri, ["train"])


@pytest.mark.parametrize(
    ("line", "box", "score"),
    [
        ("1 0.5 0.5 0.2 0.25 0.9", [40, 30, 60, 50], 0.9),
        ("1 0.4 0.4 0.6 0.4 0.6 0.6 0.9", [40, 32, 60, 48], 0.9),
        ("1 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6 1", [40, 32, 60, 48], 1),
        ("1 0.4 0.4 0.6 0.4 0.6 0.6", [40, 32, 60, 48], None),
    ],
)
def test_a_number_more_is_the_score_of_a_prediction(
    yolo: Folder, line: str, box: list[float], score: float | None
) -> None:
    yolo.write("labels/train/a.txt", line.encode())
    annotations = read_yolo(yolo.uri, ["train"])
    assert annotations.images[0].boxes[0].score == score
    table, faults = checked_table(annotations)
    assert (table["boxes"].to_pylist()[0], faults) == ([pytest.approx(box)], [])


@pytest.mark.parametrize(
    ("shape", "keypoints"),
    [
        ("[2, 3]", "0.4 0.4 2 0.5 0.5 0"),
        ("[3, 2]", "0.4 0.4 0.5 0.5 0.6 0.6"),
        ("[2, 3]", "0.4 0.4 2 0.5 0.5 0 0.9"),  # with a score
        ("[2, 3]", ""),
    ],
)
def test_of_a_pose_the_box_is_read(yolo: Folder, shape: str, keypoints: str) -> None:
    yolo.write("data.yaml", f"{DATA_YAML}kpt_shape: {shape}\n".encode())
    yolo.write("labels/train/a.txt", f"1 0.5 0.5 0.2 0.25 {keypoints}".encode())
    annotations = read_yolo(yolo.uri, ["train"])
    table, faults = checked_table(annotations)
    assert (table["boxes"].to_pylist()[0], faults) == ([[40, 30, 60, 50]], [])
    points = int(shape[1])
    assert annotations.notes[-1] == f"{points} keypoints of 1 boxes were not read"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("9 0.5 0.5 0.2 0.2", FaultKind.UNKNOWN_CLASS),
        ("cat 0.5 0.5 0.2 0.2", FaultKind.UNREADABLE),
        ("0 0.5 0.5 0.2", FaultKind.UNREADABLE),
        ("0 nan 0.5 0.2 0.2", FaultKind.NOT_FINITE),
    ],
)
def test_a_photo_goes_with_a_line_that_cannot_be_read(
    yolo: Folder, line: str, kind: FaultKind
) -> None:
    yolo.write("labels/train/a.txt", f"1 0.5 0.5 0.2 0.25\n{line}\n".encode())
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table["image_uri"].to_pylist() == [f"{yolo.uri}/images/train/b.jpg"]
    assert [fault.kind for fault in faults] == [kind, FaultKind.INCOMPLETE_IMAGE]


def test_photos_whose_labels_are_pixels_are_none_without_objects(yolo: Folder) -> None:
    yolo.write("labels/train/a.txt", b"1 50 40 20 20\n")
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert table["image_uri"].to_pylist() == [f"{yolo.uri}/images/train/b.jpg"]
    assert [fault.kind for fault in faults] == [FaultKind.OUTSIDE, FaultKind.INCOMPLETE_IMAGE]


def test_a_label_file_of_windows_is_read(yolo: Folder) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        yolo.write("labels/train/a.txt", "1 0.5 0.5 0.2 0.25\r\n".encode(encoding))
        table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
        assert (table["class_ids"].to_pylist()[0], faults) == ([1], [])


def test_labels_beside_photos_in_a_folder_called_images_are_found(yolo: Folder) -> None:
    yolo.write("images/train/b.txt", b"0 0.5 0.5 0.2 0.25\n")
    table, faults = checked_table(read_yolo(yolo.uri, ["train"]))
    assert (table["class_ids"].to_pylist(), faults) == ([[1], [0]], [])


@pytest.mark.parametrize(
    "where",
    [
        r"path: C:\Users\bob\data" "\n" r"train: images\train",
        r"train: C:\Users\bob\data\images\train",
        "train: /home/bob/data/images/train",
        "path: /home/bob/data\ntrain: images/train",
    ],
)
def test_folders_of_another_machine_are_found_by_their_tail_and_that_is_said(
    yolo: Folder, where: str
) -> None:
    yolo.write("data.yaml", f"{where}\nnames: [cat, dog]\n".encode())
    assert photos_of(yolo) == ["images/train/a.jpg", "images/train/b.jpg"]
    note = read_yolo(yolo.uri, ["train"]).notes[0]
    assert note.startswith(f"train: 2 photos were found at {yolo.uri}/images/train, not at ")


def test_a_folder_images_alone_is_nobody_s_tail(yolo: Folder) -> None:
    yolo.write("data.yaml", b"train: /home/bob/val/images\nnames: [cat, dog]\n")
    with pytest.raises(InputError, match="there are no photos at /home/bob/val/images or"):
        read_yolo(yolo.uri, ["train"])


def test_a_list_of_another_machine_names_photos_by_their_tail_and_that_is_said(
    yolo: Folder,
) -> None:
    lines = r"C:\bob\images\train\a.jpg" "\n/home/bob/images/val/c.jpg\n/home/bob/lost.jpg\n"
    yolo.write("train.txt", lines.encode())
    yolo.write("data.yaml", b"train: train.txt\nnames: [cat, dog]\n")
    annotations = read_yolo(yolo.uri, ["train"])
    table, (fault,) = checked_table(annotations)
    assert [uri.rpartition("/")[2] for uri in table["image_uri"].to_pylist()] == ["a.jpg", "c.jpg"]
    assert table["class_ids"].to_pylist() == [[1], []]
    assert (fault.kind, fault.where) == (FaultKind.MISSING_IMAGE, f"{yolo.uri}/train.txt:3")
    assert "it is not there" in str(fault)
    assert annotations.notes[0].startswith("2 of 2 photos were found by the tail of their name")


def test_a_photo_that_a_list_names_in_full_is_that_one_and_none_of_the_same_tail(
    yolo: Folder, tmp_path_factory: pytest.TempPathFactory, make_photo: MakePhoto
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.jpg"
    elsewhere.write_bytes(make_photo())
    yolo.write("a.jpg", make_photo())
    yolo.write("train.txt", f"{elsewhere}\n".encode())
    yolo.write("data.yaml", b"train: train.txt\nnames: [cat, dog]\n")
    assert read_yolo(yolo.uri, ["train"]).images[0].uri == str(elsewhere)


def test_a_list_that_is_no_utf_8_is_refused_by_its_line(yolo: Folder) -> None:
    yolo.write("train.txt", "images/train/a.jpg\nimages/狗.jpg\n".encode("gbk"))
    yolo.write("data.yaml", b"train: train.txt\nnames: [cat, dog]\n")
    with pytest.raises(InputError, match=r"train\.txt:2 is not UTF-8 text: save the file again"):
        read_yolo(yolo.uri, ["train"])


def test_the_only_split_needs_no_name_and_of_several_one_has_to_be_named(yolo: Folder) -> None:
    with pytest.raises(InputError, match=r"has the splits \['train', 'val'\]: name one"):
        read_yolo(yolo.uri, [])
    yolo.write("data.yaml", b"train: images/train\nnames: [cat, dog]\n")
    assert len(read_yolo(yolo.uri, []).images) == 2
