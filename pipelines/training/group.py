"""The worker group on Ray Train: started, started again, and heard by the driver.

driver ──► controller ──► workers
  ▲            │ reports of the first worker
  └── queue ◄──┘
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from pipelines import storage
from pipelines.storage import Folder
from pipelines.training.config import TrainingConfig
from pipelines.training.data import TrainingData
from pipelines.training.faults import FOR_GOOD, ours_in
from pipelines.training.worker import train_worker

MAX_FAILURES = 3
"""Times that a worker group is started again; what may pass does not always."""

TICK_S = 1.0

_KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(4 * 1024**3),
}
"""glibc keeps big blocks for the next step instead of giving them back to the system."""


@dataclass(frozen=True)
class Attempt:
    """One start of a training."""

    config: TrainingConfig
    data: TrainingData
    weights: bytes | None
    """Those of config.initial_weights."""
    output: Folder
    num_workers: int
    use_gpu: bool


def train_group(attempt: Attempt) -> Iterator[dict[str, Any]]:
    """Start the workers; what the first one reports, and `{}` after each second without a word.

    Training goes on in a thread of its own, so that this one can be interrupted.

    Raises:
        InputError, TrainingDivergedError, RunStoppedError: what a worker has raised.
    """
    reports = Queue()
    ended = _begin(_trainer(attempt, reports), reports)
    while True:
        try:
            report = reports.get(timeout=TICK_S)
        except Empty:
            report = {}
        if report is None:
            break
        yield report
    try:
        ended.result()
    except ray.train.TrainingFailedError as error:
        raise ours_in(error) from error


def _begin(trainer: TorchTrainer, reports: Queue) -> "Future[None]":
    """Train in a thread of its own; None is the last report."""
    ended: Future[None] = Future()

    def train() -> None:
        try:
            trainer.fit()
            ended.set_result(None)
        except BaseException as error:
            ended.set_exception(error)
        reports.put(None)

    threading.Thread(target=train, name="training", daemon=True).start()
    return ended


def _trainer(attempt: Attempt, reports: Queue) -> TorchTrainer:
    # Workers stay in the driver's folder, which relative paths of images mean.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    # By a reference: Ray keeps the weights once, for workers that are started, and started again.
    weights = ray.put(attempt.weights)
    output = attempt.output
    return TorchTrainer(
        train_worker,
        train_loop_config={"config": attempt.config, "data": attempt.data, "weights": weights},
        scaling_config=ray.train.ScalingConfig(
            num_workers=attempt.num_workers,
            use_gpu=attempt.use_gpu,
            # Workers on CPUs share nothing but gradients, and may be on different machines.
            placement_strategy="PACK" if attempt.use_gpu else "SPREAD",
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy sees Tune's RunConfig
            name="ray",
            storage_path=output.uri.removeprefix(storage.S3_SCHEME),
            storage_filesystem=output.arrow_filesystem(),
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env={"env_vars": _KEEP_MEMORY},
            callbacks=[_Listener(reports)],  # type: ignore[list-item]
        ),
    )


class _Listener(ray.train.UserCallback):
    """What Ray Train's controller does when it hears of the workers."""

    def __init__(self, reports: Queue) -> None:
        self._reports = reports

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Send what the first worker reports to the driver."""
        self._reports.put(metrics[0])

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise what would come back: for an error of its own, the controller starts no worker."""
        for error in worker_exceptions.values():
            if isinstance(error, FOR_GOOD):
                raise error
