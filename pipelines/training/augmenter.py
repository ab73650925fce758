"""BatchAugmenter: yolox_core's augmentation with partners from earlier batches, by a recipe."""

import math
from collections import deque
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pipelines.training import process_group
from pipelines.training.loader import Batch, joined_labels
from pipelines.training.recipe import Recipe
from yolox_core import PADDING_GREY, Convention, augment_batch

RESERVOIR_IMAGES = 64
"""Earlier images that mosaic and mixup may take partners from, besides those of the batch."""


class BatchAugmenter:
    """Holds the latest batches of an epoch.

    Every random number is drawn from (seed, step, rank): with the same batches before it, a step
    is augmented alike in every run.
    """

    def __init__(self, recipe: Recipe, preprocessing: Convention) -> None:
        self._recipe = recipe
        grey = PADDING_GREY[preprocessing]
        self._augmentation = replace(recipe.augmentation, padding=grey)
        per_worker = recipe.batch_size // process_group.world_size()
        self.reservoir_batches = math.ceil(RESERVOIR_IMAGES / per_worker)
        self._reservoir: deque[Batch] = deque(maxlen=self.reservoir_batches)

    def forget(self) -> None:
        """Empty the reservoir, at the start of an epoch."""
        self._reservoir.clear()

    def remember(self, batch: Batch) -> None:
        """Keep a batch as a source of partners for later ones."""
        self._reservoir.append(batch)

    def augmented(self, batch: Batch, step: int, *, combine: bool) -> tuple[Tensor, Tensor]:
        """Canvases (B, H, W, 3) uint8 and targets (B, M, 5), both on the device of the canvases.

        Args:
            step: counted over all epochs.
            combine: whether mosaic and mixup are on.
        """
        pool = [batch, *self._reservoir] if combine else [batch]
        content, targets = joined_labels(pool)
        return augment_batch(
            [of_pool.canvases for of_pool in pool],
            content,
            targets,
            len(batch.uris),
            self._augmentation,
            _generator(self._recipe.seed, step, process_group.rank()),
            combine=combine,
        )


def _generator(*key: int) -> torch.Generator:
    """Of the CPU, so that a GPU's run sees the same numbers."""
    state = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
