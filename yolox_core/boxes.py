"""Boxes: formats, IoU, clipping.

xyxy = left, top, right, bottom; cxcywh = centre, width, height; both in pixels.
"""

import torch
from torch import Tensor


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) cxcywh to (..., 4) xyxy."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy to (..., 4) cxcywh."""
    top_left, bottom_right = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def clip_boxes(boxes_xyxy: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., 4) xyxy, clipped to an image of size (height, width)."""
    height, width = size
    x, y = boxes_xyxy[..., 0::2].clamp(0, width), boxes_xyxy[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of every box in `a` with every box in `b`, image by image.

    Args:
        a: (B, N, 4) xyxy.
        b: (B, M, 4) xyxy, pixels of the same image, same device.

    Returns:
        (B, N, M) float32 in [0, 1]. Rows of zeros (target padding) score 0.
    """
    iou, _ = _iou_and_union(a[:, :, None], b[:, None])
    return iou


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each box in `a` with the box at the same place in `b`.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, pixels of the same image, same device.

    Returns:
        (...) float32 in [0, 1].
    """
    iou, _ = _iou_and_union(a, b)
    return iou


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU, https://giou.stanford.edu: still has a slope where boxes do not touch.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, pixels of the same image, same device.

    Returns:
        (...) float32 in [-1, 1].
    """
    a, b = a.float(), b.float()
    iou, union = _iou_and_union(a, b)
    top_left = torch.minimum(a[..., :2], b[..., :2])
    bottom_right = torch.maximum(a[..., 2:], b[..., 2:])
    hull = _area(*(bottom_right - top_left).unbind(dim=-1))
    return iou - (hull - union) / hull.clamp(min=1e-9)


def _iou_and_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a_left, a_top, a_right, a_bottom = _edges(a)
    b_left, b_top, b_right, b_bottom = _edges(b)
    intersection = _area(
        torch.minimum(a_right, b_right) - torch.maximum(a_left, b_left),
        torch.minimum(a_bottom, b_bottom) - torch.maximum(a_top, b_top),
    )
    area_a = _area(a_right - a_left, a_bottom - a_top)
    area_b = _area(b_right - b_left, b_bottom - b_top)
    union = area_a + area_b - intersection
    return intersection / union.clamp(min=1e-9), union


def _edges(boxes: Tensor) -> tuple[Tensor, ...]:
    """The four edges of (..., 4) xyxy boxes, each in memory of its own, which a CPU is fast at."""
    # float16 tops out at 65504, which a 256 px square already exceeds.
    return boxes.float().movedim(-1, 0).contiguous().unbind()


def _area(width: Tensor, height: Tensor) -> Tensor:
    return width.clamp(min=0) * height.clamp(min=0)
