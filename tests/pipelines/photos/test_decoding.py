import cv2
import numpy as np
import pytest

from pipelines.photos.decoding import decode_image
from pipelines.photos.errors import ErrorKind, ImageError

MAX_PIXELS = 100_000_000


def test_every_file_of_the_odd_archive_is_pixels_or_a_typed_error(odd_archive) -> None:
    got = {}
    for key, file in odd_archive.items():
        try:
            height, width, channels = decode_image(file.body, MAX_PIXELS).shape
            assert channels == 3
            got[key] = (width, height)
        except ImageError as error:
            got[key] = str(error.kind)
    assert got == {key: file.size or file.error_kind for key, file in odd_archive.items()}


def test_exif_orientation_turns_the_pixels(odd_archive) -> None:
    upright = decode_image(odd_archive["orientation-1.jpg"].body, MAX_PIXELS)
    upside_down = decode_image(odd_archive["orientation-3.jpg"].body, MAX_PIXELS)
    np.testing.assert_allclose(upside_down[::-1, ::-1], upright, atol=3)


def test_an_animation_gives_its_first_frame(odd_archive) -> None:
    first = decode_image(odd_archive["plain.jpg"].body, MAX_PIXELS)
    for key in ("animated.gif", "animated.webp"):
        pixels = decode_image(odd_archive[key].body, MAX_PIXELS)[:, :, ::-1]
        assert np.abs(pixels.astype(int) - first).mean() < 40  # the second frame is its negative


def test_16_bit_pixels_become_8_bit_ones() -> None:
    grey = np.full((4, 4, 3), 0x8000, np.uint16)
    pixels = decode_image(cv2.imencode(".png", grey)[1].tobytes(), MAX_PIXELS)
    assert pixels.dtype == np.uint8
    assert (pixels == 0x80).all()


def test_the_pixel_limit_is_inclusive() -> None:
    png = cv2.imencode(".png", np.zeros((10, 10, 3), np.uint8))[1].tobytes()
    assert decode_image(png, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10 x 10 px: more than max_pixels=99") as caught:
        decode_image(png, max_pixels=99)
    assert caught.value.kind is ErrorKind.TOO_MANY_PIXELS
