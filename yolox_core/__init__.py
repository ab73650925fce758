"""The YOLOX detector: model, decoding, label assignment, loss, checkpoints. No Ray in here."""

from yolox_core.anchors import AnchorPoints, anchor_points, decode_outputs
from yolox_core.augment import (
    Augmentation,
    augment_batch,
    horizontal_flip,
    hsv_jitter,
    multiscale_size,
    official_augmentation,
    resize_batch,
)
from yolox_core.batchnorm import estimate_statistics, is_folded
from yolox_core.boxes import (
    clip_boxes,
    cxcywh_to_xyxy,
    paired_giou,
    paired_iou,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from yolox_core.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    save_safetensors,
)
from yolox_core.coco_classes import COCO_CLASSES
from yolox_core.config import PRESETS, STRIDES, ModelConfig, model_config
from yolox_core.letterbox import (
    PADDING_GREY,
    Convention,
    LetterboxTransform,
    letterbox,
    to_model_input,
)
from yolox_core.losses import YOLOXLoss, check_targets
from yolox_core.optim import (
    ModelEMA,
    OptimizerName,
    build_optimizer,
    ema_decay,
    seed_cosine,
    seed_step,
    warmup_cosine,
)
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
    "PADDING_GREY",
    "PRESETS",
    "SEED_RULE",
    "STRIDES",
    "YOLOX",
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
    "postprocess_raw",
    "resize_batch",
    "save_checkpoint",
    "save_safetensors",
    "seed_cosine",
    "seed_step",
    "simota_assign",
    "to_model_input",
    "warmup_cosine",
    "xyxy_to_cxcywh",
]
