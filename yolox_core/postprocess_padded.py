"""Postprocessing whose shapes do not follow from what is found, so that a CUDA graph can hold it.

The same detections as `postprocess_raw`: no number of theirs has to be known on the host before the
next kernel can be started.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from yolox_core.anchors import anchor_points, decode_boxes, flatten_levels
from yolox_core.boxes import cxcywh_to_xyxy

_ROUNDS = 24
"""Of suppression. So long may a row of boxes be in which each one overlaps the next."""


class PaddedDetections(NamedTuple):
    """The best K candidates of each of B images, best first."""

    boxes_xyxy: Tensor
    """(B, K, 4) float32, letterboxed pixels; may reach beyond the canvas."""
    scores: Tensor
    """(B, K) float32, falling."""
    class_ids: Tensor
    """(B, K) int64."""
    kept: Tensor
    """(B, K) bool: the detections, among what was suppressed and what fills the rows."""
    is_complete: Tensor
    """(B,) bool: False where there was more than K, or _ROUNDS have not been enough."""


def postprocess_padded(
    raw: Sequence[Tensor], score_threshold: float, nms_threshold: float, max_candidates: int = 512
) -> PaddedDetections:
    """The detections of `postprocess_raw`, wherever they are complete.

    Args:
        raw: one (B, 5 + C, h, w) per level, as `YOLOX` gives them; not changed.
        score_threshold: keep scores at or above it.
        nms_threshold: of two boxes of one class with a larger IoU, the better one stays.
        max_candidates: K, unless there are fewer anchor points.
    """
    flat = flatten_levels(raw)
    class_logits, class_ids = flat[..., 5:].max(dim=-1)
    scores = flat[..., 4].float().sigmoid() * class_logits.float().sigmoid()  # (B, A)
    boxes = cxcywh_to_xyxy(decode_boxes(flat[..., :4], anchor_points(raw)))
    passed = (scores >= score_threshold) & boxes.isfinite().all(dim=-1)

    count = min(max_candidates, scores.shape[1])
    best, points = scores.masked_fill(~passed, -1).topk(count)  # (B, K)
    boxes = boxes.gather(1, points[..., None].expand(-1, -1, 4))
    class_ids = class_ids.gather(1, points)
    kept, is_settled = _suppress(boxes, class_ids, best >= 0, nms_threshold)
    is_complete = is_settled & (passed.sum(dim=1) <= count)
    return PaddedDetections(boxes, best, class_ids, kept, is_complete)


def _suppress(
    boxes: Tensor, class_ids: Tensor, is_candidate: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Which (B, K) candidates stay, and for which (B,) images that is certain.

    A box stays unless a better one that stays suppresses it. Asked again and again, from all of
    them on, this settles, and then it is what going through them one by one gives: what suppresses
    the best ones is right after the first round, and each round is right about one more in a row.
    """
    suppresses = _suppresses(boxes, class_ids, threshold)
    kept = before = is_candidate
    for _ in range(_ROUNDS):
        before = kept
        kept = is_candidate & ~(suppresses & kept[:, :, None]).any(dim=1)
    return kept, (kept == before).all(dim=1)


def _suppresses(boxes: Tensor, class_ids: Tensor, threshold: float) -> Tensor:
    """(B, K, K) bool: whether the first box, if it stays, suppresses the second."""
    # float64, as in postprocess: a threshold is a place where the last digit counts.
    x1, y1, x2, y2 = boxes.double().unbind(dim=-1)
    width = torch.minimum(x2[:, :, None], x2[:, None]) - torch.maximum(x1[:, :, None], x1[:, None])
    height = torch.minimum(y2[:, :, None], y2[:, None]) - torch.maximum(y1[:, :, None], y1[:, None])
    shared = width.clamp(min=0) * height.clamp(min=0)
    area = (x2 - x1) * (y2 - y1)
    overlaps = shared / (area[:, :, None] + area[:, None] - shared) > threshold
    is_of_its_class = class_ids[:, :, None] == class_ids[:, None]
    return (overlaps & is_of_its_class).triu(diagonal=1)
