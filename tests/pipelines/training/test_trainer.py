import copy
import dataclasses
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from pipelines.errors import TrainingDivergedError
from pipelines.training import process_group
from pipelines.training import trainer as trainer_module
from pipelines.training.loader import Batch
from pipelines.training.recipe import Recipe
from pipelines.training.trainer import Trainer, precision_of
from yolox_core import (
    build_model,
    load_checkpoint,
    warmup_cosine,
    yolox_pytorch_cosine,
    yolox_pytorch_step,
)

RECIPE = Recipe(
    preset="nano",
    input_size=64,
    epochs=4,
    batch_size=4,
    learning_rate=0.1,
    warmup_epochs=1,
    no_aug_epochs=1,
    multiscale=False,
    eval_every=3,
)
STEPS = 2


def square(size: int = 24) -> Batch:
    """Four canvases with the same white square in the middle."""
    canvases = torch.full((4, 64, 64, 3), 60, dtype=torch.uint8)
    canvases[:, 32 - size // 2 : 32 + size // 2, 32 - size // 2 : 32 + size // 2] = 255
    targets = torch.tensor([1.0, 32, 32, size, size]).repeat(4, 1, 1)
    content = torch.tensor([0, 0, 64, 64]).repeat(4, 1)
    return Batch(("a", "b", "c", "d"), canvases, content, targets)


def noise(number: int) -> Batch:
    """A batch that no other number has."""
    canvases = torch.randint(256, (4, 64, 64, 3), generator=torch.Generator().manual_seed(number))
    return dataclasses.replace(square(), canvases=canvases.byte())


def overflow_in(trainer: Trainer, steps: set[int]) -> None:
    """Make the stem's BatchNorm put out infinity in these steps, as half precision may."""
    calls = itertools.count()

    def overflow(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        return (inputs[0] * math.inf,) if next(calls) in steps else None

    trainer.model.backbone.backbone.stem.conv.bn.register_forward_pre_hook(overflow)


def trainer_of(recipe: Recipe = RECIPE, steps_per_epoch: int = STEPS) -> Trainer:
    torch.manual_seed(0)
    model = build_model(recipe.preset, num_classes=2)
    return Trainer(recipe, model, "official", steps_per_epoch, torch.device("cpu"))


def test_the_loss_falls() -> None:
    trainer = trainer_of(steps_per_epoch=8)
    losses = [trainer.run_epoch([square()] * 8).loss for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]


def test_the_learning_rate_follows_warmup_cosine() -> None:
    trainer = trainer_of()
    last_of_epochs = [trainer.run_epoch([square()] * STEPS).learning_rate for _ in range(4)]
    expected = [
        warmup_cosine(
            step,
            base_lr=0.1 * 4 / 64,
            steps_per_epoch=STEPS,
            total_epochs=4,
            warmup_epochs=1,
            no_aug_epochs=1,
        )
        for step in (1, 3, 5, 7)
    ]
    assert last_of_epochs == expected


@pytest.mark.parametrize(
    ("schedule", "rate_of_epoch"),
    [("yolox_pytorch_cosine", yolox_pytorch_cosine), ("yolox_pytorch_step", yolox_pytorch_step)],
)
def test_the_schedules_of_yolox_pytorch_go_by_epochs(
    schedule: str, rate_of_epoch: Callable[..., float]
) -> None:
    recipe = dataclasses.replace(RECIPE, schedule=schedule)
    rates = [recipe.lr_at(step, STEPS) for step in range(4 * STEPS)]
    of_epochs = [rate_of_epoch(epoch, base_lr=0.1 * 4 / 64, total_epochs=4) for epoch in range(4)]
    assert rates == [rate for rate in of_epochs for _ in range(STEPS)]
    assert len(set(rates)) > 1


def test_l1_joins_in_the_last_epochs() -> None:
    trainer = trainer_of()
    l1 = [trainer.run_epoch([square()]).loss_l1 for _ in range(4)]
    assert l1[:3] == [0, 0, 0]
    assert l1[3] > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_restored_trainer_goes_on_as_if_unbroken(optimizer: str) -> None:
    # Stopped after step 18 of 20: mosaics of step 19 take partners from the 16 batches before.
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, mosaic=1.0, mixup=1.0)
    batches = [noise(number) for number in range(20)]
    unbroken, restored = trainer_of(recipe, 20), trainer_of(recipe, 20)
    states = []

    def keep_state() -> None:
        if unbroken.steps_done == 18:
            states.append(_saved(unbroken.state_dict()))

    expected = unbroken.run_epoch(batches, keep_state)
    restored.load_state_dict(torch.load(states[0], weights_only=True))
    assert (restored.epochs_done, restored.steps_done) == (0, 18)
    result = restored.run_epoch(batches[restored.first_step_to_load :])

    assert dataclasses.replace(result, seconds=0, wait_seconds=0) == dataclasses.replace(
        expected, seconds=0, wait_seconds=0
    )
    for mine, theirs in ((restored.model, unbroken.model), (restored.ema, unbroken.ema)):
        _assert_same(mine.state_dict(), theirs.state_dict())


def _saved(state: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def _assert_same(mine: dict, theirs: dict) -> None:
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


def test_the_checkpoint_holds_the_average() -> None:
    trainer = trainer_of()
    trainer.run_epoch([square()])
    checkpoint = load_checkpoint(io.BytesIO(trainer.checkpoint(("cat", "dog"))))
    assert checkpoint.class_names == ("cat", "dog")
    assert checkpoint.input_size == (64, 64)
    for key, expected in trainer.ema.model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[key], expected), key


def test_images_without_targets_train_objectness_only() -> None:
    empty = dataclasses.replace(square(), targets=torch.zeros(4, 0, 5))
    result = trainer_of().run_epoch([empty])
    assert (result.loss_iou, result.loss_class, result.num_foreground) == (0, 0, 0)
    assert result.loss == result.loss_objectness > 0


def test_a_step_without_a_finite_gradient_is_skipped_and_counted() -> None:
    trainer = trainer_of()
    overflow_in(trainer, {1})
    result = trainer.run_epoch([square()] * 3)
    assert result.skipped_steps == 1
    assert math.isfinite(result.loss)


def test_a_skipped_step_leaves_the_weights_and_the_statistics_as_they_were() -> None:
    trainer = trainer_of()
    overflow_in(trainer, {0})
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.run_epoch([square()])
    after = trainer.model.state_dict()
    changed = [key for key, value in before.items() if not torch.equal(after[key], value)]
    assert all(key.endswith("num_batches_tracked") for key in changed)
    assert trainer.ema.num_updates == 0


def test_a_step_with_an_infinite_loss_is_skipped_though_its_gradient_is_finite() -> None:
    trainer = trainer_of()
    calls, loss = itertools.count(), trainer._loss

    def infinite_once(*inputs: object, **options: object) -> dict[str, torch.Tensor]:
        losses = loss(*inputs, **options)
        return losses | {"total": losses["total"] + (math.inf if next(calls) == 1 else 0.0)}

    trainer._loss = infinite_once
    result = trainer.run_epoch([square()] * 3)
    assert result.skipped_steps == 1
    assert math.isfinite(result.loss)
    assert trainer.ema.num_updates == 2


@pytest.mark.parametrize(("native", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_that_only_emulates_bfloat16_computes_in_float16(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert precision_of(torch.device("cuda")) is getattr(torch, expected)


def test_in_float16_each_step_that_overflows_halves_the_scale_of_the_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer_module, "precision_of", lambda _: torch.float16)
    trainer = trainer_of()
    overflow_in(trainer, {0, 1})
    assert trainer.run_epoch([square()] * 2).skipped_steps == 2
    assert trainer.state_dict()["scaler"]["scale"] == 65536 / 4


def test_ten_skipped_steps_in_a_row_stop_the_training_and_name_the_images_of_all_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_group, "gathered", lambda uris: [uris, ("e", "f")])
    trainer = trainer_of(steps_per_epoch=12)
    overflow_in(trainer, set(range(1, 12)))
    expected = r"10 steps in a row, up to step 11 .* learning_rate than 0\.1 .* a, b, c, d, e, f"
    with pytest.raises(TrainingDivergedError, match=expected):
        trainer.run_epoch([square()] * 12)


def test_a_frozen_backbone_stays_as_it_is_until_it_is_thawed() -> None:
    trainer = trainer_of(dataclasses.replace(RECIPE, freeze_epochs=1))
    stem = "backbone.backbone.stem.conv.conv.weight"
    before = copy.deepcopy(trainer.model.state_dict())
    for epoch, is_frozen in enumerate((True, False)):
        trainer.run_epoch([square(), square()])  # the first step of all has a rate of 0
        after = trainer.model.state_dict()
        assert torch.equal(after[stem], before[stem]) == is_frozen, epoch
        assert not torch.equal(
            after["head.stems.0.conv.weight"], before["head.stems.0.conv.weight"]
        )


def test_a_gradient_longer_than_allowed_is_shortened() -> None:
    # Plain SGD at a rate of r moves the weights by r times the gradient.
    recipe = dataclasses.replace(
        RECIPE, warmup_epochs=0, momentum=0.0, weight_decay=0.0, max_grad_norm=0.5
    )
    trainer = trainer_of(recipe)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.run_epoch([square()])
    moved = [a - b for a, b in zip(trainer.model.parameters(), before, strict=True)]
    assert torch.nn.utils.get_total_norm(moved).item() == pytest.approx(
        0.5 * recipe.lr_at(0, STEPS), rel=1e-3
    )


def test_batches_change_their_size_every_ten_steps() -> None:
    trainer = trainer_of(dataclasses.replace(RECIPE, multiscale=True, input_size=96), 40)
    sizes: list[tuple[int, ...]] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[2:]))
    large = F.pad(square().canvases, (0, 0, 0, 32, 0, 32))
    trainer.run_epoch([dataclasses.replace(square(), canvases=large)] * 40)
    of_ten = [set(sizes[start : start + 10]) for start in range(0, 40, 10)]
    assert all(len(size) == 1 for size in of_ten)
    assert len(set.union(*of_ten)) > 1


def test_the_time_that_batches_take_counts_as_waiting() -> None:
    def slow() -> Iterator[Batch]:
        time.sleep(0.2)
        yield square()

    result = trainer_of().run_epoch(slow())
    assert 0.2 <= result.wait_seconds < result.seconds


def test_validation_is_due_every_few_epochs_and_at_the_end() -> None:
    assert [epoch for epoch in range(1, 5) if RECIPE.is_validated(epoch)] == [3, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "preset='huge'"),
        ({"input_size": 100}, "multiples of 32"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"seed": -1}, "seed=-1: must not be negative"),
        ({"learning_rate": 0.0}, "must be a positive number"),
        ({"warmup_epochs": 3, "no_aug_epochs": 2}, "more than epochs=4"),
        ({"mosaic": 1.5}, "mosaic=1.5: must lie between 0 and 1"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0: must be a positive number"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **changes)
