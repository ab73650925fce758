"""The training loss: box IoU, objectness, class and, in the last epochs, L1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from yolox_core.anchors import AnchorPoints, anchor_points, decode_boxes, level_rows
from yolox_core.boxes import cxcywh_to_xyxy, paired_giou, paired_iou
from yolox_core.simota import (
    MOST_POINTS_PER_TARGET,
    OFFICIAL_RULE,
    YOLOX_PYTORCH_RULE,
    AssignmentRule,
    Candidates,
    compact,
    find_candidates,
    is_finite,
    match_candidates,
    put_points,
    take_points,
    with_a_row,
)

_RULES = {"official": OFFICIAL_RULE, "yolox_pytorch": YOLOX_PYTORCH_RULE}
_IOU_WEIGHT = 5.0


@dataclass(frozen=True)
class YOLOXLoss:
    """Loss of raw outputs against targets, in float32 whatever the model's dtype.

    B = images, M = targets, A = anchor points, C = classes. Box and class losses are computed for
    as many points as could be foreground, and masked: on a GPU nothing waits for the device.
    """

    num_classes: int
    rule: Literal["official", "yolox_pytorch"] = "official"
    """Whose label assignment, see `simota`."""
    iou_loss: Literal["iou", "giou"] = "iou"
    """1 - IoU squared, or 1 - GIoU."""

    def __call__(
        self, raw: Sequence[Tensor], targets: Tensor, *, use_l1: bool = False
    ) -> dict[str, Tensor]:
        """Sums over the batch, divided by the number of foreground points (at least 1).

        Args:
            raw: one (B, 5 + C, h, w) per level, as `YOLOX` gives them.
            targets: (B, M, 5) class_id, cx, cy, w, h in letterboxed pixels, rows of zeros as
                padding; M may be 0. On the CPU they are checked; looking at them on a GPU would
                stall it, so call `check_targets` before copying them there.
            use_l1: add the L1 loss, as the official recipe does once augmentation stops.

        Returns:
            Scalars: `iou` (times 5), `objectness`, `class`, `l1` (0 unless asked for), their sum
            `total`, and two counts: `num_foreground`, and `num_nonfinite`, predicted boxes that
            were left out because they are NaN or infinite. More than none means divergence.

        Raises:
            ValueError: `raw` has other channels than 5 + C, or `check_targets` objects.
        """
        self._check(raw, targets)
        levels, points = level_rows(raw), anchor_points(raw)
        targets = with_a_row(targets.to(raw[0].device, torch.float32))
        with torch.no_grad():
            # Of all points boxes and objectness, which lie side by side.
            of_all = torch.cat([level[..., :5] for level in levels], dim=1).float()  # (B, A, 5)
            usable = is_finite(decode_boxes(of_all[..., :4], points))
            foreground = _find_foreground(levels, points, usable, targets, _RULES[self.rule])
        objectness, rows = _Selection.apply(
            of_all[..., 4], foreground.point_index, foreground.rows, *levels
        )
        foreground = foreground._replace(rows=rows)

        num_foreground = foreground.used.sum()
        count = num_foreground.clamp(min=1)
        box_loss, iou = self._box_loss(foreground)
        losses = {
            "iou": _IOU_WEIGHT * box_loss / count,
            "objectness": _objectness_loss(objectness, foreground) / count,
            "class": _class_loss(foreground, iou) / count,
            "l1": (_l1_loss(foreground) if use_l1 else objectness.new_zeros(())) / count,
        }
        return {
            "total": torch.stack(list(losses.values())).sum(),
            **losses,
            "num_foreground": num_foreground,
            "num_nonfinite": (~usable).sum(),
        }

    def _check(self, raw: Sequence[Tensor], targets: Tensor) -> None:
        channels = raw[0].shape[1]
        if channels != 5 + self.num_classes:
            raise ValueError(
                f"raw outputs have {channels} channels: {self.num_classes} classes need "
                f"{5 + self.num_classes}, 4 for the box and 1 for objectness"
            )
        if targets.device.type == "cpu":
            check_targets(targets, self.num_classes)

    def _box_loss(self, foreground: "_Foreground") -> tuple[Tensor, Tensor]:
        """The sum, and the (B, P) IoU of each box with what it should be."""
        predicted = cxcywh_to_xyxy(decode_boxes(foreground.rows[..., :4], foreground.points))
        wanted = cxcywh_to_xyxy(foreground.targets[..., 1:])
        iou = paired_iou(predicted, wanted)
        loss = 1 - paired_giou(predicted, wanted) if self.iou_loss == "giou" else 1 - iou**2
        return _sum(loss, foreground), iou.detach()


class _Foreground(NamedTuple):
    """Foreground points in P places per image; those left over hold background."""

    used: Tensor
    """(B, P) bool."""
    point_index: Tensor
    """(B, P) int64: which anchor points, all different."""
    rows: Tensor
    """(B, P, 5 + C) float32 raw outputs; zeros in places left over, as in `targets`."""
    points: AnchorPoints
    """Cells (B, P, 2) and strides (B, P, 1)."""
    targets: Tensor
    """(B, P, 5) what the model should say."""


class _Selection(torch.autograd.Function):
    """The raw numbers that the loss looks at, and the way back to the raw outputs for all of them.

    Slices and gathers would each make a gradient as large as the outputs, nearly all of it zeros.
    """

    @staticmethod
    def forward(
        ctx: Any, objectness: Tensor, index: Tensor, rows: Tensor, *levels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The levels' (B, A) `objectness` and, at (B, P) `index`, their (B, P, 5 + C) `rows`."""
        ctx.save_for_backward(index)
        ctx.level_sizes = [level.shape[1] for level in levels]
        ctx.dtype = levels[0].dtype
        return objectness.clone(), rows.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        of_objectness, of_rows = (gradient.to(ctx.dtype) for gradient in gradients)
        (index,) = ctx.saved_tensors
        flat = of_rows.new_zeros(*of_objectness.shape, of_rows.shape[-1])
        put_points(flat, index, of_rows)
        flat[..., 4] = of_objectness
        return None, None, None, *flat.split_with_sizes(ctx.level_sizes, dim=1)


