from .checkpoint import parse_checkpoint, read_checkpoint
from .contract import (
    YOLOX,
    DetectorSettings,
    ImageDetector,
    LabelledImage,
    load_detector_class,
)
from .isolated import IsolatedDetector
from .yolox import YoloxDetector

__all__ = [
    "YOLOX",
    "DetectorSettings",
    "ImageDetector",
    "IsolatedDetector",
    "LabelledImage",
    "YoloxDetector",
    "load_detector_class",
    "parse_checkpoint",
    "read_checkpoint",
]
