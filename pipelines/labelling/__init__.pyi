from .blocks import FETCHED, PART_KEYS
from .config import LabellingConfig
from .detecting import detect_block
from .estimate import Estimate
from .fetching import fetch_block
from .listing import ROWS_PER_TABLE, list_source
from .manifest import write_manifest
from .run import LabellingSummary, label_images
from .trial import try_out
from .writing import detection_rows

__all__ = [
    "FETCHED",
    "PART_KEYS",
    "ROWS_PER_TABLE",
    "Estimate",
    "LabellingConfig",
    "LabellingSummary",
    "detect_block",
    "detection_rows",
    "fetch_block",
    "label_images",
    "list_source",
    "try_out",
    "write_manifest",
]
