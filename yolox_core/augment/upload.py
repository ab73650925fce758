"""The way of small tensors from the CPU to where the pixels are."""

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU's, on a device, without waiting for what that is still busy with."""
    if device.type == "cuda":
        # More than 64 kB of other memory would wait for its turn, and this thread with it.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
