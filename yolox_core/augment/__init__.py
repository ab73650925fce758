"""Augmentation of whole batches: uint8 canvases and their targets, on the CPU or a GPU.

All randomness comes from the generator given, so that a run can be repeated. B = images, M =
targets, N = the canvases that an image's mosaic and mixup may be made of.
"""

from yolox_core.augment.batch import augment_batch, horizontal_flip
from yolox_core.augment.colour import hsv_jitter
from yolox_core.augment.multiscale import multiscale_size, resize_batch
from yolox_core.augment.settings import Augmentation, official_augmentation

__all__ = [
    "Augmentation",
    "augment_batch",
    "horizontal_flip",
    "hsv_jitter",
    "multiscale_size",
    "official_augmentation",
    "resize_batch",
]
