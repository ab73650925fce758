import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from yolox_core import (
    PRESETS,
    ModelEMA,
    build_model,
    build_optimizer,
    ema_decay,
    seed_cosine,
    seed_step,
    warmup_cosine,
)

GROUP_SIZES = {
    "nano": (104, 113, 113),
    "tiny": (74, 83, 83),
    "s": (74, 83, 83),
    "m": (98, 107, 107),
    "l": (122, 131, 131),
    "x": (146, 155, 155),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_groups_are_norm_weights_decayed_conv_weights_and_biases(preset: str) -> None:
    with torch.device("meta"):
        model = build_model(preset)
    optimizer = build_optimizer(model, lr=0.01)
    assert tuple(len(g["params"]) for g in optimizer.param_groups) == GROUP_SIZES[preset]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0, 5e-4, 0]
    assert {g["momentum"] for g in optimizer.param_groups} == {0.9}
    assert all(g["nesterov"] for g in optimizer.param_groups)


def test_adamw_decays_the_same_weights() -> None:
    model = build_model("nano")
    sgd, adamw = (build_optimizer(model, lr=0.01, name=name) for name in ("sgd", "adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    for of_adamw, of_sgd in zip(adamw.param_groups, sgd.param_groups, strict=True):
        assert of_adamw["weight_decay"] == of_sgd["weight_decay"]
        assert len(of_adamw["params"]) == len(of_sgd["params"])


@pytest.mark.parametrize("total_epochs", [30, 300])
def test_the_seed_cosine_is_the_seeds(total_epochs: int, golden: Path) -> None:
    values = json.loads((golden / "schedules.json").read_text())["bub_lr_per_epoch"]
    for epoch, expected in values[str(total_epochs)].items():
        lr = seed_cosine(int(epoch), base_lr=0.01, total_epochs=total_epochs)
        assert lr == pytest.approx(expected, rel=1e-9), epoch


def test_the_seed_steps_go_down_to_a_hundredth_in_ten_equal_ratios() -> None:
    rates = [seed_step(epoch, base_lr=0.01, total_epochs=100) for epoch in range(100)]
    assert rates[0] == rates[9] == 0.01
    assert rates[90] == rates[99] == pytest.approx(0.0001)
    of_steps = rates[::10]
    ratios = [b / a for a, b in itertools.pairwise(of_steps)]
    assert ratios == pytest.approx([0.01 ** (1 / 9)] * 9)


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = build_model("nano")
    groups = build_optimizer(model, lr=0.01).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", ["std", "short", "nowarm"])
def test_learning_rates_are_the_official_ones(name: str, golden: Path) -> None:
    schedule = json.loads((golden / "schedules.json").read_text())[name]
    for step, expected in schedule["values"].items():
        lr = warmup_cosine(
            int(step),
            base_lr=schedule["lr"],
            steps_per_epoch=schedule["iters_per_epoch"],
            total_epochs=schedule["total_epochs"],
            warmup_epochs=schedule["warmup_epochs"],
            no_aug_epochs=schedule["no_aug_epochs"],
            min_lr_ratio=schedule["min_lr_ratio"],
            warmup_start_lr=schedule["warmup_lr_start"],
        )
        assert lr == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    lr = warmup_cosine(0, base_lr=0.01, steps_per_epoch=10, total_epochs=30, warmup_epochs=0)
    assert lr == 0.01


def test_a_run_too_short_for_its_warm_up_never_divides_by_zero() -> None:
    rates = [
        warmup_cosine(step, base_lr=0.01, steps_per_epoch=1, total_epochs=20) for step in range(21)
    ]
    assert max(rates) < 0.01  # 5 epochs of warm-up, 15 without augmentation, no cosine
    assert rates[5:] == [0.0005] * 16


def test_ema_decays_are_the_official_ones(golden: Path) -> None:
    decays = json.loads((golden / "schedules.json").read_text())["ema"]["decay"]
    for num_updates, expected in decays.items():
        assert ema_decay(int(num_updates)) == pytest.approx(expected, rel=1e-12)


def test_ema_averages_weights_and_batch_norm_statistics_but_no_counters() -> None:
    model = build_model("nano", num_classes=1)
    ema = ModelEMA(model)
    norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    averaged = next(m for m in ema.model.modules() if isinstance(m, nn.BatchNorm2d))
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.weight.fill_(3)  # from 1
        norm.running_mean.fill_(5)  # from 0
        norm.num_batches_tracked.fill_(7)
    ema.update(model)

    decay = 0.9998 * (1 - math.exp(-1 / 2000))
    torch.testing.assert_close(
        averaged.weight, torch.full_like(norm.weight, decay * 1 + (1 - decay) * 3)
    )
    torch.testing.assert_close(
        averaged.running_mean, torch.full_like(norm.running_mean, (1 - decay) * 5)
    )
    assert averaged.num_batches_tracked == 0


def test_ema_leaves_the_model_alone_and_needs_no_gradient() -> None:
    model = build_model("nano", num_classes=1).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ema = ModelEMA(model)
    ema.update(model)
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_a_resumed_ema_continues_as_if_unbroken() -> None:
    model, other = build_model("nano", num_classes=1), build_model("nano", num_classes=1)
    unbroken = ModelEMA(model)
    unbroken.update(other)
    resumed = ModelEMA(build_model("nano", num_classes=1))
    resumed.load_state_dict(unbroken.state_dict())
    unbroken.update(other)
    resumed.update(other)
    expected = unbroken.model.state_dict()
    assert all(value.equal(expected[key]) for key, value in resumed.model.state_dict().items())
