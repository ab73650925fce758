"""SimOTA: which anchor points answer for which target.

Ge et al., https://arxiv.org/abs/2107.08430, section 2.3. For all images at once, and for all
targets unless they are a crowd, which is looked at in pieces; nothing waits for the GPU.
B = images, M = targets, m = those of a piece, A = anchor points, K = places for candidates,
C = classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from yolox_core.anchors import AnchorPoints
from yolox_core.boxes import Edges, columns, cxcywh_to_xyxy, edges, iou_and_union, paired_iou
from yolox_core.config import STRIDES

MOST_POINTS_PER_TARGET = 10
"""A target's points are counted from so many of its IoUs, none of which is above 1."""

MOST_BYTES_OF_A_PIECE = 16 * 2**20
"""What a float32 for each pair of a target and a point may take; about six such tensors are held.

A GPU reads as much in about the time of a launch, so that smaller pieces would cost it launches.
glibc fetches fresh pages for each block of 32 MiB and more, which the int64 keys of a larger piece
would be.
"""

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

    def most_candidates(self, num_targets: int, num_points: int, num_levels: int) -> int:
        """How many of an image's points, on so many levels, can be near targets at the most."""
        if self.boxes_count:
            return num_points
        # An open interval of n cells holds at most n of their middles.
        near_each = num_levels * math.ceil(2 * self.centre_radius) ** 2
        return min(num_targets * near_each, num_points)


OFFICIAL_RULE = AssignmentRule(centre_radius=1.5, boxes_count=False, penalty=1e6)
YOLOX_PYTORCH_RULE = AssignmentRule(centre_radius=2.5, boxes_count=True, penalty=1e5)


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


class Candidates(NamedTuple):
    """The anchor points that may answer for a target, in K places per image."""

    by_level: tuple[Tensor, ...]
    """(B, places) int64 per level: which of its anchor points, all different."""
    point_index: Tensor
    """(B, K) int64: the same for all levels together, counted over all A."""
    used: Tensor
    """(B, K) bool: the place holds a candidate; those left over hold background."""


class _Choices(NamedTuple):
    """What the targets say of the candidates; n = the most points that a target takes."""

    places: Tensor
    """(B, M, n) int64: the candidates that cost a target least, the cheapest first."""
    taken: Tensor
    """(B, M, n) bool: which of these it takes."""
    least_cost: Tensor
    """(B, K) float32: of all targets."""
    rows_left: Tensor
    """(B, K) float32: M less the row of the first target of that cost."""


class _Offers(NamedTuple):
    """What the costs ask of the candidates; 1 = whichever target."""

    edges: Edges
    """(B, 1, K) each: of their boxes, which have no area where there is no candidate."""
    class_cost: Tensor
    """(B, C, K), see `_class_cost`."""
    centres: Tensor
    """(2, B, 1, K) x and y of the anchor points."""
    radii: Tensor
    """(1, B, 1, K): how far away the centre of a target may be, in pixels."""


