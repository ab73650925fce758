"""train_detector(): from training tables to a checkpoint, on Ray Train.

    TorchTrainer ──► workers: batches ──► Trainer, epoch by epoch ──► report ──► driver: log

A worker group that dies is started again at the last whole epoch, and so is a run whose driver was
killed, by the same command.
"""

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from pipelines import cluster, storage
from pipelines.detector import DetectorSettings
from pipelines.errors import InputError
from pipelines.evaluation import Evaluation
from pipelines.storage import Folder
from pipelines.trainer import Recipe, Trainer, validate
from pipelines.training_data import (
    MAX_PIXELS,
    BatchLoader,
    TrainingData,
    epoch_rows,
    read_training_data,
    steps_per_epoch,
)
from pipelines.training_log import EpochRow, TrainingLog, WorkerReport
from pipelines.weights import read_checkpoint
from yolox_core import YOLOX, Convention, build_model

CHECKPOINT = "model.pth"
SETTINGS = "training.json"
VALIDATION_BATCH_SIZE = 16
SCORE_THRESHOLD = 0.01
NMS_THRESHOLD = 0.65
"""Those of the official evaluation."""
MAX_FAILURES = 3
"""Times that a worker group is started again; a fault of the data would come back for ever."""

_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(4 * 1024**3),
}
"""glibc keeps big blocks for the next step instead of giving them back to the system."""

_STATE = "state.pt"
_REPORT = "report"
_CLASS_LAYERS = "head.cls_preds."


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Recipe):
    """Everything that one training run depends on."""

    train: str
    """The training table (Parquet) to learn from: a local path or an s3:// URI."""
    val: str
    """The training table to validate on, with the same class names."""
    output: str
    """A local folder for the checkpoint model.pth, metrics.csv and what a resume needs."""
    initial_weights: str | None = None
    """A checkpoint to fine-tune: ours, official YOLOX or the seed's. Without it: from scratch."""
    num_workers: int | None = None
    """Processes that train side by side. Without it: one per GPU, or one on CPUs."""
    max_cache_bytes: int = 4 * 1024**3
    """Decoded images that each worker keeps in memory; further ones are decoded in every epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"num_workers={self.num_workers}: must be at least 1")
        if self.max_cache_bytes < 0:
            raise ValueError(f"max_cache_bytes={self.max_cache_bytes}: must not be negative")
        if storage.is_s3(self.output):
            raise ValueError(f"output={self.output!r}: must be a local folder")


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run has."""

    checkpoint: str
    """Path of the averaged weights, for `jobs.label`."""
    last: EpochRow


def train_detector(config: TrainingConfig) -> TrainingSummary:
    """Train, or go on with training, until all epochs are done.

    Raises:
        InputError: something that was given cannot be used; nothing has been started.
    """
    data = read_training_data(config.train, config.val)
    start_model(config, data.class_names)  # so that weights of another kind are refused here
    output = Folder(config.output)
    _refuse_other_settings(output, config)
    log = TrainingLog(output, config.epochs)
    if not log.is_complete:
        cluster.connect()
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        scaling = _scaling(config.num_workers, len(data.train), config.batch_size)
        output.write(SETTINGS, _to_json(config))
        _fit(config, data, scaling, output, log)
    return TrainingSummary(output.uri_of(CHECKPOINT), log.last)


def _refuse_other_settings(output: Folder, config: TrainingConfig) -> None:
    """Raises InputError where the output was begun with another config."""
    if not output.exists(SETTINGS):
        return
    before, now = json.loads(output.read(SETTINGS)), json.loads(_to_json(config))
    differing = [name for name in now if now[name] != before.get(name)]
    if differing:
        changes = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in differing)
        raise InputError(
            f"output={output.uri!r} holds a run with other settings ({changes}): give another "
            "folder, or the old settings to go on with that run"
        )


def _to_json(config: TrainingConfig) -> bytes:
    return json.dumps(asdict(config), indent=2).encode()


def _scaling(num_workers: int | None, num_images: int, batch_size: int) -> ray.train.ScalingConfig:
    """Raises InputError for workers that Ray would wait for for ever, or with nothing to do."""
    cpus, gpus = cluster.resources()
    num_workers = num_workers or max(1, int(gpus))
    available, kind = (int(gpus), "GPUs") if gpus >= 1 else (cpus, "CPUs")
    if num_workers > available:
        raise InputError(
            f"num_workers={num_workers}: Ray has {available} {kind}, and each worker needs one"
        )
    if batch_size % num_workers:
        raise InputError(
            f"batch_size={batch_size} cannot be shared among num_workers={num_workers}: "
            f"give a multiple, for example {num_workers * (batch_size // num_workers + 1)}"
        )
    if num_workers > num_images:
        raise InputError(f"num_workers={num_workers} for {num_images} images: give fewer workers")
    # Workers on CPUs share nothing but gradients, and so may as well be on different machines.
    return ray.train.ScalingConfig(
        num_workers=num_workers,
        use_gpu=gpus >= 1,
        placement_strategy="PACK" if gpus >= 1 else "SPREAD",
    )


