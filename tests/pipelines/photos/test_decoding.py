import io

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.photos.decoding import decode_for_canvas, decode_image
from pipelines.photos.errors import ErrorKind, ImageError
from yolox_core import letterbox

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


@pytest.mark.parametrize("image_format", ["BMP", "GIF", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_a_file_of_any_format_that_was_cut_short_is_truncated(image_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, image_format)
    for share in (0.6, 0.95):
        with pytest.raises(ImageError, match="without its end") as caught:
            decode_image(out.getvalue()[: int(share * len(out.getvalue()))], MAX_PIXELS)
        assert caught.value.kind is ErrorKind.TRUNCATED


def test_the_pixel_limit_is_inclusive() -> None:
    png = cv2.imencode(".png", np.zeros((10, 10, 3), np.uint8))[1].tobytes()
    assert decode_image(png, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="10 x 10 px: more than max_pixels=99") as caught:
        decode_image(png, max_pixels=99)
    assert caught.value.kind is ErrorKind.TOO_MANY_PIXELS


def _jpeg(height: int, width: int, orientation: int = 1) -> bytes:
    """A smooth picture, light in its upper left corner only, as a camera would turn it."""
    rows, columns = np.ogrid[:height, :width]
    grey = (255 * np.exp(-(rows / height) * 3 - (columns / width) * 3)).astype(np.uint8)
    image = Image.fromarray(np.repeat(grey[:, :, None], 3, 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "canvas", "decoded"),
    [
        ((3000, 4000), (640, 640), (1500, 2000)),  # a half, which is thrice 480 x 640
        ((3000, 4000), (320, 320), (750, 1000)),  # a quarter, which is thrice 240 x 320
        ((3000, 4000), (704, 704), (3000, 4000)),  # half of it is not thrice 528 x 704
        ((480, 640), (416, 416), (480, 640)),
        ((835, 1001), (160, 160), (418, 501)),  # odd sides are rounded up
        ((1001, 1002), (160, 160), (1001, 1002)),  # whether EXIF turns it could not be told
        ((3000, 4000), (240, 1280), (750, 1000)),  # of which 240 x 320 are shown
    ],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_never_below_thrice_its_canvas(
    size, canvas, decoded
) -> None:
    photo = decode_for_canvas(_jpeg(*size), MAX_PIXELS, canvas)
    assert photo.size == size
    assert photo.pixels.shape[:2] == decoded


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(900, 1201), (1201, 901), (1000, 1001)])
def test_a_part_of_a_turned_jpeg_lies_on_its_canvas_where_all_of_it_would(
    orientation: int, size: tuple[int, int]
) -> None:
    body = _jpeg(*size, orientation)
    whole, photo = decode_image(body, MAX_PIXELS), decode_for_canvas(body, MAX_PIXELS, (128, 128))
    assert photo.size == whole.shape[:2]
    expected, there = letterbox(whole, (128, 128))
    canvas, back = letterbox(photo.pixels, (128, 128), original_size=photo.size)
    assert back == there
    assert np.abs(canvas.astype(int) - expected).max() <= 3


def test_what_is_no_jpeg_is_decoded_in_full_and_faults_are_the_same(odd_archive) -> None:
    for file in odd_archive.values():
        try:
            expected: object = decode_image(file.body, MAX_PIXELS).shape[:2]
        except ImageError as error:
            expected = error.kind
        try:
            got: object = decode_for_canvas(file.body, MAX_PIXELS, (32, 32)).size
        except ImageError as error:
            got = error.kind
        assert got == expected
