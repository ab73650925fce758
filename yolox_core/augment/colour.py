"""Colour jitter of whole batches, in HSV."""

import torch
from torch import Tensor

from yolox_core.augment.sampling import BANDS
from yolox_core.augment.upload import upload

_GAINS = (5.0, 30.0, 30.0)
"""Hue in steps of 2 degrees, saturation and value in 0..255, as cv2 counts."""


def hsv_jitter(canvases: Tensor, generator: torch.Generator) -> Tensor:
    """Shift hue, saturation and value of each image, each of the three on half of the images.

    The shifts are uniform in +-5 (of 180), +-30 and +-30 (of 255), whole numbers as in the
    official recipe.

    Args:
        canvases: (B, H, W, 3) uint8 BGR, on any device.
        generator: on the CPU.

    Returns:
        New (B, H, W, 3) uint8 BGR canvases.
    """
    shifts = (2 * torch.rand(len(canvases), 3, generator=generator) - 1) * torch.tensor(_GAINS)
    shifts = shifts.trunc() * torch.rand(len(canvases), 3, generator=generator).lt(0.5)
    shifted = shifts.any(dim=1).nonzero().squeeze(1)
    rows = upload(shifted, canvases.device)
    jittered = canvases.index_select(0, rows)
    for band in jittered.chunk(BANDS, dim=1):
        _shift_hsv(band, upload(shifts[shifted], canvases.device))
    return canvases.index_copy(0, rows, jittered)


def _shift_hsv(canvases: Tensor, shifts: Tensor) -> None:
    """Change (B, H, W, 3) uint8 BGR in place, by (B, 3) shifts."""
    hue, saturation, value = _bgr_to_hsv(canvases)
    hue_shift, saturation_shift, value_shift = shifts[:, :, None, None].unbind(dim=1)
    hue += hue_shift / 30
    saturation += saturation_shift / 255
    value += value_shift
    _write_bgr(canvases, hue.remainder_(6), saturation.clamp_(0, 1), value.clamp_(0, 255))


def _bgr_to_hsv(canvases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0..6, saturation in 0..1, value in 0..255, each (B, H, W) float32.

    Hue is counted in sixths of the circle from magenta: 1 is red, 3 green, 5 blue.
    """
    blue, green, red = (channel.float() for channel in canvases.unbind(dim=-1))
    value = torch.maximum(torch.maximum(blue, green), red)
    chroma = value - torch.minimum(torch.minimum(blue, green), red)
    divisor = chroma.clamp(min=1)  # grey: all differences are 0
    hue = torch.where(
        value == red,
        1 + (green - blue) / divisor,
        torch.where(value == green, 3 + (blue - red) / divisor, 5 + (red - green) / divisor),
    )
    return hue, chroma / value.clamp(min=1), value


def _write_bgr(canvases: Tensor, hue: Tensor, saturation: Tensor, value: Tensor) -> None:
    """Fill (B, H, W, 3) uint8; hue as above, in [0, 6)."""
    chroma = saturation * value
    # A channel has the full value up to a sixth of the circle around its own hue, and lacks all of
    # the chroma from two sixths on.
    lacks = (2 - (hue - 2).abs_(), (hue - 3).abs_() - 1, 2 - (hue - 4).abs_())
    for channel, share in enumerate(lacks):
        canvases[..., channel] = (value - chroma * share.clamp_(0, 1)).round_()
