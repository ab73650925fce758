import pytest

from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.photo_names import find_photos, match_names, tail_notes
from pipelines.storage.folder import Folder

PHOTOS = Folder("s3://bucket/photos")


@pytest.mark.parametrize(
    ("name", "present"),
    [
        ("cam1/a.jpg", "cam1/a.jpg"),
        ("./cam1/a.jpg", "cam1/a.jpg"),
        (r"cam1\a.jpg", "cam1/a.jpg"),
        (r"C:\photos\cam1\a.jpg", "cam1/a.jpg"),
        (r"\\server\share\cam1\a.jpg", "cam1/a.jpg"),
        ("/home/bob/photos/cam1/a.jpg", "cam1/a.jpg"),
        ("../photos/cam1/a.jpg", "cam1/a.jpg"),
        ("a.jpg", "cam1/a.jpg"),
        ("A.JPG", "a.jpg"),
        ("u\u0308ber.jpg", "\u00fcber.jpg"),  # as macOS and as Linux write it
        (r"odd\name.jpg", r"odd\name.jpg"),  # on Linux a name may have one
        ("https://host/data/a.jpg", "a.jpg"),
        ("/home/bob/photos/cam1/a.jpg", "images/cam1/a.jpg"),
    ],
)
def test_a_photo_is_found_if_one_of_both_names_is_the_tail_of_the_other(
    name: str, present: str
) -> None:
    assert match_names([name], [present, "other/b.jpg"]).found == {name: present}


@pytest.mark.parametrize("name", ["train/a.jpg", r"D:\train\a.jpg", "ba.jpg", "a.png", "", "/"])
def test_a_name_that_differs_before_its_tail_is_another_photo(name: str) -> None:
    matches = match_names([name], ["val/a.jpg"])
    assert (matches.found, matches.doubts) == ({}, {})


def test_of_several_photos_the_one_that_shares_most_of_the_name_is_meant() -> None:
    present = ["a.jpg", "cam1/a.jpg", "cam2/a.jpg"]
    assert match_names([r"D:\x\cam1\a.jpg"], present).found == {r"D:\x\cam1\a.jpg": "cam1/a.jpg"}
    assert match_names(["a.jpg"], present).found == {"a.jpg": "a.jpg"}


def test_a_name_that_several_photos_have_is_in_doubt() -> None:
    matches = match_names(["a.jpg"], ["cam1/a.jpg", "cam2/a.jpg"])
    assert matches.found == {}
    assert matches.doubts == {"a.jpg": "may be any of cam1/a.jpg, cam2/a.jpg"}


def test_names_that_mean_the_same_photo_are_in_doubt() -> None:
    # Two cameras, and somebody copied the photos of one of them into one folder.
    matches = match_names(["cam1/a.jpg", "cam2/a.jpg"], ["a.jpg"])
    assert matches.found == {}
    assert matches.doubts.keys() == {"cam1/a.jpg", "cam2/a.jpg"}


def test_a_photo_that_is_named_as_it_is_belongs_to_that_name_alone() -> None:
    matches = match_names(["a.jpg", "cam2/a.jpg"], ["a.jpg"])
    assert matches.found == {"a.jpg": "a.jpg"}
    assert matches.doubts.keys() == {"cam2/a.jpg"}


def test_it_is_said_how_many_were_found_by_their_tail_with_an_example() -> None:
    assert tail_notes(match_names(["a.jpg", "./b.jpg"], ["a.jpg", "b.jpg"])) == []
    assert tail_notes(match_names(["a.jpg", r"D:\b.jpg"], ["a.jpg", "b.jpg"])) == [
        r"1 of 2 photos were found by the tail of their name: D:\b.jpg is b.jpg"
    ]


def test_a_photo_that_is_not_there_keeps_its_name_and_one_in_doubt_is_a_fault() -> None:
    photos = find_photos(PHOTOS, ["x/a.jpg", "y/a.jpg"], ["/lost.jpg", "a.jpg"])
    assert photos.uri_of("/lost.jpg", "here") == "s3://bucket/photos/lost.jpg"
    with pytest.raises(Fault, match=r"a\.jpg may be any of x/a\.jpg, y/a\.jpg") as fault:
        photos.uri_of("a.jpg", "here")
    assert (fault.value.kind, fault.value.where) == (FaultKind.AMBIGUOUS_IMAGE, "here")


def test_a_photo_on_s3_is_where_it_is_said_to_be() -> None:
    photos = find_photos(PHOTOS, [], ["s3://elsewhere/a.jpg"])
    assert photos.uri_of("s3://elsewhere/a.jpg", "") == "s3://elsewhere/a.jpg"
    assert photos.uris == {"s3://elsewhere/a.jpg"}
