"""JPEGs whose bytes end too early: whole but for their end mark, or cut amid their rows."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.photos.decoding import Photo, decode_for_canvas, decode_image
from pipelines.photos.errors import ErrorKind, ImageError

MAX_PIXELS = 100_000_000
END = b"\xff\xd9"
HEIGHT, WIDTH = 480, 640


def _picture() -> Image.Image:
    """Smooth noise, which differs from row to row."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))


def _jpeg(mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    _picture().convert(mode).save(out, "JPEG", quality=90, exif=exif, **options)
    return out.getvalue()


def _partly(body: bytes, canvas: tuple[int, int] | None = None) -> Photo:
    return decode_for_canvas(body, MAX_PIXELS, canvas, partly=True)


def _fails_as_truncated(body: bytes, partly: bool = False) -> str:
    with pytest.raises(ImageError) as caught:
        decode_for_canvas(body, MAX_PIXELS, None, partly=partly)
    assert caught.value.kind is ErrorKind.TRUNCATED
    return str(caught.value)


def test_the_case_without_an_end_mark_is_a_photo_as_any(shared: Path) -> None:
    body = (shared / "cases/images/no_end_marker.jpg").read_bytes()
    photo = decode_for_canvas(body, MAX_PIXELS, (640, 640))
    np.testing.assert_array_equal(photo.pixels, decode_image(body + END, MAX_PIXELS))
    assert (photo.size, photo.decoded_share) == ((240, 320), None)


def test_the_case_cut_at_60_per_cent_fails_or_gives_the_rows_that_are_there(shared: Path) -> None:
    cut = (shared / "cases/images/cut_at_60_percent.jpg").read_bytes()
    whole = (shared / "cases/images/no_end_marker.jpg").read_bytes()
    assert _fails_as_truncated(cut) == "JPEG without its end: 143 of 240 rows are there"
    photo = _partly(cut)
    assert photo.there == (0, 0, 320, 143)
    assert photo.decoded_share == pytest.approx(143 / 240)
    np.testing.assert_array_equal(photo.pixels[:143], decode_image(whole, MAX_PIXELS)[:143])
    assert (photo.pixels[143:] == 128).all()


KINDS = {
    "plain": {},
    "no subsampling": {"subsampling": 0},
    "restart markers": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tail", [b"", b"\xff", bytes(4096)], ids=["none", "half a mark", "zeros"])
def test_without_its_end_mark_any_jpeg_has_all_of_its_pixels(kind: str, tail: bytes) -> None:
    whole = _jpeg(**KINDS[kind])
    photo = _partly(whole.removesuffix(END) + tail)
    np.testing.assert_array_equal(photo.pixels, decode_image(whole, MAX_PIXELS))
    assert photo.there is None


@pytest.mark.parametrize("kind", set(KINDS) - {"progressive"})
@pytest.mark.parametrize("tail", [b"", bytes(50_000)], ids=["cut", "filled with zeros"])
def test_the_rows_of_a_cut_jpeg_are_those_of_the_whole_one(kind: str, tail: bytes) -> None:
    whole = _jpeg(**KINDS[kind])
    cut = whole[: len(whole) // 2] + tail
    _fails_as_truncated(cut)
    photo = _partly(cut)
    assert photo.there is not None
    x1, y1, x2, rows = photo.there
    assert (x1, y1, x2) == (0, 0, WIDTH)
    assert 150 < rows < 330
    pixels = decode_image(whole, MAX_PIXELS)
    np.testing.assert_array_equal(photo.pixels[:rows], pixels[:rows])
    assert (photo.pixels[rows:] == 128).all()


def test_a_photo_narrower_than_a_block_is_cut_as_others() -> None:
    out = io.BytesIO()
    _picture().crop((0, 0, 5, HEIGHT)).save(out, "JPEG", quality=90)
    whole = out.getvalue()
    header = whole.index(b"\xff\xda")
    photo = _partly(whole[: (header + len(whole)) // 2])
    assert photo.there is not None
    rows = photo.there[3]
    assert 0 < rows < HEIGHT
    np.testing.assert_array_equal(photo.pixels[:rows], decode_image(whole, MAX_PIXELS)[:rows])


def test_a_progressive_jpeg_that_was_cut_has_no_whole_row() -> None:
    whole = _jpeg(progressive=True)
    for share in (0.2, 0.5, 0.9):
        _fails_as_truncated(whole[: int(share * len(whole))], partly=True)


def test_a_jpeg_cut_before_its_first_rows_fails_all_the_same() -> None:
    whole = _jpeg()
    start = whole.index(b"\xff\xda")
    for length in (30, start, start + 20):
        _fails_as_truncated(whole[:length], partly=True)


def test_what_a_phone_writes_behind_the_end_is_not_asked_for_rows() -> None:
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda" + bytes(range(255)) * 8
    photo = decode_for_canvas(_jpeg() + film, MAX_PIXELS, None)
    np.testing.assert_array_equal(photo.pixels, decode_image(_jpeg(), MAX_PIXELS))


MISSING_AT = {1: "bottom", 2: "bottom", 3: "top", 4: "top", 5: "right", 6: "left", 7: "left"}


@pytest.mark.parametrize("canvas", [None, (80, 80), (40, 40)], ids=["full", "half", "quarter"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_a_turned_photo_the_missing_rows_are_at_their_side(
    orientation: int, canvas: tuple[int, int] | None
) -> None:
    whole = _jpeg(orientation=orientation)
    photo = _partly(whole[: len(whole) // 2], canvas)
    expected = decode_for_canvas(whole, MAX_PIXELS, canvas)
    assert photo.size == expected.size
    assert photo.pixels.shape == expected.pixels.shape
    assert photo.there is not None
    x1, y1, x2, y2 = photo.there
    height, width = photo.size
    sides = {"left": x1 > 0, "top": y1 > 0, "right": x2 < width, "bottom": y2 < height}
    assert [side for side, is_missing in sides.items() if is_missing] == [
        MISSING_AT.get(orientation, "right")
    ]
    shrink = height / photo.pixels.shape[0]
    missing = np.ones(photo.pixels.shape[:2], bool)
    missing[round(y1 / shrink) : round(y2 / shrink), round(x1 / shrink) : round(x2 / shrink)] = 0
    wrong = (photo.pixels != expected.pixels).any(axis=2) & ~missing
    # A row that is there in part only, where the cut is no multiple of the shrinking, is grey.
    assert wrong.mean() <= (0 if canvas is None else shrink / HEIGHT)
    assert (photo.pixels[missing] == 128).all()
