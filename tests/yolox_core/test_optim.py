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


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = build_model("nano")
    groups = build_optimizer(model, lr=0.01).param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


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
