import cv2
import numpy as np
import torch
from torch import Tensor

from yolox_core import horizontal_flip, hsv_jitter


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