def check_targets(targets: Tensor, num_classes: int) -> None:
    """Refuse targets that would train nonsense; free of charge only where they are on the CPU.

    Args:
        targets: (B, M, 5) class_id, cx, cy, w, h, rows of zeros as padding.
        num_classes: of the model.

    Raises:
        ValueError: a shape other than (B, M, 5), a value that is not finite, a negative width or
            height, or a class id that is not an integer from 0 to num_classes - 1. Names the
            image and the row.
    """
    if targets.ndim != 3 or targets.shape[-1] != 5:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)}: must be (images, targets, 5), "
            "the 5 being class_id, cx, cy, w, h"
        )
    class_ids, sizes = targets[..., 0], targets[..., 3:]
    known = (class_ids >= 0) & (class_ids < num_classes) & (class_ids == class_ids.floor())
    usable = known & (sizes >= 0).all(dim=-1) & targets.isfinite().all(dim=-1)
    bad = (~usable).nonzero()
    if len(bad):
        image, row = bad[0].tolist()
        raise ValueError(
            f"target {row} of image {image} is {targets[image, row].tolist()}: must be class_id, "
            f"cx, cy, w, h, all finite, class_id an integer from 0 to {num_classes - 1}, w and h "
            "not negative"
        )


def _find_foreground(
    levels: Sequence[Tensor],
    points: AnchorPoints,
    usable: Tensor,
    targets: Tensor,
    rule: AssignmentRule,
) -> _Foreground:
    sizes = [level.shape[1] for level in levels]
    candidates = find_candidates(usable, points, targets, rule, sizes)
    rows = _candidate_rows(levels, candidates)
    boxes, objectness, classes = rows[:, :-1].split_with_sizes((4, 1, rows.shape[-1] - 5), dim=-1)
    at_candidates = points.at(candidates.point_index)
    match = match_candidates(
        decode_boxes(boxes, at_candidates),
        objectness.squeeze(-1),
        classes,
        at_candidates,
        candidates.used,
        targets,
        rule,
    )

    num_candidates = candidates.point_index.shape[1]
    most = min(MOST_POINTS_PER_TARGET * targets.shape[1], num_candidates)
    place, used = compact(match.foreground, most)
    index = candidates.point_index.gather(1, place)
    of_place = take_points(targets, match.target_index.gather(1, place))
    return _Foreground(
        used=used,
        point_index=index,
        # Zeros before exp(), where an overflow times a gradient of 0 would be NaN.
        rows=take_points(rows, place.where(used, num_candidates)),
        points=points.at(index),
        targets=of_place.where(used[..., None], 0),
    )


def _candidate_rows(levels: Sequence[Tensor], candidates: Candidates) -> Tensor:
    """(B, K + 1, 5 + C) float32 raw outputs at the candidates; the last row is zeros."""
    # The rest of the outputs, nearly all of it about the classes of background, is not read.
    taken = [take_points(*pair) for pair in zip(levels, candidates.by_level, strict=True)]
    return torch.cat((*taken, torch.zeros_like(taken[0][:, :1])), dim=1).float()


def _objectness_loss(objectness: Tensor, foreground: _Foreground) -> Tensor:
    background = torch.zeros_like(objectness)
    is_foreground = background.scatter(1, foreground.point_index, foreground.used.float())
    return _cross_entropy(objectness, is_foreground).sum()


def _class_loss(foreground: _Foreground, iou: Tensor) -> Tensor:
    """Cross entropy with the (B, P) IoU for the target's class, and 0 for the others."""
    classes = foreground.rows[..., 5:]
    class_ids = torch.arange(classes.shape[-1], device=classes.device)
    one_hot = class_ids == foreground.targets[..., :1]  # (B, P, C)
    loss = _cross_entropy(classes, one_hot * iou[..., None])
    return _sum(loss.sum(dim=-1), foreground)


def _l1_loss(foreground: _Foreground) -> Tensor:
    """Distance to the raw numbers that would decode to the target."""
    cells, strides = foreground.points
    centre = foreground.targets[..., 1:3] / strides - cells
    size = (foreground.targets[..., 3:] / strides + 1e-8).log()
    distance = (foreground.rows[..., :4] - torch.cat((centre, size), dim=-1)).abs()
    return _sum(distance.sum(dim=-1), foreground)


def _cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")


def _sum(values: Tensor, foreground: _Foreground) -> Tensor:
    """Sum of (B, P) values, those of places left over apart."""
    return values.where(foreground.used, 0).sum()
