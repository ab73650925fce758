from .batch import augment_batch, horizontal_flip
from .colour import hsv_jitter
from .multiscale import multiscale_size, resize_batch
from .settings import Augmentation, official_augmentation

__all__ = [
    "Augmentation",
    "augment_batch",
    "horizontal_flip",
    "hsv_jitter",
    "multiscale_size",
    "official_augmentation",
    "resize_batch",
]
