"""SimOTA: which anchor points answer for which target.

Ge et al., https://arxiv.org/abs/2107.08430, section 2.3. For all images and targets at once: no
loop over either, and nothing waits for the GPU. B = images, M = targets, A = anchor points,
C = classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from yolox_core.anchors import AnchorPoints
from yolox_core.boxes import cxcywh_to_xyxy, pairwise_iou

_MOST_POINTS_PER_TARGET = 10
_IOU_WEIGHT = 3.0


@dataclass(frozen=True, kw_only=True)
class AssignmentRule:
    """What tells the two implementations of SimOTA apart."""

    centre_radius: float
    """A point is near a target when within so many strides of its centre, in x and in y."""
    boxes_count: bool
    """Points inside a target's box are candidates too, and a match should be inside the box."""
    penalty: float
    """Cost of matching a point that is not where it should be."""


OFFICIAL_RULE = AssignmentRule(centre_radius=1.5, boxes_count=False, penalty=1e6)
SEED_RULE = AssignmentRule(centre_radius=2.5, boxes_count=True, penalty=1e5)


class Assignment(NamedTuple):
    """What each anchor point should predict."""

    foreground: Tensor
    """(B, A) bool: the point answers for a target."""
    target_index: Tensor
    """(B, A) int64: which of the image's M rows; 0 for background."""
    targets: Tensor
    """(B, A, 5): that row; for background it means nothing."""
    iou: Tensor
    """(B, A) float32: IoU of the predicted box with it; 0 for background."""


@torch.no_grad()
def simota_assign(
    boxes_cxcywh: Tensor,
    objectness: Tensor,
    classes: Tensor,
    points: AnchorPoints,
    targets: Tensor,
    rule: AssignmentRule,
) -> Assignment:
    """Match anchor points with targets.

    Each target takes the k points of least cost, k being the sum of its ten best IoUs, rounded
    down, at least 1. Equal costs: the lower anchor index comes first. A point taken by several
    targets goes to the target of least cost, the first of equals.

    Points whose predicted box is NaN or infinite, and targets with such a value, match nothing.

    Args:
        boxes_cxcywh: (B, A, 4) decoded boxes, letterboxed pixels.
        objectness: (B, A) before sigmoid.
        classes: (B, A, C) before sigmoid.
        points: the A anchor points.
        targets: (B, M, 5) class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as padding;
            class ids in [0, C), see `check_targets`.
        rule: `OFFICIAL_RULE` or `SEED_RULE`.
    """
    # Near-ties decide the outcome, and float16 would reorder them.
    boxes_cxcywh, targets = boxes_cxcywh.float(), targets.float()
    if targets.shape[1] == 0:
        targets = targets.new_zeros(len(targets), 1, 5)
    real = targets.ne(0).any(dim=-1) & targets.isfinite().all(dim=-1)  # (B, M)
    candidate, well_placed = _placement(points, targets, real, rule)
    candidate &= boxes_cxcywh.isfinite().all(dim=-1)
    possible = candidate[:, None] & real[:, :, None]  # (B, M, A)

    iou = pairwise_iou(cxcywh_to_xyxy(targets[..., 1:]), cxcywh_to_xyxy(boxes_cxcywh))
    iou = iou.masked_fill(~possible, 0)
    cost = _class_cost(objectness, classes, targets[..., 0]) - _IOU_WEIGHT * (iou + 1e-8).log()
    cost = cost + rule.penalty * ~well_placed
    cost = cost.masked_fill(~possible | cost.isnan(), torch.inf)

    chosen = _cheapest_points(cost, _points_per_target(iou))
    contested = chosen.sum(dim=1, keepdim=True) > 1
    # A contested point goes to the cheapest of all targets, even one that did not ask for it: so
    # do both references.
    target_index = cost.masked_fill(~(chosen | contested), torch.inf).argmin(dim=1)
    foreground = chosen.any(dim=1)
    matched_iou = iou.gather(1, target_index[:, None]).squeeze(1)
    return Assignment(
        foreground,
        target_index,
        targets.gather(1, target_index[..., None].expand(-1, -1, 5)),
        matched_iou.masked_fill(~foreground, 0),
    )


def _placement(
    points: AnchorPoints, targets: Tensor, real: Tensor, rule: AssignmentRule
) -> tuple[Tensor, Tensor]:
    """Candidates (B, A), and the pairs (B, M, A) that are where a match should be."""
    _, cx, cy, width, height = targets[..., None].unbind(dim=2)  # each (B, M, 1)
    radius = rule.centre_radius * points.strides.squeeze(1)  # (A,)
    near = _inside(points, cx, cy, radius, radius) & real[..., None]
    if not rule.boxes_count:
        return near.any(dim=1), near
    boxed = _inside(points, cx, cy, width / 2, height / 2) & real[..., None]
    return (near | boxed).any(dim=1), near & boxed


def _inside(
    points: AnchorPoints, cx: Tensor, cy: Tensor, half_width: Tensor, half_height: Tensor
) -> Tensor:
    """(B, M, A) bool: strictly inside the rectangle around (cx, cy)."""
    x, y = points.centres.unbind(dim=1)
    in_x = (x > cx - half_width) & (x < cx + half_width)
    in_y = (y > cy - half_height) & (y < cy + half_height)
    return in_x & in_y


def _class_cost(objectness: Tensor, classes: Tensor, class_ids: Tensor) -> Tensor:
    """(B, M, A): cross entropy of sqrt(class x objectness) with each target's one-hot class.

    For a target of class g the sum over classes is sum_c -log(1 - p_c) + log(1 - p_g) - log(p_g):
    the first term is shared by all targets, the rest is looked up.
    """
    p = (classes.float().sigmoid() * objectness.float().sigmoid()[..., None]).sqrt()
    log_p = p.log().clamp(min=-100)  # the floor of torch's binary_cross_entropy
    log_not_p = (-p).log1p().clamp(min=-100)
    every_class_absent = -log_not_p.sum(dim=-1)  # (B, A)
    # On a GPU nobody has checked the ids: an id out of range must not read foreign memory.
    index = class_ids.nan_to_num().long().clamp(0, classes.shape[-1] - 1)
    index = index[..., None].expand(-1, -1, classes.shape[1])  # (B, M, A)
    one_present = (log_not_p - log_p).transpose(1, 2).gather(1, index)
    return every_class_absent[:, None] + one_present


def _points_per_target(iou: Tensor) -> Tensor:
    """(B, M): how many points each target takes."""
    best = iou.topk(min(_MOST_POINTS_PER_TARGET, iou.shape[-1]), dim=-1).values
    return best.sum(dim=-1).long().clamp(min=1)


def _cheapest_points(cost: Tensor, counts: Tensor) -> Tensor:
    """(B, M, A) bool: the `counts` points of least finite cost, lower index first among equals."""
    num_points = cost.shape[-1]
    # topk leaves the order of equals open. The bits of a float >= 0 sort like the float, so with
    # the index below them no two keys are equal. Rounding may have left a cost just below 0.
    bits = cost.clamp(min=0).view(torch.int32).long()
    key = (bits << 32) | torch.arange(num_points, device=cost.device)
    index = key.topk(min(_MOST_POINTS_PER_TARGET, num_points), dim=-1, largest=False).indices
    rank = torch.arange(index.shape[-1], device=cost.device)
    taken = (rank < counts[..., None]) & cost.gather(2, index).isfinite()
    return torch.zeros_like(cost, dtype=torch.bool).scatter(2, index, taken)
