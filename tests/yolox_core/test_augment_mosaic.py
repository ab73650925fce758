"""Mosaic, affine and mixup: what is drawn, where the pixels go, and that the boxes go with them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from yolox_core import (
    Augmentation,
    augment_batch,
    clip_boxes,
    cxcywh_to_xyxy,
    official_augmentation,
)
from yolox_core.augment.placement import (
    Placements,
    draw_placements,
    inverted,
    mixup_matrices,
    mosaic_matrices,
)
from yolox_core.augment.sampling import sample_mosaics
from yolox_core.augment.targets import is_visible, mixup_targets, mosaic_targets

SIZE = (96, 128)
UPRIGHT = Augmentation(
    mosaic_scale=(0.5, 1.5), mixup_probability=0.0, max_degrees=0.0, max_shear=0.0
)
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
"""Of the classes 0, 1 and 2, far apart even after colour jitter."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def content_rectangles(count: int, seed: int, *, centred: bool) -> Tensor:
    """Photos of all proportions, that touch two opposite edges of their canvas as letterboxed."""
    height, width = SIZE
    short = torch.randint(60, 97, (count,), generator=generator(seed)) // 2 * 2
    is_wide = torch.arange(count) % 2 == 0
    w = torch.where(is_wide, width, short)
    h = torch.where(is_wide, short, height)
    left, top = ((width - w) // 2, (height - h) // 2) if centred else (w * 0, h * 0)
    return torch.stack((left, top, left + w, top + h), dim=1)


def scene(count: int, *, centred: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Black photos on grey canvases, each with two rectangles in the colours of their classes."""
    content = content_rectangles(count, seed=9, centred=centred)
    canvases = torch.full((count, *SIZE, 3), 114, dtype=torch.uint8)
    targets = torch.zeros(count, 3, 5)  # the last row is padding
    for index, (x1, y1, x2, y2) in enumerate(content.tolist()):
        canvases[index, y1:y2, x1:x2] = 0
        half = (x1 + x2) // 2
        for row, (left, right) in enumerate(((x1 + 6, half - 4), (half + 4, x2 - 6))):
            class_id = (index + row) % 3
            top, bottom = y1 + 5 * row + 4, y2 - 8
            canvases[index, top:bottom, left:right] = COLOURS[class_id]
            box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            targets[index, row] = torch.tensor((class_id, *box))
    return canvases, content, targets


def is_class(canvas: Tensor, class_id: float) -> NDArray[np.uint8]:
    """(H, W) 0 or 1: pixels that are nearer to the class's colour than to black and grey."""
    channels = canvas.int()
    own = channels[..., int(class_id)]
    others = channels.sum(dim=-1) - own
    return (own - others > 60).numpy().astype(np.uint8)


def extent(mask: NDArray[np.uint8]) -> list[int]:
    """xyxy around the largest group of pixels that are set."""
    _, _, groups, _ = cv2.connectedComponentsWithStats(mask)
    x, y, width, height, _ = max(groups[1:].tolist(), key=lambda group: group[-1])
    return [x, y, x + width, y + height]


def placements_of(
    targets: Tensor, augmentation: Augmentation, batch_size: int = 1, seed: int = 0
) -> Placements:
    return draw_placements(targets, batch_size, SIZE, augmentation, generator(seed))


# What is drawn


def many_placements(augmentation: Augmentation) -> Placements:
    targets = torch.ones(4000, 1, 5)
    return draw_placements(targets, 4000, (400, 800), augmentation, generator())


def assert_uniform(values: Tensor, low: float, high: float) -> None:
    slack = (high - low) / 50
    assert low <= values.min() < low + slack
    assert high - slack < values.max() <= high
    assert abs(values.mean() - (low + high) / 2) < slack


@pytest.mark.parametrize(
    ("preset", "mosaics", "low", "high"),
    [("s", 4000, 0.1, 2.0), ("tiny", 4000, 0.5, 1.5), ("nano", 2000, 0.5, 1.5)],
)
def test_mosaics_are_as_many_and_as_large_as_the_official_ones(
    preset: str, mosaics: int, low: float, high: float
) -> None:
    drawn = many_placements(official_augmentation(preset))
    assert len(drawn.images) == pytest.approx(mosaics, abs=100)
    assert_uniform(drawn.scales, low, high)


def test_what_is_drawn_fills_the_official_ranges() -> None:
    drawn = many_placements(Augmentation())
    assert_uniform(drawn.degrees, -10, 10)
    assert_uniform(drawn.shears, -2, 2)
    assert_uniform(drawn.centres[:, 0], 400, 1200)
    assert_uniform(drawn.centres[:, 1], 200, 600)
    assert drawn.centres.eq(drawn.centres.trunc()).all()
    assert_uniform(drawn.translations[:, 0], -80, 80)
    assert_uniform(drawn.translations[:, 1], -40, 40)
    assert_uniform(drawn.mixup_scales, 0.5, 1.5)
    assert_uniform(drawn.mixup_crops, 0, 1)
    assert drawn.is_mixed.all()
    assert drawn.mixup_flips.float().mean() == pytest.approx(0.5, abs=0.05)


def test_the_first_tile_is_the_image_and_the_others_are_any_canvas() -> None:
    targets = torch.ones(8, 1, 5)
    drawn = draw_placements(targets.repeat(500, 1, 1), 4000, SIZE, Augmentation(), generator())
    assert drawn.tiles[:, 0].equal(drawn.images)
    assert_uniform(drawn.tiles[:, 1:].float(), 0, 3999)
    assert_uniform(drawn.mixup_sources.float(), 0, 3999)


def test_only_canvases_with_targets_are_mixed_in() -> None:
    targets = torch.zeros(100, 2, 5)
    targets[[3, 70], 1] = 1.0
    drawn = placements_of(targets, Augmentation(), batch_size=100)
    assert drawn.is_mixed.all()
    assert drawn.mixup_sources.unique().tolist() == [3, 70]


def test_without_any_targets_nothing_is_mixed_in() -> None:
    assert not placements_of(torch.zeros(5, 2, 5), Augmentation(), batch_size=5).is_mixed.any()


# Matrices


def test_a_matrix_turns_anticlockwise_resizes_and_moves() -> None:
    drawn = placements_of(torch.ones(1, 1, 5), Augmentation())
    drawn = replace(
        drawn,
        degrees=torch.tensor([90.0]),
        scales=torch.tensor([2.0]),
        shears=torch.zeros(1, 2),
        translations=torch.tensor([[5.0, 7.0]]),
    )
    # One pixel to the right becomes two pixels upwards.
    expected = torch.tensor([[[0.0, 2, 5], [-2, 0, 7]]])
    torch.testing.assert_close(mosaic_matrices(drawn), expected)


def test_matrices_are_those_of_cv2_with_mixed_rows() -> None:
    drawn = placements_of(torch.ones(20, 1, 5), Augmentation(), batch_size=20)
    for index, matrix in enumerate(mosaic_matrices(drawn)):
        scale, degrees = float(drawn.scales[index]), float(drawn.degrees[index])
        rotation = cv2.getRotationMatrix2D((0, 0), degrees, scale)[:, :2]
        shear_x, shear_y = np.tan(np.deg2rad(drawn.shears[index].numpy()))
        linear = (rotation[0] + shear_y * rotation[1], rotation[1] + shear_x * rotation[0])
        np.testing.assert_allclose(matrix[:, :2], linear, atol=1e-6)
        assert matrix[:, 2].equal(drawn.translations[index])


def test_the_way_back_of_a_matrix_undoes_it() -> None:
    drawn = placements_of(torch.ones(20, 1, 5), Augmentation(), batch_size=20)
    there, back = mosaic_matrices(drawn), inverted(mosaic_matrices(drawn))
    point = torch.tensor([300.0, 200])
    moved = there[..., :2] @ point + there[..., 2]
    returned = (back[..., :2] @ moved[..., None]).squeeze(-1) + back[..., 2]
    torch.testing.assert_close(returned, point.expand(20, 2), atol=1e-3, rtol=0)


def test_a_mixup_is_mirrored_and_cropped_within_its_surplus() -> None:
    drawn = placements_of(torch.ones(1, 1, 5), Augmentation())
    drawn = replace(
        drawn,
        mixup_scales=torch.tensor([1.5]),
        mixup_flips=torch.tensor([True]),
        mixup_crops=torch.tensor([[0.5, 0.999]]),
    )
    # 96 x 128 becomes 144 x 192; 32 of the 64 columns and 47 of the 48 rows in excess are cut off.
    expected = torch.tensor([[[-1.5, 0, 192 - 32], [0, 1.5, -47]]])
    torch.testing.assert_close(mixup_matrices(drawn, SIZE), expected)


# Pixels


def smooth_photos(count: int) -> Tensor:
    rng = np.random.default_rng(0)
    photos = [
        cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), SIZE[::-1]) for _ in range(count)
    ]
    return torch.from_numpy(np.stack(photos))


