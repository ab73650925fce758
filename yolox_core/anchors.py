"""Anchor points, and raw outputs to boxes in pixels.

A level has one anchor point per cell, row by row; A counts those of all levels, finest first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from yolox_core.config import STRIDES


class AnchorPoints(NamedTuple):
    """Where each of the A predictions sits."""

    cells: Tensor
    """(A, 2) float32: column and row of the cell."""
    strides: Tensor
    """(A, 1) float32: letterboxed pixels per cell."""

    def at(self, index: Tensor) -> "AnchorPoints":
        """The points at (B, K) indices: cells (B, K, 2) and strides (B, K, 1)."""
        return AnchorPoints(self.cells[index], self.strides[index])

    @property
    def centres(self) -> Tensor:
        """(..., A, 2) float32: x and y of the cell's middle, in letterboxed pixels."""
        return (self.cells + 0.5) * self.strides


def anchor_points(raw: Sequence[Tensor]) -> AnchorPoints:
    """The anchor points of raw outputs, one (B, 5 + C, h, w) per level, on their device."""
    cells, strides = [], []
    for output, stride in zip(raw, STRIDES, strict=True):
        height, width = output.shape[-2:]
        columns = torch.arange(width, dtype=torch.float32, device=output.device)
        rows = torch.arange(height, dtype=torch.float32, device=output.device)
        grid = torch.meshgrid(columns, rows, indexing="xy")  # 2 x (h, w)
        cells.append(torch.stack(grid, dim=-1).flatten(0, 1))
        strides.append(cells[-1].new_full((height * width, 1), stride))
    return AnchorPoints(torch.cat(cells), torch.cat(strides))


def level_rows(raw: Sequence[Tensor]) -> list[Tensor]:
    """One (B, 5 + C, h, w) per level to one (B, h x w, 5 + C), views of what is channels_last."""
    return [output.flatten(2).transpose(1, 2) for output in raw]


def flatten_levels(raw: Sequence[Tensor]) -> Tensor:
    """One (B, 5 + C, h, w) per level to (B, A, 5 + C), still before sigmoid, any dtype."""
    return torch.cat(level_rows(raw), dim=1)


def decode_boxes(raw_boxes: Tensor, points: AnchorPoints) -> Tensor:
    """(..., A, 4) raw box numbers to (..., A, 4) float32 cxcywh in letterboxed pixels."""
    # Number by number: a CPU is slow at rows of two.
    x, y, width, height = raw_boxes.float().unbind(dim=-1)
    column, row = points.cells.unbind(dim=-1)
    stride = points.strides.squeeze(-1)
    centre = ((x + column) * stride, (y + row) * stride)
    size = (width.exp() * stride, height.exp() * stride)
    return torch.stack((*centre, *size), dim=-1)


def decode_outputs(raw: Sequence[Tensor]) -> Tensor:
    """Raw outputs to boxes and probabilities, in float32 whatever the model's dtype.

    Args:
        raw: one (B, 5 + C, h, w) per level, as `YOLOX` gives them.

    Returns:
        (B, A, 5 + C): cxcywh in letterboxed pixels, objectness, C class probabilities.
    """
    flat = flatten_levels(raw).float()
    boxes = decode_boxes(flat[..., :4], anchor_points(raw))
    return torch.cat((boxes, flat[..., 4:].sigmoid()), dim=-1)
