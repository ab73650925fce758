"""Trainer: one worker's model, optimizer and average through the epochs of a recipe. No Ray."""

import io
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from pipelines.detector import Detector, DetectorSettings
from pipelines.evaluation import Evaluation, evaluate
from pipelines.fetch import fetch_block
from pipelines.parts import detection_rows
from pipelines.training_data import MAX_IMAGE_BYTES, Batch
from yolox_core import (
    YOLOX,
    Convention,
    ModelEMA,
    YOLOXLoss,
    build_optimizer,
    check_input_size,
    horizontal_flip,
    hsv_jitter,
    model_config,
    save_checkpoint,
    to_model_input,
    warmup_cosine,
)

NOMINAL_BATCH_SIZE = 64
"""The batch that `learning_rate` is for."""

_IMAGES_PER_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out, apart from the data. The defaults are official."""

    preset: str = "s"
    """nano, tiny, s, m, l or x."""
    input_size: int | tuple[int, int] = 640
    """Side, or [height, width], of the letterboxed images, in pixels; nano and tiny like 416."""
    epochs: int = 300
    """Times that every image is seen."""
    batch_size: int = 64
    """Images in one step, all workers together."""
    learning_rate: float = 0.01
    """For a batch of 64 images; it is scaled to the batch size."""
    warmup_epochs: int = 5
    """Epochs in which the learning rate rises."""
    no_aug_epochs: int = 15
    """Epochs at the end with a constant learning rate and the L1 loss."""
    rule: Literal["official", "seed"] = "official"
    """Whose label assignment."""
    eval_every: int = 10
    """Epochs between validations; the last epoch has one too."""
    seed: int = 0
    """Of the order of the images, the augmentation and the first weights."""

    def __post_init__(self) -> None:
        model_config(self.preset)
        check_input_size(*self.canvas_size)
        for name in ("epochs", "batch_size", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("warmup_epochs", "no_aug_epochs", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate}: must be a positive number")
        if self.warmup_epochs + self.no_aug_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} and no_aug_epochs={self.no_aug_epochs} are "
                f"more than epochs={self.epochs}: give fewer of them, for example "
                f"--warmup_epochs {self.epochs // 10} --no_aug_epochs {self.epochs // 5}"
            )

    @property
    def canvas_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        size = self.input_size
        return (size, size) if isinstance(size, int) else size

    def uses_l1(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, belongs to the last ones."""
        return epoch >= self.epochs - self.no_aug_epochs

    def is_validated(self, epochs_done: int) -> bool:
        """Whether a validation is due after so many epochs."""
        return epochs_done % self.eval_every == 0 or epochs_done == self.epochs

    def lr_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        return warmup_cosine(
            step,
            base_lr=self.learning_rate * self.batch_size / NOMINAL_BATCH_SIZE,
            steps_per_epoch=steps_per_epoch,
            total_epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            no_aug_epochs=self.no_aug_epochs,
        )


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch did. Losses are means over its steps, on one worker or on all."""

    epoch: int
    """Counted from 1."""
    loss: float
    loss_iou: float
    loss_objectness: float
    loss_class: float
    loss_l1: float
    num_foreground: float
    """Anchor points that were assigned to a target, per step."""
    learning_rate: float
    """Of the last step."""
    images: int
    seconds: float


class Trainer:
    """Holds the model, its average and its optimizer, and moves them through epochs.

    Where torch.distributed is initialised, gradients are averaged over the workers.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: YOLOX,
        preprocessing: Convention,
        steps_per_epoch: int,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.next_epoch = 0
        """Counted from 0."""
        self._preprocessing = preprocessing
        self._device = device
        self._optimizer = build_optimizer(self.model, lr=0.0)
        self._loss = YOLOXLoss(model.config.num_classes, rule=recipe.rule)
        self._parallel: nn.Module = self.model
        if _world_size() > 1:
            self._parallel = nn.parallel.DistributedDataParallel(self.model)
        # After the wrapping, which gives all workers the weights of the first.
        self.ema = ModelEMA(self.model)

    def run_epoch(self, batches: Iterable[Batch]) -> EpochResult:
        """Train on the batches of `next_epoch`.

        Raises:
            RuntimeError: the loss is no longer finite.
        """
        started = time.perf_counter()
        epoch = self.next_epoch
        self._parallel.train()
        generator = _generator(self.recipe.seed, epoch)
        steps = [
            self._step(batch, epoch * self.steps_per_epoch + step, generator)
            for step, batch in enumerate(batches)
        ]
        means = dict(zip(_TERMS.values(), torch.stack(steps).mean(dim=0).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise RuntimeError(
                f"the loss of epoch {epoch + 1} is {means['loss']}: the model diverged; a lower "
                f"learning_rate than {self.recipe.learning_rate} may help"
            )
        self.next_epoch += 1
        return EpochResult(
            epoch=self.next_epoch,
            **means,
            learning_rate=self._optimizer.param_groups[0]["lr"],
            images=len(steps) * self.recipe.batch_size // _world_size(),
            seconds=time.perf_counter() - started,
        )

    def _step(self, batch: Batch, step: int, generator: torch.Generator) -> torch.Tensor:
        """One update of the weights; the loss terms (len(_TERMS),), not waited for."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(step, self.steps_per_epoch)
        canvases = hsv_jitter(batch.canvases.to(self._device), generator)
        targets = batch.targets.to(self._device)
        canvases, targets = horizontal_flip(canvases, targets, generator)
        on_gpu = self._device.type == "cuda"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu):
            raw = self._parallel(to_model_input(canvases, self._preprocessing))
        use_l1 = self.recipe.uses_l1(step // self.steps_per_epoch)
        losses = self._loss(raw, targets, use_l1=use_l1)
        self._optimizer.zero_grad()
        losses["total"].backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.ema.update(self.model)
        return torch.stack([losses[name].detach().float() for name in _TERMS])

    def checkpoint(self, class_names: tuple[str, ...]) -> bytes:
        """The averaged weights as a file that `load_checkpoint` reads."""
        file = io.BytesIO()
        save_checkpoint(
            file,
            self.ema.model,
            class_names=class_names,
            input_size=self.recipe.canvas_size,
            preprocessing=self._preprocessing,
        )
        return file.getvalue()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after the last whole epoch."""
        return {
            "next_epoch": self.next_epoch,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the training where `state_dict` left it."""
        self.next_epoch = state["next_epoch"]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])


_TERMS = {
    "total": "loss",
    "iou": "loss_iou",
    "objectness": "loss_objectness",
    "class": "loss_class",
    "l1": "loss_l1",
    "num_foreground": "num_foreground",
}
"""What YOLOXLoss calls a term, and what EpochResult does."""


def validate(checkpoint: bytes, truth: pa.Table, settings: DetectorSettings) -> Evaluation:
    """COCO AP of a checkpoint, by the code that labels archives; the workers share the images."""
    detector = Detector(_of_first_worker(checkpoint), settings)
    found = [detection_rows(detector(block)) for block in _fetched_blocks(truth)]
    return evaluate(pa.concat_tables(_gathered(found)), truth)


def _fetched_blocks(table: pa.Table) -> Iterator[pa.Table]:
    """This worker's images as schema.FETCHED."""
    mine = np.arange(_rank(), len(table), _world_size())
    for start in range(0, len(mine), _IMAGES_PER_BLOCK):
        uris = table["image_uri"].take(mine[start : start + _IMAGES_PER_BLOCK]).combine_chunks()
        nothing = [None] * len(uris)
        listed = pa.table({"image_uri": uris, "etag": nothing, "size_bytes": nothing})
        yield fetch_block(listed, MAX_IMAGE_BYTES)


def _of_first_worker(data: bytes) -> bytes:
    """BatchNorm's statistics differ between workers; a run's weights are those of the first."""
    if _world_size() == 1:
        return data
    held = [data]
    dist.broadcast_object_list(held)
    return held[0]


def _gathered(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables of all workers, on all workers."""
    if _world_size() == 1:
        return tables
    of_workers: list[list[pa.Table]] = [[]] * _world_size()
    dist.all_gather_object(of_workers, tables)
    return [table for of_one in of_workers for table in of_one]


def _generator(seed: int, epoch: int) -> torch.Generator:
    """For the augmentation; drawn on the CPU, so that a GPU's run sees the same numbers."""
    state = np.random.SeedSequence([seed, epoch, _rank()]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
