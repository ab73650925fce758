import dataclasses
import io

import pytest
import torch

from pipelines.trainer import Recipe, Trainer
from pipelines.training_data import Batch
from yolox_core import build_model, load_checkpoint, warmup_cosine

RECIPE = Recipe(
    preset="nano",
    input_size=64,
    epochs=4,
    batch_size=4,
    learning_rate=0.1,
    warmup_epochs=1,
    no_aug_epochs=1,
    eval_every=3,
)
STEPS = 2


def square(size: int = 24) -> Batch:
    """Four canvases with the same white square in the middle."""
    canvases = torch.full((4, 64, 64, 3), 60, dtype=torch.uint8)
    canvases[:, 32 - size // 2 : 32 + size // 2, 32 - size // 2 : 32 + size // 2] = 255
    targets = torch.tensor([1.0, 32, 32, size, size]).repeat(4, 1, 1)
    return Batch(canvases, targets)


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


def test_l1_joins_in_the_last_epochs() -> None:
    trainer = trainer_of()
    l1 = [trainer.run_epoch([square()]).loss_l1 for _ in range(4)]
    assert l1[:3] == [0, 0, 0]
    assert l1[3] > 0


def test_a_restored_trainer_goes_on_as_if_unbroken() -> None:
    unbroken, stopped, restored = trainer_of(), trainer_of(), trainer_of()
    for trainer in (unbroken, stopped):
        trainer.run_epoch([square()])
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))

    results = [trainer.run_epoch([square()]) for trainer in (unbroken, restored)]
    assert results[0].loss == results[1].loss
    for key, expected in unbroken.ema.model.state_dict().items():
        assert torch.equal(restored.ema.model.state_dict()[key], expected), key


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


def test_a_diverged_model_stops_the_training() -> None:
    trainer = trainer_of()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"lower learning_rate than 0\.1"):
        trainer.run_epoch([square()])


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
    ],
)
def test_a_recipe_that_cannot_work_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE, **changes)
