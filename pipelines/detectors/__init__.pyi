from .checkpoint import check_canvas, read_checkpoint
from .contract import (
    DEFAULT_DETECTOR,
    DetectorSettings,
    ImageDetector,
    LabelledImage,
    load_detector_class,
)
from .isolated import IsolatedDetector
from .yolox import Detector

__all__ = [
    "DEFAULT_DETECTOR",
    "Detector",
    "DetectorSettings",
    "ImageDetector",
    "IsolatedDetector",
    "LabelledImage",
    "check_canvas",
    "load_detector_class",
    "read_checkpoint",
]
