"""The pixels of mosaics and mixups: every output pixel is looked up once, on the CPU or a GPU.

A mosaic is never built: where an output pixel lies from the point at which the tiles meet tells
the tile, and the place on that. A mixup is looked up as a mosaic of one tile. S = mosaics, N =
canvases, R = rows of pixels. Positions are in pixels, the first from 0 to 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from yolox_core.augment.placement import (
    TILE_IS_BELOW,
    TILE_IS_RIGHT,
    Placements,
    inner_corners,
    inverted,
    mixup_matrices,
    mosaic_matrices,
)
from yolox_core.augment.upload import upload

BANDS = 16
"""A few rows of all images are worked on at a time: what is in between then stays in the cache."""


class _Tiling(NamedTuple):
    """How S images are put together. All canvases stand in one column, the first on top."""

    matrices: Tensor
    """(S, 2, 3) output pixels to pixels from the point where the tiles meet."""
    extents: Tensor
    """(S, 2, 4) how far each tile reaches from there, in x and in y."""
    corners: Tensor
    """(S, 2, 4) x, y on the column of what each tile shows there."""


def sample_mosaics(
    canvases: Tensor, content: Tensor, placements: Placements, padding: int
) -> Tensor:
    """What four tiles look like once put together, turned, resized, sheared and moved.

    Args:
        canvases: (N, H, W, 3) uint8; all of them become float32, see `Placements.renumbered`.
        content: (N, 4) xyxy rectangles of their photos, on the CPU.
        placements: of S mosaics; those that `is_mixed` are blended half and half with their
            source, which is black where its canvas ends.
        padding: grey, where there is no tile.

    Returns:
        (S, H, W, 3) uint8.
    """
    device = canvases.device
    height, width = canvases.shape[1:3]
    pixels = canvases.float()
    mosaics = _mosaic_tiling(placements, content, (height, width))
    mosaics = _Tiling(*(upload(tensor, device) for tensor in mosaics))
    mixed = placements.is_mixed.nonzero().squeeze(1)
    mixups = _mixup_tiling(placements, (height, width))
    mixups = _Tiling(*(upload(tensor[mixed], device) for tensor in mixups))
    mixed = upload(mixed, device)

    out = canvases.new_empty(len(placements.images), height, width, 3)
    rows = torch.arange(height, device=device) + 0.5
    for band, y in zip(out.chunk(BANDS, dim=1), rows.chunk(BANDS), strict=True):
        seen = _sample(pixels, mosaics, y, padding)
        blended = (seen.index_select(0, mixed) + _sample(pixels, mixups, y, 0)) / 2
        seen = seen.index_copy_(0, mixed, blended).round_()
        for channel, values in enumerate(seen.unbind(dim=1)):
            band[..., channel] = values
    return out


def _mosaic_tiling(placements: Placements, content: Tensor, size: tuple[int, int]) -> _Tiling:
    matrices = inverted(mosaic_matrices(placements))
    matrices[..., 2] -= placements.centres
    left, top, right, bottom = content[placements.tiles].unbind(dim=-1)  # each (S, 4)
    # A tile ends with its photo, or with the mosaic of 2H x 2W.
    centre_x, centre_y = placements.centres[:, :, None].unbind(dim=1)
    room_x = torch.where(TILE_IS_RIGHT, 2 * size[1] - centre_x, centre_x)
    room_y = torch.where(TILE_IS_BELOW, 2 * size[0] - centre_y, centre_y)
    extents = torch.stack((room_x.minimum(right - left), room_y.minimum(bottom - top)), dim=1)
    corners = inner_corners(placements, content).transpose(1, 2).contiguous()
    corners[:, 1] += size[0] * placements.tiles
    return _Tiling(matrices, extents, corners)


def _mixup_tiling(placements: Placements, size: tuple[int, int]) -> _Tiling:
    """One whole canvas as the tile at the bottom right; the others are empty."""
    matrices = inverted(mixup_matrices(placements, size))
    extents = torch.zeros(len(matrices), 2, 4)
    extents[:, :, 3] = torch.tensor((size[1], size[0]))
    corners = torch.zeros_like(extents)
    corners[:, 1] = size[0] * placements.mixup_sources[:, None]
    return _Tiling(matrices, extents, corners)


def _sample(canvases: Tensor, tiling: _Tiling, rows: Tensor, padding: int) -> Tensor:
    """Some rows of pixels of all S images, by bilinear interpolation within each tile.

    Args:
        canvases: (N, H, W, 3) float32.
        tiling: of S images.
        rows: (R,) y of the centres of the pixels.
        padding: grey, where there is no tile.

    Returns:
        (S, 3, R, W) float32.
    """
    num_canvases, height, width = canvases.shape[:3]
    device = canvases.device
    by_x, by_y, offset = tiling.matrices[..., None, None].unbind(dim=2)  # each (S, 2, 1, 1)
    columns = torch.arange(width, device=device) + 0.5
    # Not a matrix product: in TensorFloat-32 it would be whole pixels off.
    from_centre = by_x * columns + (by_y * rows[:, None] + offset)  # (S, 2, R, W)

    # 1 or 0 in float32, here and below: a CPU takes many times as long for bool and where().
    is_beyond = from_centre.clone().ge_(0)
    extent = _of_tile(tiling.extents, is_beyond)
    distance = from_centre.abs()
    is_outside = distance.clone().ge_(extent).amax(dim=1, keepdim=True)  # (S, 1, R, W)
    # Nearer to its edge than half a pixel, a tile would take in what is beside it.
    distance = torch.minimum(distance.clamp_(min=0.5), extent.sub_(0.5))
    position = _of_tile(tiling.corners, is_beyond).add_(distance.copysign_(from_centre))

    column = canvases.view(1, num_canvases * height, width, 3).permute(0, 3, 1, 2)
    # grid_sample counts from -1 to 1.
    position[:, 0] *= 2 / width
    position[:, 1] *= 2 / (num_canvases * height)
    grid = (position - 1).permute(0, 2, 3, 1)
    # The same column for all images: grid_sample does not copy it.
    column = column.expand(len(grid), -1, -1, -1)
    sampled = functional.grid_sample(column, grid, padding_mode="border", align_corners=False)
    return sampled.mul_(1 - is_outside).add_(padding * is_outside)


def _of_tile(table: Tensor, is_beyond: Tensor) -> Tensor:
    """(S, 2, R, W): for each pixel the (S, 2, 4) table's entry of the tile that it lies in.

    Args:
        table: for each image, in x and in y, the numbers of its four tiles.
        is_beyond: (S, 2, R, W) float32: 1 right of the centre, and 1 below it; else 0.
    """
    is_right, is_below = is_beyond.split_with_sizes((1, 1), dim=1)
    top_left, top_right, bottom_left, bottom_right = table[..., None, None].unbind(dim=2)
    # The numbers are whole or halves: these sums are exact.
    change = is_right * (bottom_right - bottom_left - top_right + top_left)
    change += bottom_left - top_left
    change *= is_below
    return change.add_(is_right * (top_right - top_left)).add_(top_left)
