from .config import TrainingConfig
from .fit import TrainingSummary
from .loader import BatchLoader, epoch_rows, steps_per_epoch
from .preview import write_preview
from .recipe import Recipe
from .run import train_detector
from .trainer import Trainer, precision_of

__all__ = [
    "BatchLoader",
    "Recipe",
    "Trainer",
    "TrainingConfig",
    "TrainingSummary",
    "epoch_rows",
    "precision_of",
    "steps_per_epoch",
    "train_detector",
    "write_preview",
]
