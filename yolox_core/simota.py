"""SimOTA: which anchor points answer for which target.

Ge et al., https://arxiv.org/abs/2107.08430, section 2.3. For all images and targets at once: no
loop over either, and nothing waits for the GPU. B = images, M = targets, A = anchor points,
K = places for candidates, C = classes.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from yolox_core.anchors import AnchorPoints
from yolox_core.boxes import cxcywh_to_xyxy, pairwise_iou
from yolox_core.config import STRIDES

MOST_POINTS_PER_TARGET = 10
"""A target's points are counted from so many of its IoUs, none of which is above 1."""

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

    def most_candidates(self, num_targets: int, num_points: int) -> int:
        """How many of an image's points can be near its targets, whatever these are."""
        if self.boxes_count:
            return num_points
        # An open interval of n cells holds at most n of their middles.
        near_each = len(STRIDES) * math.ceil(2 * self.centre_radius) ** 2
        return min(num_targets * near_each, num_points)


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
    candidate = _candidates(points, targets, real, rule) & boxes_cxcywh.isfinite().all(dim=-1)
    # Few points are near a target; the rest of the work is for them alone.
    index, used = compact(candidate, rule.most_candidates(targets.shape[1], candidate.shape[1]))
    possible = used[:, None] & real[:, :, None]  # (B, M, K)

    predicted = cxcywh_to_xyxy(take_points(boxes_cxcywh, index))
    iou = pairwise_iou(cxcywh_to_xyxy(targets[..., 1:]), predicted).masked_fill(~possible, 0)
    cost = _class_cost(objectness.gather(1, index), take_points(classes, index), targets[..., 0])
    cost = cost - _IOU_WEIGHT * (iou + 1e-8).log()
    cost = cost + rule.penalty * ~_well_placed(points, index, targets, rule)
    cost = cost.masked_fill(~possible | cost.isnan(), torch.inf)

    chosen = _cheapest_points(cost, _points_per_target(iou))
    contested = chosen.sum(dim=1, keepdim=True) > 1
    # A contested point goes to the cheapest of all targets, even one that did not ask for it: so
    # do both references.
    row = cost.masked_fill(~(chosen | contested), torch.inf).argmin(dim=1)  # (B, K)
    foreground = chosen.any(dim=1)
    matched_iou = iou.gather(1, row[:, None]).squeeze(1)
    background = torch.zeros_like(candidate)  # (B, A), where the K places are put back
    target_index = background.long().scatter(1, index, row)
    return Assignment(
        background.scatter(1, index, foreground),
        target_index,
        take_points(targets, target_index),
        background.float().scatter(1, index, matched_iou.masked_fill(~foreground, 0)),
    )


