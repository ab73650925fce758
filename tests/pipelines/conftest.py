"""An archive of everything that people's buckets hold besides proper photos."""

import io
import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from PIL import Image

from pipelines.detectors.contract import DetectorSettings
from pipelines.photos import heif


@dataclass(frozen=True)
class OddFile:
    """A file, and the row it must give."""

    body: bytes
    size: tuple[int, int] | None = None
    """(width, height) of the labelled image, or None where it must fail."""
    error_kind: str | None = None


def _photo(width: int = 96, height: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (width, height))


def _encode(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def _save(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bomb(side: int) -> bytes:
    """A small PNG that announces side x side pixels, and holds them."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + (side + 7) // 8)))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks)


def _wrong_crc(png: bytes) -> bytes:
    """One byte of the pixels' checksum flipped."""
    end_of_pixels = png.index(b"IEND") - 8
    return png[:end_of_pixels] + bytes([png[end_of_pixels] ^ 0xFF]) + png[end_of_pixels + 1 :]


def _rotated(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(Image.fromarray(_photo()), "JPEG", exif=exif)


def _animated(image_format: str) -> bytes:
    frames = [Image.fromarray(_photo()), Image.fromarray(255 - _photo())]
    return _save(frames[0], image_format, save_all=True, append_images=frames[1:], duration=100)


@pytest.fixture(scope="session")
def odd_archive() -> dict[str, OddFile]:
    """Key → file, with the row that each must give."""
    photo = Image.fromarray(_photo())
    jpeg, png = _encode(".jpg", _photo()), _encode(".png", _photo())
    as_is, turned = (96, 64), (64, 96)
    sixteen_bit = _photo().astype(np.uint16) * 257
    no_heic = "corrupt" if heif.teach_pillow() else "unsupported_format"
    archive = {
        "empty.jpg": OddFile(b"", error_kind="empty_object"),
        "page.jpg": OddFile(b"<!DOCTYPE html><p>404", error_kind="not_an_image"),
        "notes": OddFile(b"remember the milk", error_kind="not_an_image"),
        "truncated.jpg": OddFile(jpeg[: len(jpeg) // 2], error_kind="truncated"),
        "cut-in-header.jpg": OddFile(jpeg[:30], error_kind="truncated"),
        "truncated.png": OddFile(png[: len(png) // 2], error_kind="truncated"),
        "wrong-crc.png": OddFile(_wrong_crc(png), error_kind="corrupt"),
        "bomb.png": OddFile(_bomb(20_000), error_kind="too_many_pixels"),
        "photo.heic": OddFile(b"\0\0\0\x18ftypheic" + bytes(40), error_kind=no_heic),
        "no-end-mark.jpg": OddFile(jpeg[:-2], as_is),
        "plain.jpg": OddFile(jpeg, as_is),
        "cmyk.jpg": OddFile(_save(photo.convert("CMYK"), "JPEG"), as_is),
        "grey.jpg": OddFile(_save(photo.convert("L"), "JPEG"), as_is),
        "palette.png": OddFile(_save(photo.convert("P"), "PNG"), as_is),
        "alpha.png": OddFile(_save(photo.convert("RGBA"), "PNG"), as_is),
        "16bit.png": OddFile(_encode(".png", sixteen_bit), as_is),
        "animated.gif": OddFile(_animated("GIF"), as_is),
        "animated.webp": OddFile(_animated("WEBP"), as_is),
        "one-pixel.png": OddFile(_encode(".png", _photo(1, 1)), (1, 1)),
        "one-row.png": OddFile(_encode(".png", _photo(300, 1)), (300, 1)),
        "really-a-png.jpg": OddFile(png, as_is),
        "really-a-jpeg": OddFile(jpeg, as_is),
    }
    for orientation in range(1, 9):
        # 5 to 8 turn the photo by a quarter.
        size = turned if orientation >= 5 else as_is
        archive[f"orientation-{orientation}.jpg"] = OddFile(_rotated(orientation), size)
    odd_names = (
        "a b",
        "c#d",
        "e%20f",
        "g%h",
        "i\nj",
        "größe 写真",
        "k[1]*?",
        "l?versionId=m",
        "n+o",
    )
    for name in odd_names:
        archive[f"odd names/{name}.jpg"] = OddFile(jpeg, as_is)
    return archive


@pytest.fixture(scope="session")
def settings() -> DetectorSettings:
    """For the tiny checkpoint, and for detectors that heed none of it."""
    return DetectorSettings(
        input_size=(64, 64),
        score_threshold=0.0,
        nms_threshold=0.65,
        max_pixels=100_000_000,
        batch_size=2,
        threads=1,
        device="cpu",
    )
