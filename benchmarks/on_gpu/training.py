"""The training loop beside its bare steps, what augmentation takes, and waits for the GPU."""

from collections.abc import Iterator

import torch

from benchmarks import bench_train
from benchmarks.machine import median_s
from benchmarks.on_gpu.sizes import Result, Sizes
from benchmarks.on_gpu.trainers import new_trainer, short_recipe, some_batches
from benchmarks.on_gpu.waits import host_waits
from pipelines import cluster
from pipelines.training import Batch, Recipe
from yolox_core import augment_batch, official_augmentation


def measure(sizes: Sizes) -> Iterator[Result]:
    """With the official augmentation, and photos that are decoded or kept in memory."""
    preset, side, batch_size = sizes.training
    device = sizes.torch_device
    recipe = short_recipe(preset, side, batch_size)
    batches = some_batches(recipe, batch_size, 2, device)
    yield {"augmentation_ms": round(1000 * augmentation_s(preset, batches[0], sizes), 2)}
    if sizes.on_gpu:
        trainer = new_trainer(recipe, len(batches), device)
        yield {"host_waits_of_two_steps": host_waits(lambda: trainer.run_epoch(batches))}
    recipe = Recipe(preset=preset, input_size=side, batch_size=batch_size, multiscale=False)
    paces = bench_train.compare(
        recipe, sizes.training_photos, sizes.repeats, cluster.usable_cores(), device
    )
    yield {"model": f"{preset}@{side}", "batch_size": batch_size, **paces}


def augmentation_s(preset: str, batch: Batch, sizes: Sizes) -> float:
    """Median seconds for one batch, with as many images beside it to take partners from."""
    canvases = 2 * [batch.canvases.to(sizes.torch_device)]
    content, targets = batch.content.repeat(2, 1), batch.targets.repeat(2, 1, 1)

    def augment() -> None:
        augment_batch(
            canvases,
            content,
            targets,
            len(batch.uris),
            official_augmentation(preset),
            torch.Generator().manual_seed(0),
            combine=True,
        )

    return median_s(augment, sizes.torch_device, sizes.repeats)
