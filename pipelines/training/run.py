"""train_detector(): from training tables to checkpoints.

What was given is looked at first, then the run is trained: `fit` imports torch and Ray.
"""

from typing import TYPE_CHECKING

from pipelines import cluster, storage
from pipelines.storage import Folder
from pipelines.training.config import SETTINGS, TrainingConfig, output_errors_told
from pipelines.training.data import TrainingData, read_training_data

if TYPE_CHECKING:
    from pipelines.training.fit import TrainingSummary


def train_detector(config: TrainingConfig) -> "TrainingSummary":
    """Train, or go on with training, until all epochs are done.

    Raises:
        InputError: something that was given cannot be used; nothing has been started or written.
        TrainingDivergedError: the loss stayed infinite or NaN; the last good state is kept.
        RunStoppedError: training cannot go on now; the same command goes on with the rest.
    """
    data = _look_at_what_was_given(config)
    # Here, since it imports torch and Ray: seconds that a mistake need not wait.
    from pipelines.training.fit import fit_detector

    return fit_detector(config, data, Folder(config.output))


def _look_at_what_was_given(config: TrainingConfig) -> TrainingData:
    """The two tables, checked."""
    cluster.refuse_too_many_workers(config.num_workers)
    data = read_training_data(config.train, config.val)
    if config.initial_weights is not None:
        storage.require_file(config.initial_weights)
    with output_errors_told(config):
        Folder(config.output).exists(SETTINGS)
    return data
