import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from yolox_core import Convention, letterbox, to_model_input

CONVENTIONS: list[Convention] = ["official", "seed"]
PHOTOS = ["000000000139.jpg", "000000000802.jpg", "000000011813.jpg"]


def sha256(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def photo(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [416, 640])
@pytest.mark.parametrize("name", PHOTOS)
def test_canvases_are_those_of_the_references_bit_for_bit(
    name: str, side: int, shared: Callable[[str], Path]
) -> None:
    expected = json.loads(shared("golden/letterbox.json").read_text())[name]
    image = cv2.imread(str(shared(f"data/coco_val79/images/{name}")))
    assert image is not None
    assert sha256(image) == expected["decoded_bgr_sha256"]

    official, _ = letterbox(image, (side, side))
    assert sha256(official) == expected[f"official{side}"]["sha256_HWC_uint8"]
    seed, _ = letterbox(image, (side, side), "seed")
    assert sha256(seed[..., ::-1]) == expected[f"seed{side}"]["sha256_HWC_rgb"]


def test_official_puts_the_image_top_left_on_grey_114() -> None:
    image = photo(16, 32)
    canvas, transform = letterbox(image, (64, 64))
    np.testing.assert_array_equal(canvas[:32], cv2.resize(image, (64, 32)))
    assert (canvas[32:] == 114).all()
    assert (transform.scale, transform.offset) == ((2, 2), (0, 0))


def test_seed_puts_the_image_in_the_middle_of_grey_128() -> None:
    canvas, transform = letterbox(photo(16, 32), (64, 64), "seed")
    assert (canvas[:16] == 128).all()
    assert (canvas[48:] == 128).all()
    assert (transform.scale, transform.offset) == ((2, 2), (16, 0))


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("size", [(1, 640), (640, 1), (1, 1), (3000, 2)])
def test_the_thinnest_image_keeps_at_least_one_pixel(
    size: tuple[int, int], convention: Convention
) -> None:
    canvas, _ = letterbox(np.full((*size, 3), 255, dtype=np.uint8), (416, 416), convention)
    assert (canvas == 255).all(axis=-1).sum() >= 416


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_boxes_survive_the_way_there_and_back(convention: Convention) -> None:
    _, transform = letterbox(photo(123, 457), (416, 320), convention)
    boxes = np.array([[0, 0, 457, 123], [10.5, 20, 300, 99.25]])
    np.testing.assert_allclose(transform.to_original(transform.to_letterboxed(boxes)), boxes)


def test_official_boxes_come_back_by_the_ratio() -> None:
    _, transform = letterbox(photo(100, 200), (64, 64))  # ratio 0.32
    boxes = transform.to_original(np.array([[3.2, 6.4, 32, 16]], dtype=np.float32))
    np.testing.assert_allclose(boxes, [[10, 20, 100, 50]], rtol=1e-6)
    assert boxes.dtype == np.float32


def test_boxes_beyond_the_photo_are_clipped_to_it() -> None:
    _, transform = letterbox(photo(100, 200), (64, 64))
    boxes = transform.to_original(np.array([[-5.0, -5, 70, 64]]))
    assert boxes.tolist() == [[0, 0, 200, 100]]


def test_no_boxes_are_no_boxes_on_either_way() -> None:
    _, transform = letterbox(photo(100, 200), (64, 64))
    assert transform.to_original(np.zeros((0, 4))).shape == (0, 4)
    assert transform.to_letterboxed(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_used_canvas_is_filled_as_a_new_one(convention: Convention) -> None:
    used = np.full((64, 96, 3), 7, dtype=np.uint8)
    canvas, _ = letterbox(photo(50, 30), (64, 96), convention, out=used)
    assert canvas is used
    np.testing.assert_array_equal(canvas, letterbox(photo(50, 30), (64, 96), convention)[0])


def test_official_model_input_is_bgr_from_0_to_255() -> None:
    canvases = torch.randint(0, 256, (2, 32, 64, 3), dtype=torch.uint8)
    images = to_model_input(canvases, "official")
    assert images.dtype == torch.float32
    assert images.equal(canvases.permute(0, 3, 1, 2).float())


def test_seed_model_input_is_rgb_scaled_by_imagenet_statistics() -> None:
    bgr = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 32, 32, 3)
    images = to_model_input(bgr, "seed")
    expected = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    torch.testing.assert_close(images[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_model_input_is_channels_last(convention: Convention) -> None:
    images = to_model_input(torch.zeros(2, 32, 64, 3, dtype=torch.uint8), convention)
    assert images.shape == (2, 3, 32, 64)
    assert images.is_contiguous(memory_format=torch.channels_last)
