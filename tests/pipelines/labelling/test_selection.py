import pytest

from pipelines.labelling.selection import Selection, matches, split_glob


@pytest.mark.parametrize(
    ("path", "glob", "does"),
    [
        ("a/b/photo.jpg", "*.jpg", True),  # without a slash it is about the name
        ("a/b/photo.jpg", "a/*.jpg", False),
        ("a/b/photo.jpg", "a/**/*.jpg", True),
        ("a/photo.jpg", "a/**/*.jpg", True),
        ("a/b/photo.jpg", "a/**", True),
        ("photo1.jpg", "photo[0-3].jpg", True),
        ("photo7.jpg", "photo[!0-3].jpg", True),
        ("photo7.jpg", "photo?.jpg", True),
        ("photo77.jpg", "photo?.jpg", False),
        ("a+b (1).jpg", "a+b (1).jpg", True),
        ("line\nbreak.jpg", "*.jpg", True),
    ],
)
def test_a_glob_means_what_it_means_in_a_shell(path: str, glob: str, does: bool) -> None:
    assert matches(path, glob) is does


def test_by_default_what_has_a_photo_s_suffix_or_none_is_taken_and_the_rest_counted() -> None:
    selection = Selection()
    names = ["a/0.JPG", "1.heic", "IMG_2", ".hidden", "0.json", "b/1.json", "clip.MP4", "._0.jpg"]
    taken = [name for name in names if selection.takes(name)]
    assert taken == ["a/0.JPG", "1.heic", "IMG_2", ".hidden"]
    assert selection.left_out == {".json": 2, ".mp4": 1, "._*": 1}


def test_globs_say_what_is_taken_whatever_its_suffix() -> None:
    selection = Selection(include=["*.dat", "raw/**"], exclude=["thumb*"])
    names = ["a.dat", "raw/b.bin", "c.jpg", "thumb.dat"]
    assert [name for name in names if selection.takes(name)] == ["a.dat", "raw/b.bin"]
    assert selection.left_out == {"excluded": 2}
    assert Selection(all_files=True).takes("notes.txt")


def test_a_glob_is_split_where_it_begins() -> None:
    assert split_glob("s3://b/2026-*/cam/*.jpg", "*") == ("s3://b/", "2026-*/cam/*.jpg")
    assert split_glob("s3://b/why?/", "*") == ("s3://b/why?/", None)
