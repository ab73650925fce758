"""Time the training loss, label assignment included, beside a plain loop over images and targets.

python -m benchmarks.bench_loss > loss.json

Forward and backward, 80 classes, 10 to 60 targets an image, the official rule. Prints JSON: whether
both assign alike, milliseconds, operations, how often each waits for the device; what a crowd takes
of time and of memory, in a process of its own; and the share of the loss in a whole training step.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.loop_loss import ImageMatch, loop_assign, loop_loss
from benchmarks.machine import describe_machine, median_s
from benchmarks.memory import in_own_process, peak_growth_mb
from yolox_core import (
    OFFICIAL_RULE,
    STRIDES,
    Assignment,
    ModelEMA,
    YOLOXLoss,
    anchor_points,
    build_model,
    build_optimizer,
    simota_assign,
)
from yolox_core.anchors import decode_boxes, flatten_levels

NUM_CLASSES = 80
TARGETS_PER_IMAGE = (10, 60)
CROWD = (16, 700)
"""Images, and targets on each: a batch of shelves, as in SKU-110K."""
GOALS = {
    "assignments_identical": True,
    "host_syncs": 0,
    "ratio_at_least": 10,
    "loss_share_of_step_below_on_gpu": 0.05,
    "crowd_seconds_at_most": 3,
    "crowd_peak_growth_mb_at_most": 500,
}

# What asks the device for a value, or for a count that decides a shape.
_WAITING_OPS = ("_local_scalar_dense", "nonzero", "masked_select", "unique")

Loss = Callable[[Sequence[Tensor], Tensor], dict[str, Tensor]]


def main() -> None:
    args = _parse_args()
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    batch_sizes = args.batch_sizes or ([8, 64] if on_gpu else [8])
    report = {
        "machine": describe_machine(device),
        "goals": GOALS,
        "loss": [
            compare(batch_size, args.input_size or 640, device, args.repeats)
            for batch_size in batch_sizes
        ],
        "crowd": in_own_process(time_crowd, *CROWD, args.input_size or 640, device, args.repeats),
        "training_step": time_step(
            "s" if on_gpu else "nano",
            max(batch_sizes),
            args.input_size or (640 if on_gpu else 416),
            device,
            args.repeats,
        ),
    }
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--batch_sizes", type=int, nargs="+", help="8 and 64; 8 on a CPU")
    parser.add_argument("--input_size", type=int, help="pixels; 640, and 416 for a CPU's step")
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


def compare(batch_size: int, input_size: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Our loss and the loop on the same batch."""
    generator = torch.Generator().manual_seed(0)
    targets = random_targets(batch_size, input_size, generator)
    raw = half_trained_outputs(targets, input_size, generator)
    raw, targets = [output.to(device) for output in raw], targets.to(device)
    ours = measure(YOLOXLoss(NUM_CLASSES), raw, targets, repeats)
    loop = measure(loop_loss, raw, targets, repeats)
    identical = identical_images(raw, targets)
    return {
        "batch_size": batch_size,
        "anchor_points": sum(output[0, 0].numel() for output in raw),
        "targets": int(targets.any(dim=-1).sum()),
        "images_assigned_identically": identical,
        "assignments_identical": identical == batch_size,
        "ours": ours,
        "loop": loop,
        "ratio": round(loop["milliseconds"] / ours["milliseconds"], 2),
    }


