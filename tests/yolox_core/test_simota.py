from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from yolox_core import (
    OFFICIAL_RULE,
    YOLOX_PYTORCH_RULE,
    AnchorPoints,
    Assignment,
    AssignmentRule,
    anchor_points,
    cxcywh_to_xyxy,
    decode_outputs,
    pairwise_iou,
    simota_assign,
)
from yolox_core.anchors import flatten_levels
from yolox_core.simota import find_candidates, is_finite, put_points, take_points

RULES = {"official": OFFICIAL_RULE, "seed": YOLOX_PYTORCH_RULE}
CASES = ["s128_nc1_single", "s128_nc3", "s128_nc3_empty", "s416_nc3"]
SIZE = 128
NUM_POINTS = 16 * 16 + 8 * 8 + 4 * 4


class Predictions(NamedTuple):
    """The first arguments of simota_assign."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor
    points: AnchorPoints


def predictions(raw: list[Tensor]) -> Predictions:
    flat = flatten_levels(raw)
    return Predictions(
        decode_outputs(raw)[..., :4], flat[..., 4], flat[..., 5:], anchor_points(raw)
    )


def random_predictions(batch: int = 1, num_classes: int = 3, scale: float = 1.0) -> Predictions:
    return predictions(
        [torch.randn(batch, 5 + num_classes, SIZE // s, SIZE // s) * scale for s in (8, 16, 32)]
    )


def flat_predictions() -> Predictions:
    """Every raw number is 0: points of a level differ in nothing but their place."""
    return random_predictions(scale=0)


def random_targets(*counts: int, num_classes: int = 3) -> Tensor:
    targets = torch.zeros(len(counts), max(counts), 5)
    for row, count in zip(targets, counts, strict=True):
        row[:count, 0] = torch.randint(num_classes, (count,))
        row[:count, 1:3] = torch.rand(count, 2) * SIZE
        row[:count, 3:] = torch.rand(count, 2) * SIZE / 2 + 1
    return targets


def plain_loop(p: Predictions, image: int, targets: Tensor, rule: AssignmentRule) -> list[int]:
    """For each anchor point of one image the row of its target, -1 for background.

    The definition, one pair at a time; float64, so that near-ties are real ones.
    """
    rows = [row for row in range(len(targets)) if targets[row].any()]
    costs: dict[tuple[int, int], float] = {}
    ious: dict[tuple[int, int], float] = {}
    probability = (
        p.classes[image].double().sigmoid() * p.objectness[image, :, None].double().sigmoid()
    ).sqrt()
    all_ious = pairwise_iou(
        cxcywh_to_xyxy(targets[None, :, 1:]), cxcywh_to_xyxy(p.boxes[image][None])
    )[0]
    placed: dict[tuple[int, int], bool] = {}
    candidates = set()
    for point, ((x, y), stride) in enumerate(
        zip(p.points.centres.tolist(), p.points.strides.flatten().tolist(), strict=True)
    ):
        for row in rows:
            _, cx, cy, w, h = targets[row].tolist()
            near = max(abs(x - cx), abs(y - cy)) < rule.centre_radius * stride
            boxed = abs(x - cx) < w / 2 and abs(y - cy) < h / 2
            if near or (rule.boxes_count and boxed):
                candidates.add(point)
            placed[row, point] = near and (boxed or not rule.boxes_count)
    for point in candidates:
        for row in rows:
            one_hot = F.one_hot(targets[row, 0].long(), p.classes.shape[-1]).double()
            ious[row, point] = float(all_ious[row, point])
            costs[row, point] = (
                float(F.binary_cross_entropy(probability[point], one_hot, reduction="sum"))
                - 3 * float(np.log(ious[row, point] + 1e-8))
                + rule.penalty * (not placed[row, point])
            )
    takers: dict[int, list[int]] = {}
    for row in rows:
        best = sorted((ious[row, point] for point in candidates), reverse=True)[:10]
        k = max(1, int(sum(best)))
        for point in sorted(candidates, key=lambda point: (costs[row, point], point))[:k]:
            takers.setdefault(point, []).append(row)
    result = [-1] * len(p.points.strides)
    for point, taking in takers.items():
        contenders = taking if len(taking) == 1 else rows
        result[point] = min(contenders, key=lambda row: costs[row, point])
    return result


def rows_of(assignment: Assignment, image: int = 0) -> list[int]:
    rows = assignment.target_index[image].where(assignment.foreground[image], -1)
    return [int(row) for row in rows]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_matches_are_those_of_the_reference(case: str, rule: str, golden: Path) -> None:
    figures = np.load(golden / f"loss_{case}.npz")
    raw = [torch.from_numpy(figures[f"raw{stride}"]).float() for stride in (8, 16, 32)]
    labels = [torch.from_numpy(figures[f"labels{i}"]) for i in range(len(raw[0]))]
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)
    found = simota_assign(*predictions(raw), targets, RULES[rule])
    for i, foreground in enumerate(found.foreground):
        if len(labels[i]) == 0:
            assert not foreground.any()
            continue
        key = f"{rule}/img{i}"
        expected = np.unpackbits(figures[f"{key}/fg"])[: len(foreground)].astype(bool)
        assert foreground.equal(torch.from_numpy(expected))
        matched = torch.from_numpy(figures[f"{key}/gt"]).long()
        assert found.target_index[i, foreground].equal(matched)
        assert found.targets[i, foreground].equal(labels[i][matched])
        torch.testing.assert_close(
            found.iou[i, foreground], torch.from_numpy(figures[f"{key}/iou"]), atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_matches_are_those_of_a_plain_loop(scale: float, rule: AssignmentRule) -> None:
    p, targets = random_predictions(batch=3, scale=scale), random_targets(1, 5, 20)
    found = simota_assign(*p, targets, rule)
    for image in range(3):
        assert rows_of(found, image) == plain_loop(p, image, targets[image], rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size_bytes", [1, 20_000])  # a target at a time, and a few
def test_a_crowd_in_pieces_is_matched_as_in_one(
    size_bytes: int, rule: AssignmentRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, targets = random_predictions(batch=3), random_targets(0, 7, 40)
    targets[2, 20:] = targets[2, :20].clone()  # equals in other pieces, of which the first wins
    in_one = simota_assign(*p, targets, rule)
    monkeypatch.setattr("yolox_core.simota.MOST_BYTES_OF_A_PIECE", size_bytes)
    for in_pieces, expected in zip(simota_assign(*p, targets, rule), in_one, strict=True):
        assert in_pieces.equal(expected)


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that any operation gives."""

    size_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.size_bytes = max(self.size_bytes, result.nbytes)
        return result


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_crowds_pairs_are_never_held_all_at_once(
    rule: AssignmentRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, targets = random_predictions(), random_targets(150)  # 50,400 pairs, 201,600 bytes
    monkeypatch.setattr("yolox_core.simota.MOST_BYTES_OF_A_PIECE", 40_000)
    with LargestTensor() as largest:
        simota_assign(*p, targets, rule)
    # Keys of 8 bytes, x and y side by side; the cells around each target are some 90,000.
    assert 60_000 < largest.size_bytes < 100_000


def test_images_of_a_batch_do_not_know_each_other() -> None:
    p, targets = random_predictions(batch=2), random_targets(4, 9)
    together = simota_assign(*p, targets, OFFICIAL_RULE)
    alone = simota_assign(*(column[1:] for column in p[:3]), p.points, targets[1:], OFFICIAL_RULE)
    assert rows_of(together, 1) == rows_of(alone)


def test_padding_rows_change_nothing_wherever_they_are() -> None:
    p, targets = random_predictions(), random_targets(3)
    padded = torch.zeros(1, 6, 5)
    padded[:, [0, 2, 5]] = targets
    moved = simota_assign(*p, padded, YOLOX_PYTORCH_RULE)
    tight = simota_assign(*p, targets, YOLOX_PYTORCH_RULE)
    assert moved.foreground.equal(tight.foreground)
    assert moved.targets[moved.foreground].equal(tight.targets[tight.foreground])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("rows", [0, 4])
def test_no_targets_mean_background_everywhere(rows: int, rule: AssignmentRule) -> None:
    found = simota_assign(*random_predictions(), torch.zeros(1, rows, 5), rule)
    assert not found.foreground.any()
    assert not found.iou.any()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_row_that_sums_to_nothing_is_still_a_target(rule: AssignmentRule) -> None:
    # Half outside on the left: class 0 and -12 + 4 + 4 + 4 = 0.
    targets = torch.tensor([[[1.0, 60, 60, 20, 20], [0, -12, 4, 4, 4], [2, 90, 90, 30, 30]]])
    found = simota_assign(*flat_predictions(), targets, rule)
    assert {0, 1, 2} <= set(rows_of(found))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_target_far_outside_the_image_matches_nothing_and_harms_nothing(
    rule: AssignmentRule,
) -> None:
    targets = torch.tensor([[[0.0, 5000, 5000, 10, 10]]])
    assert not simota_assign(*random_predictions(), targets, rule).foreground.any()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_box_without_width_gets_one_point(rule: AssignmentRule) -> None:
    targets = torch.tensor([[[1.0, 60, 60, 0, 20]]])
    assert simota_assign(*random_predictions(), targets, rule).foreground.sum() == 1


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_predicted_nan_boxes_match_nothing_and_leave_the_others_alone(
    rule: AssignmentRule,
) -> None:
    p, targets = random_predictions(), torch.tensor([[[1.0, 60, 60, 40, 40]]])
    before = simota_assign(*p, targets, rule).foreground
    lost = before.nonzero()[0, 1]
    p.boxes[0, lost, 2] = torch.nan
    after = simota_assign(*p, targets, rule)
    assert after.foreground.any()
    assert not after.foreground[0, lost]
    assert after.iou.isfinite().all()


def test_nan_boxes_everywhere_match_nothing() -> None:
    p = random_predictions()
    p.boxes.fill_(torch.nan)
    assert not simota_assign(*p, random_targets(3), OFFICIAL_RULE).foreground.any()


@pytest.mark.parametrize("column", range(5))
def test_a_nan_target_matches_nothing_and_leaves_the_others_alone(column: int) -> None:
    p, targets = random_predictions(), random_targets(3)
    expected = simota_assign(*p, targets[:, [0, 2]], YOLOX_PYTORCH_RULE)
    targets[0, 1, column] = torch.nan
    found = simota_assign(*p, targets, YOLOX_PYTORCH_RULE)
    assert found.foreground.equal(expected.foreground)
    assert 1 not in rows_of(found)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_among_equal_costs_the_lowest_anchor_index_is_taken(rule: AssignmentRule) -> None:
    # (64, 64) is a corner shared by four cells of stride 32, all equally good: k is 1.
    targets = torch.tensor([[[0.0, 64, 64, 0, 0]]])
    p = flat_predictions()
    found = simota_assign(*p, targets, rule)
    assert found.foreground.sum() == 1
    centres = p.points.centres
    near = (centres - 64).abs().amax(dim=1) < rule.centre_radius * p.points.strides[:, 0]
    assert found.foreground[0].nonzero().item() == near.nonzero()[0].item()


def test_two_identical_targets_share_one_point_which_goes_to_the_first() -> None:
    targets = torch.tensor([[[0.0, 60, 60, 1, 1], [0, 60, 60, 1, 1]]])
    assert set(rows_of(simota_assign(*random_predictions(), targets, YOLOX_PYTORCH_RULE))) == {
        -1,
        0,
    }


def test_fewer_anchor_points_than_ten_are_enough() -> None:
    raw = [torch.zeros(1, 6, n, n) for n in (2, 1, 1)]
    targets = torch.tensor([[[0.0, 8, 8, 16, 16]]])
    assert simota_assign(*predictions(raw), targets, OFFICIAL_RULE).foreground.any()


def test_half_precision_predictions_are_matched_in_float32() -> None:
    p, targets = random_predictions(batch=2), random_targets(3, 9)
    half = Predictions(*(column.half() for column in p[:3]), p.points)
    wide = Predictions(*(column.float() for column in half[:3]), p.points)
    found = simota_assign(*half, targets, YOLOX_PYTORCH_RULE)
    assert found.iou.dtype == torch.float32
    assert rows_of(found, 1) == rows_of(simota_assign(*wide, targets, YOLOX_PYTORCH_RULE), 1)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_candidates_are_the_same_level_by_level_and_all_at_once(rule: AssignmentRule) -> None:
    p, targets = random_predictions(batch=3), random_targets(0, 2, 20)
    usable = torch.rand(3, NUM_POINTS) < 0.9
    together = find_candidates(usable, p.points, targets, rule, [NUM_POINTS])
    sizes = [16 * 16, 8 * 8, 4 * 4]
    apart = find_candidates(usable, p.points, targets, rule, sizes)
    for image in range(3):
        expected = together.point_index[image, together.used[image]]
        assert apart.point_index[image, apart.used[image]].equal(expected)
        assert usable[image, expected].all()
    shifted = [first + index for first, index in zip((0, 256, 320), apart.by_level, strict=True)]
    assert torch.cat(shifted, dim=1).equal(apart.point_index)
    assert all(len(set(row)) == len(row) for row in apart.point_index.tolist())


def test_a_box_with_one_number_that_is_not_finite_is_not_finite() -> None:
    boxes = torch.zeros(2, 6, 4)
    boxes[1, range(4), range(4)] = torch.tensor([torch.nan, torch.inf, -torch.inf, torch.nan])
    boxes[1, 4] = torch.finfo(torch.float32).max
    assert is_finite(boxes).tolist() == [[True] * 6, [False] * 4 + [True] * 2]


def test_points_that_are_put_are_those_that_are_taken() -> None:
    values, rows = torch.zeros(2, 5, 3), torch.rand(2, 2, 3)
    index = torch.tensor([[4, 0], [1, 2]])
    put_points(values, index, rows)
    assert take_points(values, index).equal(rows)
    assert values.count_nonzero() == rows.count_nonzero()


def test_assignment_never_looks_at_a_value() -> None:
    """Tensors on the meta device have none: whatever would wait for a GPU raises there."""
    p = random_predictions(batch=2)
    on_meta = [column.to("meta") for column in (*p[:3], *p.points)]
    points = AnchorPoints(*on_meta[3:])
    for rule in RULES.values():
        found = simota_assign(*on_meta[:3], points, torch.zeros(2, 7, 5, device="meta"), rule)
        assert found.foreground.shape == (2, NUM_POINTS)
    with pytest.raises((NotImplementedError, RuntimeError)):
        found.foreground.nonzero()  # what the claim rests on
