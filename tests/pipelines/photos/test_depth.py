"""Pixels of more than 8 bits are shown as a viewer would, or refused by name; never as black."""

import io
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipelines.photos.decoding import decode_image
from pipelines.photos.depth import to_eight_bits
from pipelines.photos.errors import ErrorKind, ImageError

MAX_PIXELS = 100_000_000


def _photo(channels: int = 3) -> npt.NDArray[np.uint8]:
    """(48, 64, channels) from black to white."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, channels), np.uint8)
    coarse.flat[:2] = 0, 255
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_NEAREST).reshape(48, 64, channels)


def _decoded(suffix: str, pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    return decode_image(cv2.imencode(suffix, pixels)[1].tobytes(), MAX_PIXELS).astype(int)


def _tiff(pixels: npt.NDArray[np.generic]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "TIFF")
    return out.getvalue()


def test_the_case_of_twelve_bits_in_sixteen_goes_from_black_to_white(shared: Path) -> None:
    body = (shared / "cases/images/twelve_bits_in_sixteen.tif").read_bytes()
    stored = np.asarray(Image.open(io.BytesIO(body))).astype(float)
    expected = np.repeat(stored[:, :, None] * 255 / 4095, 3, axis=2)
    assert np.abs(decode_image(body, MAX_PIXELS) - expected).max() <= 0.5


def test_the_case_of_float32_goes_from_black_to_white(shared: Path) -> None:
    body = (shared / "cases/images/float32.tif").read_bytes()
    stored = np.asarray(Image.open(io.BytesIO(body)))
    assert stored.max() <= 1
    expected = np.repeat(stored[:, :, None] * 255, 3, axis=2)
    assert np.abs(decode_image(body, MAX_PIXELS) - expected).max() <= 0.5


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_photo_of_more_bits_is_the_photo_of_eight(suffix: str, channels: int, bits: int) -> None:
    eight = _photo(channels)
    deep = np.round(eight * ((2**bits - 1) / 255)).astype(np.uint16)
    np.testing.assert_array_equal(_decoded(suffix, deep), _decoded(suffix, eight))


def test_a_few_dazzled_pixels_do_not_make_the_others_black() -> None:
    deep = _photo().astype(np.uint16) * 16
    deep[0, 0] = 65535
    assert np.abs(_decoded(".png", deep)[1:] - _photo()[1:]).max() <= 1


def test_a_picture_of_warmth_goes_from_its_coldest_to_its_warmest_pixel() -> None:
    kelvin = 29_000 + 4 * _photo(1).astype(np.uint16)  # hundredths, of 17 to 27 °C
    assert np.abs(_decoded(".tif", kelvin) - _photo(1)).max() <= 1


@pytest.mark.parametrize("scale", [1.0, 255.0, 4095.0, 65535.0])
def test_floats_have_the_range_that_their_brightest_pixel_tells(scale: float) -> None:
    floats = _photo(1)[:, :, 0].astype(np.float32) * np.float32(scale / 255)
    assert np.abs(decode_image(_tiff(floats), MAX_PIXELS).astype(int) - _photo(1)).max() <= 1


def test_below_zero_and_without_a_number_has_a_place_too() -> None:
    celsius = np.linspace(-20, 40, 4096, dtype=np.float32).reshape(64, 64)
    celsius[0, :3] = np.nan, np.inf, -np.inf
    pixels = decode_image(_tiff(celsius), MAX_PIXELS)[:, :, 0]
    assert list(pixels[0, :3]) == [0, 255, 0]
    assert pixels[1, 0] < 10
    assert pixels[-1, -1] == 255


def test_without_any_number_it_is_corrupt() -> None:
    with pytest.raises(ImageError, match="no pixel is a finite number") as caught:
        decode_image(_tiff(np.full((4, 4), np.nan, np.float32)), MAX_PIXELS)
    assert caught.value.kind is ErrorKind.CORRUPT


@pytest.mark.parametrize("value", [0, 1, 255, 4095, 65535])
def test_one_grey_all_over_stays_one_grey(value: int) -> None:
    bits = max(8, value.bit_length())
    expected = round(255 * value / (2**bits - 1))
    assert (to_eight_bits(np.full((4, 4), value, np.uint16)) == expected).all()


def test_a_tiff_of_three_floats_is_refused_with_its_layout() -> None:
    body = cv2.imencode(".tif", _photo().astype(np.float32))[1].tobytes()
    with pytest.raises(ImageError, match=r"TIFF with 3 x 32 bits \(floating-point numbers\)") as e:
        decode_image(body, MAX_PIXELS)
    assert e.value.kind is ErrorKind.UNSUPPORTED_FORMAT
