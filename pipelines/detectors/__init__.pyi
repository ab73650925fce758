from .checkpoint import parse_checkpoint, read_checkpoint
from .child import Answers
from .contract import (
    FAIL,
    LABEL,
    ONNXRUNTIME,
    TORCH,
    YOLOX,
    DetectorSettings,
    ImageDetector,
    LabelledImage,
    load_detector_class,
)
from .isolated import IN_FLIGHT, IsolatedDetector
from .runtimes.contract import load_runtime_class
from .runtimes.exporting import export_checkpoint
from .runtimes.onnx_file import is_onnx
from .runtimes.postprocess import postprocess_arrays
from .runtimes.weights import describe_onnx, onnx_of, read_facts
from .yolox import YoloxDetector

__all__ = [
    "FAIL",
    "IN_FLIGHT",
    "LABEL",
    "ONNXRUNTIME",
    "TORCH",
    "YOLOX",
    "Answers",
    "DetectorSettings",
    "ImageDetector",
    "IsolatedDetector",
    "LabelledImage",
    "YoloxDetector",
    "describe_onnx",
    "export_checkpoint",
    "is_onnx",
    "load_detector_class",
    "load_runtime_class",
    "onnx_of",
    "parse_checkpoint",
    "postprocess_arrays",
    "read_checkpoint",
    "read_facts",
]
