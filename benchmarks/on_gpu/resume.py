"""A training that is stopped half-way and resumed, beside an unbroken one.

Kernels that add up in any order make two equal trainings differ; how far apart they are is what
the resumed one has to be held against.
"""

import os
import time
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.on_gpu.sizes import Result, Sizes
from benchmarks.on_gpu.trainers import new_trainer, short_recipe, some_batches
from pipelines.storage import Folder
from pipelines.training import Batch, Recipe, StateStore, Trainer


def measure(sizes: Sizes) -> Iterator[Result]:
    """With kernels as torch chooses them, and then with those that it calls deterministic."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which deterministic products need
    preset, side, _ = sizes.training
    recipe = short_recipe(preset, side, sizes.resumed_batch_size)
    device = sizes.torch_device
    batches = some_batches(recipe, recipe.batch_size, sizes.resumed_steps, device)
    yield {"deterministic": False, **compare(recipe, batches, device)}
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield {"deterministic": True, **compare(recipe, batches, device)}
    finally:
        torch.use_deterministic_algorithms(False)


def compare(recipe: Recipe, batches: Sequence[Batch], device: torch.device) -> Result:
    """An unbroken training beside the same again, and beside one resumed from its state."""
    started = time.perf_counter()
    with TemporaryDirectory() as name:
        states = StateStore(Folder(name))
        unbroken = new_trainer(recipe, len(batches), device)

        def save_half_way() -> None:
            if unbroken.steps_done == len(batches) // 2:
                states.save(unbroken.state_dict(), unbroken.epochs_done, unbroken.steps_done)

        unbroken.run_epoch(batches, save_half_way)
        seconds = time.perf_counter() - started
        again = new_trainer(recipe, len(batches), device)
        again.run_epoch(batches)
        resumed = new_trainer(recipe, len(batches), device)
        state, _ = states.newest()
    assert state is not None
    resumed.load_state_dict(state)
    resumed.run_epoch(batches[resumed.first_step_to_load :])
    return {
        "seconds": round(seconds, 2),
        "again": apart(unbroken, again),
        "resumed": apart(unbroken, resumed),
    }


def apart(one: Trainer, other: Trainer) -> Result:
    """How far the weights of two trainings are from each other."""
    pairs = list(zip(_weights(one), _weights(other), strict=True))
    return {
        "bit_for_bit": all(a.equal(b) for a, b in pairs),
        "largest_difference": max(float((a - b).abs().max()) for a, b in pairs),
        "relative_difference": _norm([a - b for a, b in pairs]) / _norm([a for a, _ in pairs]),
    }


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.nn.utils.get_total_norm(tensors))


def _weights(trainer: Trainer) -> list[Tensor]:
    """Of the model and of its average, BatchNorm's statistics included."""
    states = (trainer.model.state_dict(), trainer.ema.model.state_dict())
    return [value.double() for state in states for value in state.values()]
