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
    shifts = upload(shifts, canvases.device)
    jittered = torch.empty_like(canvases)
    for band, result in zip(canvases.chunk(BANDS, 1), jittered.chunk(BANDS, 1), strict=True):
        _shift_hsv(band, shifts, result)
    return jittered


def _shift_hsv(canvases: Tensor, shifts: Tensor, out: Tensor) -> None:
    """Fill `out` with (B, H, W, 3) uint8 BGR canvases moved by (B, 3) shifts."""
    hue, saturation, value = _bgr_to_hsv(canvases)
    hue_shift, saturation_shift, value_shift = shifts[:, :, None, None].unbind(dim=1)
    hue += hue_shift / 30
    hue -= (hue / 6).floor_().mul_(6)
    saturation += saturation_shift / 255
    value += value_shift
    _write_bgr(out, hue, saturation.clamp_(0, 1), value.clamp_(0, 255))


def _bgr_to_hsv(canvases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in 0..6, saturation in 0..1, value in 0..255, each (B, H, W) float32.

    Hue is counted in sixths of the circle from magenta: 1 is red, 3 green, 5 blue.
    """
    blue, green, red = (channel.float() for channel in canvases.unbind(dim=-1))
    value = torch.maximum(torch.maximum(blue, green), red)
    chroma = value - torch.minimum(torch.minimum(blue, green), red)
    # 1 or 0 in float32: a CPU takes many times as long for bool and where(). Red comes first
    # where channels are equal, then green.
    is_red, is_green = red.clone().eq_(value), green.clone().eq_(value)
    ahead = torch.lerp(red - green, blue - red, is_green).lerp_(green - blue, is_red)
    centre = 5 - torch.maximum(4 * is_red, 2 * is_green)
    hue = ahead.div_(chroma.clamp(min=1)).add_(centre)  # grey: all differences are 0
    return hue, chroma.div_(value.clamp(min=1)), value


def _write_bgr(canvases: Tensor, hue: Tensor, saturation: Tensor, value: Tensor) -> None:
    """Fill (B, H, W, 3) uint8; hue as above, in [0, 6)."""
    chroma = saturation * value
    value = value + 0.5  # to uint8 it is rounded down
    # A channel has the full value up to a sixth of the circle around its own hue, and lacks all of
    # the chroma from two sixths on. Around that of green a channel lacks |hue - 3| - 1 of it; blue
    # and red, where the circle is cut open, have as much of it around the hues 2 and 4.
    without = value - 2 * chroma
    canvases[..., 0] = without.addcmul(chroma, (hue - 2).abs_().clamp_(1, 2))
    canvases[..., 1] = (value + chroma).addcmul_(chroma, (hue - 3).abs_().clamp_(1, 2), value=-1)
    canvases[..., 2] = without.addcmul_(chroma, (hue - 4).abs_().clamp_(1, 2))
