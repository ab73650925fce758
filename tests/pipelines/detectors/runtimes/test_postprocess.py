from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipelines.detectors.runtimes.contract import Found
from pipelines.detectors.runtimes.postprocess import postprocess_arrays
from yolox_core import letterbox, load_checkpoint, postprocess_raw, to_model_input

Raw = Sequence[NDArray[np.float32]]


def _random_raw(batch: int = 3, num_classes: int = 3, seed: int = 0) -> Raw:
    rng = np.random.default_rng(seed)
    shapes = [(batch, 5 + num_classes, 64 // s, 96 // s) for s in (8, 16, 32)]
    return [2 * rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def _assert_torch_finds_the_same(raw: Raw, score_threshold: float, nms_threshold: float) -> None:
    found = postprocess_arrays(raw, score_threshold, nms_threshold)
    tensors = [torch.from_numpy(level) for level in raw]
    expected = postprocess_raw(tensors, score_threshold, nms_threshold)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine is not None
        _assert_same(mine, Found(*(column.numpy() for column in theirs)))


def _assert_same(mine: Found, theirs: Found) -> None:
    assert [column.dtype for column in mine] == [column.dtype for column in theirs]
    np.testing.assert_array_equal(mine.class_ids, theirs.class_ids)
    np.testing.assert_allclose(mine.scores, theirs.scores, rtol=1e-6)
    np.testing.assert_allclose(mine.boxes_xyxy, theirs.boxes_xyxy, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("nms_threshold", [0.3, 0.65, 1.0])
@pytest.mark.parametrize("score_threshold", [0.0, 0.01, 0.3, 0.999])
@pytest.mark.parametrize("num_classes", [1, 3, 80])
def test_the_boxes_are_torch_s_in_torch_s_order(
    num_classes: int, score_threshold: float, nms_threshold: float
) -> None:
    raw = _random_raw(num_classes=num_classes)
    _assert_torch_finds_the_same(raw, score_threshold, nms_threshold)


@pytest.mark.parametrize("score_threshold", [0.25, 0.01, 0.001])
def test_on_photos_the_boxes_are_torch_s_in_torch_s_order(
    score_threshold: float, shared: Path
) -> None:
    model = load_checkpoint(shared / "weights/yolox_nano_coco.pth").model
    photos = sorted((shared / "data/coco_val79/images").iterdir())[:8]
    canvases = [letterbox(cv2.imread(str(photo)), (416, 416))[0] for photo in photos]
    with torch.inference_mode():
        images = to_model_input(torch.from_numpy(np.stack(canvases)), "official")
        raw = [level.numpy() for level in model(images)]
    _assert_torch_finds_the_same(raw, score_threshold, 0.65)


def test_what_nothing_passes_is_empty_and_has_its_shape() -> None:
    [found] = postprocess_arrays([level - 100 for level in _random_raw(batch=1)], 0.01, 0.65)
    assert found is not None
    assert [column.shape for column in found] == [(0, 4), (0,), (0,)]
    assert [column.dtype for column in found] == [np.float32, np.float32, np.int64]


def test_no_images_are_no_answers() -> None:
    assert postprocess_arrays(_random_raw(batch=0), 0.01, 0.65) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_an_output_that_is_no_number_has_no_answer(value: float) -> None:
    raw = _random_raw(batch=2)
    raw[1][0, 2, 0, 0] = value
    first, second = postprocess_arrays(raw, 0.0, 0.65)
    assert first is None
    assert second is not None


def test_scores_that_are_all_0_or_1_and_boxes_beyond_all_numbers_do_no_harm() -> None:
    raw = _random_raw(batch=1)
    raw[0][:, 4:] = -200  # a score of 0, not above it
    raw[1][:, 4:] = 200
    raw[2][:, 2] = 200  # exp() of it is infinite
    _assert_torch_finds_the_same(raw, 0.0, 0.65)


def test_a_thousand_of_the_best_are_kept() -> None:
    rng = np.random.default_rng(0)
    raw = [rng.standard_normal((1, 85, 416 // s, 416 // s)).astype(np.float32) for s in (8, 16, 32)]
    [found] = postprocess_arrays(raw, 0.0, 0.99)
    assert found is not None
    assert len(found.scores) == 1000
    _assert_torch_finds_the_same(raw, 0.0, 0.99)
