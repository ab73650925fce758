"""Decoded or raw outputs to detections: score threshold, then class-aware NMS.

An anchor point gives at most one detection, of its best class; score = objectness x class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

from yolox_core.anchors import AnchorPoints, anchor_points, decode_boxes, flatten_levels
from yolox_core.boxes import cxcywh_to_xyxy


class Detections(NamedTuple):
    """What was found in one image, best first, on the CPU."""

    boxes_xyxy: Tensor
    """(N, 4) float32, letterboxed pixels; may reach beyond the canvas."""
    scores: Tensor
    """(N,) float32 in [0, 1], falling."""
    class_ids: Tensor
    """(N,) int64."""


class _Candidates(NamedTuple):
    """Points of all images that may pass the threshold, in order of image and anchor point."""

    image_ids: Tensor  # (K,) int64
    boxes_cxcywh: Tensor  # (K, 4) float32
    objectness: Tensor  # (K,) probability
    classes: Tensor  # (K, C) probabilities


def postprocess(
    decoded: Tensor,
    score_threshold: float,
    nms_threshold: float,
    class_agnostic: bool = False,
    max_detections: int = 1000,
) -> list[Detections]:
    """Detections of each image from decoded outputs.

    Args:
        decoded: (B, A, 5 + C) as `decode_outputs` gives them; not changed.
        score_threshold: keep scores at or above it.
        nms_threshold: of two boxes of one class with a larger IoU, the better one stays.
        class_agnostic: boxes of different classes suppress each other too.
        max_detections: at most so many per image, the best ones.

    Returns:
        B detections. NaN or infinite boxes and NaN scores are never among them.
    """
    # A score never exceeds its objectness, so this loses nothing and spares most of the work.
    image_ids, points = (decoded[..., 4] >= score_threshold).nonzero(as_tuple=True)
    kept = decoded[image_ids, points].float()
    candidates = _Candidates(image_ids, kept[:, :4], kept[:, 4], kept[:, 5:])
    return _suppress(
        candidates, len(decoded), score_threshold, nms_threshold, class_agnostic, max_detections
    )


def postprocess_raw(
    raw: Sequence[Tensor],
    score_threshold: float,
    nms_threshold: float,
    class_agnostic: bool = False,
    max_detections: int = 1000,
) -> list[Detections]:
    """The detections of `postprocess(decode_outputs(raw), ...)`, decoding only what survives.

    Args:
        raw: one (B, 5 + C, h, w) per level, as `YOLOX` gives them; not changed.
        score_threshold: keep scores at or above it.
        nms_threshold: of two boxes of one class with a larger IoU, the better one stays.
        class_agnostic: boxes of different classes suppress each other too.
        max_detections: at most so many per image, the best ones.

    Returns:
        B detections. NaN or infinite boxes and NaN scores are never among them.
    """
    flat = flatten_levels(raw)
    objectness = flat[..., 4].float().sigmoid()
    image_ids, points = (objectness >= score_threshold).nonzero(as_tuple=True)
    kept = flat[image_ids, points].float()
    cells, strides = anchor_points(raw)
    boxes = decode_boxes(kept[:, :4], AnchorPoints(cells[points], strides[points]))
    candidates = _Candidates(image_ids, boxes, objectness[image_ids, points], kept[:, 5:].sigmoid())
    return _suppress(
        candidates, len(flat), score_threshold, nms_threshold, class_agnostic, max_detections
    )


def _suppress(
    candidates: _Candidates,
    num_images: int,
    score_threshold: float,
    nms_threshold: float,
    class_agnostic: bool,
    max_detections: int,
) -> list[Detections]:
    class_scores, class_ids = candidates.classes.max(dim=1)
    scores = candidates.objectness * class_scores
    boxes = cxcywh_to_xyxy(candidates.boxes_cxcywh)
    passed = (scores >= score_threshold) & boxes.isfinite().all(dim=1)

    image_ids = candidates.image_ids[passed].cpu()
    found = Detections(boxes[passed].cpu(), scores[passed].cpu(), class_ids[passed].cpu())
    per_image = torch.bincount(image_ids, minlength=num_images).tolist()
    return [
        _nms(Detections(*image), nms_threshold, class_agnostic, max_detections)
        for image in zip(*(torch.split(column, per_image) for column in found), strict=True)
    ]


def _nms(
    found: Detections, threshold: float, class_agnostic: bool, max_detections: int
) -> Detections:
    boxes = found.boxes_xyxy.double()
    if not class_agnostic and len(boxes):
        # Each class gets its own stretch of the plane. Not torchvision's batched_nms: its float32
        # offsets round, and above 1,000 boxes it changes its algorithm. The clamp keeps one wild
        # box (exp of anything is possible) from eating the precision of all others.
        boxes = boxes.clamp(-1e7, 1e7)
        boxes = boxes + found.class_ids[:, None] * (boxes.max() - boxes.min() + 1)
    kept = nms(boxes, found.scores.double(), threshold)[:max_detections]
    return Detections(*(column[kept] for column in found))