def time_crowd(
    batch_size: int, per_image: int, input_size: int, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Our loss on very many targets: seconds, and the memory it takes beside its arguments."""
    raw, targets = crowd(batch_size, per_image, input_size)
    targets = targets.to(device)
    raw = [output.to(device).requires_grad_() for output in raw]
    loss = YOLOXLoss(NUM_CLASSES)

    def call(raw: Sequence[Tensor] = raw) -> None:
        torch.autograd.grad(loss(raw, targets)["total"], raw)

    call([output[..., :2, :2] for output in raw])  # torch reads its own code at the first call
    seconds: list[float] = []
    growth = _peak_growth_mb(lambda: seconds.append(median_s(call, device, repeats)), device)
    return {
        "batch_size": batch_size,
        "targets_per_image": per_image,
        "anchor_points": sum(output[0, 0].numel() for output in raw),
        "seconds": round(seconds[0], 3),
        "peak_growth_mb": round(growth, 1),
    }


def crowd(batch_size: int, per_image: int, input_size: int) -> tuple[list[Tensor], Tensor]:
    """Raw outputs and targets, so many on each image."""
    generator = torch.Generator().manual_seed(0)
    targets = random_targets(batch_size, input_size, generator, (per_image, per_image))
    # One by one, for memory's sake.
    images = [half_trained_outputs(one[None], input_size, generator) for one in targets]
    levels = [torch.cat(level) for level in zip(*images, strict=True)]
    return [level.contiguous(memory_format=torch.channels_last) for level in levels], targets


def _peak_growth_mb(call: Callable[[], None], device: torch.device) -> float:
    """Of the device's memory."""
    if device.type != "cuda":
        return peak_growth_mb(call)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def random_targets(
    batch_size: int,
    input_size: int,
    generator: torch.Generator,
    per_image: tuple[int, int] = TARGETS_PER_IMAGE,
) -> Tensor:
    """(B, M, 5) class_id, cx, cy, w, h: sides from 8 px to half the image, small ones as often."""
    fewest, most = per_image
    counts = torch.randint(fewest, most + 1, (batch_size, 1), generator=generator)
    shape = (batch_size, int(counts.max()))
    class_ids = torch.randint(NUM_CLASSES, (*shape, 1), generator=generator)
    centres = torch.rand(*shape, 2, generator=generator) * input_size
    share = torch.rand(*shape, 2, generator=generator)
    sides = 8 * (input_size / 16) ** share
    targets = torch.cat((class_ids, centres, sides), dim=-1)
    return targets.where(torch.arange(shape[1])[:, None] < counts[..., None], 0)


def half_trained_outputs(
    targets: Tensor, input_size: int, generator: torch.Generator
) -> list[Tensor]:
    """Raw outputs of a detector that roughly says the target nearest to each anchor point.

    So that targets take up to ten points and quarrel about some, as they do in training.
    """
    shape = (len(targets), 5 + NUM_CLASSES)
    sides = [input_size // stride for stride in STRIDES]
    empty = [torch.empty(*shape, side, side) for side in sides]
    points = anchor_points(empty)
    distance = (points.centres - targets[:, :, None, 1:3]).abs().amax(dim=-1)  # (B, M, A)
    distance = distance.masked_fill(~targets.any(dim=-1, keepdim=True), math.inf)
    nearest = targets.take_along_dim(distance.argmin(dim=1)[..., None], dim=1)  # (B, A, 5)

    centre = nearest[..., 1:3] / points.strides - points.cells
    size = (nearest[..., 3:] / points.strides).log()
    one_hot = nearest[..., :1] == torch.arange(NUM_CLASSES)
    objectness = torch.zeros_like(size[..., :1])
    flat = torch.cat((centre, size, objectness, 4.0 * one_hot - 2), dim=-1)
    flat = flat + 0.5 * torch.randn(flat.shape, generator=generator)
    levels = flat.transpose(1, 2).split_with_sizes([side * side for side in sides], dim=2)
    # The trainer's memory format.
    return [
        level.reshape(*shape, side, side).contiguous(memory_format=torch.channels_last)
        for level, side in zip(levels, sides, strict=True)
    ]


def identical_images(raw: Sequence[Tensor], targets: Tensor) -> int:
    """How many images get the same points for the same targets from both."""
    flat, points = flatten_levels(raw), anchor_points(raw)
    boxes = decode_boxes(flat[..., :4], points)
    ours = simota_assign(boxes, flat[..., 4], flat[..., 5:], points, targets, OFFICIAL_RULE)
    loop = loop_assign(flat, points, targets)
    return sum(_is_identical(ours, image, match) for image, match in enumerate(loop))


def _is_identical(ours: Assignment, image: int, match: ImageMatch) -> bool:
    foreground = ours.foreground[image].nonzero()[:, 0]
    if not foreground.equal(match.points):
        return False
    return ours.target_index[image, foreground].equal(match.target_index)


def measure(loss: Loss, raw: Sequence[Tensor], targets: Tensor, repeats: int) -> dict[str, Any]:
    """Milliseconds of a forward and backward pass, its operations and its waits."""
    raw = [output.detach().requires_grad_() for output in raw]
    device = targets.device

    def call() -> None:
        torch.autograd.grad(loss(raw, targets)["total"], raw)

    counts = _gpu_counts(call) if device.type == "cuda" else _cpu_counts(call)
    return {"milliseconds": round(1000 * median_s(call, device, repeats), 2), **counts}


def _gpu_counts(call: Callable[[], None]) -> dict[str, int]:
    call()  # what is set up at the first call is not counted
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
    counts = {event.key: event.count for event in profiler.key_averages()}
    launches = ("cudaLaunchKernel", "cuLaunchKernel")
    return {
        "kernel_launches": sum(n for name, n in counts.items() if name.startswith(launches)),
        # Copies to the host end in one too.
        "host_syncs": counts.get("cudaStreamSynchronize", 0),
    }


def _cpu_counts(call: Callable[[], None]) -> dict[str, int]:
    """Operations that torch is asked for, and those among them that would wait for a GPU."""
    # Targets on a GPU are not checked; on a CPU it costs nothing to.
    with patch("yolox_core.losses.check_targets"), _OpCounter() as counter:
        call()
    return {"aten_ops": counter.ops.total(), "host_syncs": counter.waits}


class _OpCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations below autograd, so that the backward pass counts too."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.ops[name] += 1
        self.waits += name.startswith(_WAITING_OPS) or _is_masked_index(name, args)
        return func(*args, **(kwargs or {}))


def _is_masked_index(name: str, args: Sequence[Any]) -> bool:
    """Whether values are picked by a mask, whose true entries have to be counted."""
    if not name.startswith(("index", "index_put")) or not isinstance(args[1], list | tuple):
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def time_step(
    preset: str, batch_size: int, input_size: int, device: torch.device, repeats: int
) -> dict[str, Any]:
    """A whole training step of ours, and the share of the loss in it."""
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    model = build_model(preset, NUM_CLASSES).to(device).to(memory_format=torch.channels_last)
    optimizer, ema, loss = build_optimizer(model, lr=1e-4), ModelEMA(model), YOLOXLoss(NUM_CLASSES)
    targets = random_targets(batch_size, input_size, torch.Generator().manual_seed(0)).to(device)
    images = torch.rand(batch_size, 3, input_size, input_size, device=device) * 255
    images = images.contiguous(memory_format=torch.channels_last)

    def forward() -> list[Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            outputs: list[Tensor] = model(images)
        return outputs

    def step() -> None:
        optimizer.zero_grad()
        loss(forward(), targets)["total"].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ema.update(model)

    raw = [output.detach() for output in forward()]
    step_ms = 1000 * median_s(step, device, repeats)
    loss_ms = measure(loss, raw, targets, repeats)["milliseconds"]
    return {
        "preset": preset,
        "batch_size": batch_size,
        "input_size": input_size,
        "dtype": "bfloat16" if on_gpu else "float32",
        "milliseconds": round(step_ms, 2),
        "loss_milliseconds": loss_ms,
        "loss_share": round(loss_ms / step_ms, 4),
    }


if __name__ == "__main__":
    main()
