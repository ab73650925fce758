from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from yolox_core import (
    PRESETS,
    Augmentation,
    augment_batch,
    cxcywh_to_xyxy,
    horizontal_flip,
    hsv_jitter,
    official_augmentation,
)

OFTEN = Augmentation(mosaic_probability=0.7, mixup_probability=0.5)
"""Some of the images stay single, some of the mosaics unmixed."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def canvases(batch: int, height: int = 8, width: int = 12) -> Tensor:
    shape = (batch, height, width, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(1))


def hsv(images: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.stack([cv2.cvtColor(i.numpy(), cv2.COLOR_BGR2HSV) for i in images]).astype(np.int64)


def test_about_half_of_the_images_are_flipped_and_the_rest_untouched() -> None:
    before = canvases(400)
    after, _ = horizontal_flip(before, torch.zeros(400, 0, 5), generator())
    flipped = (after == before.flip(2)).flatten(1).all(dim=1)
    untouched = (after == before).flatten(1).all(dim=1)
    assert (flipped ^ untouched).all()
    assert 150 < flipped.sum() < 250


def test_targets_are_mirrored_with_their_image() -> None:
    before = canvases(50)
    targets = torch.tensor([2.0, 3, 4, 2, 5]).expand(50, 1, 5)
    after, mirrored = horizontal_flip(before, targets, generator())
    for old, new, target in zip(before, after, mirrored[:, 0].tolist(), strict=True):
        flipped = new.equal(old.flip(1))
        assert target == ([2, 9, 4, 2, 5] if flipped else [2, 3, 4, 2, 5])


def test_padding_rows_stay_zero_under_a_flip() -> None:
    _, targets = horizontal_flip(canvases(50), torch.zeros(50, 3, 5), generator())
    assert not targets.any()


def test_a_flip_leaves_its_inputs_alone() -> None:
    before, targets = canvases(20), torch.ones(20, 2, 5)
    horizontal_flip(before, targets, generator())
    assert before.equal(canvases(20))
    assert targets.eq(1).all()


def test_the_same_generator_state_gives_the_same_jitter() -> None:
    images = canvases(4)
    assert hsv_jitter(images, generator(3)).equal(hsv_jitter(images, generator(3)))
    assert not hsv_jitter(images, generator(3)).equal(hsv_jitter(images, generator(4)))


def test_an_eighth_of_the_images_is_not_jittered_at_all() -> None:
    before = canvases(800, 4, 4)
    same = (hsv_jitter(before, generator()) == before).flatten(1).all(dim=1)
    assert 60 < same.sum() < 150  # one half three times over, and shifts that round to 0


def test_jitter_shifts_stay_in_the_official_ranges_and_reach_their_ends() -> None:
    # Half-saturated and half-bright colours: no shift is clipped, and cv2 rounds little.
    colour = torch.tensor([64, 96, 128], dtype=torch.uint8)
    before = colour.expand(400, 4, 4, 3)
    shift = (hsv(hsv_jitter(before, generator())) - hsv(before))[:, 0, 0]
    hue, saturation, value = shift.T
    for channel, limit, rounding in ((hue, 5, 1), (saturation, 30, 2), (value, 30, 0)):
        assert np.abs(channel).max() <= limit + rounding
        assert channel.min() <= -limit + 3
        assert channel.max() >= limit - 3
        assert (np.abs(channel) > rounding).mean() + (np.abs(channel) <= rounding).mean() / 2 > 0.4


def test_all_pixels_of_an_image_are_shifted_alike() -> None:
    before = torch.tensor([64, 96, 128], dtype=torch.uint8).expand(20, 4, 4, 3)
    after = hsv_jitter(before, generator())
    assert after.eq(after[:, :1, :1]).all()


def test_grey_stays_grey_when_only_hue_and_value_move() -> None:
    before = torch.full((200, 2, 2, 3), 100, dtype=torch.uint8)
    after = hsv_jitter(before, generator()).int()
    spread = after.amax(dim=-1) - after.amin(dim=-1)
    # Saturation of grey is 0: shifted down it stays grey, shifted up by s it spreads v·s/255.
    assert spread.max() <= round(130 * 30 / 255)
    assert (spread.flatten(1).amax(dim=1) == 0).float().mean() > 0.5


def pool(count: int = 10, targets_each: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Noise on whole canvases of 64 x 96, with boxes anywhere and a row of padding."""
    images = canvases(count, 64, 96)
    content = torch.tensor([[0, 0, 96, 64]]).expand(count, 4)
    class_ids = torch.randint(0, 3, (count, targets_each, 1), generator=generator(2))
    centres = torch.rand(count, targets_each, 2, generator=generator(3)) * torch.tensor([80, 48])
    sizes = 4 + torch.rand(count, targets_each, 2, generator=generator(4)) * 12
    targets = torch.cat((class_ids, centres + 8, sizes), dim=2)
    return images, content, torch.cat((targets, torch.zeros(count, 1, 5)), dim=1)


def test_the_same_generator_state_gives_the_same_batch() -> None:
    first = augment_batch(*pool(), 6, OFTEN, generator(3), combine=True)
    second = augment_batch(*pool(), 6, OFTEN, generator(3), combine=True)
    other = augment_batch(*pool(), 6, OFTEN, generator(4), combine=True)
    assert first[0].equal(second[0])
    assert first[1].equal(second[1])
    assert not first[0].equal(other[0])


