"""Augmentation of whole batches: uint8 canvases and their targets, on the CPU or a GPU.

All randomness comes from the generator given, so that a run can be repeated. B = images, M =
targets.
"""

import torch
from torch import Tensor

_HSV_GAINS = (5.0, 30.0, 30.0)
"""Hue in steps of 2 degrees, saturation and value in 0..255, as cv2 counts."""


def horizontal_flip(
    canvases: Tensor, targets: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mirror each image with probability one half.

    Args:
        canvases: (B, H, W, 3) uint8.
        targets: (B, M, 5) class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as padding.
        generator: on the CPU or on the device of the canvases.

    Returns:
        New canvases and targets; padding stays zero.
    """
    flip = _random(generator, len(canvases)).lt(0.5).to(canvases.device)
    canvases = canvases.flip(2).where(flip[:, None, None, None], canvases)
    real = targets.ne(0).any(dim=-1)
    mirrored = targets.clone()
    mirrored[..., 1] = canvases.shape[2] - targets[..., 1]
    return canvases, mirrored.where((flip[:, None] & real)[..., None], targets)


def hsv_jitter(canvases: Tensor, generator: torch.Generator) -> Tensor:
    """Shift hue, saturation and value of each image, each of the three on half of the images.

    The shifts are uniform in +-5 (of 180), +-30 and +-30 (of 255), whole numbers as in the
    official recipe.

    Args:
        canvases: (B, H, W, 3) uint8 BGR.
        generator: on the CPU or on the device of the canvases.

    Returns:
        New (B, H, W, 3) uint8 BGR canvases.
    """
    gains = torch.tensor(_HSV_GAINS, device=generator.device)
    shifts = (2 * _random(generator, len(canvases), 3) - 1) * gains
    shifts = shifts.trunc() * _random(generator, len(canvases), 3).lt(0.5)
    hue, saturation, value = _bgr_to_hsv(canvases)
    hue_shift, saturation_shift, value_shift = shifts.to(canvases.device)[:, :, None, None].unbind(
        1
    )
    return _hsv_to_bgr(
        hue + hue_shift,
        (saturation + saturation_shift).clamp(0, 255),
        (value + value_shift).clamp(0, 255),
    )


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _bgr_to_hsv(canvases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0..180, saturation and value in 0..255, each (B, H, W) float32."""
    blue, green, red = canvases.float().unbind(dim=-1)
    value = torch.maximum(torch.maximum(blue, green), red)
    chroma = value - torch.minimum(torch.minimum(blue, green), red)
    divisor = chroma.clamp(min=1)  # grey: all differences are 0
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return 30 * hue.remainder(6), 255 * chroma / value.clamp(min=1), value


def _hsv_to_bgr(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Back to (B, H, W, 3) uint8; any hue, by the circle's period."""

    def channel(offset: int) -> Tensor:
        # https://en.wikipedia.org/wiki/HSL_and_HSV#HSV_to_RGB_alternative
        k = (offset + hue / 30).remainder(6)
        return value - value * saturation / 255 * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack((channel(1), channel(3), channel(5)), dim=-1).round().to(torch.uint8)
