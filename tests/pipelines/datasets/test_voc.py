from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.voc import read_voc
from pipelines.errors import InputError
from pipelines.storage.folder import Folder

BOX = (11, 21, 40, 60)


def voc_object(name: str = "cat", box: Sequence[object] = BOX, difficult: int = 0) -> str:
    """Two lines."""
    xmin, ymin, xmax, ymax = box
    corners = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return (
        f"<object><name> {name}\n</name><difficult>{difficult}</difficult>"
        f"<bndbox>{corners}</bndbox></object>\n"
    )


def voc_xml(*objects: str, filename: str = "a.jpg", size: str = "100 80") -> str:
    """The objects begin in line 3."""
    width, height = size.split()
    return (
        f"<annotation><filename>{filename}</filename>\n"
        f"<size><width>{width}</width><height>{height}</height></size>\n"
        f"{''.join(objects)}</annotation>"
    )


@pytest.fixture
def voc(tmp_path: Path) -> Folder:
    """Two photos, a cat on one and a dog on the other, each in a split of its own."""
    folder = Folder(str(tmp_path))
    for stem, name, split in (("a", "cat", "train"), ("b", "dog", "val")):
        folder.write(f"JPEGImages/{stem}.jpg", b"never read: its size is known")
        folder.write(f"Annotations/{stem}.xml", voc_xml(voc_object(name)).encode())
        folder.write(f"ImageSets/Main/{split}.txt", f"\n{stem}\n".encode())
    return folder


def faults_of(voc: Folder, *splits: str) -> list[tuple[FaultKind, str]]:
    _, faults = checked_table(read_voc(voc.uri, splits, []))
    return [(fault.kind, fault.where.removeprefix(f"{voc.uri}/")) for fault in faults]


def test_corners_count_from_1_and_lie_inside_the_box(voc: Folder) -> None:
    voc.write("Annotations/a.xml", voc_xml(voc_object(box=(1, 1, 100, 80))).encode())
    table, faults = checked_table(read_voc(voc.uri, ["train"], []))
    assert table.to_pylist() == [
        {
            "image_uri": f"{voc.uri}/JPEGImages/a.jpg",
            "width": 100,
            "height": 80,
            "boxes": [[0, 0, 100, 80]],
            "class_ids": [0],
            "is_crowd": [False],
            "areas": [8000],
        }
    ]
    assert faults == []


def test_every_split_has_the_classes_of_all_annotations_in_alphabetical_order(voc: Folder) -> None:
    for splits in ([], ["train"], ["val"], ["val", "train"]):
        assert read_voc(voc.uri, splits, []).class_names == ["cat", "dog"]


def test_several_splits_are_joined_and_none_means_all(voc: Folder) -> None:
    joined, everything = read_voc(voc.uri, ["val", "train"], []), read_voc(voc.uri, [], [])
    assert [image.uri[-5:] for image in joined.images] == ["b.jpg", "a.jpg"]
    assert [image.uri[-5:] for image in everything.images] == ["a.jpg", "b.jpg"]


def test_given_classes_fix_the_order_and_others_are_unknown_with_their_line(voc: Folder) -> None:
    table, (fault,) = checked_table(read_voc(voc.uri, [], ["hen", "dog"]))
    assert table["class_ids"].to_pylist() == [[], [1]]
    assert (fault.kind, fault.where) == (
        FaultKind.UNKNOWN_CLASS,
        f"{voc.uri}/Annotations/a.xml:3",
    )


def test_a_difficult_object_counts_neither_as_found_nor_as_missed(voc: Folder) -> None:
    voc.write("Annotations/a.xml", voc_xml(voc_object(difficult=1)).encode())
    table, _ = checked_table(read_voc(voc.uri, ["train"], []))
    assert table["is_crowd"].to_pylist() == [[True]]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ((11, 21, 11, 60), FaultKind.ZERO_AREA),
        ((40, 21, 11, 60), FaultKind.ZERO_AREA),
        ((111, 21, 140, 60), FaultKind.OUTSIDE),
        ((90, 21, 140, 60), FaultKind.CLIPPED),
        (("nan", 21, 40, 60), FaultKind.NOT_FINITE),
        (("left", 21, 40, 60), FaultKind.UNREADABLE),
        (("", 21, 40, 60), FaultKind.UNREADABLE),
        (BOX, FaultKind.DUPLICATE_BOX),
    ],
)
def test_a_fault_is_named_by_the_line_of_its_object(
    voc: Folder, box: Sequence[object], kind: FaultKind
) -> None:
    voc.write("Annotations/a.xml", voc_xml(voc_object(), voc_object(box=box)).encode())
    assert faults_of(voc, "train") == [(kind, "Annotations/a.xml:5")]


