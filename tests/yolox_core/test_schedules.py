import itertools
import json
from pathlib import Path

import pytest

from yolox_core import warmup_cosine, yolox_pytorch_cosine, yolox_pytorch_step


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


@pytest.mark.parametrize("total_epochs", [30, 300])
def test_the_cosine_of_yolox_pytorch_is_its_own(total_epochs: int, golden: Path) -> None:
    values = json.loads((golden / "schedules.json").read_text())["bub_lr_per_epoch"]
    for epoch, expected in values[str(total_epochs)].items():
        lr = yolox_pytorch_cosine(int(epoch), base_lr=0.01, total_epochs=total_epochs)
        assert lr == pytest.approx(expected, rel=1e-9), epoch


def test_the_steps_of_yolox_pytorch_go_down_to_a_hundredth_in_ten_equal_ratios() -> None:
    rates = [yolox_pytorch_step(epoch, base_lr=0.01, total_epochs=100) for epoch in range(100)]
    assert rates[0] == rates[9] == 0.01
    assert rates[90] == rates[99] == pytest.approx(0.0001)
    of_steps = rates[::10]
    ratios = [b / a for a, b in itertools.pairwise(of_steps)]
    assert ratios == pytest.approx([0.01 ** (1 / 9)] * 9)
