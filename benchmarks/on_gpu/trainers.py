"""A small training of real batches, for what is compared step by step."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pipelines import cluster
from pipelines.datasets import CLASS_NAMES, generate_archive
from pipelines.training import Batch, BatchLoader, Recipe, Trainer
from yolox_core import build_model

_DIFFERENT_BATCHES = 4


def short_recipe(preset: str, side: int, batch_size: int, sync_batchnorm: bool = False) -> Recipe:
    """Two epochs of mosaics and mixups, from the full learning rate on."""
    return Recipe(
        preset=preset,
        input_size=side,
        batch_size=batch_size,
        epochs=2,
        warmup_epochs=0,
        no_aug_epochs=0,
        sync_batchnorm=sync_batchnorm,
    )


def new_trainer(recipe: Recipe, steps: int, device: torch.device) -> Trainer:
    """With the same first weights at each call."""
    torch.manual_seed(recipe.seed)
    return Trainer(recipe, build_model(recipe.preset, len(CLASS_NAMES)), "official", steps, device)


def some_batches(
    recipe: Recipe, batch_size: int, steps: int, device: torch.device, seed: int = 0
) -> list[Batch]:
    """Of generated photos, ready to be copied to the device; the first few return later."""
    with TemporaryDirectory() as name:
        folder, size = Path(name), _DIFFERENT_BATCHES * batch_size
        table = generate_archive(folder, size, seed, str(folder / "images"))
        loader = BatchLoader(
            table,
            recipe.canvas_size,
            "official",
            max_cache_bytes=2**40,
            threads=cluster.usable_cores(),
            for_gpu=device.type == "cuda",
        )
        return list(loader.iterate(np.resize(np.arange(size), (steps, batch_size))))