def test_canvases_may_be_given_in_parts() -> None:
    images, content, targets = pool()
    whole = augment_batch(images, content, targets, 4, OFTEN, generator(3), combine=True)
    parts = images.split((5, 3, 2))  # type: ignore[no-untyped-call]
    apart = augment_batch(parts, content, targets, 4, OFTEN, generator(3), combine=True)
    assert apart[0].equal(whole[0])
    assert apart[1].equal(whole[1])


def test_a_batch_leaves_what_it_is_made_of_alone() -> None:
    given, expected = pool(), pool()
    augment_batch(*given, 6, OFTEN, generator(), combine=True)
    assert all(a.equal(b) for a, b in zip(given, expected, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_targets_are_whole_rows_inside_the_canvas_and_then_padding(seed: int) -> None:
    images, targets = augment_batch(*pool(), 6, OFTEN, generator(seed), combine=True)
    assert images.shape == (6, 64, 96, 3)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    real = targets[..., 3:].amin(dim=-1) > 1
    assert not targets[~real].any()
    assert (real[:, :-1] >= real[:, 1:]).all()  # padding comes last
    assert real[:, -1].any()  # and in no column only padding
    assert targets[..., 0][real].unique().tolist() == [0, 1, 2]
    boxes = cxcywh_to_xyxy(targets[..., 1:])
    limit = torch.tensor([96.0, 64, 96, 64])
    assert (boxes >= -1e-4).all()
    assert (boxes <= limit + 1e-4).all()


def test_the_last_epochs_have_colour_jitter_and_mirroring_only() -> None:
    images, content, targets = pool()
    single, boxes = augment_batch(
        images, content, targets, 6, Augmentation(), generator(3), combine=False
    )
    same_numbers = generator(3)
    jittered = hsv_jitter(images[:6], same_numbers)
    expected, expected_boxes = horizontal_flip(jittered, targets[:6], same_numbers)
    assert single.equal(expected)
    assert boxes.equal(expected_boxes[:, :4])  # without the row of padding


def test_boxes_of_one_pixel_are_dropped_and_those_above_kept() -> None:
    images, content, _ = pool(1)
    targets = torch.tensor(
        [[[0.0, 30, 30, 1, 9], [1, 30, 30, 9, 0.5], [2, 48, 30, 1.5, 9], [0] * 5]]
    )
    _, boxes = augment_batch(
        images, content, targets, 1, Augmentation(), generator(), combine=False
    )
    assert boxes.tolist() == [[[2, 48, 30, 1.5, 9]]]


@pytest.mark.parametrize("combine", [True, False])
@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("count", [1, 4])
def test_images_without_targets_stay_without(count: int, rows: int, combine: bool) -> None:
    images, content, _ = pool(count)
    for probability in (0.0, 1.0):
        augmentation = Augmentation(mosaic_probability=probability)
        nothing = torch.zeros(count, rows, 5)
        single, boxes = augment_batch(
            images, content, nothing, 1, augmentation, generator(), combine=combine
        )
        assert single.shape == (1, 64, 96, 3)
        assert boxes.shape == (1, 0, 5)


def test_a_batch_of_one_image_can_be_its_own_mosaic_and_mixup() -> None:
    _, targets = augment_batch(*pool(1), 1, Augmentation(), generator(), combine=True)
    assert targets.shape[1] > 4


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_is_a_part_of_the_canvases(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size={batch_size}: there are 10 canvases"):
        augment_batch(*pool(), batch_size, OFTEN, generator(), combine=True)


@pytest.mark.parametrize("combine", [True, False])
def test_pixels_are_never_waited_for(combine: bool) -> None:
    # The meta device knows shapes only: to ask it for a value, as a GPU would be asked for one
    # once it is done, is an error there.
    images, content, targets = pool()
    batch, boxes = augment_batch(
        images.to("meta"), content, targets, 6, OFTEN, generator(), combine=combine
    )
    assert batch.shape == (6, 64, 96, 3)
    assert boxes.is_meta


@pytest.mark.parametrize("preset", PRESETS)
def test_the_official_presets_are_valid(preset: str) -> None:
    mixes = preset not in ("nano", "tiny")
    official = official_augmentation(preset)
    assert official.mosaic_probability == (0.5 if preset == "nano" else 1)
    assert official.mixup_probability == mixes
    assert official.mosaic_scale == ((0.1, 2) if mixes else (0.5, 1.5))


def test_an_unknown_preset_has_no_augmentation() -> None:
    with pytest.raises(ValueError, match="preset='xxl': choose one of nano"):
        official_augmentation("xxl")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mosaic_probability": 1.1},
        {"mixup_probability": float("nan")},
        {"mosaic_scale": (0.0, 1.0)},
        {"mixup_scale": (1.5, 0.5)},
        {"max_degrees": -1.0},
        {"max_translate": 1.5},
        {"max_shear": 45.0},
        {"padding": 256},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name}=.*: must be"):
        replace(Augmentation(), **wrong)