def built_mosaic(canvases: Tensor, content: Tensor, drawn: Placements) -> NDArray[np.uint8]:
    """The 2H x 2W mosaic of the first placement, tile by tile."""
    height, width = SIZE
    # A margin as wide as a canvas takes what is cut off.
    wide = np.full((4 * height, 4 * width, 3), 114, np.uint8)
    x, y = (int(side) for side in drawn.centres[0])
    x, y = x + width, y + height
    for tile, index in enumerate(drawn.tiles[0].tolist()):
        x1, y1, x2, y2 = content[index].tolist()
        left = x if tile in (1, 3) else x - (x2 - x1)
        top = y if tile in (2, 3) else y - (y2 - y1)
        wide[top : top + y2 - y1, left : left + x2 - x1] = canvases[index, y1:y2, x1:x2]
    return wide[height : 3 * height, width : 3 * width]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_one_look_up_gives_what_cv2_makes_of_a_mosaic_built_tile_by_tile(
    seed: int, centred: bool
) -> None:
    content = content_rectangles(6, seed, centred=centred)
    canvases = torch.full((6, *SIZE, 3), 114, dtype=torch.uint8)
    for canvas, photo, (x1, y1, x2, y2) in zip(
        canvases, smooth_photos(6), content.tolist(), strict=True
    ):
        canvas[y1:y2, x1:x2] = photo[y1:y2, x1:x2]
    augmentation = replace(Augmentation(), mosaic_scale=(0.4, 2.0), mixup_probability=0.0)
    drawn = placements_of(torch.zeros(6, 0, 5), augmentation, seed=seed)

    # cv2's matrix acts on the indices of pixels, whose centres are at index + 0.5.
    matrix = np.vstack((mosaic_matrices(drawn)[0].numpy(), (0, 0, 1)))
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    of_indices = (np.linalg.inv(half) @ matrix @ half)[:2]
    mosaic = built_mosaic(canvases, content, drawn)
    expected = cv2.warpAffine(mosaic, of_indices, SIZE[::-1], borderValue=(114, 114, 114))

    ours = sample_mosaics(canvases, content, drawn, 114)[0].numpy()
    difference = np.abs(ours.astype(int) - expected.astype(int))
    assert difference.mean() < 1
    assert np.median(difference) <= 1


