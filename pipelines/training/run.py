"""train_detector(): from training tables to checkpoints.

What was given is looked at first, then the run is trained: `fit` imports torch and Ray.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from pipelines import cluster
from pipelines.storage import Folder
from pipelines.training.config import SETTINGS, TrainingConfig, output_errors_told
from pipelines.training.data import TrainingData, read_training_data, read_weights

if TYPE_CHECKING:
    from pipelines.training.fit import TrainingSummary


def train_detector(config: TrainingConfig) -> "TrainingSummary":
    """Train, or go on with training, until all epochs are done.

    Raises:
        InputError: something that was given cannot be used, and would be refused again.
        TrainingDivergedError: the loss stayed infinite or NaN; the last good state is kept.
        RunStoppedError: training cannot go on now; the same command goes on with the rest.
    """
    data, weights = _look_at_what_was_given(config)
    # Here, since it imports torch and Ray: seconds that a mistake need not wait.
    from pipelines.training.fit import fit_detector

    return fit_detector(config, data, weights, Folder(config.output))


def _look_at_what_was_given(config: TrainingConfig) -> tuple[TrainingData, bytes | None]:
    """The two tables, checked, and the bytes of the initial weights."""
    cluster.refuse_too_many_workers(config.num_workers)
    data = read_training_data(config.train, config.val)
    weights = read_weights(config.initial_weights)
    _look_at_output(config)
    if config.mlflow:
        # Here, for it imports MLflow.
        from pipelines.training.mlflow_run import refuse_unreachable

        refuse_unreachable(config.mlflow)
    return data, weights


def _look_at_output(config: TrainingConfig) -> None:
    """Raises InputError where it cannot be listed or read; Ray Train would do so by a traceback."""
    output = Folder(config.output)
    with output_errors_told(config):
        output.exists(SETTINGS)
        with suppress(FileNotFoundError):
            output.read(SETTINGS)
