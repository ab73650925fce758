import numpy as np
import pytest
import torch

from yolox_core import multiscale_size, resize_batch


def sizes(preset: str, base_size: tuple[int, int]) -> set[tuple[int, int]]:
    return {multiscale_size(preset, base_size, 0, step) for step in range(0, 5000, 10)}


@pytest.mark.parametrize(
    ("preset", "side", "smallest", "largest"),
    [("s", 640, 480, 800), ("x", 640, 480, 800), ("nano", 416, 320, 640), ("tiny", 416, 320, 640)],
)
def test_sizes_are_the_multiples_of_32_in_the_official_range(
    preset: str, side: int, smallest: int, largest: int
) -> None:
    expected = {(size, size) for size in range(smallest, largest + 1, 32)}
    assert sizes(preset, (side, side)) == expected


def test_a_size_lasts_ten_steps_and_another_seed_has_others() -> None:
    drawn = [multiscale_size("s", (640, 640), 3, step) for step in range(1000)]
    assert all(len(set(drawn[start : start + 10])) == 1 for start in range(0, 1000, 10))
    assert drawn == [multiscale_size("s", (640, 640), 3, step) for step in range(1000)]
    assert drawn != [multiscale_size("s", (640, 640), 4, step) for step in range(1000)]


def test_both_sides_grow_alike() -> None:
    for height, width in sizes("s", (384, 640)):
        assert height % 32 == width % 32 == 0
        assert abs(width - height * 640 / 384) <= 16


def test_no_size_is_zero() -> None:
    assert sizes("s", (32, 32)) == {(32, 32)}


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="preset='xxl': choose one of nano"):
        multiscale_size("xxl", (640, 640), 0, 0)


@pytest.mark.parametrize("size", [(64, 96), (160, 224), (96, 96)])
def test_boxes_are_resized_with_their_images(size: tuple[int, int]) -> None:
    images = torch.zeros(2, 3, 96, 128)
    images[1, :, 24:72, 32:64] = 255
    targets = torch.zeros(2, 2, 5)
    targets[1, 0] = torch.tensor([7.0, 48, 48, 32, 48])
    resized, moved = resize_batch(images, targets, size)
    assert resized.shape == (2, 3, *size)
    rows, columns = np.nonzero(resized[1, 0].numpy() > 127)
    scale_x, scale_y = size[1] / 128, size[0] / 96
    expected = torch.tensor([7, 48 * scale_x, 48 * scale_y, 32 * scale_x, 48 * scale_y])
    torch.testing.assert_close(moved[1, 0], expected)
    assert abs(columns.max() + 1 - columns.min() - 32 * scale_x) <= 1
    assert abs(rows.max() + 1 - rows.min() - 48 * scale_y) <= 1
    assert not moved[0].any()


def test_a_batch_of_the_right_size_stays_as_it_is() -> None:
    images, targets = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 5)
    resized, moved = resize_batch(images, targets, (64, 64))
    assert resized is images
    assert moved is targets
