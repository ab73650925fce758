"""Where the targets go when their images are put together. Tiny, and on the CPU. S = mosaics."""

import torch
from torch import Tensor

from yolox_core.augment.placement import (
    Placements,
    inner_corners,
    mixup_matrices,
    mosaic_matrices,
)
from yolox_core.boxes import clip_boxes, cxcywh_to_xyxy, xyxy_to_cxcywh

_SHORTEST_SIDE = 1.0
"""Boxes that are not larger, in pixels, are dropped: the official rule."""


def mosaic_targets(
    targets: Tensor, content: Tensor, placements: Placements, size: tuple[int, int]
) -> Tensor:
    """The targets of all four tiles, each cut to what the mosaic shows of it.

    Args:
        targets: (N, M, 5) class_id, cx, cy, w, h of all canvases.
        content: (N, 4) xyxy rectangles of their photos.
        placements: of S mosaics.
        size: (H, W) of a canvas.

    Returns:
        (S, 4M, 5); padding, and what is cut off whole, has a width or a height of zero.
    """
    height, width = size
    tiles = targets[placements.tiles]  # (S, 4, M, 5)
    move = placements.centres[:, None] - inner_corners(placements, content)  # (S, 4, 2)
    boxes = cxcywh_to_xyxy(tiles[..., 1:]) + move.repeat(1, 1, 2)[:, :, None]
    boxes = clip_boxes(boxes, (2 * height, 2 * width))
    return _moved(
        tiles[..., :1].flatten(1, 2), boxes.flatten(1, 2), mosaic_matrices(placements), size
    )


def mixup_targets(targets: Tensor, placements: Placements, size: tuple[int, int]) -> Tensor:
    """The targets of the canvases that the mosaics are blended with: (S, M, 5), as above."""
    sources = targets[placements.mixup_sources]
    boxes = cxcywh_to_xyxy(sources[..., 1:])
    return _moved(sources[..., :1], boxes, mixup_matrices(placements, size), size)


def is_visible(targets: Tensor) -> Tensor:
    """(..., 5) targets to (...) bool: large enough to learn from. False for padding."""
    return targets[..., 3:].amin(dim=-1) > _SHORTEST_SIDE


def drop_invisible(targets: Tensor) -> Tensor:
    """(B, M, 5) to (B, M', 5): the visible ones first, and no more padding than there must be."""
    visible = is_visible(targets)
    first = (~visible).byte().argsort(dim=1, stable=True)[:, :, None].expand(-1, -1, 5)
    most = int(visible.sum(dim=1).max())
    return targets.masked_fill(~visible[..., None], 0).gather(1, first)[:, :most]


def _moved(
    class_ids: Tensor, boxes_xyxy: Tensor, matrices: Tensor, size: tuple[int, int]
) -> Tensor:
    """(S, K, 1) and (S, K, 4) to (S, K, 5) targets, transformed and cut to the canvas."""
    boxes = clip_boxes(_transform_boxes(boxes_xyxy, matrices), size)
    return torch.cat((class_ids, xyxy_to_cxcywh(boxes)), dim=2)


def _transform_boxes(boxes_xyxy: Tensor, matrices: Tensor) -> Tensor:
    """The upright boxes around boxes that a matrix has turned.

    Args:
        boxes_xyxy: (S, K, 4).
        matrices: (S, 2, 3).

    Returns:
        (S, K, 4) xyxy.
    """
    x, y = boxes_xyxy[..., [0, 2, 0, 2]], boxes_xyxy[..., [1, 1, 3, 3]]  # four corners
    linear = matrices[:, :, :2, None, None]
    corners = linear[:, :, 0] * x[:, None] + linear[:, :, 1] * y[:, None]  # (S, 2, K, 4)
    corners = corners + matrices[:, :, 2, None, None]
    low_x, low_y = corners.amin(dim=-1).unbind(dim=1)
    high_x, high_y = corners.amax(dim=-1).unbind(dim=1)
    return torch.stack((low_x, low_y, high_x, high_y), dim=-1)
