"""The training loop beside its bare steps, and how often a step of it waits for the GPU."""

from collections.abc import Iterator

from benchmarks import bench_train
from benchmarks.on_gpu.sizes import Result, Sizes
from benchmarks.on_gpu.trainers import new_trainer, short_recipe, some_batches
from benchmarks.on_gpu.waits import host_waits
from pipelines import cluster
from pipelines.training import Recipe


def measure(sizes: Sizes) -> Iterator[Result]:
    """With the official augmentation, and photos that are decoded or kept in memory."""
    preset, side, batch_size = sizes.training
    device = sizes.torch_device
    if sizes.on_gpu:
        recipe = short_recipe(preset, side, batch_size)
        batches = some_batches(recipe, batch_size, steps=1, device=device)
        trainer = new_trainer(recipe, steps=1, device=device)
        yield {"host_waits_of_a_step": host_waits(lambda: trainer.run_epoch(batches))}
    recipe = Recipe(preset=preset, input_size=side, batch_size=batch_size, multiscale=False)
    paces = bench_train.compare(
        recipe, sizes.training_photos, sizes.repeats, cluster.usable_cores(), device
    )
    yield {"model": f"{preset}@{side}", "batch_size": batch_size, **paces}
