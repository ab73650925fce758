"""Annotations in the formats people have, turned into one training table (schema.TRAINING)."""

from pipelines.datasets.coco import read_coco
from pipelines.datasets.training_table import (
    class_names_of,
    read_training_table,
    training_table,
    write_training_table,
)

__all__ = [
    "class_names_of",
    "read_coco",
    "read_training_table",
    "training_table",
    "write_training_table",
]
