"""The training loss as one would first write it: image by image, target by target.

The yardstick for `yolox_core.YOLOXLoss`: the same rule (Ge et al., https://arxiv.org/abs/2107.08430,
section 2.3, with the official constants), written to be obviously right and, as the official code
is, sparing: costs are worked out for candidates only, losses for foreground only. B = images,
M = targets, A = anchor points, G = real targets of one image, N = its candidates, C = classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from yolox_core.anchors import AnchorPoints, anchor_points, decode_boxes, flatten_levels
from yolox_core.boxes import cxcywh_to_xyxy, paired_iou

_CENTRE_RADIUS = 1.5
_PENALTY = 1e6


class ImageMatch(NamedTuple):
    """The matches of one image; F = foreground points."""

    points: Tensor
    """(F,) int64, rising: which anchor points answer for a target."""
    targets: Tensor
    """(F, 5): that target."""
    target_index: Tensor
    """(F,) int64: its row."""
    iou: Tensor
    """(F,) float32: IoU of the predicted box with it."""


def loop_loss(raw: Sequence[Tensor], targets: Tensor, *, use_l1: bool = False) -> dict[str, Tensor]:
    """The terms of `YOLOXLoss`, by its names and for its arguments.

    Args:
        raw: one (B, 5 + C, h, w) per level.
        targets: (B, M, 5) class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as padding.
        use_l1: add the L1 loss.
    """
    flat, points = flatten_levels(raw), anchor_points(raw)
    matches = loop_assign(flat.detach(), points, targets)
    foreground = torch.zeros_like(flat[..., 4])
    iou, classification, l1 = flat.new_zeros(()), flat.new_zeros(()), flat.new_zeros(())
    for image, match in enumerate(matches):
        foreground[image, match.points] = 1
        predicted = flat[image, match.points]
        own = AnchorPoints(points.cells[match.points], points.strides[match.points])
        iou = iou + _box_loss(predicted[:, :4], own, match.targets)
        classification = classification + _class_loss(predicted[:, 5:], match)
        if use_l1:
            l1 = l1 + _l1_loss(predicted[:, :4], own, match.targets)
    objectness = F.binary_cross_entropy_with_logits(flat[..., 4], foreground, reduction="sum")
    num_foreground = sum(len(match.points) for match in matches)
    sums = {"iou": 5 * iou, "objectness": objectness, "class": classification, "l1": l1}
    losses = {name: term / max(num_foreground, 1) for name, term in sums.items()}
    return {"total": torch.stack(list(losses.values())).sum(), **losses}


@torch.no_grad()
def loop_assign(flat: Tensor, points: AnchorPoints, targets: Tensor) -> list[ImageMatch]:
    """Match anchor points with targets, by the official rule.

    Args:
        flat: (B, A, 5 + C) raw outputs.
        points: the A anchor points.
        targets: (B, M, 5) as for `loop_loss`.
    """
    return [_match_image(*image, points) for image in zip(flat, targets, strict=True)]


def _match_image(flat: Tensor, targets: Tensor, points: AnchorPoints) -> ImageMatch:
    rows = targets.ne(0).any(dim=1).nonzero()[:, 0]
    near = torch.stack([_near(points, target) for target in targets[rows]])  # (G, A)
    candidates = near.any(dim=0).nonzero()[:, 0]
    near, predicted = near[:, candidates], flat[candidates]
    boxes = cxcywh_to_xyxy(decode_boxes(flat[:, :4], points)[candidates])  # (N, 4)
    probabilities = (predicted[:, 5:].sigmoid() * predicted[:, 4:5].sigmoid()).sqrt()  # (N, C)

    ious, costs, taken = [], [], torch.zeros_like(near)
    for i, target in enumerate(targets[rows]):
        iou = paired_iou(cxcywh_to_xyxy(target[1:]).expand_as(boxes), boxes)  # (N,)
        cost = _class_cost(probabilities, target[0]) - 3 * (iou + 1e-8).log() + _PENALTY * ~near[i]
        k = max(1, int(iou.topk(min(10, len(iou))).values.sum()))
        taken[i, cost.argsort(stable=True)[:k]] = True  # equal costs: the lower anchor index
        ious.append(iou)
        costs.append(cost)
    cost, iou = torch.stack(costs), torch.stack(ious)  # (G, N)
    for point in (taken.sum(dim=0) > 1).nonzero()[:, 0]:
        taken[:, point] = False
        taken[cost[:, point].argmin(), point] = True

    matched, row = taken.T.nonzero(as_tuple=True)
    return ImageMatch(candidates[matched], targets[rows[row]], rows[row], iou[row, matched])


def _near(points: AnchorPoints, target: Tensor) -> Tensor:
    """(A,) bool: the point is within the square around the target's centre."""
    distance = (points.centres - target[1:3]).abs()
    return (distance < _CENTRE_RADIUS * points.strides).all(dim=1)


def _class_cost(probabilities: Tensor, class_id: Tensor) -> Tensor:
    """(N,): cross entropy with the one-hot class, summed over classes."""
    one_hot = F.one_hot(class_id.long(), probabilities.shape[1]).float().expand_as(probabilities)
    return F.binary_cross_entropy(probabilities, one_hot, reduction="none").sum(dim=1)


def _box_loss(raw_boxes: Tensor, points: AnchorPoints, targets: Tensor) -> Tensor:
    predicted = cxcywh_to_xyxy(decode_boxes(raw_boxes, points))
    iou = paired_iou(predicted, cxcywh_to_xyxy(targets[:, 1:]))
    return (1 - iou**2).sum()


def _class_loss(logits: Tensor, match: ImageMatch) -> Tensor:
    one_hot = F.one_hot(match.targets[:, 0].long(), logits.shape[1])
    probabilities = one_hot * match.iou[:, None]
    return F.binary_cross_entropy_with_logits(logits, probabilities, reduction="sum")


def _l1_loss(raw_boxes: Tensor, points: AnchorPoints, targets: Tensor) -> Tensor:
    centre = targets[:, 1:3] / points.strides - points.cells
    size = (targets[:, 3:] / points.strides + 1e-8).log()
    return (raw_boxes - torch.cat((centre, size), dim=1)).abs().sum()
