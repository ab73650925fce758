"""What one of several training processes knows of the others; alone, it is the first of one."""

from typing import TypeVar

import torch.distributed as dist

Value = TypeVar("Value")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def of_first_worker(value: Value) -> Value:
    """The first worker's value, on all workers."""
    if world_size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def gathered(value: Value) -> list[Value]:
    """The values of all workers, on all workers, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    values = [value] * world_size()
    dist.all_gather_object(values, value)
    return values
