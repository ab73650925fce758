"""Fixed shapes give what shapes that follow from the image do."""

import pytest
import torch
from torch import Tensor

from yolox_core import Detections, postprocess_padded, postprocess_raw
from yolox_core.postprocess_padded import PaddedDetections


def _raw(spread: float, num_images: int = 3, size: int = 128) -> list[Tensor]:
    """Boxes of all sizes and classes over one another; the larger the spread, the surer."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(num_images, 5 + 4, size // stride, size // stride) for stride in (8, 16, 32)]
    return [spread * torch.randn(shape, generator=generator) for shape in shapes]


def _of_image(padded: PaddedDetections, image: int) -> Detections:
    kept = padded.kept[image]
    columns = (padded.boxes_xyxy, padded.scores, padded.class_ids)
    return Detections(*(column[image][kept] for column in columns))


def _assert_same(padded: PaddedDetections, raw: list[Tensor], *thresholds: float) -> None:
    assert padded.is_complete.all()
    for image, expected in enumerate(postprocess_raw(raw, *thresholds)):
        torch.testing.assert_close(_of_image(padded, image), expected)


@pytest.mark.parametrize("nms_threshold", [0.0, 0.3, 0.65, 1.0])
@pytest.mark.parametrize("score_threshold", [0.05, 0.3, 0.9, 1.0])
def test_the_detections_are_those_of_postprocess_raw(
    score_threshold: float, nms_threshold: float
) -> None:
    raw = _raw(spread=2)
    padded = postprocess_padded(raw, score_threshold, nms_threshold)
    _assert_same(padded, raw, score_threshold, nms_threshold)


def test_shapes_and_dtypes_do_not_follow_from_the_image() -> None:
    for spread in (0.1, 1, 5):
        padded = postprocess_padded(_raw(spread), 0.2, 0.5, max_candidates=100)
        assert [column.shape[:2] for column in padded[:4]] == [(3, 100)] * 4
    few = postprocess_padded(_raw(1, size=32), 0.2, 0.5, max_candidates=100)
    assert few.scores.shape == (3, 16 + 4 + 1)  # all anchor points that there are


def test_an_image_with_more_candidates_than_there_is_room_for_says_so() -> None:
    raw = [torch.cat((level[:1], torch.full_like(level[:1], -9))) for level in _raw(spread=2)]
    padded = postprocess_padded(raw, 0.05, 0.5, max_candidates=20)
    assert padded.is_complete.tolist() == [False, True]


def test_a_row_of_boxes_that_goes_on_longer_than_the_rounds_says_so() -> None:
    # Squares of 64 px, each 8 px beside the one before and a little less sure: IoU 0.78.
    raw = [torch.full((1, 6, 1, 100), 0.0), *(torch.full((1, 6, 1, 1), -9.0) for _ in range(2))]
    raw[0][0, 2:4] = torch.tensor(8.0).log()
    raw[0][0, 4, 0] = torch.linspace(5, 3, 100)
    padded = postprocess_padded(raw, 0.3, 0.5)
    assert padded.is_complete.tolist() == [False]
    assert padded.kept[0].sum() > 10
    _assert_same(postprocess_padded(raw, 0.3, 0.8), raw, 0.3, 0.8)  # nothing is suppressed


def test_boxes_that_are_not_finite_are_not_kept() -> None:
    raw = _raw(spread=2)
    raw[0][1, 2, 3, 4] = 1000  # its exponential is infinite
    raw[0][1, 4, 3, 4] = 20
    _assert_same(postprocess_padded(raw, 0.1, 0.5), raw, 0.1, 0.5)


def test_a_graph_could_hold_it() -> None:
    """Nothing in it waits for a number: a trace with fake tensors would fail where it did."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        raw = [torch.empty(2, 9, side, side) for side in (16, 8, 4)]
        assert postprocess_padded(raw, 0.1, 0.5).kept.shape == (2, 336)
        with pytest.raises(Exception, match="nonzero"):
            postprocess_raw(raw, 0.1, 0.5)
