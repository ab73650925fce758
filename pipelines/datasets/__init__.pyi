from .faults import Fault, FaultKind
from .formats.coco import read_coco
from .preparation import PrepareConfig, Prepared, prepare
from .shapes import CLASS_NAMES, generate_archive
from .training_table import (
    class_names_of,
    parse_training_table,
    read_training_table,
    training_table,
    write_training_table,
)

__all__ = [
    "CLASS_NAMES",
    "Fault",
    "FaultKind",
    "PrepareConfig",
    "Prepared",
    "class_names_of",
    "generate_archive",
    "parse_training_table",
    "prepare",
    "read_coco",
    "read_training_table",
    "training_table",
    "write_training_table",
]
