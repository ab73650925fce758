"""The augmentation of a training batch, all steps of it."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from yolox_core.augment.colour import hsv_jitter
from yolox_core.augment.placement import draw_placements
from yolox_core.augment.sampling import sample_mosaics
from yolox_core.augment.settings import Augmentation
from yolox_core.augment.targets import drop_invisible, is_visible, mixup_targets, mosaic_targets
from yolox_core.augment.upload import upload


@torch.no_grad()
def augment_batch(
    canvases: Tensor | Sequence[Tensor],
    content: Tensor,
    targets: Tensor,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    combine: bool,
) -> tuple[Tensor, Tensor]:
    """Mosaic, affine and mixup, then colour jitter and mirroring, as in official training.

    Targets whose shorter side is 1 pixel or less in the end are dropped, and no others. Pixels
    are worked on where they are; a GPU is not waited for.

    Args:
        canvases: (N, H, W, 3) uint8 BGR, letterboxed, in one tensor or in parts. The first
            `batch_size`, all in the first part, are the batch; those that follow it may be tiles
            of a mosaic or half of a mixup.
        content: (N, 4) int64 xyxy rectangle of the photo on each canvas; on the CPU.
        targets: (N, M, 5) float32 class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as
            padding; on the CPU.
        batch_size: B.
        augmentation: probabilities and ranges.
        generator: on the CPU; the only source of randomness.
        combine: whether to make mosaics and mixups; the last epochs do without.

    Returns:
        (B, H, W, 3) uint8 canvases and (B, M', 5) targets, on the device of the canvases.

    Raises:
        ValueError: the batch is empty, or larger than what is given.
    """
    parts = [canvases] if isinstance(canvases, Tensor) else canvases
    if not 1 <= batch_size <= len(parts[0]):
        raise ValueError(
            f"batch_size={batch_size}: there are {len(parts[0])} canvases, of which the batch is "
            "the first ones, at least 1"
        )
    if combine:
        images, boxes = _combined(parts, content, targets, batch_size, augmentation, generator)
    else:
        images, boxes = parts[0][:batch_size], targets[:batch_size]
    images = hsv_jitter(images, generator)
    images, boxes = horizontal_flip(images, boxes, generator)
    return images, upload(drop_invisible(boxes), images.device)


def horizontal_flip(
    canvases: Tensor, targets: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mirror each image with probability one half.

    Args:
        canvases: (B, H, W, 3) uint8, on any device.
        targets: (B, M, 5) class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as padding;
            on any device.
        generator: on the CPU.

    Returns:
        New canvases and targets; padding stays zero.
    """
    flip = torch.rand(len(canvases), generator=generator) < 0.5
    rows = flip.nonzero().squeeze(1)
    chosen = canvases.index_select(0, upload(rows, canvases.device))
    mirrored_canvases = _replaced(canvases, rows, chosen.flip(2))

    real = targets.ne(0).any(dim=-1)
    mirrored = targets.clone()
    mirrored[..., 1] = canvases.shape[2] - targets[..., 1]
    flip = upload(flip, targets.device)
    return mirrored_canvases, mirrored.where((flip[:, None] & real)[..., None], targets)


def _combined(
    parts: Sequence[Tensor],
    content: Tensor,
    targets: Tensor,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The batch with some or all of its images turned into mosaics, some of those mixed up.

    Returns:
        (B, H, W, 3) uint8 canvases, and (B, 5M, 5) targets on the CPU.
    """
    batch = parts[0][:batch_size]
    size = (batch.shape[1], batch.shape[2])
    placements = draw_placements(targets, batch_size, size, augmentation, generator)
    if not len(placements.images):
        return batch, targets[:batch_size]
    of_tiles = mosaic_targets(targets, content, placements, size)
    is_mixed = placements.is_mixed & is_visible(of_tiles).any(dim=1)
    of_mixups = mixup_targets(targets, placements, size) * is_mixed[:, None, None]

    combined = targets.new_zeros(batch_size, 5 * targets.shape[1], 5)
    combined[:, : targets.shape[1]] = targets[:batch_size]
    combined[placements.images] = torch.cat((of_tiles, of_mixups), dim=1)

    used, placements = replace(placements, is_mixed=is_mixed).renumbered()
    mosaics = sample_mosaics(_taken(parts, used), content[used], placements, augmentation.padding)
    return _replaced(batch, placements.images, mosaics), combined


def _taken(parts: Sequence[Tensor], index: Tensor) -> Tensor:
    """(U, H, W, 3) canvases at (U,) rising indices into all parts, which are on the CPU."""
    taken, first = [], 0
    for part in parts:
        here = index[(index >= first) & (index < first + len(part))] - first
        taken.append(part.index_select(0, upload(here, part.device)))
        first += len(part)
    return torch.cat(taken)


def _replaced(canvases: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """New (B, H, W, 3) canvases, at (S,) rows, which are on the CPU, the S others."""
    # index_copy() would move pixel by pixel, index_select() moves whole canvases.
    order = torch.arange(len(canvases))
    order[rows] = torch.arange(len(canvases), len(canvases) + len(others))
    return torch.cat((canvases, others)).index_select(0, upload(order, canvases.device))
