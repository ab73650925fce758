"""Trainer: one worker's model, optimizer and average through the epochs of a recipe. No Ray.

Every random number is drawn from (seed, epoch, step, rank), so that the position in the data is all
that a resumed run needs to know to draw the same ones.
"""

import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.errors import TrainingDivergedError
from pipelines.training import process_group
from pipelines.training.augmenter import BatchAugmenter
from pipelines.training.loader import Batch
from pipelines.training.metrics import EpochResult
from pipelines.training.recipe import Recipe
from yolox_core import (
    YOLOX,
    Convention,
    ModelEMA,
    YOLOXLoss,
    build_optimizer,
    multiscale_size,
    resize_batch,
    save_checkpoint,
    to_model_input,
)

MAX_SKIPPED_IN_A_ROW = 10
"""Steps without a finite loss and gradient after which a run is given up."""


@dataclass
class _Position:
    """How far the current epoch is."""

    epoch: int = 0
    """Whole epochs done."""
    step: int = 0
    """Steps done of the next one."""
    skipped: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0


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
        self._preprocessing = preprocessing
        self._device = device
        self._precision = precision_of(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision is torch.float16)
        self._loss = YOLOXLoss(model.config.num_classes, rule=recipe.rule)
        self._augmenter = BatchAugmenter(recipe, preprocessing)
        if recipe.sync_batchnorm and process_group.world_size() > 1:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self._optimizer = build_optimizer(
            self.model,
            lr=0.0,
            name=recipe.optimizer,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self._parallel: nn.Module = self.model
        self.ema = ModelEMA(self.model)
        self._statistics = [buffer.clone() for buffer in self._norm_statistics()]
        self._at = _Position()
        self._terms: list[Tensor] = []
        self._skipped_in_a_row = 0

    @property
    def epochs_done(self) -> int:
        return self._at.epoch

    @property
    def steps_done(self) -> int:
        """Of the epoch that is under way."""
        return self._at.step

    @property
    def first_step_to_load(self) -> int:
        """Of the epoch that is under way: its steps from here on fill the reservoir first."""
        return max(0, self._at.step - self._augmenter.reservoir_batches)

    def run_epoch(
        self, batches: Iterable[Batch], after_step: Callable[[], None] = lambda: None
    ) -> EpochResult:
        """Train on one epoch, or on what is left of it.

        Args:
            batches: of the epoch, from `first_step_to_load` on.
            after_step: called after each step, with this trainer's state as the step left it.

        Raises:
            TrainingDivergedError: ten steps in a row had no finite loss and gradient.
        """
        self._begin_epoch()
        step = self.first_step_to_load
        for batch in self._timed(batches):
            if step >= self._at.step:
                started = time.perf_counter()
                self._step(batch)
                self._at.seconds += time.perf_counter() - started
                self._at.step += 1
                after_step()
            self._augmenter.remember(batch)
            step += 1
        return self._end_epoch()

    def _begin_epoch(self) -> None:
        self._augmenter.forget()
        self.model.train()
        self.model.backbone.requires_grad_(not self.recipe.is_frozen(self._at.epoch))
        if process_group.world_size() > 1:
            # Anew in each epoch: it has to know what is frozen, and it sums gradients in another
            # order in its first step than later, which a resumed epoch must do as an unbroken one.
            self._parallel = nn.parallel.DistributedDataParallel(self.model)

    def _end_epoch(self) -> EpochResult:
        at = self._at
        nothing = [math.nan] * len(_TERMS)
        means = torch.stack(self._terms).mean(dim=0).tolist() if self._terms else nothing
        self._at = _Position(epoch=at.epoch + 1)
        self._terms = []
        on_gpu = self._device.type == "cuda"
        return EpochResult(
            epoch=self._at.epoch,
            **dict(zip(_TERMS.values(), means, strict=True)),
            learning_rate=self._optimizer.param_groups[0]["lr"],
            skipped_steps=at.skipped,
            images=self.steps_per_epoch * self.recipe.batch_size // process_group.world_size(),
            seconds=at.seconds + at.wait_seconds,
            wait_seconds=at.wait_seconds,
            gpu_memory_bytes=torch.cuda.max_memory_allocated(self._device) if on_gpu else 0,
        )

    def _timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches on the device; the time until each is there counts as waiting."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self._at.wait_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch.with_canvases_on(self._device)

    def _step(self, batch: Batch) -> None:
        """One update of the weights, or none where the loss or the gradient is not finite."""
        step = self._at.epoch * self.steps_per_epoch + self._at.step
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(step, self.steps_per_epoch)
        images, targets = self._augmented(batch, step)
        torch._foreach_copy_(self._statistics, self._norm_statistics())
        with torch.autocast(
            self._device.type, self._precision, enabled=self._precision is not torch.float32
        ):
            raw = self._parallel(images)
        losses = self._loss(raw, targets, use_l1=self.recipe.is_closing(self._at.epoch))
        self._optimizer.zero_grad()
        # A loss that is not finite makes the gradient NaN, on all workers though it is one's own:
        # float16 that overflows leaves an infinite loss with a finite gradient.
        of_itself = torch.where(losses["total"].isfinite(), 1.0, math.nan)
        self._scaler.scale(losses["total"]).backward(of_itself)  # type: ignore[no-untyped-call]
        if self._update_weights():
            self._terms.append(torch.stack([losses[name].detach().float() for name in _TERMS]))
            return
        # The forward pass may have left NaN in BatchNorm's statistics.
        torch._foreach_copy_(self._norm_statistics(), self._statistics)
        self._count_skipped(batch)

    def _update_weights(self) -> bool:
        """Step along a finite gradient; whether it was one. All workers have the same gradient."""
        self._scaler.unscale_(self._optimizer)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        finite = bool(norm.isfinite())
        if finite:
            if self.recipe.max_grad_norm is not None:
                nn.utils.clip_grads_with_norm_(
                    self.model.parameters(), self.recipe.max_grad_norm, norm
                )
            self._scaler.step(self._optimizer)
            self.ema.update(self.model)
            self._skipped_in_a_row = 0
        self._scaler.update()
        return finite

    def _count_skipped(self, batch: Batch) -> None:
        self._at.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            uris = [uri for of_worker in process_group.gathered(batch.uris) for uri in of_worker]
            raise TrainingDivergedError(
                f"the loss or its gradient was not finite in {MAX_SKIPPED_IN_A_ROW} steps in a row,"
                f" up to step {self._at.step + 1} of epoch {self._at.epoch + 1}: a lower "
                f"learning_rate than {self.recipe.learning_rate} may help; the last batch was "
                f"{', '.join(uris)}"
            )

    def _augmented(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """The model's input (B, 3, H, W) and targets (B, M, 5), both on the device."""
        combine = not self.recipe.is_closing(self._at.epoch)
        canvases, targets = self._augmenter.augmented(batch, step, combine=combine)
        images = to_model_input(canvases, self._preprocessing)
        if self.recipe.multiscale:
            recipe = self.recipe
            size = multiscale_size(recipe.preset, recipe.canvas_size, recipe.seed, step)
            images, targets = resize_batch(images, targets, size)
        return images, targets

    def _norm_statistics(self) -> list[Tensor]:
        """BatchNorm's running means and variances."""
        return [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]

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
        """What `load_state_dict` needs to go on as if never stopped, in tensors and plain values.

        No states of random number generators: they follow from the position.
        """
        return {
            "position": asdict(self._at),
            "terms": self._terms,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the training where `state_dict` left it."""
        self._at = _Position(**state["position"])
        self._terms = [terms.to(self._device) for terms in state["terms"]]
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])


_TERMS = {
    "total": "loss",
    "iou": "loss_iou",
    "objectness": "loss_objectness",
    "class": "loss_class",
    "l1": "loss_l1",
    "num_foreground": "num_foreground",
}
"""What YOLOXLoss calls a term, and what EpochResult does."""


def precision_of(device: torch.device) -> torch.dtype:
    """What convolutions compute in: half the bits where a GPU has them, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    # Older GPUs emulate bfloat16, at a fraction of their float16's speed.
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16