def test_padding_takes_the_grey_it_is_given() -> None:
    canvases = torch.full((1, *SIZE, 3), 128, dtype=torch.uint8)
    content = torch.tensor([[0, 0, SIZE[1], SIZE[0]]])
    small = replace(UPRIGHT, mosaic_scale=(0.1, 0.1), padding=128)
    drawn = placements_of(torch.zeros(1, 0, 5), small)
    assert sample_mosaics(canvases, content, drawn, 128).eq(128).all()


# Boxes on pixels


@pytest.mark.parametrize("centred", [False, True])
def test_upright_boxes_cover_their_colours_and_nothing_else_shows_any(centred: bool) -> None:
    canvases, content, targets = scene(20, centred=centred)
    for seed in range(10):
        images, boxes = augment_batch(
            canvases, content, targets, 12, UPRIGHT, generator(seed), combine=True
        )
        for image, rows in zip(images, boxes, strict=True):
            rest = [is_class(image, class_id) for class_id in range(3)]
            for class_id, *box in rows[is_visible(rows)].tolist():
                x1, y1, x2, y2 = cxcywh_to_xyxy(torch.tensor(box)).tolist()
                inner = np.s_[int(y1) + 2 : int(y2) - 1, int(x1) + 2 : int(x2) - 1]
                assert is_class(image, class_id)[inner].all()
                outer = np.s_[max(int(y1) - 1, 0) : int(y2) + 2, max(int(x1) - 1, 0) : int(x2) + 2]
                rest[int(class_id)][outer] = 0
            # A target that was dropped may leave a line of 1 pixel, which interpolation widens.
            for mask in rest:
                assert not cv2.erode(mask, np.ones((3, 3), np.uint8)).any()


