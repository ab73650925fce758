"""Letterboxing: an image of any size onto a fixed canvas, and boxes there and back.

Two conventions: `official` weights expect BGR 0..255, resized by cv2, in the top-left corner on
grey 114; `seed`, as checkpoints and records call bubbliiiing's yolox-pytorch, normalised RGB,
resized by PIL, centred on grey 128.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:  # who letterboxes for another runtime has no use for torch
    from torch import Tensor

Convention = Literal["official", "seed"]

PADDING_GREY: dict[Convention, int] = {"official": 114, "seed": 128}
"""Of the canvas around an image, in all three channels."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LetterboxTransform:
    """Where an image went on its canvas. Original pixels x scale + offset = letterboxed pixels."""

    original_size: tuple[int, int]
    """(height, width) in pixels."""
    scale: tuple[float, float]
    """(vertical, horizontal) factor."""
    offset: tuple[int, int]
    """(top, left) letterboxed pixels of padding."""
    content_size: tuple[int, int]
    """(height, width) of the resized image on the canvas, in letterboxed pixels."""

    @property
    def content_xyxy(self) -> tuple[int, int, int, int]:
        """The part of the canvas that is image and not padding, letterboxed pixels."""
        (top, left), (height, width) = self.offset, self.content_size
        return left, top, left + width, top + height

    def to_original(self, boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
        """(N, 4) float xyxy, letterboxed pixels to original ones, clipped to the image."""
        height, width = self.original_size
        boxes = (boxes_xyxy - self._xyxy(self.offset)) / self._xyxy(self.scale)
        clipped: NDArray[Any] = boxes.clip(0, (width, height, width, height))
        return clipped.astype(boxes_xyxy.dtype)

    def to_letterboxed(self, boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
        """(N, 4) float xyxy, original pixels to letterboxed ones."""
        boxes = boxes_xyxy * self._xyxy(self.scale) + self._xyxy(self.offset)
        return boxes.astype(boxes_xyxy.dtype)

    @staticmethod
    def _xyxy(vertical_horizontal: tuple[float, float]) -> NDArray[np.float64]:
        vertical, horizontal = vertical_horizontal
        return np.array((horizontal, vertical, horizontal, vertical), dtype=np.float64)


def letterbox(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    convention: Convention = "official",
    *,
    original_size: tuple[int, int] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], LetterboxTransform]:
    """Resize `image` to fit `size`, keeping its aspect ratio, and pad the rest with grey.

    Args:
        image: (h, w, 3) uint8; the order of the channels does not matter here.
        size: (H, W) of the canvas, in pixels.
        convention: what the weights were trained with.
        original_size: (height, width) in pixels of the photo that `image` is a smaller picture of,
            if it is not the photo itself; the canvas is laid out, and boxes go back, by it.
        out: a canvas to fill instead of a new one, (H, W, 3) uint8.

    Returns:
        The (H, W, 3) uint8 canvas, and the way back for boxes.
    """
    height, width = original_size or image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    # int() is what both references do; it leaves nothing of the short side of a 640x1 image.
    new_height, new_width = max(int(height * ratio), 1), max(int(width * ratio), 1)

    scale, (top, left) = (ratio, ratio), (0, 0)
    if convention == "seed":
        scale = (new_height / height, new_width / width)
        top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2

    canvas = np.empty((*size, 3), dtype=np.uint8) if out is None else out
    canvas[...] = PADDING_GREY[convention]
    resized = _resize(image, (new_height, new_width), convention)
    canvas[top : top + new_height, left : left + new_width] = resized
    transform = LetterboxTransform((height, width), scale, (top, left), (new_height, new_width))
    return canvas, transform


def to_model_input(canvases: "Tensor", convention: Convention) -> "Tensor":
    """What the model was trained on, from letterboxed canvases.

    Args:
        canvases: (B, H, W, 3) uint8 BGR, on any device.
        convention: what the weights were trained with.

    Returns:
        (B, 3, H, W) float32 on the same device, in channels_last memory format: BGR 0..255 for
        `official`; RGB scaled by ImageNet's mean and standard deviation for `seed`.
    """
    images = canvases.permute(0, 3, 1, 2)
    if convention == "official":
        return images.float()
    import torch

    # Numbers rather than tensors: a tensor made here would have to be copied to the GPU.
    channels = [
        (images[:, 2 - i].float() / 255 - mean) / std
        for i, (mean, std) in enumerate(zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True))
    ]
    return torch.stack(channels, dim=-1).permute(0, 3, 1, 2)


def _resize(
    image: NDArray[np.uint8], size: tuple[int, int], convention: Convention
) -> NDArray[Any]:
    height, width = size
    if convention == "official":
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
