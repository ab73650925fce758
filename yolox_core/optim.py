"""Optimizers, learning rates of both references, and the moving average of the weights."""

import copy
import itertools
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from yolox_core.yolox import YOLOX

OptimizerName = Literal["sgd", "adamw"]


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    name: OptimizerName = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; both decay the weights of convolutions only.

    The three parameter groups are the BatchNorm weights, the convolution weights (decayed) and
    all biases.

    Args:
        lr: for the whole batch; the official one, for SGD, is 0.01 / 64 per image.
        momentum: of SGD, and AdamW's first beta.
    """
    norm_weights: list[nn.Parameter] = []
    conv_weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for module in model.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if key == "bias":
                biases.append(parameter)
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):  # SyncBatchNorm too
                norm_weights.append(parameter)
            else:
                conv_weights.append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": norm_weights, "weight_decay": 0.0},
        {"params": conv_weights, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999))
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


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


def seed_cosine(epoch: int, *, base_lr: float, total_epochs: int) -> float:
    """The seed tutorial's learning rate of an epoch, counted from 0: warm-up, cosine, constant.

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


def seed_step(epoch: int, *, base_lr: float, total_epochs: int) -> float:
    """The seed tutorial's other learning rate: ten equal steps from `base_lr` to a hundredth."""
    step = math.floor(10 * epoch / total_epochs)
    return float(base_lr * 0.01 ** (step / 9))


class ModelEMA:
    """Exponential moving average of a model's weights and BatchNorm statistics.

    The decay is 0.9998 x (1 - exp(-updates / 2000)): early averages forget quickly, since the
    first weights are not worth keeping.
    """

    def __init__(self, model: YOLOX) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        """The averaged copy, in eval mode."""
        self.num_updates = 0
        self._averages = _float_tensors(self.model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`; call after each optimizer step."""
        self.num_updates += 1
        weight = 1 - ema_decay(self.num_updates)
        # One launch for all tensors, where a loop would take hundreds.
        torch._foreach_lerp_(self._averages, _float_tensors(model), weight)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to continue as if never stopped."""
        return {"model": self.model.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the average where `state_dict` left it."""
        self.model.load_state_dict(state["model"])
        self.num_updates = state["num_updates"]


def ema_decay(num_updates: int) -> float:
    """How much of the average survives an update; the first update is number 1."""
    return 0.9998 * (1 - math.exp(-num_updates / 2000))


def _float_tensors(model: nn.Module) -> list[Tensor]:
    """All but BatchNorm's step counters, which have no average."""
    # Not state_dict(), which takes longer than the averaging.
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]
