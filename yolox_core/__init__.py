"""The YOLOX detector: model, decoding, label assignment, loss, checkpoints. No Ray in here."""

from yolox_core.anchors import AnchorPoints, anchor_points, decode_outputs
from yolox_core.augment import horizontal_flip, hsv_jitter
from yolox_core.boxes import (
    clip_boxes,
    cxcywh_to_xyxy,
    paired_giou,
    paired_iou,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from yolox_core.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from yolox_core.coco_classes import COCO_CLASSES
from yolox_core.config import PRESETS, STRIDES, ModelConfig, model_config
from yolox_core.letterbox import Convention, LetterboxTransform, letterbox, to_model_input
from yolox_core.losses import YOLOXLoss, check_targets
from yolox_core.optim import ModelEMA, build_optimizer, ema_decay, warmup_cosine
from yolox_core.postprocess import Detections, postprocess, postprocess_raw
from yolox_core.simota import (
    OFFICIAL_RULE,
    SEED_RULE,
    Assignment,
    AssignmentRule,
    simota_assign,
)
from yolox_core.yolox import YOLOX, build_model, check_input_size, fuse_conv_bn

__all__ = [
    "COCO_CLASSES",
    "OFFICIAL_RULE",
    "PRESETS",
    "SEED_RULE",
    "STRIDES",
    "YOLOX",
    "AnchorPoints",
    "Assignment",
    "AssignmentRule",
    "Checkpoint",
    "CheckpointError",
    "Convention",
    "Detections",
    "LetterboxTransform",
    "ModelConfig",
    "ModelEMA",
    "YOLOXLoss",
    "anchor_points",
    "build_model",
    "build_optimizer",
    "check_input_size",
    "check_targets",
    "clip_boxes",
    "cxcywh_to_xyxy",
    "decode_outputs",
    "ema_decay",
    "fuse_conv_bn",
    "horizontal_flip",
    "hsv_jitter",
    "letterbox",
    "load_checkpoint",
    "model_config",
    "paired_giou",
    "paired_iou",
    "pairwise_iou",
    "postprocess",
    "postprocess_raw",
    "save_checkpoint",
    "simota_assign",
    "to_model_input",
    "warmup_cosine",
    "xyxy_to_cxcywh",
]
