"""Learning rates of YOLOX and of bubbliiiing's yolox-pytorch, and the optimizers' names.

No torch in here.
"""

import math
from typing import Literal

OptimizerName = Literal["sgd", "adamw"]


def warmup_cosine(
    step: int,
    *,
    base_lr: float,
    steps_per_epoch: int,
    total_epochs: int,
    warmup_epochs: int = 5,
    no_aug_epochs: int = 15,
    min_lr_ratio: float = 0.05,
    warmup_start_lr: float = 0.0,
) -> float:
    """Learning rate of a step, counted from 0: quadratic warm-up, cosine, then constant.

    The cosine falls from `base_lr` to `min_lr_ratio` x `base_lr`, where it stays for the last
    `no_aug_epochs`. With no warm-up epochs, step 0 already has `base_lr`.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    last_cosine_step = (total_epochs - no_aug_epochs) * steps_per_epoch
    min_lr = base_lr * min_lr_ratio
    if step < warmup_steps:
        return warmup_start_lr + (base_lr - warmup_start_lr) * (step / warmup_steps) ** 2
    if step >= last_cosine_step:
        return min_lr
    progress = (step - warmup_steps) / (last_cosine_step - warmup_steps)
    return min_lr + 0.5 * (base_lr - min_lr) * (1 + math.cos(math.pi * progress))


def yolox_pytorch_cosine(epoch: int, *, base_lr: float, total_epochs: int) -> float:
    """yolox-pytorch's learning rate of an epoch, counted from 0: warm-up, cosine, constant.

    Warm-up and the constant end take a twentieth of the epochs each, 1 to 3 and 1 to 15 of them;
    the rate rises from a tenth and falls to a hundredth of `base_lr`.
    """
    warmup_epochs = min(max(0.05 * total_epochs, 1), 3)
    last_cosine_epoch = total_epochs - min(max(0.05 * total_epochs, 1), 15)
    start_lr, min_lr = max(0.1 * base_lr, 1e-6), 0.01 * base_lr
    if epoch <= warmup_epochs:
        return start_lr + (base_lr - start_lr) * (epoch / warmup_epochs) ** 2
    if epoch >= last_cosine_epoch:
        return min_lr
    progress = (epoch - warmup_epochs) / (last_cosine_epoch - warmup_epochs)
    return min_lr + 0.5 * (base_lr - min_lr) * (1 + math.cos(math.pi * progress))


def yolox_pytorch_step(epoch: int, *, base_lr: float, total_epochs: int) -> float:
    """yolox-pytorch's other learning rate: ten equal steps from `base_lr` to a hundredth."""
    step = math.floor(10 * epoch / total_epochs)
    return float(base_lr * 0.01 ** (step / 9))
