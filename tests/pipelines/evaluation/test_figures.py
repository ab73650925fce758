from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest

from pipelines.evaluation.coco import judge
from pipelines.evaluation.confusion import Pairs, pair_boxes
from pipelines.evaluation.curves import curves_per_class
from pipelines.evaluation.figures import MOST_IN_MATRIX, draw_confusion, draw_curves
from pipelines.tables.schema import DETECTIONS
from tests.truth_and_detections import LEFT, RIGHT, detections_equal_to, truth_of

TRUTH = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)]})


def decoded(png: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels


def has_colour(png: bytes, red_green_blue: tuple[int, int, int]) -> bool:
    apart = np.abs(decoded(png).astype(int) - red_green_blue[::-1]).max(axis=2)
    return bool((apart < 10).any())  # a thin line's pixels are mixed with what is around them


def test_each_class_with_targets_has_a_line_of_its_own_colour() -> None:
    picture = draw_curves(curves_per_class(judge(detections_equal_to(TRUTH), TRUTH)))
    assert has_colour(picture, (0xE6, 0x9F, 0x00))
    assert has_colour(picture, (0x00, 0x72, 0xB2))
    assert not has_colour(picture, (0x00, 0x9E, 0x73))  # of a third class


def test_of_more_classes_than_a_legend_holds_the_lines_are_grey() -> None:
    [cat, *_] = curves_per_class(judge(detections_equal_to(TRUTH), TRUTH))
    assert not has_colour(draw_curves([cat] * 13), (0xE6, 0x9F, 0x00))


def test_a_class_may_be_called_what_matplotlib_takes_for_a_formula() -> None:
    judgement = judge(detections_equal_to(TRUTH), TRUTH)
    curves = [replace(one, name=r"$\nowhere$") for one in curves_per_class(judgement)]
    assert decoded(draw_curves(curves)).size
    assert decoded(draw_confusion(pair_boxes(judgement, 0.5), [r"$\nowhere$"] * 3, 0.5)).size


@pytest.mark.parametrize("truth", [TRUTH, truth_of({"a.jpg": []}), truth_of({})])
def test_without_detections_or_targets_there_are_pictures_all_the_same(truth: pa.Table) -> None:
    judgement = judge(DETECTIONS.empty_table(), truth)
    assert decoded(draw_curves(curves_per_class(judgement))).shape == (1100, 1200, 3)
    pairs = pair_boxes(judgement, 0.0)
    assert decoded(draw_confusion(pairs, judgement.class_names, 0.0)).size


def test_a_matrix_of_very_many_classes_grows_only_to_what_can_be_read() -> None:
    def picture_of(num_classes: int) -> np.ndarray:
        """All of whose targets are found as the next class."""
        ids = np.arange(num_classes)
        pairs = Pairs(np.zeros(num_classes, np.int64), ids, np.roll(ids, 1))
        return decoded(draw_confusion(pairs, [str(index) for index in ids], 0.5))

    assert picture_of(500).shape == picture_of(MOST_IN_MATRIX).shape
    assert picture_of(10).shape < picture_of(MOST_IN_MATRIX).shape
