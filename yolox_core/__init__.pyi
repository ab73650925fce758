from .anchors import AnchorPoints, anchor_points, decode_outputs
from .augment import (
    Augmentation,
    augment_batch,
    horizontal_flip,
    hsv_jitter,
    multiscale_size,
    official_augmentation,
    resize_batch,
)
from .batchnorm import estimate_statistics, is_folded
from .boxes import (
    clip_boxes,
    cxcywh_to_xyxy,
    paired_giou,
    paired_iou,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from .checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_safetensors,
)
from .coco_classes import COCO_CLASSES
from .config import PRESETS, STRIDES, ModelConfig, check_input_size, model_config
from .letterbox import (
    PADDING_GREY,
    Convention,
    LetterboxTransform,
    letterbox,
    to_model_input,
)
from .losses import YOLOXLoss, check_targets
from .onnx_export import ONNX_INPUT, ONNX_OPSET, OnnxContents, export_onnx
from .optim import ModelEMA, build_optimizer, ema_decay
from .postprocess import Detections, postprocess, postprocess_raw
from .postprocess_padded import postprocess_padded
from .schedules import OptimizerName, warmup_cosine, yolox_pytorch_cosine, yolox_pytorch_step
from .simota import (
    OFFICIAL_RULE,
    YOLOX_PYTORCH_RULE,
    Assignment,
    AssignmentRule,
    simota_assign,
)
from .yolox import YOLOX, build_model, fuse_conv_bn

__all__ = [
    "COCO_CLASSES",
    "OFFICIAL_RULE",
    "ONNX_INPUT",
    "ONNX_OPSET",
    "PADDING_GREY",
    "PRESETS",
    "STRIDES",
    "YOLOX",
    "YOLOX_PYTORCH_RULE",
    "AnchorPoints",
    "Assignment",
    "AssignmentRule",
    "Augmentation",
    "Checkpoint",
    "CheckpointError",
    "Convention",
    "Detections",
    "LetterboxTransform",
    "ModelConfig",
    "ModelEMA",
    "OnnxContents",
    "OptimizerName",
    "YOLOXLoss",
    "anchor_points",
    "augment_batch",
    "build_model",
    "build_optimizer",
    "check_input_size",
    "check_targets",
    "clip_boxes",
    "cxcywh_to_xyxy",
    "decode_outputs",
    "ema_decay",
    "estimate_statistics",
    "export_onnx",
    "fuse_conv_bn",
    "horizontal_flip",
    "hsv_jitter",
    "is_folded",
    "letterbox",
    "load_checkpoint",
    "model_config",
    "multiscale_size",
    "official_augmentation",
    "paired_giou",
    "paired_iou",
    "pairwise_iou",
    "postprocess",
    "postprocess_padded",
    "postprocess_raw",
    "resize_batch",
    "save_checkpoint",
    "save_safetensors",
    "simota_assign",
    "to_model_input",
    "warmup_cosine",
    "xyxy_to_cxcywh",
    "yolox_pytorch_cosine",
    "yolox_pytorch_step",
]
