"""Worker groups on one device: NCCL's, which takes one worker to a GPU, and two over Gloo."""

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks import bench_loss
from benchmarks.on_gpu.forward import random_canvases
from benchmarks.on_gpu.sizes import Result, Sizes
from benchmarks.on_gpu.trainers import new_trainer, short_recipe, some_batches
from pipelines.training import process_group
from yolox_core import YOLOXLoss, build_model, to_model_input

WORKERS = 2
STEPS = 3


def measure(sizes: Sizes) -> Iterator[Result]:
    """Whether a group computes what a worker alone does, and whether workers stay alike."""
    # Nothing here leaves the machine, whose name need not be known to any network.
    os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    yield group_of_one(sizes)
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS, context) as pool:
        [first, _] = pool.map(work, range(WORKERS), repeat(folder), repeat(sizes))
        yield first


def group_of_one(sizes: Sizes) -> Result:
    """One step's gradients in a group of one, its BatchNorm synchronised on a GPU, and without."""
    device, backend = sizes.torch_device, "nccl" if sizes.on_gpu else "gloo"
    preset, side, _ = sizes.training
    torch.manual_seed(0)
    alone = build_model(preset, bench_loss.NUM_CLASSES).to(device)
    with TemporaryDirectory() as folder, _group(backend, Path(folder), rank=0, world_size=1):
        assert process_group.gathered(process_group.rank()) == [0]
        grouped: nn.Module = build_model(preset, bench_loss.NUM_CLASSES).to(device)
        grouped.load_state_dict(alone.state_dict())
        if sizes.on_gpu:  # torch has no synchronised BatchNorm for CPUs
            grouped = nn.SyncBatchNorm.convert_sync_batchnorm(grouped)  # type: ignore[no-untyped-call]
        wrapped = nn.parallel.DistributedDataParallel(grouped)
        pairs = zip(_gradients(alone, side), _gradients(wrapped, side), strict=True)
        return {
            "backend": backend,
            "workers": process_group.world_size(),
            "synchronised_batchnorm": sizes.on_gpu,
            "largest_difference_of_gradients": max(float((a - b).abs().max()) for a, b in pairs),
        }


def work(rank: int, folder: str, sizes: Sizes) -> Result:
    """What each of the workers that share the device does: some steps of a Trainer."""
    device = sizes.torch_device
    preset, side, _ = sizes.training
    batch_size = sizes.resumed_batch_size
    recipe = short_recipe(preset, side, WORKERS * batch_size, sync_batchnorm=sizes.on_gpu)
    with _group("gloo", Path(folder), rank, WORKERS):
        trainer = new_trainer(recipe, STEPS, device)
        result = trainer.run_epoch(some_batches(recipe, batch_size, STEPS, device, seed=rank))
        losses = process_group.gathered(result.loss)
        weights = process_group.gathered(_digest(trainer.model.parameters()))
        statistics = process_group.gathered(_digest(trainer.model.buffers()))
        return {
            "backend": "gloo",
            "workers": process_group.world_size(),
            "synchronised_batchnorm": recipe.sync_batchnorm,
            "losses": losses,
            "weights_alike": len(set(weights)) == 1,
            "statistics_alike": len(set(statistics)) == 1,
        }


@contextmanager
def _group(backend: str, folder: Path, rank: int, world_size: int) -> Iterator[None]:
    dist.init_process_group(
        backend, init_method=f"file://{folder}/{backend}", rank=rank, world_size=world_size
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _gradients(model: nn.Module, side: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    targets = bench_loss.random_targets(2, side, generator)
    torch.manual_seed(0)
    images = to_model_input(random_canvases(2, side, device), "official")
    losses = YOLOXLoss(bench_loss.NUM_CLASSES)(model(images), targets.to(device))
    # Not autograd.grad(), behind which DistributedDataParallel sums nothing up.
    losses["total"].backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _digest(tensors: Iterable[Tensor]) -> str:
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()
