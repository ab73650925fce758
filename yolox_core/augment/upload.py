"""The way of small tensors from the CPU to where the pixels are."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's, on a device, without waiting for what that is still busy with."""
    return tensor.to(device, non_blocking=True)