@pytest.mark.parametrize("centred", [False, True])
def test_turned_and_sheared_boxes_end_where_their_objects_do(centred: bool) -> None:
    canvases, content, targets = scene(20, centred=centred)
    turned = replace(UPRIGHT, max_degrees=10.0, max_shear=2.0)
    checked = 0
    for seed in range(15):
        images, boxes = augment_batch(
            canvases, content, targets, 12, turned, generator(seed), combine=True
        )
        for image, rows in zip(images, boxes, strict=True):
            for class_id, *box in rows[is_visible(rows)].tolist():
                xyxy = cxcywh_to_xyxy(torch.tensor(box))
                if not clip_boxes(xyxy, (SIZE[0] - 2, SIZE[1] - 2)).clamp(min=2).equal(xyxy):
                    continue  # the canvas cuts off a corner of it
                x1, y1, x2, y2 = xyxy.round().int().tolist()
                if min(x2 - x1, y2 - y1) < 8:
                    continue  # what is left of it may be too thin to show its colour
                mask = is_class(image, class_id)[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2]
                found = extent(mask) + np.array([x1 - 2, y1 - 2] * 2)
                np.testing.assert_allclose(found, xyxy, atol=1.6)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize("seed", range(12))
def test_a_mixed_in_object_shows_at_half_its_brightness_inside_its_box(seed: int) -> None:
    canvases = torch.zeros(2, *SIZE, 3, dtype=torch.uint8)
    canvases[1, 20:70, 30:100] = 255
    content = torch.tensor([[0, 0, SIZE[1], SIZE[0]]]).repeat(2, 1)
    targets = torch.zeros(2, 1, 5)
    targets[1, 0] = torch.tensor([2.0, 65, 45, 70, 50])
    drawn = placements_of(targets, Augmentation(), seed=seed)
    drawn = replace(drawn, tiles=torch.zeros(1, 4, dtype=torch.long))  # the black one alone

    image = sample_mosaics(canvases, content, drawn, padding=0)[0]
    target = mixup_targets(targets, drawn, SIZE)[0, 0]
    assert target[0] == 2
    assert image.max() == 128
    box = cxcywh_to_xyxy(target[1:])
    np.testing.assert_allclose(extent((image[..., 0] > 64).byte().numpy()), box, atol=1)


def test_a_mosaic_without_targets_stays_as_it_is() -> None:
    canvases = torch.full((100, *SIZE, 3), 255, dtype=torch.uint8)
    canvases[99] = 0
    content = torch.tensor([[0, 0, SIZE[1], SIZE[0]]]).repeat(100, 1)
    targets = torch.zeros(100, 1, 5)
    targets[99] = torch.tensor([0.0, 64, 48, 100, 80])
    images, boxes = augment_batch(
        canvases, content, targets, 40, Augmentation(), generator(), combine=True
    )
    without = ~is_visible(boxes).any(dim=1)
    assert without.sum() > 30
    assert images[without].min() >= 114 - 30 - 1  # padding at its darkest; a mixup would be 0


def test_all_targets_of_four_tiles_and_a_mixup_are_kept() -> None:
    height, width = SIZE
    content = torch.tensor([[0, 0, width, height]])
    # 150 targets: more than the 120 that the official code keeps.
    centres = torch.cartesian_prod(torch.linspace(20, 100, 15), torch.linspace(20, 76, 10))
    targets = torch.cat((torch.zeros(150, 1), centres, torch.full((150, 2), 20.0)), dim=1)[None]
    drawn = placements_of(targets, Augmentation())
    drawn = replace(
        drawn,
        centres=torch.tensor([[128.0, 96]]),
        degrees=torch.zeros(1),
        scales=torch.tensor([0.5]),
        shears=torch.zeros(1, 2),
        translations=torch.zeros(1, 2),
        mixup_scales=torch.ones(1),
    )
    assert is_visible(mosaic_targets(targets, content, drawn, SIZE)).sum() == 600
    assert is_visible(mixup_targets(targets, drawn, SIZE)).sum() == 150
