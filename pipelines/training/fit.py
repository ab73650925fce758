"""The training itself, on Ray Train: workers that are started, and started again.

    TorchTrainer ──► workers: batches ──► Trainer, epoch by epoch ──► the output folder
                                                         └──► lines ──► driver's terminal

The first worker writes everything, the run's state last. A worker group that dies is started again
from the newest state, and so is a run whose driver was killed, by the same command. Ray Train's own
checkpoints are not used: see DECISIONS.md.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from pipelines import cluster, storage
from pipelines.errors import InputError, RunStoppedError, TrainingDivergedError, sentence_in
from pipelines.storage import Folder
from pipelines.training.config import (
    SETTINGS,
    TrainingConfig,
    lasting_settings,
    output_errors_told,
    refuse_other_settings,
    refuse_other_workers,
    settings_json,
)
from pipelines.training.data import TrainingData
from pipelines.training.log import TrainingLog
from pipelines.training.metrics import EpochRow
from pipelines.training.publishing import publish
from pipelines.training.state import StateStore
from pipelines.training.worker import BEST, DIVERGED, LAST, LINES, start_model, train_worker

MAX_FAILURES = 3
"""Times that a worker group is started again; a fault of the data would come back for ever."""

_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(4 * 1024**3),
}
"""glibc keeps big blocks for the next step instead of giving them back to the system."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run has."""

    best_checkpoint: str
    """URI of the averaged weights with the highest AP, for `jobs.label`."""
    last_checkpoint: str
    """URI of the averaged weights after the last epoch."""
    best: EpochRow
    last: EpochRow
    ap_per_class: dict[str, float | None]
    """After the last epoch; None for a class without targets."""
    published: Sequence[str]
    """URIs of the files for others, where they were asked for."""
    trained_epochs: int
    """By this call; 0 where there was nothing left to do."""


def fit_detector(config: TrainingConfig, data: TrainingData, output: Folder) -> TrainingSummary:
    """Find the run that the output holds, or begin one, and train the epochs that are left.

    Raises:
        InputError: the output holds another run, or the initial weights are of another kind.
        TrainingDivergedError: the loss stayed infinite or NaN; the last good state is kept.
        RunStoppedError: training cannot go on now; the same command goes on with the rest.
    """
    start_model(config, data.class_names)  # so that weights of another kind are refused here
    log = _find_run(config, data, output)
    epochs_before = log.epochs_done
    if not log.is_complete:
        _train(config, data, output)
        log = TrainingLog(output, config.epochs)
    return _summary(config, output, log, log.epochs_done - epochs_before)


def _find_run(config: TrainingConfig, data: TrainingData, output: Folder) -> TrainingLog:
    """What the output holds of this run."""
    with output_errors_told(config):
        log = TrainingLog(output, config.epochs)
        state = None if log.is_complete else StateStore(output).newest()[0]
        refuse_other_settings(output, config, data, state["settings"] if state else None)
    return log


def _train(config: TrainingConfig, data: TrainingData, output: Folder) -> None:
    cluster.connect()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    nodes = cluster.nodes()
    gpus = sum(int(node.gpus) for node in nodes)
    use_gpu = gpus > 0 if config.use_gpu is None else config.use_gpu
    num_workers = _num_workers(config, len(data.train), gpus if use_gpu else 1)
    if config.sync_batchnorm and not use_gpu:
        raise InputError("sync_batchnorm=True needs GPUs, and Ray has none: leave it out")
    cluster.wait_for_workers(num_workers, use_gpu, config.wait_timeout)
    with output_errors_told(config):
        refuse_other_workers(output, num_workers)
        output.write(SETTINGS, settings_json(config, data, num_workers))
    _fit(config, data, output, num_workers, use_gpu=use_gpu)


def _summary(
    config: TrainingConfig, output: Folder, log: TrainingLog, trained_epochs: int
) -> TrainingSummary:
    published: list[str] = []
    if config.publish:
        facts = {
            "epoch": log.best.epoch,
            "ap": log.best.ap,
            "ap50": log.best.ap50,
            "training": lasting_settings(config),
        }
        published = publish(output.read(BEST), output.below("published"), facts)
    return TrainingSummary(
        best_checkpoint=output.uri_of(BEST),
        last_checkpoint=output.uri_of(LAST),
        best=log.best,
        last=log.last,
        ap_per_class=log.last_ap_per_class,
        published=published,
        trained_epochs=trained_epochs,
    )


def _num_workers(config: TrainingConfig, num_images: int, by_default: int) -> int:
    """Raises InputError for workers that cannot share the work."""
    num_workers = config.num_workers or max(1, by_default)
    if config.batch_size % num_workers:
        raise InputError(
            f"batch_size={config.batch_size} cannot be shared among num_workers={num_workers}: "
            f"give a multiple, for example {num_workers * (config.batch_size // num_workers + 1)}"
        )
    if num_workers > num_images:
        raise InputError(f"num_workers={num_workers} for {num_images} images: give fewer workers")
    return num_workers


def _fit(
    config: TrainingConfig, data: TrainingData, output: Folder, num_workers: int, *, use_gpu: bool
) -> None:
    # Workers stay in the driver's folder, which relative paths of images mean.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    reports = Queue()
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"config": config, "data": data},
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            # Workers on CPUs share nothing but gradients, and may be on different machines.
            placement_strategy="PACK" if use_gpu else "SPREAD",
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees Tune's RunConfig
            name="ray",
            storage_path=output.uri.removeprefix(storage.S3_SCHEME),
            storage_filesystem=output.arrow_filesystem(),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env={"env_vars": _KEEP_MEMORY},
            callbacks=[_SendReports(reports)],  # type: ignore[list-item]
        ),
    )
    # Ray handles Ctrl-C during fit(), and does so in the main thread only.
    with ThreadPoolExecutor(1) as pool:
        printing = pool.submit(_print_lines, reports)
        try:
            trainer.fit()
        except ray.train.WorkerGroupError as error:
            raise _explained(error) from error
        finally:
            reports.put(None)
        diverged = printing.result()
    if diverged:
        raise TrainingDivergedError(diverged)


def _explained(error: Exception) -> Exception:
    """What to raise for an error of the workers: one of ours becomes one sentence."""
    told = sentence_in(error, RunStoppedError, InputError)
    return RunStoppedError(told) if told else error


class _SendReports(ray.train.UserCallback):
    """Sends what the first worker reports to the driver; it runs in Ray Train's controller."""

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        self._reports.put(metrics[0])


def _print_lines(reports: Queue) -> str | None:
    """Print what the workers tell until they end; why they gave up, if they did."""
    diverged: str | None = None
    for report in iter(reports.get, None):
        for line in report[LINES]:
            print(line, flush=True)
        diverged = report.get(DIVERGED, diverged)
    return diverged
