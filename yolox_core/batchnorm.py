"""BatchNorm that was folded into its convolution, and how to make it trainable again.

Weights that come from an export often have mean 0 and variance 1 in every BatchNorm, what it did
being in the convolutions and biases. They detect as well as ever, but in training mode BatchNorm
normalises what was already normal, and fine-tuning starts from a broken detector.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from yolox_core.yolox import YOLOX

# Some exports store 1 - eps, so that the layer divides by 1; eps is 1e-3.
_TOLERANCE = 1e-2


def is_folded(model: YOLOX) -> bool:
    """Whether the statistics of all BatchNorms say nothing, though the model is trained.

    Those of an untrained model say nothing either; it is told by its biases, which are all 0.
    """
    norms = _batch_norms(model)
    return (
        bool(norms)
        and all(_is_blank(norm) for norm in norms)
        and any(bool(norm.bias.any()) for norm in norms)
    )


@torch.no_grad()
def estimate_statistics(model: YOLOX, batches: Iterable[Tensor]) -> None:
    """Give every BatchNorm the statistics of these images, and leave what the model computes.

    In eval mode BatchNorm is weight x (x - mean) / sqrt(var + eps) + bias: for any mean and
    variance there are a weight and a bias with which it does what it did. Since no layer's input
    changes, one pass over the images serves all of them.

    Args:
        model: not fused; changed in place, its mode is kept.
        batches: (B, 3, H, W) each, prepared by `to_model_input`, on the model's device. A hundred
            images of the kind the model will be trained on are enough.

    Raises:
        ValueError: there are no batches.
    """
    was_training = model.training
    moments = [_Moments(norm) for norm in _batch_norms(model)]
    model.eval()
    try:
        for images in batches:
            model(images)
    finally:
        for of_norm in moments:
            of_norm.hook.remove()
        model.train(was_training)
    if not all(of_norm.count for of_norm in moments):
        raise ValueError("no images to estimate the BatchNorm statistics from: give at least one")
    for of_norm in moments:
        _set_statistics(of_norm.norm, *of_norm.mean_and_variance())


class _Moments:
    """Adds up, channel by channel, what goes into one BatchNorm."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm
        self.count = 0
        # float64: a variance is the small difference of two large sums.
        self._sum = torch.zeros_like(norm.bias, dtype=torch.float64)
        self._sum_of_squares = torch.zeros_like(self._sum)
        self.hook = norm.register_forward_pre_hook(self._add)

    def _add(self, norm: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]  # (B, C, H, W)
        count = x.numel() // x.shape[1]
        of_batch = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        variance, mean = (moment.double() for moment in of_batch)
        self.count += count
        self._sum += count * mean
        self._sum_of_squares += count * (variance + mean.square())

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """(C,) float64 each; the variance without Bessel's correction, as BatchNorm normalises."""
        mean = self._sum / self.count
        return mean, (self._sum_of_squares / self.count - mean.square()).clamp(min=0)


def _batch_norms(model: YOLOX) -> list[nn.BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def _is_blank(norm: nn.BatchNorm2d) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean_is_0 = norm.running_mean.abs().max() < _TOLERANCE
    return bool(mean_is_0 and (norm.running_var - 1).abs().max() < _TOLERANCE)


def _set_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Replace a layer's statistics, with the weight and bias that keep its function."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.add_(slope * (mean - norm.running_mean.double()))
    norm.weight.copy_(slope * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
