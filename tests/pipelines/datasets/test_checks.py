import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations, Corners
from pipelines.datasets.checks import checked_table
from pipelines.datasets.faults import Fault, FaultKind
from pipelines.storage.folder import Folder
from tests.conftest import Bucket

MakePhoto = Callable[..., bytes]


def annotations(*corners: Corners) -> Annotations:
    """Boxes on one image of 100 x 80 px."""
    boxes = [AnnotatedBox(0, box, f"a.txt:{line}") for line, box in enumerate(corners, start=1)]
    image = AnnotatedImage("s3://bucket/a.jpg", "list.txt:1", boxes, width=100, height=80)
    return Annotations(class_names=["cat"], images=[image], faults=[])


def of_photo(uri: str, width: int = 0, height: int = 0) -> Annotations:
    images = [AnnotatedImage(uri, uri, [], width, height)]
    return Annotations(class_names=["cat"], images=images, faults=[])


@pytest.mark.parametrize(
    ("corners", "kept", "kinds"),
    [
        ((0, 0, 100, 80), [[0, 0, 100, 80]], []),
        ((-1, -1, 101, 81), [[0, 0, 100, 80]], []),
        ((50, 10, 101.5, 20), [[50, 10, 100, 20]], [FaultKind.CLIPPED]),
        ((-30, 10, 20, 20), [[0, 10, 20, 20]], [FaultKind.CLIPPED]),
        ((100, 10, 120, 20), [], [FaultKind.OUTSIDE]),
        ((10, -20, 20, 0), [], [FaultKind.OUTSIDE]),
        ((10, 10, 10, 20), [], [FaultKind.ZERO_AREA]),
        ((20, 10, 10, 20), [], [FaultKind.ZERO_AREA]),
        ((float("nan"), 10, 20, 20), [], [FaultKind.NOT_FINITE]),
        ((0, 0, float("inf"), 20), [], [FaultKind.NOT_FINITE]),
    ],
)
def test_a_box_is_kept_clipped_or_left_out_by_where_it_lies(
    corners: Corners, kept: list[list[float]], kinds: list[FaultKind]
) -> None:
    table, faults = checked_table(annotations(corners), keep_incomplete=True)
    assert table["boxes"].to_pylist() == [kept]
    assert [(fault.kind, fault.where) for fault in faults] == [(kind, "a.txt:1") for kind in kinds]


def test_the_area_of_a_clipped_box_is_that_of_what_is_kept() -> None:
    table, _ = checked_table(annotations((90, 70, 110, 90)))
    assert table["areas"].to_pylist() == [[100]]