def _fit(
    config: TrainingConfig,
    data: TrainingData,
    scaling: ray.train.ScalingConfig,
    output: Folder,
    log: TrainingLog,
) -> None:
    # Workers stay in the driver's folder, which relative paths of images mean.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    reports = Queue()
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"config": config, "data": data},
        scaling_config=scaling,
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees Tune's RunConfig
            name="ray",
            storage_path=output.uri,
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            worker_runtime_env={"env_vars": _KEEP_MEMORY},
            callbacks=[_SendReports(reports)],  # type: ignore[list-item]
        ),
    )
    # Ray handles Ctrl-C during fit(), and does so in the main thread only.
    with ThreadPoolExecutor(1) as pool:
        logging_ = pool.submit(_write_log, log, reports)
        try:
            trainer.fit()
        finally:
            reports.put(None)
        logging_.result()


class _SendReports(ray.train.UserCallback):
    """Sends what the workers report to the driver; it runs in Ray Train's controller."""

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        self._reports.put([of_worker[_REPORT] for of_worker in metrics])


def _write_log(log: TrainingLog, reports: Queue) -> None:
    for of_workers in iter(reports.get, None):
        log.add(of_workers)


def _train_worker(loop_config: dict[str, Any]) -> None:
    """What each worker runs."""
    config: TrainingConfig = loop_config["config"]
    data: TrainingData = loop_config["data"]
    context = ray.train.get_context()
    world_size = context.get_world_size()
    threads = _threads(context.get_local_world_size())
    torch.set_num_threads(threads)
    trainer, loader = _prepare(config, data, threads)
    while trainer.next_epoch < config.epochs:
        rows = epoch_rows(
            len(data.train),
            config.batch_size // world_size,
            seed=config.seed,
            epoch=trainer.next_epoch,
            rank=context.get_world_rank(),
            world_size=world_size,
        )
        result = trainer.run_epoch(loader.iterate(rows))
        evaluation = None
        if config.is_validated(result.epoch):
            evaluation = _validate(trainer, config, data, threads)
        _report(trainer, WorkerReport.of(result, loader.broken, evaluation))


def _validate(
    trainer: Trainer, config: TrainingConfig, data: TrainingData, threads: int
) -> Evaluation:
    """Measure the averaged weights, and leave them in the output."""
    weights = trainer.checkpoint(data.class_names)
    if _is_first_worker():
        Folder(config.output).write(CHECKPOINT, weights)
    settings = DetectorSettings(
        input_size=config.canvas_size,
        score_threshold=SCORE_THRESHOLD,
        nms_threshold=NMS_THRESHOLD,
        max_pixels=MAX_PIXELS,
        batch_size=VALIDATION_BATCH_SIZE,
        threads=threads,
        device=ray.train.torch.get_device().type,
    )
    return validate(weights, data.val, settings)


def _report(trainer: Trainer, report: WorkerReport) -> None:
    """Tell the driver of an epoch, and let Ray keep what a restart needs."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if _is_first_worker():
            torch.save(trainer.state_dict(), Path(folder, _STATE))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({_REPORT: report}, checkpoint=checkpoint)


def _is_first_worker() -> bool:
    return bool(ray.train.get_context().get_world_rank() == 0)


def _threads(local_world_size: int) -> int:
    """This worker's share of the cores that Ray has on this machine."""
    node_id = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    node = next(node for node in nodes if node["NodeID"] == node_id)
    # A local Ray has more CPUs than there are cores, see cluster.connect().
    cores = min(os.cpu_count() or 1, int(node["Resources"]["CPU"]))
    return max(1, cores // local_world_size)


def _prepare(
    config: TrainingConfig, data: TrainingData, threads: int
) -> tuple[Trainer, BatchLoader]:
    """A trainer where the last attempt left it, or at the start, and what feeds it."""
    torch.manual_seed(config.seed)
    model, preprocessing = start_model(config, data.class_names)
    steps = steps_per_epoch(len(data.train), config.batch_size)
    trainer = Trainer(config, model, preprocessing, steps, ray.train.torch.get_device())
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            trainer.load_state_dict(_read_state(Path(folder, _STATE)))
    loader = BatchLoader(
        data.train,
        config.canvas_size,
        preprocessing,
        max_cache_bytes=config.max_cache_bytes,
        threads=threads,
    )
    return trainer, loader


def _read_state(path: Path) -> dict[str, Any]:
    # To the CPU first: the file names the GPU of the worker that wrote it, which is not each one's.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def start_model(config: TrainingConfig, class_names: Sequence[str]) -> tuple[YOLOX, Convention]:
    """The model before its first step, and the preprocessing it is to be trained with.

    Of initial weights for other classes all is taken but the layers that tell classes apart.

    Raises:
        InputError: the initial weights cannot be read, or are of another preset.
    """
    if config.initial_weights is None:
        return build_model(config.preset, len(class_names)), "official"
    initial, _ = read_checkpoint(config.initial_weights)
    if initial.preset != config.preset:
        raise InputError(
            f"{config.initial_weights} is a YOLOX-{initial.preset}: give --preset {initial.preset} "
            f"or weights of a YOLOX-{config.preset}"
        )
    model = build_model(config.preset, len(class_names), initial.model.config.activation)
    weights = initial.model.state_dict()
    if initial.class_names != tuple(class_names):
        weights = {key: value for key, value in weights.items() if _CLASS_LAYERS not in key}
    model.load_state_dict(weights, strict=False)
    return model, initial.preprocessing
