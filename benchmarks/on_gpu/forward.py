"""The bare forward pass, from canvases that are on the device to raw outputs.

In bfloat16 on a GPU and in float32 on a CPU, BatchNorm folded, channels_last.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import median_s
from benchmarks.on_gpu.sizes import Mode, Result, Sizes
from yolox_core import YOLOX, build_model, fuse_conv_bn, to_model_input

Run = Callable[[], object]


def measure(sizes: Sizes) -> Iterator[Result]:
    """Images a second, and the share of what a product of matrices reaches on the same device."""
    device = sizes.torch_device
    best = matrix_flops_per_second(sizes.matrix_side, device, sizes.repeats)
    yield {"matrix_product_tflops": round(best / 1e12, 3)}
    for mode in sizes.modes:
        for preset, side in sizes.models:
            model = ready_model(build_model(preset), device)
            for batch_size in sizes.batch_sizes:
                canvases = random_canvases(batch_size, side, device)
                pace = images_per_second(model, canvases, mode, sizes)
                yield {
                    "model": f"{preset}@{side}",
                    "mode": mode,
                    "batch_size": batch_size,
                    "images_per_second": round(pace, 1),
                    "share_of_matrix_product": round(pace * flops(model, canvases[:1]) / best, 4),
                }


def images_per_second(model: nn.Module, canvases: Tensor, mode: Mode, sizes: Sizes) -> float:
    """Of several passes in a row, as they come in a run, so that launches overlap with work."""
    run = _launched(model, canvases, mode)
    seconds = median_s(lambda: [run() for _ in range(sizes.passes)], canvases.device, sizes.repeats)
    return sizes.passes * len(canvases) / seconds


def ready_model(model: YOLOX, device: torch.device) -> nn.Module:
    """As the detector runs it."""
    fused = fuse_conv_bn(model).to(device, _dtype(device))
    return fused.to(memory_format=torch.channels_last)


def random_canvases(batch_size: int, side: int, device: torch.device) -> Tensor:
    """(B, side, side, 3) uint8."""
    return torch.randint(256, (batch_size, side, side, 3), dtype=torch.uint8, device=device)


def flops(model: nn.Module, canvases: Tensor) -> int:
    """Operations of convolutions, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter:
        _pass(model, canvases)()
    return int(counter.get_total_flops())


def matrix_flops_per_second(side: int, device: torch.device, repeats: int) -> float:
    """What a product of square matrices reaches, in the type that the model computes in."""
    a = torch.randn(side, side, device=device, dtype=_dtype(device))
    return 2 * side**3 / median_s(lambda: a @ a, device, repeats)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _launched(model: nn.Module, canvases: Tensor, mode: Mode) -> Run:
    if mode == "compiled":
        # One compilation for each batch size, as a run with batches of one size has.
        return _pass(torch.compile(model, dynamic=False), canvases)
    run = _pass(model, canvases)
    return _captured(run) if mode == "graph" else run


def _pass(model: Callable[[Tensor], object], canvases: Tensor) -> Run:
    @torch.inference_mode()
    def run() -> object:
        return model(to_model_input(canvases, "official").to(_dtype(canvases.device)))

    return run


def _captured(run: Run) -> Run:
    """As a CUDA graph; cuDNN chooses its kernels before, on a stream of its own."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
