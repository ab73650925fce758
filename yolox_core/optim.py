"""Optimizers, and the moving average of the weights."""

import copy
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from yolox_core.schedules import OptimizerName
from yolox_core.yolox import YOLOX


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