def test_a_box_that_stands_twice_is_kept_once_and_its_twin_is_named() -> None:
    table, (fault,) = checked_table(annotations((1, 2, 3, 4), (5, 6, 7, 8), (1, 2, 3, 4)))
    assert table["boxes"].to_pylist() == [[[1, 2, 3, 4], [5, 6, 7, 8]]]
    assert (fault.kind, fault.where) == (FaultKind.DUPLICATE_BOX, "a.txt:3")
    assert str(fault) == "box 1, 2, 3, 4 stands at a.txt:1 already"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_an_unknown_size_is_that_of_the_photo_as_it_is_looked_at(
    tmp_path: Path, make_photo: MakePhoto, orientation: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(make_photo(100, 80, orientation))
    table, faults = checked_table(of_photo(f"{tmp_path}/a.jpg", width=100))
    size = (table["width"][0].as_py(), table["height"][0].as_py())
    assert size == ((80, 100) if orientation >= 5 else (100, 80))
    assert faults == []


def test_a_photo_of_s3_that_was_read_for_its_size_is_held_to_what_was_read(
    tmp_path: Path, make_photo: MakePhoto, bucket: Bucket
) -> None:
    on_s3, on_disk = bucket.put("a.jpg", make_photo()), tmp_path / "a.jpg"
    on_disk.write_bytes(make_photo())
    etags = [checked_table(of_photo(str(uri), width=100))[0]["etag"] for uri in (on_s3, on_disk)]
    md5 = hashlib.md5(make_photo()).hexdigest()
    assert [etag.to_pylist() for etag in etags] == [[md5], [None]]


@pytest.mark.parametrize(("width", "height"), [(-100, 80), (0, 80), (100, 2**31)])
def test_a_size_that_no_photo_has_is_read_from_the_photo(
    tmp_path: Path, make_photo: MakePhoto, width: int, height: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(make_photo(100, 80))
    table, faults = checked_table(of_photo(f"{tmp_path}/a.jpg", width, height))
    assert (table["width"].to_pylist(), table["height"].to_pylist(), faults) == ([100], [80], [])


def test_a_photo_whose_name_is_no_text_is_left_out_and_named(tmp_path: Path) -> None:
    uri = os.fsdecode(os.fsencode(tmp_path) + "/狗.jpg".encode("gbk"))
    table, (fault,) = checked_table(of_photo(uri, width=100, height=80))
    assert (len(table), fault.kind) == (0, FaultKind.UNREADABLE)
    assert r"\udcb9\udcb7.jpg is no UTF-8 text: rename the photo" in str(fault)
    assert fault.where == str(tmp_path / r"\udcb9\udcb7.jpg")


def lost_box(kind: FaultKind) -> Annotations:
    """An image with a box, and another annotation that no box could be made of."""
    fault = Fault(kind, "a.txt:2", "something")
    box = AnnotatedBox(0, (1, 2, 3, 4), "a.txt:1")
    image = AnnotatedImage("s3://bucket/a.jpg", "list.txt:1", [box], 100, 80, [fault])
    return Annotations(class_names=["cat"], images=[image], faults=[])


@pytest.mark.parametrize(
    "kind", [FaultKind.UNREADABLE, FaultKind.UNKNOWN_CLASS, FaultKind.NOT_FINITE]
)
def test_an_image_of_which_an_annotation_could_not_be_read_is_left_out(kind: FaultKind) -> None:
    table, (fault, loss) = checked_table(lost_box(kind))
    assert (len(table), fault.kind) == (0, kind)
    assert (loss.kind, loss.where) == (FaultKind.INCOMPLETE_IMAGE, "list.txt:1")
    assert str(loss) == f"s3://bucket/a.jpg: {kind} at a.txt:2; boxes dropped with it: 1"


def test_an_image_is_kept_incomplete_if_that_is_asked_for() -> None:
    table, (fault,) = checked_table(lost_box(FaultKind.UNREADABLE), keep_incomplete=True)
    assert (table["boxes"].to_pylist(), fault.where) == ([[[1, 2, 3, 4]]], "a.txt:2")


@pytest.mark.parametrize("kind", [FaultKind.ZERO_AREA, FaultKind.UNWANTED_CLASS])
def test_an_image_keeps_the_boxes_beside_one_that_shows_nothing_or_is_not_wanted(
    kind: FaultKind,
) -> None:
    table, _ = checked_table(lost_box(kind))
    assert table["boxes"].to_pylist() == [[[1, 2, 3, 4]]]


@pytest.mark.parametrize("corners", [(10, 10, 10, 20), (500, 10, 520, 20), (math.nan, 1, 2, 3)])
def test_an_image_without_a_box_that_can_be_used_is_none_without_objects(corners: Corners) -> None:
    table, (_, loss) = checked_table(annotations(corners))
    assert (len(table), loss.kind) == (0, FaultKind.INCOMPLETE_IMAGE)


def test_a_photo_of_known_size_is_not_read() -> None:
    table, faults = checked_table(of_photo("s3://no-such-bucket/a.jpg", width=100, height=80))
    assert (len(table), faults) == (1, [])


def test_a_photo_that_is_gone_is_missing_and_a_damaged_one_unreadable(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    for name, kind in (("gone", FaultKind.MISSING_IMAGE), ("bad", FaultKind.UNREADABLE)):
        table, (fault,) = checked_table(of_photo(f"{tmp_path}/{name}.jpg"))
        assert (len(table), fault.kind) == (0, kind)
        assert f"{name}.jpg" in str(fault)


def test_damaged_exif_turns_no_photo(tmp_path: Path, make_photo: MakePhoto) -> None:
    photo = make_photo(100, 80, 6).replace(b"Exif\0\0", b"Exif\0\0????")
    Folder(str(tmp_path)).write("a.jpg", photo)
    table, faults = checked_table(of_photo(f"{tmp_path}/a.jpg"))
    assert (table["width"].to_pylist(), faults) == ([100], [])
