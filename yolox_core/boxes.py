"""Boxes: formats, IoU, clipping.

xyxy = left, top, right, bottom; cxcywh = centre, width, height; both in pixels.
"""

from typing import NamedTuple

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
    iou, _ = iou_and_union(edges(a[:, :, None]), edges(b[:, None]))
    return iou


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of each box in `a` with the box at the same place in `b`.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, pixels of the same image, same device.

    Returns:
        (...) float32 in [0, 1].
    """
    iou, _ = iou_and_union(edges(a), edges(b))
    return iou


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU, https://giou.stanford.edu: still has a slope where boxes do not touch.

    Args:
        a: (..., 4) xyxy.
        b: (..., 4) xyxy, pixels of the same image, same device.

    Returns:
        (...) float32 in [-1, 1].
    """
    of_a, of_b = edges(a), edges(b)
    iou, union = iou_and_union(of_a, of_b)
    hull = _area(
        torch.maximum(of_a.right, of_b.right) - torch.minimum(of_a.left, of_b.left),
        torch.maximum(of_a.bottom, of_b.bottom) - torch.minimum(of_a.top, of_b.top),
    )
    return iou - (hull - union) / hull.clamp(min=1e-9)


class Edges(NamedTuple):
    """Boxes as `iou_and_union` wants them, (...) float32 each."""

    left: Tensor
    top: Tensor
    right: Tensor
    bottom: Tensor
    area: Tensor


def edges(boxes_xyxy: Tensor) -> Edges:
    """The edges of (..., 4) boxes."""
    # float16 tops out at 65504, which a 256 px square already exceeds.
    left, top, right, bottom = columns(boxes_xyxy.float()).unbind()
    return Edges(left, top, right, bottom, _area(right - left, bottom - top))


def iou_and_union(a: Edges, b: Edges) -> tuple[Tensor, Tensor]:
    """Of the boxes that broadcasting puts together, (...) each."""
    # In place: of pairs there may be very many.
    intersection = _area(
        torch.minimum(a.right, b.right).sub_(torch.maximum(a.left, b.left)),
        torch.minimum(a.bottom, b.bottom).sub_(torch.maximum(a.top, b.top)),
    )
    union = (a.area + b.area).sub_(intersection)
    return intersection / union.clamp(min=1e-9), union


def columns(values: Tensor) -> Tensor:
    """(..., n) to (n, ...), each column in memory of its own, which a CPU is fast at."""
    return values.movedim(-1, 0).contiguous()


def _area(width: Tensor, height: Tensor) -> Tensor:
    """What is negative counts as 0, and becomes it."""
    return width.clamp_(min=0) * height.clamp_(min=0)
