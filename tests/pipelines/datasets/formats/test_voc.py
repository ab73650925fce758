from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.formats.voc import read_voc
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
    _, faults = checked_table(read_voc(voc.uri, splits, []), keep_incomplete=True)
    return [(fault.kind, fault.where.removeprefix(f"{voc.uri}/")) for fault in faults]


def test_corners_count_from_1_and_lie_inside_the_box(voc: Folder) -> None:
    voc.write("Annotations/a.xml", voc_xml(voc_object(box=(1, 1, 100, 80))).encode())
    table, faults = checked_table(read_voc(voc.uri, ["train"], []))
    assert table.to_pylist() == [
        {
            "etag": None,
            "image_uri": f"{voc.uri}/JPEGImages/a.jpg",
            "width": 100,
            "height": 80,
            "boxes": [[0, 0, 100, 80]],
            "class_ids": [0],
            "is_crowd": [False],
            "areas": [8000],
            "sources": ["annotation"],
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


def test_given_classes_fix_the_order_and_others_are_left_out_with_their_line(voc: Folder) -> None:
    table, (fault,) = checked_table(read_voc(voc.uri, [], ["hen", "dog"]))
    assert table["class_ids"].to_pylist() == [[], [1]]
    assert (fault.kind, fault.where) == (
        FaultKind.UNWANTED_CLASS,
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
        (b'<?xml version="1.0" encoding="gbk"?>\n<annotation>\xff</annotation>', 2, "'gbk'"),
        (b"<annotation>\n<name>\xff</name></annotation>", 2, "save it as that"),
        (b"<annotations><image><box/></image></annotations>", 1, "<annotations>"),
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


def write_cat(folder: Folder, *names: str) -> None:
    """An annotation or a photo under each name."""
    for name in names:
        is_xml = name.lower().endswith(".xml")
        folder.write(name, voc_xml(voc_object(), filename="").encode() if is_xml else b"a photo")


def photos_of(folder: Folder, *splits: str, images: str = "") -> list[str]:
    """Those of the table, which has a cat on each and no faults."""
    table, faults = checked_table(read_voc(folder.uri, splits, [], images))
    assert faults == []
    assert table["class_ids"].to_pylist() == [[0]] * len(table)
    return [uri.removeprefix(f"{folder.uri}/") for uri in table["image_uri"].to_pylist()]


@pytest.mark.parametrize(
    ("xml", "photo"),
    [
        ("a.xml", "a.jpg"),  # labelImg
        ("Annotations/a.xml", "images/a.png"),  # Label Studio
        ("annotations/a.xml", "images/a.png"),  # many a data set on the web
        ("Annotations/cam1/a.xml", "JPEGImages/cam1/a.jpg"),  # CVAT
        ("Annotations/a.xml", "JPEGImages/cam1/a.JPG"),
        ("Annotations/A.XML", "photos/a.jpeg"),
    ],
)
def test_a_photo_and_its_annotations_are_found_however_they_are_laid(
    tmp_path: Path, xml: str, photo: str
) -> None:
    folder = Folder(str(tmp_path))
    write_cat(folder, xml, photo, photo.replace("a.", "not_annotated."))
    folder.write("labelmap.txt", b"")
    assert photos_of(folder) == [photo]
    assert read_voc(folder.uri, [], []).notes[-1] == (
        "1 of 2 photos have no XML file: nobody has said what is on them, and they are left out"
    )


def test_photos_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_cat(folder, "xml/a.xml", "archive/2024/a.jpg")
    read = read_voc(folder.uri_of("xml"), [], [], folder.uri_of("archive"))
    assert read.images[0].uri == folder.uri_of("archive/2024/a.jpg")
    assert read.notes == ["1 of 1 photos were found by the tail of their name: a is 2024/a"]


def test_splits_are_sub_folders_where_there_are_no_lists(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    write_cat(folder, "train/a.xml", "train/a.jpg", "valid/a.xml", "valid/a.jpg")  # Roboflow
    assert photos_of(folder, "train") == ["train/a.jpg"]
    assert photos_of(folder, "val") == ["valid/a.jpg"]
    assert photos_of(folder) == ["train/a.jpg", "valid/a.jpg"]


def test_a_list_may_have_quotes_around_names_with_spaces(voc: Folder) -> None:
    write_cat(voc, "Annotations/my cat.xml", "JPEGImages/my cat.jpg")
    voc.write("ImageSets/Main/default.txt", b'"my cat"\na\n')  # CVAT
    assert photos_of(voc, "default") == ["JPEGImages/my cat.jpg", "JPEGImages/a.jpg"]


def test_a_stem_that_several_photos_have_is_ambiguous_unless_the_annotations_name_one(
    tmp_path: Path,
) -> None:
    folder = Folder(str(tmp_path))
    write_cat(folder, "Annotations/a.xml", "photos/cam1/a.jpg", "photos/cam2/a.jpg")
    (fault,) = read_voc(folder.uri, [], []).faults
    assert (fault.kind, fault.where) == (
        FaultKind.AMBIGUOUS_IMAGE,
        folder.uri_of("Annotations/a.xml"),
    )
    named = voc_xml(voc_object(), filename=r"D:\photos\cam2\a.jpg")
    folder.write("Annotations/a.xml", named.encode())
    assert photos_of(folder) == ["photos/cam2/a.jpg"]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("gbk", "gbk"),
        ("GB2312", "gbk"),
        ("big5", "big5"),
        ("Shift_JIS", "cp932"),
        ("utf-8", "utf-8"),
        ("utf-8", "utf-8-sig"),
        ("gbk", "utf-8-sig"),  # the mark of UTF-8 knows better
        ("utf-16", "utf-16"),
        ("utf-16", "utf-8"),  # as .NET writes text to files
    ],
)
def test_class_names_are_read_in_any_encoding(voc: Folder, declared: str, encoding: str) -> None:
    text = f"<?xml version='1.0' encoding='{declared}'?>\n{voc_xml(voc_object('人'))}"
    voc.write("Annotations/a.xml", text.encode(encoding))
    read = read_voc(voc.uri, ["train"], [])
    assert (read.class_names, read.faults) == (["dog", "人"], [])
    assert read.images[0].boxes[0].where == f"{voc.uri}/Annotations/a.xml:4"


def test_european_encodings_are_read_too(voc: Folder) -> None:
    for declared in ("iso-8859-1", "windows-1252"):
        text = f'<?xml version="1.0" encoding="{declared}"?>{voc_xml(voc_object("Bär"))}'
        voc.write("Annotations/a.xml", text.encode("cp1252"))
        assert read_voc(voc.uri, [], []).class_names == ["Bär", "dog"]


def test_every_box_of_an_object_is_read_and_those_of_its_parts_are_none(voc: Folder) -> None:
    bndbox = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    more = f"<part><name>head</name>{bndbox}</part>\n{bndbox}</object>"
    voc.write("Annotations/a.xml", voc_xml(voc_object().replace("</object>", more)).encode())
    image = read_voc(voc.uri, ["train"], []).images[0]
    assert [(b.corners, b.where.rpartition(":")[2]) for b in image.boxes] == [
        ((10, 20, 40, 60), "3"),
        ((0, 0, 9, 9), "5"),
    ]


def test_corners_in_another_order_name_the_same_box(voc: Folder) -> None:
    for box in ((40, 21, 11, 60), (11, 60, 40, 21), (40, 60, 11, 21)):
        voc.write("Annotations/a.xml", voc_xml(voc_object(box=box)).encode())
        read = read_voc(voc.uri, ["train"], []).images[0].boxes[0]
        assert read.corners == (10, 20, 40, 60)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (voc_object(box=("left", 21, 40, 60)), FaultKind.UNREADABLE),
        ("<object><name>cat</name><polygon><x1>1</x1></polygon></object>", FaultKind.UNREADABLE),
        ("<object><name>cat</name></object>", FaultKind.UNREADABLE),
        (voc_object(name=""), FaultKind.UNKNOWN_CLASS),
    ],
)
def test_an_image_goes_with_an_object_that_cannot_be_read(
    voc: Folder, wrong: str, kind: FaultKind
) -> None:
    voc.write("Annotations/a.xml", voc_xml(voc_object(), wrong).encode())
    table, faults = checked_table(read_voc(voc.uri, ["train"], []))
    assert len(table) == 0
    assert [(fault.kind, fault.where.removeprefix(f"{voc.uri}/")) for fault in faults] == [
        (kind, "Annotations/a.xml:5"),
        (FaultKind.INCOMPLETE_IMAGE, "ImageSets/Main/train.txt:2"),
    ]


def test_annotations_without_objects_say_that_nothing_is_there(voc: Folder) -> None:
    voc.write("Annotations/a.xml", voc_xml().encode())
    table, faults = checked_table(read_voc(voc.uri, ["train"], []))
    assert (table["boxes"].to_pylist(), faults) == ([[]], [])
