"""The training loss beside a loop over images and targets: time, launches, waits for the GPU."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import bench_loss
from benchmarks.on_gpu.sizes import Result, Sizes
from benchmarks.on_gpu.waits import host_waits
from yolox_core import OFFICIAL_RULE, YOLOXLoss, anchor_points, simota_assign
from yolox_core.anchors import decode_boxes, flatten_levels


def measure(sizes: Sizes) -> Iterator[Result]:
    """What `benchmarks.bench_loss` measures, and the waits of the assignment by itself."""
    device = sizes.torch_device
    preset, side, batch_size = sizes.training
    if sizes.on_gpu:
        yield {"host_waits": waits(side, device)}
    step = bench_loss.time_step(preset, batch_size, side, device, sizes.repeats)
    yield {"training_step": step}
    yield {"crowd": bench_loss.time_crowd(*sizes.crowd, side, device, sizes.repeats)}
    for size in sizes.loss_batch_sizes:
        yield bench_loss.compare(size, side, device, sizes.repeats)


def waits(side: int, device: torch.device) -> dict[str, dict[str, int]]:
    """Of assignment, and of the loss forward and backward, by file and line."""
    generator = torch.Generator().manual_seed(0)
    targets = bench_loss.random_targets(8, side, generator)
    outputs = bench_loss.half_trained_outputs(targets, side, generator)
    raw = [output.to(device).requires_grad_() for output in outputs]
    targets = targets.to(device)
    loss = YOLOXLoss(bench_loss.NUM_CLASSES)
    return {
        "assignment": host_waits(lambda: _assign(raw, targets)),
        "loss": host_waits(lambda: torch.autograd.grad(loss(raw, targets)["total"], raw)),
    }


def _assign(raw: list[Tensor], targets: Tensor) -> None:
    flat, points = flatten_levels(raw), anchor_points(raw)
    boxes = decode_boxes(flat[..., :4], points)
    simota_assign(boxes, flat[..., 4], flat[..., 5:], points, targets, OFFICIAL_RULE)
