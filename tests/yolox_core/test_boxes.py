import pytest
import torch

from yolox_core import (
    clip_boxes,
    cxcywh_to_xyxy,
    paired_giou,
    paired_iou,
    pairwise_iou,
    xyxy_to_cxcywh,
)


def test_box_formats_convert_both_ways() -> None:
    cxcywh, xyxy = torch.tensor([[5.0, 10, 4, 6]]), torch.tensor([[3.0, 7, 7, 13]])
    assert cxcywh_to_xyxy(cxcywh).equal(xyxy)
    assert xyxy_to_cxcywh(xyxy).equal(cxcywh)


def test_clipping_to_an_image_of_height_10_and_width_20() -> None:
    boxes = torch.tensor([[-1.0, -2, 30, 40], [3, 4, 5, 6]])
    assert clip_boxes(boxes, (10, 20)).tolist() == [[0, 0, 20, 10], [3, 4, 5, 6]]


def test_pairwise_iou_of_a_partial_overlap() -> None:
    a = torch.tensor([[[0, 0, 2, 2]]])
    b = torch.tensor([[[1, 1, 3, 3]]])  # shares 1 px² of a 7 px² union
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[[1 / 7]]]))


def test_pairwise_iou_compares_every_box_of_a_with_every_box_of_b() -> None:
    a = torch.tensor([[[0.0, 0, 2, 2], [2, 0, 4, 2]]])
    b = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 4, 2], [9, 9, 10, 10]]])
    assert pairwise_iou(a, b).tolist() == [[[1, 0.5, 0], [0, 0.5, 0]]]


def test_pairwise_iou_of_target_padding_is_zero_not_nan() -> None:
    padding = torch.zeros(2, 5, 4)
    assert pairwise_iou(padding, padding).eq(0).all()


def test_iou_of_half_precision_boxes_does_not_overflow() -> None:
    box = torch.tensor([[0, 0, 600, 600]], dtype=torch.float16)
    assert paired_iou(box, box).item() == 1


@pytest.mark.parametrize(
    ("b", "expected"),
    [
        ([0.0, 0, 2, 2], 1.0),
        ([1.0, 1, 3, 3], 1 / 7 - 2 / 9),  # 9 px² hull, 2 px² of it in neither
        ([4.0, 0, 6, 2], 0 - 4 / 12),  # apart: 12 px² hull, 4 px² of it in neither
    ],
)
def test_giou_takes_off_the_share_of_the_hull_that_is_in_neither(
    b: list[float], expected: float
) -> None:
    giou = paired_giou(torch.tensor([0.0, 0, 2, 2]), torch.tensor(b))
    torch.testing.assert_close(giou, torch.tensor(expected))


def test_giou_of_boxes_apart_still_pulls_them_together() -> None:
    box = torch.tensor([4.0, 0, 6, 2], requires_grad=True)
    paired_giou(box, torch.tensor([0.0, 0, 2, 2])).backward()
    assert box.grad is not None
    assert box.grad[0] < 0  # a smaller left edge, nearer to the other box, raises the GIoU
