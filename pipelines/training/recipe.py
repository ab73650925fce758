"""Recipe: every number that decides the weights that come out, apart from the data."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from yolox_core import (
    Augmentation,
    OptimizerName,
    check_input_size,
    model_config,
    official_augmentation,
    warmup_cosine,
    yolox_pytorch_cosine,
    yolox_pytorch_step,
)

NOMINAL_BATCH_SIZE = 64
"""The batch that `learning_rate` is for."""

_BY_EPOCH = {
    "yolox_pytorch_cosine": yolox_pytorch_cosine,
    "yolox_pytorch_step": yolox_pytorch_step,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out, apart from the data. The defaults are official."""

    preset: str = "s"
    """nano, tiny, s, m, l or x."""
    input_size: int | tuple[int, int] = 640
    """Side, or [height, width], of the letterboxed images, in pixels; nano and tiny like 416."""
    epochs: int = 300
    """Times that every image is seen."""
    batch_size: int = 64
    """Images in one step, all workers together."""
    optimizer: OptimizerName = "sgd"
    """sgd or adamw; adamw wants a learning rate near 0.001."""
    learning_rate: float = 0.01
    """For a batch of 64 images; it is scaled to the batch size."""
    momentum: float = 0.9
    """Of sgd, and the first beta of adamw; yolox-pytorch has 0.937."""
    weight_decay: float = 5e-4
    """Of the weights of convolutions."""
    max_grad_norm: float | None = None
    """Longer gradients are shortened to this norm. Without it: never."""
    schedule: Literal["official", "yolox_pytorch_cosine", "yolox_pytorch_step"] = "official"
    """How the learning rate goes: per step as in YOLOX, or per epoch as in bubbliiiing's
    yolox-pytorch."""
    warmup_epochs: int = 5
    """Epochs in which the official learning rate rises."""
    no_aug_epochs: int = 15
    """Epochs at the end without mosaic and mixup, with the L1 loss and, in the official schedule,
    with a constant learning rate."""
    mosaic: float | None = None
    """Probability of a mosaic of four images. Without it: the official one of the preset."""
    mixup: float | None = None
    """Probability, in a mosaic, of blending in another image. Without it: the official one."""
    multiscale: bool = True
    """Whether the batches change their size every ten steps."""
    freeze_epochs: int = 0
    """Epochs at the start in which the weights of backbone and neck stay as they are, for
    fine-tuning; the statistics of their BatchNorm follow the images, as in yolox-pytorch."""
    rule: Literal["official", "yolox_pytorch"] = "official"
    """Whose label assignment: that of YOLOX or of bubbliiiing's yolox-pytorch."""
    sync_batchnorm: bool = False
    """Whether the workers share BatchNorm's statistics; for few images per GPU."""
    eval_every: int = 10
    """Epochs between validations; the last epoch has one too."""
    seed: int = 0
    """Of the order of the images, the augmentation and the first weights."""

    def __post_init__(self) -> None:
        model_config(self.preset)
        check_input_size(*self.canvas_size)
        for name in ("epochs", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("warmup_epochs", "no_aug_epochs", "freeze_epochs", "weight_decay", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value}: must be a positive number")
        for name in ("momentum", "mosaic", "mixup"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must lie between 0 and 1")
        if self.warmup_epochs + self.no_aug_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} and no_aug_epochs={self.no_aug_epochs} are "
                f"more than epochs={self.epochs}: give fewer of them, for example "
                f"--warmup_epochs {self.epochs // 10} --no_aug_epochs {self.epochs // 5}"
            )

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else size

    @property
    def augmentation(self) -> Augmentation:
        """The official augmentation of the preset, with the probabilities given here."""
        official = official_augmentation(self.preset)
        return replace(
            official,
            mosaic_probability=official.mosaic_probability if self.mosaic is None else self.mosaic,
            mixup_probability=official.mixup_probability if self.mixup is None else self.mixup,
        )

    def is_closing(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is of the last ones: no mosaic, no mixup, L1."""
        return epoch >= self.epochs - self.no_aug_epochs

    def is_frozen(self, epoch: int) -> bool:
        """Whether backbone and neck keep their weights in an epoch, counted from 0."""
        return epoch < self.freeze_epochs

    def is_validated(self, epochs_done: int) -> bool:
        """Whether a validation is due after so many epochs."""
        return epochs_done % self.eval_every == 0 or epochs_done == self.epochs

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        base_lr = self.learning_rate * self.batch_size / NOMINAL_BATCH_SIZE
        if self.schedule != "official":
            epoch = step // steps_per_epoch
            of_epoch = _BY_EPOCH[self.schedule]
            return of_epoch(epoch, base_lr=base_lr, total_epochs=self.epochs)
        return warmup_cosine(
            step,
            base_lr=base_lr,
            steps_per_epoch=steps_per_epoch,
            total_epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            no_aug_epochs=self.no_aug_epochs,
        )