@pytest.mark.parametrize(
    ("xml", "line", "named"),
    [
        (b"<annotation>\n<object></annotation>", 2, "mismatched tag"),
        (b"", 1, "no element found"),
        (b"not XML", 1, "syntax error"),
        (b'<?xml version="1.0" encoding="klingon"?><annotation/>', 1, "encoding"),
        (b'<?xml version="1.0" encoding="gb2312"?><annotation/>', 1, "encoding"),
        (b'\n<!DOCTYPE a [<!ENTITY b "bomb">]><annotation>&b;</annotation>', 2, "DOCTYPE"),
        (b'\n<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', 2, "DOCTYPE"),
    ],
)
def test_an_unreadable_file_is_named_by_the_line_where_reading_ended(
    voc: Folder, xml: bytes, line: int, named: str
) -> None:
    voc.write("Annotations/a.xml", xml)
    annotations = read_voc(voc.uri, [], [])
    (fault,) = annotations.faults
    assert fault.where == f"{voc.uri}/Annotations/a.xml:{line}"
    assert named in str(fault)
    assert [image.uri[-5:] for image in annotations.images] == ["b.jpg"]


def test_what_a_split_names_wrongly_is_named_by_the_line_of_the_split(voc: Folder) -> None:
    voc.write("ImageSets/Main/train.txt", b"a\nlost\nb\na\n")
    voc.delete("JPEGImages/b.jpg")
    assert faults_of(voc, "train") == [
        (FaultKind.UNREADABLE, "ImageSets/Main/train.txt:2"),
        (FaultKind.MISSING_IMAGE, "ImageSets/Main/train.txt:3"),
        (FaultKind.DUPLICATE_IMAGE, "ImageSets/Main/train.txt:4"),
    ]


def test_the_photo_is_the_one_with_the_stem_of_the_annotations_whatever_they_call_it(
    voc: Folder,
) -> None:
    voc.write("JPEGImages/a.png", b"")
    for filename, photo in (("elsewhere.jpg", "a.jpg"), ("a.png", "a.png")):
        voc.write("Annotations/a.xml", voc_xml(voc_object(), filename=filename).encode())
        assert read_voc(voc.uri, ["train"], []).images[0].uri == f"{voc.uri}/JPEGImages/{photo}"


def test_a_photo_of_another_stem_is_found_by_its_name_in_the_annotations(voc: Folder) -> None:
    voc.write("JPEGImages/photo 1.jpg", b"")
    voc.write("Annotations/c.xml", voc_xml(filename="photo 1.jpg").encode())
    assert read_voc(voc.uri, [], []).images[-1].uri == f"{voc.uri}/JPEGImages/photo 1.jpg"


@pytest.mark.parametrize("size", ["0 0", "wide high", "nan -80"])
def test_a_size_that_is_none_is_unknown(voc: Folder, size: str) -> None:
    voc.write("Annotations/a.xml", voc_xml(size=size).encode())
    image = read_voc(voc.uri, ["train"], []).images[0]
    assert (image.width, image.height) == (0, 0)


def test_an_unknown_split_is_refused_with_those_that_there_are(voc: Folder) -> None:
    with pytest.raises(InputError, match=r"split='test'.*\['train', 'val'\]"):
        read_voc(voc.uri, ["test"], [])


@pytest.mark.parametrize("missing", ["Annotations", "JPEGImages"])
def test_a_folder_without_annotations_or_photos_is_refused(voc: Folder, missing: str) -> None:
    for name in voc.list(missing):
        voc.delete(name)
    with pytest.raises(InputError, match=f"has no {missing}/"):
        read_voc(voc.uri, [], [])


@pytest.mark.parametrize(("split", "images"), [("train", 205), ("val", 87), ("test", 72)])
def test_bccd_splits_have_their_images_and_the_same_classes(
    shared: Path, split: str, images: int
) -> None:
    annotations = read_voc(f"{shared}/data/bccd", [split], [])
    assert len(annotations.images) == images
    assert annotations.class_names == ["Platelets", "RBC", "WBC"]


def test_bccd_has_two_boxes_without_area_among_its_4155_red_blood_cells(shared: Path) -> None:
    table, faults = checked_table(read_voc(f"{shared}/data/bccd", [], []))
    class_ids = [class_id for row in table["class_ids"].to_pylist() for class_id in row]
    assert [class_ids.count(class_id) for class_id in range(3)] == [361, 4155 - 2, 372]
    assert [_shown(fault) for fault in faults] == [
        ("zero_area", "BloodImage_00338.xml:158", "RBC 504, 337, 504, 337"),
        ("zero_area", "BloodImage_00343.xml:50", "RBC 181, 329, 181, 329"),
    ]


def _shown(fault: Fault) -> tuple[str, str, str]:
    return fault.kind, fault.where.rpartition("/")[2], str(fault)
