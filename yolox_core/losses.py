"""The training loss: box IoU, objectness, class and, in the last epochs, L1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from yolox_core.anchors import AnchorPoints, anchor_points, decode_boxes, flatten_levels
from yolox_core.boxes import cxcywh_to_xyxy, paired_giou, paired_iou
from yolox_core.simota import OFFICIAL_RULE, SEED_RULE, Assignment, simota_assign

_RULES = {"official": OFFICIAL_RULE, "seed": SEED_RULE}
_IOU_WEIGHT = 5.0


@dataclass(frozen=True)
class YOLOXLoss:
    """Loss of raw outputs against targets, in float32 whatever the model's dtype.

    B = images, M = targets, A = anchor points, C = classes. Everything is computed for all
    anchor points and masked: on a GPU nothing waits for the device.
    """

    num_classes: int
    rule: Literal["official", "seed"] = "official"
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
        flat = flatten_levels(raw).float()
        targets = targets.to(flat)
        raw_boxes, classes = flat[..., :4], flat[..., 5:]
        objectness = flat[..., 4]
        points = anchor_points(raw)
        boxes = decode_boxes(raw_boxes.detach(), points)
        match = simota_assign(boxes, objectness, classes, points, targets, _RULES[self.rule])

        num_foreground = match.foreground.sum()
        count = num_foreground.clamp(min=1)
        foreground = match.foreground.float()
        losses = {
            "iou": _IOU_WEIGHT * self._box_loss(raw_boxes, points, match) / count,
            "objectness": _cross_entropy(objectness, foreground).sum() / count,
            "class": _class_loss(classes, match) / count,
            "l1": (_l1_loss(raw_boxes, points, match) if use_l1 else flat.new_zeros(())) / count,
        }
        num_nonfinite = (~boxes.isfinite().all(dim=-1)).sum()
        return {
            "total": torch.stack(list(losses.values())).sum(),
            **losses,
            "num_foreground": num_foreground,
            "num_nonfinite": num_nonfinite,
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

    def _box_loss(self, raw_boxes: Tensor, points: AnchorPoints, match: Assignment) -> Tensor:
        # Background points are masked before exp(): an overflow times a gradient of 0 is NaN.
        predicted = decode_boxes(_foreground_only(raw_boxes, match), points)
        target = _foreground_only(match.targets[..., 1:], match)
        overlap = paired_giou if self.iou_loss == "giou" else paired_iou
        iou = overlap(cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(target))
        loss = 1 - iou if self.iou_loss == "giou" else 1 - iou**2
        return _foreground_only(loss, match).sum()


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


def _class_loss(classes: Tensor, match: Assignment) -> Tensor:
    class_ids = torch.arange(classes.shape[-1], device=classes.device)
    one_hot = class_ids == match.targets[..., :1]  # (B, A, C)
    loss = _cross_entropy(classes, one_hot * match.iou[..., None]).sum(dim=-1)
    return _foreground_only(loss, match).sum()


def _l1_loss(raw_boxes: Tensor, points: AnchorPoints, match: Assignment) -> Tensor:
    """Distance to the raw numbers that would decode to the target."""
    centre = match.targets[..., 1:3] / points.strides - points.cells
    size = (match.targets[..., 3:] / points.strides + 1e-8).log()
    target = _foreground_only(torch.cat((centre, size), dim=-1), match)
    return (_foreground_only(raw_boxes, match) - target).abs().sum()


def _cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")


def _foreground_only(values: Tensor, match: Assignment) -> Tensor:
    """(B, A) or (B, A, n) values, 0 for background whatever stood there."""
    mask = match.foreground
    return values.where(mask if values.ndim == mask.ndim else mask[..., None], 0)
