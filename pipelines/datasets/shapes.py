"""A photo-like archive with a known truth: shapes of five classes on textured backgrounds.

Made for the demo and for training without anybody's photos. Image `index` of a `seed` is always
the same image, however many are made around it.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.datasets.training_table import training_table

MIN_VISIBLE = 0.4
"""Every shape shows at least this share of itself; the image's edge and other shapes hide some."""

MAX_SHAPES = 8
EMPTY_SHARE = 0.12
PNG_SHARE = 0.12
LARGE_SHARE = 0.03

Pixels = NDArray[np.uint8]  # (H, W, 3), BGR
Contours = list[NDArray[np.float64]]  # each (corners, 2), x and y; filled by the even-odd rule
Window = tuple[slice, slice]


@dataclass(frozen=True)
class GeneratedImage:
    """An encoded image and the N shapes on it, in the order of drawing.

    `boxes_xyxy` (N, 4) float32 are the tight extents of what is visible, in pixels, `areas` (N,)
    float32 the number of visible pixels, `class_ids` (N,) int32 index CLASS_NAMES.
    """

    data: bytes
    suffix: str
    width: int
    height: int
    boxes_xyxy: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    areas: NDArray[np.float32]


def generate_archive(
    folder: Path, num_images: int, seed: int, uri_prefix: str, num_broken: int = 0
) -> pa.Table:
    """Write images, good and broken, into `folder/images` and return what is on the good ones.

    Args:
        uri_prefix: where the files of `folder/images` will be found, for the truth's image_uri:
            a local folder, or s3://bucket/prefix when they are served from there.
        num_broken: further files that no decoder can use, every kind in turn.

    Returns:
        A training table (schema.TRAINING), one row per good image.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(num_images):
        image = generate_image(seed, index)
        name = f"{index:06d}{image.suffix}"
        (images / name).write_bytes(image.data)
        rows.append(_truth_row(f"{uri_prefix.rstrip('/')}/{name}", image))
    for index in range(num_broken):
        name, data = generate_broken_file(seed, index)
        (images / name).write_bytes(data)
    return training_table(rows, CLASS_NAMES)


def generate_image(seed: int, index: int) -> GeneratedImage:
    """Draw one image and encode it, as JPEG or now and then as PNG."""
    rng = np.random.default_rng([seed, index])
    pixels = _background(rng, *_image_size(rng))
    _add_distractors(rng, pixels)
    boxes_xyxy, class_ids, areas = _add_shapes(rng, pixels)
    suffix = ".png" if rng.random() < PNG_SHARE else ".jpg"
    data = _encode(_photograph(rng, pixels), suffix, jpeg_quality=int(rng.integers(55, 96)))
    height, width = pixels.shape[:2]
    return GeneratedImage(data, suffix, width, height, boxes_xyxy, class_ids, areas)


def generate_broken_file(seed: int, index: int) -> tuple[str, bytes]:
    """The name and the bytes of a file that looks like an image and cannot be used as one."""
    kind, (suffix, damage) = list(_DAMAGES.items())[index % len(_DAMAGES)]
    rng = np.random.default_rng([seed, index])
    intact = _encode(_background(rng, 240, 320), suffix)
    return f"broken-{index:04d}-{kind}{suffix}", damage(intact)


def _truth_row(image_uri: str, image: GeneratedImage) -> dict[str, object]:
    return {
        "image_uri": image_uri,
        "width": image.width,
        "height": image.height,
        "boxes": image.boxes_xyxy.tolist(),
        "class_ids": image.class_ids.tolist(),
        "is_crowd": [False] * len(image.class_ids),
        "areas": image.areas.tolist(),
    }


def _polygon(num_corners: int) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, num_corners, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


_CIRCLE = _polygon(72)
_SHAPES: dict[str, Contours] = {  # around the origin, radius 1
    "circle": [_CIRCLE],
    "square": [_polygon(4)],
    "triangle": [_polygon(3)],
    "star": [_polygon(10) * np.tile([1.0, 0.42], 5)[:, None]],
    "ring": [_CIRCLE, _CIRCLE * 0.58],
}
CLASS_NAMES = tuple(_SHAPES)

_T = np.linspace(0, 1, 24)
_BEZIER = np.stack([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2], axis=1)  # (24, 3): points x knots


def _image_size(rng: np.random.Generator) -> tuple[int, int]:
    """(height, width): square to panoramic, lying more often than upright."""
    large = rng.random() < LARGE_SHARE
    long_side = rng.uniform(1400, 2200) if large else rng.uniform(280, 900)
    aspect = rng.choice([1, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2.2])
    short, long = round(max(240, long_side / aspect)), round(long_side)
    return (short, long) if rng.random() < 0.65 else (long, short)


def _background(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """One texture, or two that meet along a line: ground and sky, table and wall."""
    pixels = _texture(rng, height, width)
    if rng.random() < 0.5:
        far = 2 * max(height, width)
        half_plane = np.array([[-far, 0], [far, 0], [far, far], [-far, far]])
        tilt = _rotation(rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2))
        edge = half_plane @ tilt + rng.uniform(0.2, 0.8, 2) * (width, height)
        mask = cv2.fillPoly(np.zeros((height, width), np.uint8), [edge.astype(np.int32)], 255)
        cv2.copyTo(_texture(rng, height, width), mask, pixels)
    return pixels


def _texture(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Noise of many scales, the coarse ones strongest.

    Every octave is drawn on a small grid and blown up together with those before it: only the
    last step works on all pixels.
    """
    greyness = rng.uniform(0.3, 1)
    colour = greyness * rng.uniform(40, 210) + (1 - greyness) * rng.uniform(30, 220, 3)
    contrast = rng.uniform(10, 45)
    # Cells longer than wide look like the grain of wood, cloth or water.
    stretch = np.exp(rng.normal(0, 0.5))
    finest_px = rng.uniform(2, 16)
    field = np.broadcast_to(colour, (1, 1, 3))
    scale = 1.0
    while scale * max(height, width) > finest_px:
        cell_px = scale * max(height, width)
        rows = min(height, int(height / cell_px * stretch) + 2)
        columns = min(width, int(width / cell_px / stretch) + 2)
        shade, tint = rng.normal(size=(rows, columns, 1)), rng.normal(size=(rows, columns, 3))
        field = cv2.resize(field, (columns, rows)) + contrast * scale**0.4 * (shade + 0.3 * tint)
        scale /= 2.5
    texture = cv2.resize(_to_pixels(field), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(texture, np.uint8)


def _add_distractors(rng: np.random.Generator, pixels: Pixels) -> None:
    """Draw curves and ragged blobs, which belong to no class."""
    height, width = pixels.shape[:2]
    for _ in range(rng.integers(0, 5)):
        knots = rng.uniform(-0.1, 1.1, (3, 2)) * (width, height)
        line = (_BEZIER @ knots).astype(np.int32)
        thickness = int(rng.integers(1, 1 + max(2, min(height, width) // 60)))
        cv2.polylines(pixels, [line], False, _colour(rng), thickness, cv2.LINE_AA)
    for _ in range(rng.integers(0, 4)):
        blob = _placed(rng, [_ragged_contour(rng)], pixels)
        alpha, window = _rasterised(blob, pixels)
        _paint(rng, pixels[window], alpha * rng.uniform(0.3, 0.9))


def _ragged_contour(rng: np.random.Generator) -> NDArray[np.float64]:
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = np.arange(2, 7)
    phases, heights = rng.uniform(0, 2 * np.pi, 5), rng.uniform(0.05, 0.25, 5)
    radii = 0.8 + (heights * np.cos(waves * angles[:, None] + phases)).sum(axis=1)
    thinness = rng.uniform(0.3, 0.7)
    return np.stack([radii * np.cos(angles), thinness * radii * np.sin(angles)], axis=1)


def _add_shapes(
    rng: np.random.Generator, pixels: Pixels
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Draw shapes over each other; boxes_xyxy (N, 4), class_ids (N,) and visible areas (N,)."""
    owners = np.zeros(pixels.shape[:2], np.int16)  # which shape a pixel shows; 0: none
    spare = np.array([np.inf])  # pixels that the background and each shape can still lose
    class_ids: list[int] = []
    num_shapes = 0 if rng.random() < EMPTY_SHARE else rng.integers(1, MAX_SHAPES + 1)
    for _ in range(num_shapes):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        contours = _placed(rng, _SHAPES[CLASS_NAMES[class_id]], pixels)
        alpha, window = _rasterised(contours, pixels)
        solid = alpha > 0.5
        spare_of_new = np.count_nonzero(solid) - MIN_VISIBLE * _area(contours)
        hidden = np.bincount(owners[window][solid], minlength=len(spare))
        if spare_of_new < 0 or np.any(hidden > spare):
            continue
        _paint(rng, pixels[window], alpha)
        owners[window][solid] = len(spare)
        spare = np.append(spare - hidden, spare_of_new)
        class_ids.append(class_id)

    masks = [(owners == owner).astype(np.uint8) for owner in range(1, len(spare))]
    extents = np.array([cv2.boundingRect(mask) for mask in masks], np.float32).reshape(-1, 4)
    boxes_xyxy = np.concatenate([extents[:, :2], extents[:, :2] + extents[:, 2:]], axis=1)
    areas = np.array([cv2.countNonZero(mask) for mask in masks], np.float32)
    return boxes_xyxy, np.array(class_ids, np.int32), areas


def _placed(rng: np.random.Generator, contours: Contours, pixels: Pixels) -> Contours:
    """Contours of radius 1, turned, somewhat squeezed, sized and moved onto the image."""
    height, width = pixels.shape[:2]
    radius = min(height, width) * np.exp(rng.uniform(np.log(0.05), np.log(0.28)))
    squeeze = np.diag([1, rng.uniform(0.75, 1)])
    turn, view = _rotation(rng.uniform(0, 2 * np.pi)), _rotation(rng.uniform(0, 2 * np.pi))
    centre = rng.uniform(-0.03, 1.03, 2) * (width, height)
    return [contour @ (radius * turn @ squeeze @ view) + centre for contour in contours]


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _area(contours: Contours) -> float:
    outer, *holes = (cv2.contourArea(contour.astype(np.float32)) for contour in contours)
    return float(outer - sum(holes))


def _rasterised(contours: Contours, pixels: Pixels) -> tuple[NDArray[np.float32], Window]:
    """How much of each pixel the contours cover, 0 to 1, within the window they touch."""
    corners = np.concatenate(contours)
    limit = pixels.shape[1::-1]
    left, top = np.clip(np.floor(corners.min(axis=0)) - 1, 0, limit).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)) + 2, 0, limit).astype(int)
    coverage = np.zeros((bottom - top, right - left), np.uint8)
    if coverage.size:
        # cv2 takes fixed-point corners, here in 1/16 px, and pixel centres at whole numbers.
        fixed_point = [
            np.round((c - (left + 0.5, top + 0.5)) * 16).astype(np.int32) for c in contours
        ]
        cv2.fillPoly(coverage, fixed_point, 255, cv2.LINE_AA, shift=4)
    return np.float32(1 / 255) * coverage, (slice(top, bottom), slice(left, right))


def _paint(rng: np.random.Generator, patch: Pixels, alpha: NDArray[np.float32]) -> None:
    """Lay a lit, grainy surface over the patch, in a colour that stands out from it."""
    if not patch.size:
        return
    behind = patch.mean(axis=(0, 1))
    colour = rng.uniform(15, 240, 3)
    while np.abs(colour - behind).sum() < 110:
        colour = rng.uniform(15, 240, 3)
    light = rng.normal(1, 0.15, (2, 2, 1))
    grain = rng.normal(0, rng.uniform(2, 12), (9, 9, 1))
    height, width = alpha.shape
    coarse = cv2.resize(light * colour, (9, 9)) + grain
    surface = cv2.resize(coarse.astype(np.float32), (width, height))
    patch[:] = _to_pixels(patch + (surface - patch) * alpha[..., None])


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    blue, green, red = rng.integers(0, 256, 3).tolist()
    return blue, green, red


def _photograph(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """What a camera adds: now and then some blur, always the sensor's noise."""
    if rng.random() < 0.35:
        cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.5, 1.5), dst=pixels)
    strength = int(rng.integers(1, 13))
    noise = rng.integers(-strength, strength, pixels.shape[:2], np.int8, endpoint=True)
    return np.asarray(cv2.add(pixels, cv2.merge([noise] * 3), dtype=cv2.CV_8U), np.uint8)


def _to_pixels(values: NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.clip(values, 0, 255).astype(np.uint8)
    return pixels


def _encode(pixels: Pixels, suffix: str, jpeg_quality: int = 90) -> bytes:
    options = {
        ".jpg": [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality],
        ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    }
    encoded, data = cv2.imencode(suffix, pixels, options[suffix])
    assert encoded
    return bytes(data)


_HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head></html>\n"


def _truncate(jpeg: bytes) -> bytes:
    return jpeg[: len(jpeg) // 2]


def _break_checksum(png: bytes) -> bytes:
    """The image data's CRC no longer fits its bytes."""
    chunk = png.index(b"IDAT")
    (length,) = struct.unpack(">I", png[chunk - 4 : chunk])
    crc = chunk + 4 + length
    return png[:crc] + bytes(byte ^ 0xFF for byte in png[crc : crc + 4]) + png[crc + 4 :]


def _claim_huge(png: bytes) -> bytes:
    """The header, valid in itself, says 20,000 x 20,000 pixels: 1.2 GB once decoded."""
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


_DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": (".jpg", lambda _: b""),
    "html": (".jpg", lambda _: _HTML),
    "truncated": (".jpg", _truncate),
    "crc": (".png", _break_checksum),
    "huge": (".png", _claim_huge),
}