class CandidateMatch(NamedTuple):
    """What each candidate should predict."""

    foreground: Tensor
    """(B, K) bool: it answers for a target."""
    target_index: Tensor
    """(B, K) int64: which of the image's M rows; for background it means nothing."""


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
        rule: `OFFICIAL_RULE` or `YOLOX_PYTORCH_RULE`.
    """
    targets = with_a_row(targets)
    usable = is_finite(boxes_cxcywh)
    candidates = find_candidates(usable, points, targets, rule, [usable.shape[1]])
    index = candidates.point_index
    match = match_candidates(
        take_points(boxes_cxcywh, index),
        objectness.gather(1, index),
        take_points(classes, index),
        points.at(index),
        candidates.used,
        targets,
        rule,
    )
    background = torch.zeros_like(usable)  # (B, A), where the K places are put back
    foreground = background.scatter(1, index, match.foreground)
    rows = match.target_index.masked_fill(~match.foreground, 0)
    target_index = background.long().scatter(1, index, rows)
    matched = take_points(targets, target_index)
    boxes = boxes_cxcywh.float(), matched[..., 1:].float()
    iou = paired_iou(*map(cxcywh_to_xyxy, boxes)).where(foreground, 0)
    return Assignment(foreground, target_index, matched, iou)


@torch.no_grad()
def find_candidates(
    usable: Tensor,
    points: AnchorPoints,
    targets: Tensor,
    rule: AssignmentRule,
    level_sizes: Sequence[int],
) -> Candidates:
    """The usable points near any target. Few are: what follows need only look at them.

    Args:
        usable: (B, A) bool: the predicted box is finite.
        points: the A anchor points.
        targets: (B, M, 5) as for `simota_assign`, M at least 1.
        rule: whose distance.
        level_sizes: how many points each level has, or how many there are in all.
    """
    near = _near_targets(points, targets.float(), rule) & usable
    levels_of_each = len(STRIDES) // len(level_sizes)
    by_level, used, index, first = [], [], [], 0
    of_levels = near.split_with_sizes(list(level_sizes), dim=1)
    for size, near_on_level in zip(level_sizes, of_levels, strict=True):
        most = rule.most_candidates(targets.shape[1], size, levels_of_each)
        places, is_used = compact(near_on_level, most)
        by_level.append(places)
        used.append(is_used)
        index.append(first + places)
        first += size
    return Candidates(tuple(by_level), torch.cat(index, dim=1), torch.cat(used, dim=1))


@torch.no_grad()
def match_candidates(
    boxes_cxcywh: Tensor,
    objectness: Tensor,
    classes: Tensor,
    points: AnchorPoints,
    used: Tensor,
    targets: Tensor,
    rule: AssignmentRule,
) -> CandidateMatch:
    """Match candidates with targets, as `simota_assign` says.

    Args:
        boxes_cxcywh: (B, K, 4) decoded boxes, letterboxed pixels.
        objectness: (B, K) before sigmoid.
        classes: (B, K, C) before sigmoid.
        points: cells (B, K, 2) and strides (B, K, 1).
        used: (B, K) bool, see `Candidates`.
        targets: (B, M, 5) as for `simota_assign`, M at least 1.
        rule: `OFFICIAL_RULE` or `YOLOX_PYTORCH_RULE`.
    """
    # Near-ties decide the outcome, and float16 would reorder them.
    boxes_cxcywh, targets = boxes_cxcywh.float(), targets.float()
    real = _is_real(targets)
    # What is no candidate and no target becomes zeros, which overlap with nothing.
    boxes_xyxy = cxcywh_to_xyxy(boxes_cxcywh.where(used[..., None], 0))
    targets = targets.where(real[..., None], 0)
    offers = _Offers(
        edges(boxes_xyxy[:, None]),
        _class_cost(objectness, classes, used),
        columns(points.centres[:, None]),
        columns(rule.centre_radius * points.strides[:, None]),
    )
    choices = _no_choices(targets, used)
    for some in _pieces(targets, used.shape[1]):
        piece = targets[:, some], real[:, some]
        _choose(choices, some, *_cost_and_count(*piece, offers, rule))

    num_choosers = _sum_by_place(choices.places, choices.taken.long(), used)
    rows = torch.arange(targets.shape[1], device=targets.device)[:, None]
    only_chooser = _sum_by_place(choices.places, choices.taken * rows, used)
    # A contested point goes to the cheapest of all targets, even one that did not ask for it: so
    # do both references.
    cheapest = targets.shape[1] - choices.rows_left.long()
    row = torch.where(num_choosers > 1, cheapest, only_chooser)
    return CandidateMatch(num_choosers > 0, row)


def with_a_row(targets: Tensor) -> Tensor:
    """(B, M, 5) targets with a row of padding where they have none."""
    return targets if targets.shape[1] else targets.new_zeros(len(targets), 1, 5)


def is_finite(boxes: Tensor) -> Tensor:
    """(B, A, 4) to (B, A) bool: no number of the box is NaN or infinite."""
    # 0 times such a number is NaN. Far cheaper than isfinite() and all() on a CPU.
    a, b, c, d = boxes.mul(0).unbind(dim=-1)
    return a + b + c + d == 0


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
    # Whole rows at once, which gather() would look up number by number.
    taken = values.flatten(0, 1).index_select(0, _flat(index, values))
    return taken.view(*index.shape, values.shape[-1])


def put_points(values: Tensor, index: Tensor, rows: Tensor) -> None:
    """Write (B, K, n) rows into contiguous (B, A, n) values, at (B, K) indices, all different."""
    values.flatten(0, 1).index_copy_(0, _flat(index, values), rows.flatten(0, 1))


def _flat(index: Tensor, values: Tensor) -> Tensor:
    """(B, K) indices into each of (B, A, n) values: (B x K,) into all of them."""
    images, size = values.shape[:2]
    return (torch.arange(images, device=index.device)[:, None] * size + index).flatten()


def _is_real(targets: Tensor) -> Tensor:
    """(B, M) bool: neither padding nor spoiled."""
    return targets.ne(0).any(dim=-1) & targets.isfinite().all(dim=-1)


def _near_targets(points: AnchorPoints, targets: Tensor, rule: AssignmentRule) -> Tensor:
    """(B, A) bool: near the centre of any target, or inside its box where that counts."""
    real = _is_real(targets)
    near = _near_centres(points, targets, real, rule.centre_radius)
    if rule.boxes_count:
        centres = columns(points.centres)[:, None, None]
        for some in _pieces(targets, near.shape[1]):
            near |= _is_in_a_box(centres, targets[:, some], real[:, some])
    return near


def _is_in_a_box(centres: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """(B, A) bool: one of (2, 1, 1, A) points is strictly inside the box of any target."""
    outside = _is_outside(centres, targets, _half_sizes(targets))
    return (outside.eq(0) & real[..., None]).any(dim=1)


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


def _pieces(targets: Tensor, num_points: int) -> list[slice]:
    """Which of (B, M, 5) targets to hold against so many points at a time, at least one."""
    bytes_each = 4 * len(targets) * num_points
    size = max(1, MOST_BYTES_OF_A_PIECE // max(1, bytes_each))
    return [slice(first, first + size) for first in range(0, targets.shape[1], size)]


def _no_choices(targets: Tensor, used: Tensor) -> _Choices:
    """Room for what is yet to be chosen."""
    shape = (*targets.shape[:2], min(MOST_POINTS_PER_TARGET, used.shape[1]))
    return _Choices(
        places=torch.zeros(shape, dtype=torch.int64, device=used.device),
        taken=torch.zeros(shape, dtype=torch.bool, device=used.device),
        least_cost=torch.full_like(used, torch.inf, dtype=torch.float32),
        rows_left=torch.full_like(used, targets.shape[1], dtype=torch.float32),
    )


def _choose(choices: _Choices, some: slice, cost: Tensor, counts: Tensor) -> None:
    """Write down what some of the targets choose.

    Args:
        choices: written to. Fresh tensors, small ones that stay between large ones that go, would
            leave holes in a CPU's heap: half a crowd's memory.
        some: which of the M targets.
        cost: (B, m, K) theirs.
        counts: (B, m) how many points they take.
    """
    choices.places[:, some], choices.taken[:, some] = _cheapest_points(cost, counts)
    least_cost = cost.amin(dim=1)
    # Not argmin(), for which a CPU takes twenty times as long.
    is_least = torch.eq(cost, least_cost[:, None], out=torch.empty_like(cost))
    left_at_first = choices.places.shape[1] - some.start
    rows_left = torch.arange(left_at_first, 0, -1.0, device=cost.device)[: cost.shape[1], None]
    of_first = is_least.mul_(rows_left).amax(dim=1)
    is_less = least_cost < choices.least_cost  # among equals the row of an earlier piece stays
    torch.where(is_less, of_first, choices.rows_left, out=choices.rows_left)
    torch.minimum(least_cost, choices.least_cost, out=choices.least_cost)


def _cost_and_count(
    targets: Tensor, real: Tensor, offers: _Offers, rule: AssignmentRule
) -> tuple[Tensor, Tensor]:
    """(B, m, K) float32 cost of each pair, and (B, m) how many points each target takes."""
    iou, _ = iou_and_union(edges(cxcywh_to_xyxy(targets[:, :, None, 1:])), offers.edges)
    counts = _points_per_target(iou)
    # On a GPU nobody has checked the ids: an id out of range must not read foreign memory.
    class_ids = targets[..., 0].nan_to_num().long().clamp(0, offers.class_cost.shape[1] - 1)
    cost = take_points(offers.class_cost, class_ids)
    # Padding overlaps with nothing, so that the logarithm is below 0 and its cost infinite.
    weight = torch.full_like(counts, _IOU_WEIGHT, dtype=torch.float32).where(real, torch.inf)
    # In place: fresh memory costs a CPU more than the arithmetic.
    cost -= iou.add_(1e-8).log_().mul_(weight[..., None])
    del iou
    cost.add_(_is_misplaced(targets, offers, rule), alpha=rule.penalty)
    return cost.nan_to_num_(nan=torch.inf, posinf=torch.inf), counts


def _is_misplaced(targets: Tensor, offers: _Offers, rule: AssignmentRule) -> Tensor:
    """(B, m, K) float32, 1 or 0: the point is not where a match should be."""
    misplaced = _is_outside(offers.centres, targets, offers.radii)
    if rule.boxes_count:
        outside = _is_outside(offers.centres, targets, _half_sizes(targets))
        misplaced = torch.maximum(misplaced, outside)
    return misplaced


def _half_sizes(targets: Tensor) -> Tensor:
    """(B, m, 5) targets to (2, B, m, 1): from their centres to their edges, in x and in y."""
    return columns(targets[:, :, None, 3:]) / 2


def _is_outside(centres: Tensor, targets: Tensor, half_sizes: Tensor) -> Tensor:
    """(B, m, A) float32, 1 or 0: not strictly inside a rectangle around each target's centre.

    Args:
        centres: (2, B or 1, 1, A) x and y of the points.
        targets: (B, m, 5).
        half_sizes: (2 or 1, B, m or 1, A or 1) of the rectangles.
    """
    # Numbers and no bool: a CPU compares six times as fast where the type stays the same.
    offset = (centres - columns(targets[:, :, None, 1:3])).abs_()
    beside, above = offset.ge_(half_sizes).unbind()
    return torch.maximum(beside, above, out=beside)


def _class_cost(objectness: Tensor, classes: Tensor, used: Tensor) -> Tensor:
    """(B, C, K): cross entropy of sqrt(class x objectness) with the one-hot of each class.

    For class g the sum over classes is sum_c -log(1 - p_c) + log(1 - p_g) - log(p_g). Infinite
    where there is no candidate.
    """
    # In place: fresh memory costs a CPU more than the arithmetic.
    p = classes.float().sigmoid().mul_(objectness.float().sigmoid()[..., None]).sqrt_()
    log_not_p = (1 - p).log_().clamp_(min=-100)  # the floor of torch's binary_cross_entropy
    log_p = p.log_().clamp_(min=-100)
    every_class_absent = _infinite_unless(used) - log_not_p.sum(dim=-1)  # (B, K)
    one_present = log_not_p.sub_(log_p).transpose(1, 2).contiguous()  # (B, C, K)
    return one_present.add_(every_class_absent[:, None])


def _infinite_unless(mask: Tensor) -> Tensor:
    """0 where a mask is true, elsewhere more than any cost."""
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, torch.inf)


def _points_per_target(iou: Tensor) -> Tensor:
    """(B, M): how many points each target takes."""
    best = iou.topk(min(MOST_POINTS_PER_TARGET, iou.shape[-1]), dim=-1).values
    return best.sum(dim=-1).long().clamp(min=1)


def _cheapest_points(cost: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The `counts` points of least finite cost, lower index first among equals.

    Returns:
        (B, M, 10) places, all different in a row, and bool: which of these are taken. Fewer than
        10 where there are fewer points.
    """
    num_points = cost.shape[-1]
    # topk leaves the order of equals open. The bits of a float >= 0 sort like the float; a double
    # that was a single has 29 zeros at the end, and with the index there no two keys are equal.
    # Rounding may have left a cost just below 0.
    key = cost.clamp(min=0).double().view(torch.int64)
    key |= torch.arange(num_points, device=cost.device)
    index = key.topk(min(MOST_POINTS_PER_TARGET, num_points), dim=-1, largest=False).indices
    rank = torch.arange(index.shape[-1], device=cost.device)
    return index, (rank < counts[..., None]) & cost.gather(2, index).isfinite()


def _sum_by_place(index: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """(B, K), like `places`: the sum of the (B, M, n) values that have a place's index."""
    zeros = torch.zeros_like(places, dtype=values.dtype)
    return zeros.scatter_add(1, index.flatten(1), values.flatten(1))
