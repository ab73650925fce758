import io
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from pipelines.detectors.contract import DetectorSettings, LabelledImage
from pipelines.detectors.fitting import BATCHES_BEFORE_DOUBLING
from pipelines.detectors.yolox import YoloxDetector
from pipelines.photos.errors import ErrorKind
from yolox_core import YOLOX


def _detector(
    checkpoint: bytes, size: tuple[int, int] = (64, 64), **changes: object
) -> YoloxDetector:
    settings = {
        "input_size": size,
        "score_threshold": 0.0,
        "nms_threshold": 0.65,
        "max_pixels": 100_000_000,
        "batch_size": 2,
        "threads": 2,
        "device": "cpu",
    }
    return YoloxDetector(checkpoint, DetectorSettings(**(settings | changes)))


@pytest.fixture(scope="module")
def detector(tiny_checkpoint: bytes) -> YoloxDetector:
    return _detector(tiny_checkpoint)


def _jpeg(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_boxes_lie_on_the_photo_and_scores_fall(detector: YoloxDetector) -> None:
    [found] = detector([_jpeg(300, 100, seed=1)])
    assert isinstance(found, LabelledImage)
    assert (found.width, found.height) == (300, 100)
    assert len(found.scores) > 0
    x1, y1, x2, y2 = found.boxes_xyxy.T
    assert ((x1 >= 0) & (x1 <= x2) & (x2 <= 300)).all()
    assert ((y1 >= 0) & (y1 <= y2) & (y2 <= 100)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.class_ids) <= {0, 1, 2}


@pytest.mark.parametrize("full_decode", [True, False])
def test_boxes_of_a_large_jpeg_lie_on_all_of_it(tiny_checkpoint: bytes, full_decode: bool) -> None:
    [found] = _detector(tiny_checkpoint, full_decode=full_decode)([_jpeg(601, 403, seed=1)])
    assert (found.width, found.height) == (601, 403)
    assert found.boxes_xyxy.max() > 400  # of 151 columns, if a quarter of them were decoded


@pytest.mark.parametrize("full_decode", [True, False])
@pytest.mark.parametrize(
    ("orientation", "there"),
    [(1, (0, 0, 600, 143)), (3, (0, 257, 600, 400)), (6, (257, 0, 400, 600))],
)
def test_boxes_of_a_photo_that_was_cut_short_lie_on_the_rows_that_are_there(
    tiny_checkpoint: bytes, orientation: int, there: tuple[int, ...], full_decode: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole, out = cv2.imdecode(np.frombuffer(_jpeg(600, 400, seed=1), np.uint8), 1), io.BytesIO()
    Image.fromarray(whole).save(out, "JPEG", exif=exif)
    cut = out.getvalue()[: int(0.4 * len(out.getvalue()))]
    settings = {"full_decode": full_decode, "truncated": "label"}
    [found] = _detector(tiny_checkpoint, **settings)([cut])
    x1, y1, x2, y2 = there
    assert {found.width, found.height} == {600, 400}
    assert found.decoded_share == pytest.approx((x2 - x1) * (y2 - y1) / (600 * 400))
    assert len(found.boxes_xyxy) > 20
    assert tuple(found.boxes_xyxy.min(axis=0)[:2]) >= (x1, y1)
    assert tuple(found.boxes_xyxy.max(axis=0)[2:]) <= (x2, y2)
    [failed] = _detector(tiny_checkpoint)([cut])
    assert failed.kind is ErrorKind.TRUNCATED


def test_a_bad_image_changes_nothing_for_its_neighbours(detector: YoloxDetector) -> None:
    good = [_jpeg(80, 60, seed) for seed in range(3)]
    alone = detector(good)
    first, bad, second, third = detector([good[0], b"<html>", *good[1:]])
    assert bad.kind is ErrorKind.NOT_AN_IMAGE
    for before, after in zip(alone, (first, second, third), strict=True):
        np.testing.assert_allclose(before.boxes_xyxy, after.boxes_xyxy, atol=1e-2)
        np.testing.assert_array_equal(before.class_ids, after.class_ids)


def test_no_images_and_only_bad_images_give_as_many_rows(detector: YoloxDetector) -> None:
    assert detector([]) == []
    assert [error.kind for error in detector([b"", b""])] == ["empty_object"] * 2


class _Memory:
    """A GPU's memory, as far as the model can tell."""

    def __init__(self) -> None:
        self.room_for = 1000
        self.tried: list[int] = []
        """Images in each forward pass."""

    def __call__(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, YOLOX):
            self.tried.append(len(inputs[0]))
            if len(inputs[0]) > self.room_for:
                raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def memory() -> Iterator[_Memory]:
    memory = _Memory()
    with register_module_forward_pre_hook(memory):
        yield memory


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    tiny_checkpoint: bytes, memory: _Memory
) -> None:
    detector = _detector(tiny_checkpoint, batch_size=8)
    photos = [_jpeg(80, 60, seed) for seed in range(8)]
    expected = detector(photos)
    memory.room_for = 3
    memory.tried.clear()
    found = detector(photos)
    assert memory.tried == [8, 4, 2, 2, 2, 2]
    for before, after in zip(expected, found, strict=True):
        np.testing.assert_allclose(before.boxes_xyxy, after.boxes_xyxy, atol=1e-2)


def test_the_batch_size_recovers_step_by_step(tiny_checkpoint: bytes, memory: _Memory) -> None:
    detector = _detector(tiny_checkpoint, batch_size=4)
    memory.room_for = 1
    detector([_jpeg(8, 8, seed=0)] * 4)
    assert memory.tried == [4, 2, 1, 1, 1, 1]
    memory.room_for = 1000
    memory.tried.clear()
    detector([_jpeg(8, 8, seed=0)] * 4 * BATCHES_BEFORE_DOUBLING)
    assert memory.tried[: BATCHES_BEFORE_DOUBLING - 4] == [1] * (BATCHES_BEFORE_DOUBLING - 4)
    assert memory.tried == sorted(memory.tried)
    assert set(memory.tried) == {1, 2, 4}


def test_an_image_that_does_not_fit_alone_is_out_of_memory(
    tiny_checkpoint: bytes, memory: _Memory
) -> None:
    memory.room_for = 0
    errors = _detector(tiny_checkpoint)([_jpeg(8, 8, seed) for seed in range(3)])
    assert [error.kind for error in errors] == [ErrorKind.OUT_OF_MEMORY] * 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_for_which_the_model_gives_no_number_is_not_finite(
    detector: YoloxDetector, value: float
) -> None:
    white, black = (cv2.imencode(".png", np.full((64, 64, 3), x, np.uint8))[1] for x in (255, 0))

    def spoil(module: nn.Module, inputs: tuple[Tensor], outputs: list[Tensor]) -> None:
        if isinstance(module, YOLOX):
            outputs[1][inputs[0].mean(dim=(1, 2, 3)) > 200, 4, 0, 0] = value

    with register_module_forward_hook(spoil):
        first, second = detector([white.tobytes(), black.tobytes()])
    assert first.kind is ErrorKind.NOT_FINITE
    assert len(second.scores) > 0


def test_a_detector_keeps_to_the_threads_it_was_given(tiny_checkpoint: bytes) -> None:
    _detector(tiny_checkpoint, threads=1)
    assert torch.get_num_threads() == 1
    assert cv2.getNumThreads() == 1
