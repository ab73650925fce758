"""What each training worker runs: epochs, validation, and, on the first one, everything written."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device

from pipelines import cluster
from pipelines.detectors import DetectorSettings, parse_checkpoint
from pipelines.errors import InputError, RunStoppedError
from pipelines.evaluation import Judgement, report_of
from pipelines.storage import Folder
from pipelines.training import process_group
from pipelines.training.config import TrainingConfig, settings_json
from pipelines.training.data import MAX_PIXELS, TrainingData
from pipelines.training.faults import output_errors_sorted
from pipelines.training.loader import BatchLoader, epoch_rows, steps_per_epoch
from pipelines.training.log import CONFUSION, VALIDATION_CURVES, TrainingLog
from pipelines.training.metrics import EpochRow, WorkerReport
from pipelines.training.photo_cache import open_photo_cache
from pipelines.training.state import StateStore
from pipelines.training.trainer import Trainer
from pipelines.training.validation import validate
from yolox_core import (
    YOLOX,
    Convention,
    build_model,
    estimate_statistics,
    is_folded,
    to_model_input,
)

LAST = "last.pth"
BEST = "best.pth"
"""Averaged weights after the last epoch done, and after the one with the highest AP."""

LINES = "lines"
"""Key of a report: what the driver is to print."""
ROW = "row"
"""Key of a report: the EpochRow of an epoch that is done."""

VALIDATION_BATCH_SIZE = 16
SCORE_THRESHOLD = 0.01
NMS_THRESHOLD = 0.65
"""Those of the official evaluation."""
STATISTICS_IMAGES = 128
"""Images from which the statistics of a folded BatchNorm are estimated."""
STEPS_BETWEEN_PREEMPTION_CHECKS = 10
"""Each costs the workers a call to each other; notices come half a minute or more ahead."""

_CLASS_LAYERS = "head.cls_preds."

# Ray 2.56 does not tell of preemption yet.
_preemption_info = getattr(ray.train, "get_preemption_info", lambda: None)


def train_worker(loop_config: dict[str, Any]) -> None:
    """What each worker runs."""
    weights = ray.get(loop_config["weights"])
    _Worker(loop_config["config"], loop_config["data"], weights).run()


class _Worker:
    """One worker of the group: its trainer, what feeds it, and where the first one writes."""

    def __init__(self, config: TrainingConfig, data: TrainingData, weights: bytes | None) -> None:
        self._config = config
        self._data = data
        self._threads = _threads(ray.train.get_context().get_local_world_size())
        torch.set_num_threads(self._threads)
        torch.manual_seed(config.seed)
        device = get_device()
        model, preprocessing, notes = start_model(config, weights, data.class_names)
        self._photos = open_photo_cache(config.cache_dir, config.max_disk_bytes)
        self._loader = BatchLoader(
            data.train,
            config.canvas_size,
            preprocessing,
            max_cache_bytes=config.max_cache_bytes,
            threads=self._threads,
            fetch=self._photos.fetch,
            for_gpu=device.type == "cuda",
        )
        self._output = Folder(config.output)
        self._states = StateStore(self._output)
        with output_errors_sorted(self._output):
            self._log = TrainingLog(self._output, config.epochs)
            state, notes_on_states = self._states.newest()
        if state is None and is_folded(model):
            notes += [self._estimate_statistics(model, preprocessing)]
        steps = steps_per_epoch(len(data.train), config.batch_size)
        self._trainer = Trainer(config, model, preprocessing, steps, device)
        if state is not None:
            self._trainer.load_state_dict(state["trainer"])
        position = self._trainer.epochs_done, self._trainer.steps_done
        refuse_other_positions(position, self._output)
        if state is not None:
            notes = [
                f"going on after {self._trainer.epochs_done} epochs"
                f" and {self._trainer.steps_done} steps"
            ]
        self._is_saved_for_preemption = False
        self._tell([*notes_on_states, *notes])

    def run(self) -> None:
        """Train the epochs that are left."""
        while self._trainer.epochs_done < self._config.epochs:
            ray.train.report(self._run_epoch())

    def _run_epoch(self) -> dict[str, Any]:
        """Train one epoch, and write down everything about it; the report of it."""
        before = dict(self._loader.stage_seconds)
        rows = epoch_rows(
            len(self._data.train),
            self._config.batch_size // process_group.world_size(),
            seed=self._config.seed,
            epoch=self._trainer.epochs_done,
            rank=process_group.rank(),
            world_size=process_group.world_size(),
        )
        batches = self._loader.iterate(rows[self._trainer.first_step_to_load :])
        result = self._trainer.run_epoch(batches, self._save_if_preempted)
        started = time.perf_counter()
        weights = self._trainer.checkpoint(self._data.class_names)
        judgement = self._validate(weights) if self._config.is_validated(result.epoch) else None
        stages = {name: s - before[name] for name, s in self._loader.stage_seconds.items()}
        report = WorkerReport.of(
            result,
            stages,
            self._loader.broken,
            judgement.evaluation if judgement else None,
            time.perf_counter() - started,
            self._photos.take_notes(),
        )
        reports = process_group.gathered(report)
        if process_group.rank() != 0:
            return {LINES: []}
        if judgement and result.epoch == self._config.epochs:
            self._draw(judgement)
        return {LINES: self._write(reports, weights), ROW: EpochRow.from_reports(reports)}

    def _draw(self, judgement: Judgement) -> None:
        """The pictures of the last validation; before the row that makes the run complete."""
        pictures = report_of(judgement)
        with output_errors_sorted(self._output):
            self._output.write(VALIDATION_CURVES, pictures.curves)
            self._output.write(CONFUSION, pictures.confusion)

    def _write(self, reports: Sequence[WorkerReport], weights: bytes) -> list[str]:
        """Write the state last: where there is one, all that came before it is there."""
        with output_errors_sorted(self._output):
            self._output.write(LAST, weights)
            if reports[0].evaluation and self._log.is_best(reports[0]):
                self._output.write(BEST, weights)
            lines = self._log.add(reports)
        return lines + self._save_state()

    def _save_state(self) -> list[str]:
        """Write what a resume needs; what is to be told of it."""
        state = {
            "trainer": self._trainer.state_dict(),
            "settings": settings_json(
                self._config, self._data, process_group.world_size()
            ).decode(),
        }
        with output_errors_sorted(self._output):
            return self._states.save(state, self._trainer.epochs_done, self._trainer.steps_done)

    def _save_if_preempted(self) -> None:
        """Save the state in the middle of an epoch once a node is announced to go away."""
        if self._is_saved_for_preemption:
            return
        if self._trainer.steps_done % STEPS_BETWEEN_PREEMPTION_CHECKS:
            return
        if _preemption_info() is not None:
            self._is_saved_for_preemption = True
            notes = self._save_state() if process_group.rank() == 0 else []
            self._tell(
                [
                    f"a node will be taken away: state saved after {self._trainer.epochs_done} "
                    f"epochs and {self._trainer.steps_done} steps",
                    *notes,
                ]
            )

    def _validate(self, weights: bytes) -> Judgement:
        """Measure the averaged weights."""
        settings = DetectorSettings(
            input_size=self._config.canvas_size,
            score_threshold=SCORE_THRESHOLD,
            nms_threshold=NMS_THRESHOLD,
            max_pixels=MAX_PIXELS,
            batch_size=VALIDATION_BATCH_SIZE,
            threads=self._threads,
            device=get_device().type,
        )
        return validate(weights, self._data.val, settings, self._photos.fetch)

    def _estimate_statistics(self, model: YOLOX, preprocessing: Convention) -> str:
        """Give a folded BatchNorm its statistics back, from the same images on all workers."""
        num_images = len(self._data.train)
        rows = np.unique(np.linspace(0, num_images - 1, STATISTICS_IMAGES).astype(int))
        batches = self._loader.iterate(np.resize(rows, (-(-len(rows) // 16), 16)))
        estimate_statistics(model, (to_model_input(b.canvases, preprocessing) for b in batches))
        return (
            "the initial weights have their BatchNorm folded into the convolutions: its "
            f"statistics were estimated on {len(rows)} images of the training table"
        )

    def _tell(self, lines: Sequence[str]) -> None:
        """Send lines to the driver; all workers must call this together."""
        ray.train.report({LINES: list(lines)})


def refuse_other_positions(position: tuple[int, int], output: Folder) -> None:
    """Raises RunStoppedError where the workers have read different states, or some none.

    Args:
        position: (epochs, steps) of the state that this worker has read.
    """
    positions = sorted(set(process_group.gathered(position)))
    if len(positions) > 1:
        raise RunStoppedError(
            f"the workers find states of {positions} (epochs, steps) in output={output.uri!r}: it "
            "must be s3:// or a folder that all machines share"
        )


def _threads(local_world_size: int) -> int:
    """This worker's share of the cores that Ray has on this machine."""
    _, node = cluster.this_node()
    # A local Ray has more CPUs than there are cores, see cluster.connect().
    cores = min(cluster.usable_cores(), int(node.cpus))
    return max(1, cores // local_world_size)


def start_model(
    config: TrainingConfig, weights: bytes | None, class_names: Sequence[str]
) -> tuple[YOLOX, Convention, list[str]]:
    """The model before its first step, its preprocessing, and what is to be told of it.

    Of initial weights for other classes all is taken but the layers that tell classes apart.

    Args:
        weights: the bytes of config.initial_weights.

    Raises:
        InputError: the initial weights are no checkpoint, or of another preset.
    """
    if weights is None or config.initial_weights is None:
        return build_model(config.preset, len(class_names)), "official", []
    initial = parse_checkpoint(weights, config.initial_weights)
    if initial.preset != config.preset:
        raise InputError(
            f"{config.initial_weights} is a YOLOX-{initial.preset}: give --preset {initial.preset} "
            f"or weights of a YOLOX-{config.preset}"
        )
    model = build_model(config.preset, len(class_names), initial.model.config.activation)
    values = initial.model.state_dict()
    notes: list[str] = []
    if initial.class_names != tuple(class_names):
        values = {key: value for key, value in values.items() if _CLASS_LAYERS not in key}
        notes = [
            f"{config.initial_weights} knows {len(initial.class_names)} other classes: the layers "
            f"that tell classes apart start anew for {', '.join(class_names)}"
        ]
    model.load_state_dict(values, strict=False)
    return model, initial.preprocessing, notes
