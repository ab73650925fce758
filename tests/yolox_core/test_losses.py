import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from yolox_core import YOLOXLoss, check_targets

CASES = ["s128_nc1_single", "s128_nc3", "s128_nc3_empty", "s416_nc3"]
TERMS = {
    "total": "total",
    "iou": "iou5",
    "objectness": "obj",
    "class": "cls",
    "l1": "l1",
    "num_foreground": "num_fg",
}
Rule = Literal["official", "yolox_pytorch"]


def raw_outputs(value: float = 0.0, num_classes: int = 3, batch: int = 1) -> list[Tensor]:
    return [
        torch.full((batch, 5 + num_classes, 64 // s, 64 // s), value, requires_grad=True)
        for s in (8, 16, 32)
    ]


def one_target() -> Tensor:
    return torch.tensor([[[1.0, 30, 34, 20, 24]]])


@pytest.mark.parametrize("mode", ["official", "official_l1", "seed"])
@pytest.mark.parametrize("case", CASES)
def test_terms_and_gradients_are_those_of_the_reference(case: str, mode: str, golden: Path) -> None:
    figures = np.load(golden / f"loss_{case}.npz")
    raw = [torch.from_numpy(figures[f"raw{s}"]).float().requires_grad_() for s in (8, 16, 32)]
    labels = [torch.from_numpy(figures[f"labels{i}"]) for i in range(len(raw[0]))]
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True)
    rule: Rule = "yolox_pytorch" if mode == "seed" else "official"
    losses = YOLOXLoss(int(figures["num_classes"]), rule)(raw, targets, use_l1="l1" in mode)
    for ours, theirs in TERMS.items():
        assert losses[ours].item() == pytest.approx(float(figures[f"{mode}/{theirs}"]), rel=1e-5)

    losses["total"].backward()
    for output, stride in zip(raw, (8, 16, 32), strict=True):
        expected = torch.from_numpy(figures[f"{mode}/grad{stride}"])
        tolerance = 1e-5 * expected.abs().max().item()
        torch.testing.assert_close(output.grad, expected, atol=tolerance, rtol=1e-4)


@pytest.mark.parametrize("rule", ["official", "yolox_pytorch"])
def test_terms_and_gradients_of_a_crowd_in_pieces_are_those_in_one(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = [torch.randn_like(output).requires_grad_() for output in raw_outputs(batch=2)]
    targets = torch.rand(2, 30, 5) * torch.tensor([0, 64, 64, 30, 30])
    in_one = YOLOXLoss(3, rule)(raw, targets, use_l1=True)
    monkeypatch.setattr("yolox_core.simota.MOST_BYTES_OF_A_PIECE", 1)
    in_pieces = YOLOXLoss(3, rule)(raw, targets, use_l1=True)
    assert in_one["num_foreground"] > 0
    assert all(in_pieces[name].equal(term) for name, term in in_one.items())
    gradients = (torch.autograd.grad(losses["total"], raw) for losses in (in_pieces, in_one))
    assert all(ours.equal(expected) for ours, expected in zip(*gradients, strict=True))


def test_total_is_the_sum_of_the_four_terms() -> None:
    losses = YOLOXLoss(3)(raw_outputs(0.5), one_target(), use_l1=True)
    terms = sum(losses[name] for name in ("iou", "objectness", "class", "l1"))
    torch.testing.assert_close(losses["total"], terms)


@pytest.mark.parametrize("rows", [0, 5])
def test_without_targets_only_objectness_counts(rows: int) -> None:
    losses = YOLOXLoss(3)(raw_outputs(), torch.zeros(1, rows, 5), use_l1=True)
    points = 8 * 8 + 4 * 4 + 2 * 2  # each at probability one half: log 2
    assert losses["total"].item() == pytest.approx(points * math.log(2))
    assert losses["objectness"].item() == losses["total"].item()
    assert losses["num_foreground"] == 0


def test_no_images_give_no_loss() -> None:
    losses = YOLOXLoss(3)(raw_outputs(batch=0), torch.zeros(0, 2, 5))
    assert losses["total"] == 0


def test_l1_is_zero_unless_asked_for() -> None:
    assert YOLOXLoss(3)(raw_outputs(), one_target())["l1"] == 0
    assert YOLOXLoss(3)(raw_outputs(), one_target(), use_l1=True)["l1"] > 0


def test_a_perfect_box_has_no_box_loss_and_no_l1() -> None:
    raw = raw_outputs()
    targets = torch.tensor([[[0.0, 32, 32, 32, 32]]])  # what raw zeros at cell (1, 1) decode to
    with torch.no_grad():
        raw[2][:, 5:] = 4  # make the coarsest level the cheapest
    losses = YOLOXLoss(3)(raw, targets, use_l1=True)
    assert losses["num_foreground"] == 1
    assert losses["iou"].item() == pytest.approx(0, abs=1e-6)
    assert losses["l1"].item() == pytest.approx(0, abs=1e-6)


def test_box_loss_is_five_times_one_minus_iou_squared_or_one_minus_giou() -> None:
    # The lone match is a 16 px square around the 2 px target: IoU and GIoU are 4 / 256.
    targets = torch.tensor([[[0.0, 12, 12, 2, 2]]])
    raw = raw_outputs()
    with torch.no_grad():
        raw[1][0, 4:, 1, 1] = torch.tensor([4, 4, -4, -4])  # sure of class 0: the cheapest
    iou, giou = YOLOXLoss(3)(raw, targets), YOLOXLoss(3, iou_loss="giou")(raw, targets)
    assert iou["num_foreground"] == giou["num_foreground"] == 1
    assert iou["iou"].item() == pytest.approx(5 * (1 - (4 / 256) ** 2))
    assert giou["iou"].item() == pytest.approx(5 * (1 - 4 / 256))


@pytest.mark.parametrize("rule", ["official", "yolox_pytorch"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1000.0])
def test_a_box_that_overflows_is_counted_and_poisons_no_gradient(value: float, rule: Rule) -> None:
    raw = raw_outputs()
    with torch.no_grad():
        raw[0][0, 2, 3, 3] = value  # exp(1000) is infinite
    losses = YOLOXLoss(3, rule)(raw, one_target(), use_l1=True)
    losses["total"].backward()
    assert losses["num_nonfinite"] == 1
    assert losses["num_foreground"] > 0
    assert losses["total"].isfinite()
    assert all(output.grad is not None and output.grad.isfinite().all() for output in raw)


def test_nothing_is_counted_as_nonfinite_in_a_healthy_batch() -> None:
    assert YOLOXLoss(3)(raw_outputs(), one_target())["num_nonfinite"] == 0


def test_half_precision_outputs_are_summed_in_float32() -> None:
    raw = [output.detach().bfloat16() for output in raw_outputs(0.5)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = YOLOXLoss(3)(raw, one_target(), use_l1=True)
    expected = YOLOXLoss(3)(raw_outputs(0.5), one_target(), use_l1=True)
    assert losses["total"].dtype == torch.float32
    torch.testing.assert_close(losses["total"], expected["total"])


@pytest.mark.parametrize("class_id", [-1.0, 3.0, 0.5, torch.nan])
def test_an_impossible_class_id_is_refused_by_image_and_row(class_id: float) -> None:
    targets = torch.zeros(2, 3, 5)
    targets[1, 2] = torch.tensor([class_id, 30, 30, 10, 10])
    with pytest.raises(ValueError, match=r"target 2 of image 1 is .* integer from 0 to 2"):
        YOLOXLoss(3)(raw_outputs(batch=2), targets)


def test_a_negative_width_is_refused() -> None:
    with pytest.raises(ValueError, match="w and h not negative"):
        check_targets(torch.tensor([[[0.0, 30, 30, -10, 10]]]), num_classes=1)


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\): must be \(images, targets, 5\)"):
        check_targets(torch.zeros(4, 5), num_classes=1)


def test_outputs_for_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="8 channels: 4 classes need 9"):
        YOLOXLoss(4)(raw_outputs(num_classes=3), one_target())


@pytest.mark.parametrize("iou_loss", ["iou", "giou"])
@pytest.mark.parametrize("rule", ["official", "yolox_pytorch"])
def test_loss_and_gradient_never_look_at_a_value(
    rule: Rule, iou_loss: Literal["iou", "giou"]
) -> None:
    """Tensors on the meta device have none: whatever would wait for a GPU raises there."""
    raw = [output.detach().to("meta").requires_grad_() for output in raw_outputs(batch=2)]
    targets = torch.zeros(2, 7, 5, device="meta")
    YOLOXLoss(3, rule, iou_loss)(raw, targets, use_l1=True)["total"].backward()
    assert all(output.grad is not None for output in raw)
