"""HEIC where pillow-heif is installed and where it is not, and AVIF: upright exactly once."""

import io
import subprocess
import sys

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps, features

from pipelines.photos.decoding import decode_for_canvas, decode_image, read_size
from pipelines.photos.errors import ErrorKind, ImageError
from tests.conftest import ROOT

MAX_PIXELS = 100_000_000
HEIGHT, WIDTH = 64, 96
ORIENTATION = 0x0112


def _picture() -> Image.Image:
    """Another colour in each corner."""
    corners = np.array([[[250, 20, 20], [20, 250, 20]], [[20, 20, 250], [230, 230, 230]]], np.uint8)
    return Image.fromarray(cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _upright(orientation: int) -> npt.NDArray[np.int64]:
    """(H, W, 3) BGR that a viewer shows."""
    photo = _picture()
    photo.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(photo))[:, :, ::-1].astype(int)


def _far_from(body: bytes, expected: npt.NDArray[np.int64]) -> float:
    """Mean error in grey levels, which of a picture that is turned otherwise is above 50."""
    pixels = decode_image(body, MAX_PIXELS)
    assert pixels.shape == expected.shape
    assert decode_for_canvas(body, MAX_PIXELS, (16, 16)).size == expected.shape[:2]
    return float(np.abs(pixels - expected).mean())


def _heic(orientation: int) -> bytes:
    """Turned as phones do it: by the file's own word, which EXIF repeats."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: the extra `heic`")
    out = io.BytesIO()
    photo = pillow_heif.from_pillow(_picture())
    photo.save(out, quality=90, exif=_exif(orientation).tobytes())
    return out.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(orientation: int) -> None:
    assert _far_from(_heic(orientation), _upright(orientation)) < 8


def test_what_exif_alone_says_does_not_turn_a_heic() -> None:
    read_size(_heic(1))  # PIL has learned of HEIF then, and writes it as few programs do
    out = io.BytesIO()
    _picture().save(out, "HEIF", quality=90, exif=_exif(6))
    assert _far_from(out.getvalue(), _upright(1)) < 8


def test_a_heic_that_is_too_large_is_refused_by_its_header_and_one_cut_short_is_truncated() -> None:
    body = _heic(1)
    with pytest.raises(ImageError, match=f"{WIDTH} x {HEIGHT} px: more than max_pixels=99"):
        decode_image(body, max_pixels=99)
    with pytest.raises(ImageError, match="HEIF without its end") as caught:
        decode_image(body[: len(body) - 20], MAX_PIXELS)
    assert caught.value.kind is ErrorKind.TRUNCATED
    with pytest.raises(ImageError, match="HEIF that does not decode") as caught:
        decode_image(body[:12] + bytes(len(body) - 12), MAX_PIXELS)
    assert caught.value.kind is ErrorKind.CORRUPT


def test_without_pillow_heif_a_heic_is_unsupported_and_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from pipelines.photos import decode_image, ImageError\n"
        "try: decode_image(b'\\0\\0\\0\\x18ftypheic' + bytes(40), 100)\n"
        "except ImageError as error: print(error.kind, '-', error)"
    )
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert told == (
        "unsupported_format - heic is decoded where pillow-heif is installed: install "
        "yolox-ray[heic]\n"
    )


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow that reads AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_once(orientation: int) -> None:
    out = io.BytesIO()
    _picture().save(out, "AVIF", quality=90, exif=_exif(orientation))
    assert _far_from(out.getvalue(), _upright(orientation)) < 8


@pytest.mark.skipif(not features.check("avif"), reason="needs a Pillow that reads AVIF")
def test_an_avif_that_was_cut_short_is_truncated() -> None:
    out = io.BytesIO()
    _picture().save(out, "AVIF", quality=90)
    with pytest.raises(ImageError, match="AVIF without its end") as caught:
        decode_image(out.getvalue()[:-20], MAX_PIXELS)
    assert caught.value.kind is ErrorKind.TRUNCATED
