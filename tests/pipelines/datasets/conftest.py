"""A photo to annotate."""

import io
from collections.abc import Callable

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def make_photo() -> Callable[..., bytes]:
    """A JPEG of any size, turned by EXIF on request."""

    def make(width: int = 100, height: int = 80, orientation: int = 1) -> bytes:
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        Image.new("RGB", (width, height)).save(file, "JPEG", exif=exif)
        return file.getvalue()

    return make
