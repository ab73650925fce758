"""Multi-scale training: batches whose size changes every few steps."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from yolox_core.config import PRESETS, STRIDES

_STEPS_PER_SIZE = 10
_STRIDE = STRIDES[-1]
_SMALL_MODELS = (10 / 13, 20 / 13)
"""320 to 640 pixels where the input is 416."""
_LARGE_MODELS = (0.75, 1.25)
"""480 to 800 pixels where the input is 640."""


def multiscale_size(
    preset: str, base_size: tuple[int, int], seed: int, step: int
) -> tuple[int, int]:
    """The size of a step's batch: the same on all workers, a new one every ten steps.

    The height is any multiple of 32 in the preset's official range, all equally likely; the width
    follows it.

    Args:
        preset: nano, tiny, s, m, l or x.
        base_size: (height, width) of the canvases.
        seed: of the run.
        step: counted from 0 over all epochs.

    Returns:
        (height, width), multiples of 32.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset={preset!r}: choose one of {', '.join(PRESETS)}")
    low, high = _SMALL_MODELS if preset in ("nano", "tiny") else _LARGE_MODELS
    height, width = base_size
    smallest, largest = (max(round(share * height / _STRIDE), 1) for share in (low, high))
    rng = np.random.default_rng([seed, step // _STEPS_PER_SIZE])
    rows = int(rng.integers(smallest, largest, endpoint=True))
    columns = max(round(rows * width / height), 1)
    return rows * _STRIDE, columns * _STRIDE


def resize_batch(images: Tensor, targets: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize a batch and its targets.

    Args:
        images: (B, 3, H, W) float32.
        targets: (B, M, 5) class_id, cx, cy, w, h in pixels, rows of zeros as padding.
        size: the new (height, width).

    Returns:
        Images of that size, and targets in their pixels.
    """
    height, width = images.shape[2:]
    if size == (height, width):
        return images, targets
    x, y = size[1] / width, size[0] / height
    moved = [
        column * factor for column, factor in zip(targets.unbind(-1), (1, x, y, x, y), strict=True)
    ]
    images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
    return images, torch.stack(moved, dim=-1)
