from .config import TrainingConfig
from .data import BatchLoader, epoch_rows, steps_per_epoch
from .preview import write_preview
from .recipe import Recipe
from .run import TrainingSummary, train_detector
from .trainer import Trainer, TrainingDivergedError, precision_of

__all__ = [
    "BatchLoader",
    "Recipe",
    "Trainer",
    "TrainingConfig",
    "TrainingDivergedError",
    "TrainingSummary",
    "epoch_rows",
    "precision_of",
    "steps_per_epoch",
    "train_detector",
    "write_preview",
]
