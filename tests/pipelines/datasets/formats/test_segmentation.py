from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipelines.datasets.formats.segmentation import corners_of

RING = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0]])
"""4 rows, 5 columns; its box is x 1 to 4, y 1 to 4."""


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 5, 2, 5, 8]],
        [[1, 2, 3, 2, 3, 4], [4, 4, 5, 8, 4.5, 5]],  # one object in two parts
        [1, 2, 5, 2, 5, 8],  # without the outer list, as some tools write it
        [["1", "2", "5", "2", "5", "8"]],
    ],
)
def test_polygons_have_the_box_around_all_their_points(segmentation: Any) -> None:
    assert corners_of(segmentation) == (1, 2, 5, 8)


@pytest.mark.parametrize("counts", [[5, 3, 1, 1, 1, 1, 1, 3, 4], None])
def test_a_mask_has_the_box_around_its_pixels_packed_or_not(counts: list[int] | None) -> None:
    # Column by column: five pixels without, three of the ring's left side, …
    packed = coco_mask.encode(np.asfortranarray(RING.astype(np.uint8)))["counts"].decode()
    assert corners_of({"size": [4, 5], "counts": counts or packed}) == (1, 1, 4, 4)


def test_every_mask_has_the_box_that_pycocotools_gives_it() -> None:
    generator = np.random.default_rng(5)
    for _ in range(200):
        height, width = generator.integers(1, 40, 2)
        pixels = generator.random((height, width)) < generator.choice([0.02, 0.5, 0.98])
        pixels[generator.integers(height), generator.integers(width)] = True
        mask = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        x, y, across, along = coco_mask.toBbox(mask)
        packed = {"size": [int(height), int(width)], "counts": mask["counts"].decode()}
        assert corners_of(packed) == (x, y, x + across, y + along)


@pytest.mark.parametrize(
    ("segmentation", "named"),
    [
        (None, "neither a bbox nor a polygon"),
        ([], "neither a bbox nor a polygon"),
        ([[1, 2, 5, 8]], "three points"),
        ([[1, 2, 5, 2, 5, 8, 9]], "three points"),
        ({"size": [4, 5], "counts": [20]}, "mask is empty"),
        ({"size": [4, 5], "counts": [5, 3]}, "8 pixels, and its size is 4 x 5"),
        ({"size": [0, 0], "counts": []}, "mask is empty"),
        ({"size": [4, 5], "counts": [25, -5]}, "20 pixels"),
        ({"size": [4, 5], "counts": "53oooo"}, "pixels, and its size is 4 x 5"),  # cut short
    ],
)
def test_what_shows_nothing_or_contradicts_itself_has_no_box(segmentation: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        corners_of(segmentation)


def test_a_polygon_that_is_not_finite_is_found_out_wherever_it_is_so() -> None:
    assert np.isnan(corners_of([[1, 2, 5, float("nan"), 5, 8]])).all()
