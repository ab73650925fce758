"""The training itself: the run that the output holds is found, held, and trained to its end.

    held by a lease ──► workers: batches ──► Trainer, epoch by epoch ──► the output folder
                                                             └──► lines ──► driver's terminal

The first worker writes everything, the run's state last. A worker group that dies is started again
from the newest state, and so is a run whose driver was killed, by the same command. Ray Train's own
checkpoints are not used: see DECISIONS.md.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines import cluster, interruption
from pipelines.errors import InputError, RunHeldError
from pipelines.storage import Folder, Lease, holder_of
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
from pipelines.training.gauges import TrainingGauges
from pipelines.training.group import Attempt, train_group
from pipelines.training.log import (
    AP_PER_CLASS,
    CONFUSION,
    CURVES,
    METRICS,
    VALIDATION_CURVES,
    TrainingLog,
)
from pipelines.training.metrics import EpochRow
from pipelines.training.mlflow_run import followed
from pipelines.training.publishing import ONNX, publish, write_onnx
from pipelines.training.state import StateStore
from pipelines.training.worker import BEST, LAST, LINES, ROW, start_model

_FOR_MLFLOW = (METRICS, AP_PER_CLASS, CURVES, VALIDATION_CURVES, CONFUSION, BEST, ONNX)

LEASE = "training"
"""What the lease on an output is called."""


@dataclass(frozen=True)
class TrainingSummary:
    """What a finished run has."""

    best_checkpoint: str
    """URI of the averaged weights with the highest AP, for `jobs.label`."""
    best_onnx: str | None
    """URI of the same as ONNX; None where ONNX Runtime computes something else."""
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


def fit_detector(
    config: TrainingConfig, data: TrainingData, weights: bytes | None, output: Folder
) -> TrainingSummary:
    """Find the run that the output holds, or begin one, and train the epochs that are left.

    Args:
        weights: the bytes of config.initial_weights.

    Raises:
        InputError: the output holds another run, the initial weights are of another kind, or what
            is needed is denied for good.
        RunHeldError: another start trains to the output.
        TrainingDivergedError: the loss stayed infinite or NaN; the last good state is kept.
        RunStoppedError: training cannot go on now; the same command goes on with the rest.
    """
    start_model(config, weights, data.class_names)  # weights of another kind are refused here
    log = _find_run(config, data, output)
    if log.is_complete:
        return _summary(config, output, log, trained_epochs=0)
    _refuse_held(config, output)
    attempt = _planned(config, data, weights, output)
    with _held(config, output) as lease:
        before = _log(config, output)
        gauges = TrainingGauges(output.uri.rpartition("/")[2], before.epochs_done, config.epochs)
        settings = lasting_settings(config)
        with followed(config.mlflow, settings, output, before.rows, _FOR_MLFLOW) as tell_mlflow:
            _train(attempt, lease, gauges, tell_mlflow)
            log = _log(config, output)
            return _summary(config, output, log, log.epochs_done - before.epochs_done)


def _find_run(config: TrainingConfig, data: TrainingData, output: Folder) -> TrainingLog:
    """What the output holds of this run."""
    with output_errors_told(config):
        log = TrainingLog(output, config.epochs)
        state = None if log.is_complete else StateStore(output).newest()[0]
        refuse_other_settings(output, config, data, state["settings"] if state else None)
    return log


def _log(config: TrainingConfig, output: Folder) -> TrainingLog:
    with output_errors_told(config):
        return TrainingLog(output, config.epochs)


def _planned(
    config: TrainingConfig, data: TrainingData, weights: bytes | None, output: Folder
) -> Attempt:
    """Join or start Ray, and wait for room for the workers.

    Raises:
        InputError: they cannot share the work, or Ray can never hold them.
        ClusterTooSmallError: there was no room for config.wait_timeout.
    """
    cluster.connect()
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    gpus = sum(int(node.gpus) for node in cluster.nodes())
    use_gpu = gpus > 0 if config.use_gpu is None else config.use_gpu
    num_workers = _num_workers(config, len(data.train), gpus if use_gpu else 1)
    if config.sync_batchnorm and not use_gpu:
        raise InputError("sync_batchnorm=True needs GPUs, and Ray has none: leave it out")
    cluster.wait_for_workers(num_workers, use_gpu, config.wait_timeout)
    return Attempt(config, data, weights, output, num_workers, use_gpu)


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


def _refuse_held(config: TrainingConfig, output: Folder) -> None:
    """Raises RunHeldError before a wait for room that the other start may have taken."""
    with output_errors_told(config):
        holder = holder_of(output, LEASE)
    if holder:
        with _held(config, output):
            pass  # it was given back, or is of a start that is gone


@contextmanager
def _held(config: TrainingConfig, output: Folder) -> Iterator[Lease]:
    """Nobody else trains to the output meanwhile.

    Raises:
        RunHeldError: somebody does, and is alive.
    """
    with output_errors_told(config):
        try:
            lease = Lease.acquire(output, LEASE)
        except RunHeldError as error:
            raise RunHeldError(
                f"output={config.output!r} is being trained to by "
                f"{holder_of(output, LEASE) or 'another start'}: wait for it, stop it, or give "
                "another --output"
            ) from error
    with lease:
        yield lease


def _train(
    attempt: Attempt,
    lease: Lease,
    gauges: TrainingGauges,
    tell_mlflow: Callable[[EpochRow], None],
) -> None:
    """Train what is left; what the workers tell is printed."""
    config, num_workers = attempt.config, attempt.num_workers
    with output_errors_told(config):
        # Again, now that nobody else can begin a run here.
        refuse_other_settings(attempt.output, config, attempt.data, of_state=None)
        refuse_other_workers(attempt.output, num_workers)
        attempt.output.write(SETTINGS, settings_json(config, attempt.data, num_workers))
    for report in train_group(attempt):
        interruption.check()
        lease.check()
        for line in report.get(LINES, ()):
            print(line, flush=True)
        if ROW in report:
            gauges.add(report[ROW])
            tell_mlflow(report[ROW])
        gauges.tell()


def _summary(
    config: TrainingConfig, output: Folder, log: TrainingLog, trained_epochs: int
) -> TrainingSummary:
    best_onnx = write_onnx(output.read(BEST), output)
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
        best_onnx=best_onnx,
        last_checkpoint=output.uri_of(LAST),
        best=log.best,
        last=log.last,
        ap_per_class=log.last_ap_per_class,
        published=published,
        trained_epochs=trained_epochs,
    )