def compact(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Where each row of a mask is true, in as many places as there may have to be.

    To ask how many there are would stall a GPU.

    Args:
        mask: (B, A) bool, true at no more than `most` places of a row.
        most: K, at most A.

    Returns:
        (B, K) int64, different indices, first those where the mask is true, rising; and (B, K)
        bool, which ones these are.
    """
    num_true = mask.sum(dim=1, keepdim=True)
    place = torch.where(mask, mask.cumsum(dim=1), num_true + (~mask).cumsum(dim=1)) - 1
    every = torch.arange(mask.shape[1], device=mask.device)
    index = torch.empty_like(place).scatter(1, place, every.expand_as(place))[:, :most]
    return index, every[:most] < num_true


def take_points(values: Tensor, index: Tensor) -> Tensor:
    """(B, A, n) values at (B, K) indices: (B, K, n)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def _candidates(
    points: AnchorPoints, targets: Tensor, real: Tensor, rule: AssignmentRule
) -> Tensor:
    """(B, A) bool: near the centre of any target, or inside its box where that counts."""
    candidate = _near_centres(points, targets, real, rule.centre_radius)
    if rule.boxes_count:
        boxed = _inside(points.centres, targets, targets[:, :, None, 3:] / 2)
        candidate |= (boxed & real[..., None]).any(dim=1)
    return candidate


def _near_centres(points: AnchorPoints, targets: Tensor, real: Tensor, radius: float) -> Tensor:
    """(B, A) bool: less than `radius` strides from the centre of any target, in x and in y.

    The few cells around a centre are listed and looked up, which is far cheaper than to hold
    every point against every target. L = levels, n = cells in a row.
    """
    strides = torch.cat([points.strides.new_full((1, 1), stride) for stride in STRIDES])  # (L, 1)
    centre = targets[:, :, None, 1:3] / strides  # (B, M, L, 2), in cells
    first = (centre - (radius + 0.5)).floor() + 1
    steps = torch.arange(math.ceil(2 * radius), device=targets.device)
    cells = first[..., None] + steps  # (B, M, L, 2, n)
    near = (cells + 0.5 - centre[..., None]).abs() < radius
    near = near[..., 0, None, :] & near[..., 1, :, None] & real[..., None, None, None]

    known = _cell_key(points.strides[:, 0], points.cells[:, 0], points.cells[:, 1])  # (A,) rising
    sought = _cell_key(strides[..., None], cells[..., 0, None, :], cells[..., 1, :, None])
    index = torch.searchsorted(known, sought).clamp(max=len(known) - 1)  # (B, M, L, n, n)
    found = (near & (known[index] == sought)).flatten(1)
    counts = torch.zeros(len(targets), len(known), dtype=torch.int32, device=targets.device)
    return counts.scatter_add(1, index.flatten(1), found.int()) > 0


def _cell_key(stride: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """A number for each cell of each level, rising in the order of the anchor points."""
    # A target far outside has cells far outside; none is mistaken for one of the image.
    side = 2**20
    column, row = column.clamp(-1, side - 1), row.clamp(-1, side - 1)
    return (stride.long() * side + row.long()) * side + column.long()


def _well_placed(
    points: AnchorPoints, index: Tensor, targets: Tensor, rule: AssignmentRule
) -> Tensor:
    """(B, M, K) bool: the point is where a match should be."""
    centres, radius = points.centres[index], rule.centre_radius * points.strides[index]
    well_placed = _inside(centres[:, None], targets, radius[:, None])
    if rule.boxes_count:
        well_placed &= _inside(centres[:, None], targets, targets[:, :, None, 3:] / 2)
    return well_placed


def _inside(centres: Tensor, targets: Tensor, half_size: Tensor) -> Tensor:
    """(B, M, A) bool: strictly inside a rectangle around each target's centre.

    Args:
        centres: (..., A, 2) of the points.
        targets: (B, M, 5).
        half_size: (..., A or 1, 1 or 2), half the rectangle's width and height.
    """
    x, y = centres.unbind(dim=-1)
    cx, cy = targets[:, :, None, 1:3].unbind(dim=-1)
    return ((x - cx).abs() < half_size[..., 0]) & ((y - cy).abs() < half_size[..., -1])


def _class_cost(objectness: Tensor, classes: Tensor, class_ids: Tensor) -> Tensor:
    """(B, M, K): cross entropy of sqrt(class x objectness) with each target's one-hot class.

    For a target of class g the sum over classes is sum_c -log(1 - p_c) + log(1 - p_g) - log(p_g):
    the first term is shared by all targets, the rest is looked up.
    """
    p = (classes.float().sigmoid() * objectness.float().sigmoid()[..., None]).sqrt_()
    # In place: fresh memory costs a CPU more than the arithmetic.
    log_not_p = (1 - p).log_().clamp_(min=-100)  # the floor of torch's binary_cross_entropy
    log_p = p.log_().clamp_(min=-100)
    every_class_absent = -log_not_p.sum(dim=-1)  # (B, K)
    # On a GPU nobody has checked the ids: an id out of range must not read foreign memory.
    index = class_ids.nan_to_num().long().clamp(0, classes.shape[-1] - 1)
    index = index[..., None].expand(-1, -1, classes.shape[1])  # (B, M, K)
    one_present = (log_not_p - log_p).transpose(1, 2).gather(1, index)
    return every_class_absent[:, None] + one_present


def _points_per_target(iou: Tensor) -> Tensor:
    """(B, M): how many points each target takes."""
    best = iou.topk(min(MOST_POINTS_PER_TARGET, iou.shape[-1]), dim=-1).values
    return best.sum(dim=-1).long().clamp(min=1)


def _cheapest_points(cost: Tensor, counts: Tensor) -> Tensor:
    """(B, M, K) bool: the `counts` points of least finite cost, lower index first among equals."""
    num_points = cost.shape[-1]
    # topk leaves the order of equals open. The bits of a float >= 0 sort like the float, so with
    # the index below them no two keys are equal. Rounding may have left a cost just below 0.
    bits = cost.clamp(min=0).view(torch.int32).long()
    key = (bits << 32) | torch.arange(num_points, device=cost.device)
    index = key.topk(min(MOST_POINTS_PER_TARGET, num_points), dim=-1, largest=False).indices
    rank = torch.arange(index.shape[-1], device=cost.device)
    taken = (rank < counts[..., None]) & cost.gather(2, index).isfinite()
    return torch.zeros_like(cost, dtype=torch.bool).scatter(2, index, taken)
