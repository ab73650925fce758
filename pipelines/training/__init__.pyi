from . import process_group
from .config import TrainingConfig
from .fit import TrainingSummary
from .loader import Batch, BatchLoader, epoch_rows, steps_per_epoch
from .preview import write_preview
from .recipe import Recipe
from .run import train_detector
from .state import StateStore
from .trainer import Trainer, precision_of
from .validation import validate

__all__ = [
    "Batch",
    "BatchLoader",
    "Recipe",
    "StateStore",
    "Trainer",
    "TrainingConfig",
    "TrainingSummary",
    "epoch_rows",
    "precision_of",
    "process_group",
    "steps_per_epoch",
    "train_detector",
    "validate",
    "write_preview",
]
