import numpy as np
import pyarrow as pa
import pytest

from pipelines.datasets import training_table
from pipelines.evaluation.coco import judge
from pipelines.evaluation.confusion import (
    PhotoErrors,
    confusion_matrix,
    pair_boxes,
    worst_photos,
)
from pipelines.tables.schema import DETECTIONS
from tests.truth_and_detections import LEFT, RIGHT, detections_of, truth_of

FAR = [0.0, 90.0, 9.0, 99.0]
CAT, DOG, OWL, BACKGROUND = 0, 1, 2, 3


def counts(truth: pa.Table, found: list, threshold: float = 0.0) -> dict[tuple[int, int], int]:
    """The cells of the matrix that are not 0, by (target, detection)."""
    judgement = judge(detections_of(found) if found else DETECTIONS.empty_table(), truth)
    matrix = confusion_matrix(pair_boxes(judgement, threshold), len(judgement.class_names))
    return {place: int(count) for place, count in np.ndenumerate(matrix) if count}


def test_each_box_is_counted_once_with_what_it_was_taken_for() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)], "b.jpg": [("owl", LEFT)]})
    found = [
        ("a.jpg", "cat", 0.9, LEFT),
        ("a.jpg", "owl", 0.8, RIGHT),
        ("a.jpg", "dog", 0.7, FAR),
    ]
    assert counts(truth, found) == {
        (CAT, CAT): 1,
        (DOG, OWL): 1,
        (BACKGROUND, DOG): 1,
        (OWL, BACKGROUND): 1,
    }


def test_of_two_detections_on_a_target_the_surer_takes_it_whatever_its_class() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    found = [("a.jpg", "cat", 0.8, LEFT), ("a.jpg", "dog", 0.9, LEFT)]
    assert counts(truth, found) == {(CAT, DOG): 1, (BACKGROUND, CAT): 1}


def test_detections_below_the_threshold_do_not_count_and_those_at_it_do() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    found = [("a.jpg", "cat", 0.5, LEFT)]
    assert counts(truth, found, threshold=0.5) == {(CAT, CAT): 1}
    assert counts(truth, found, threshold=0.51) == {(CAT, BACKGROUND): 1}


def test_an_overlap_of_less_than_a_half_is_a_missed_and_a_false_box() -> None:
    truth = truth_of({"a.jpg": [("cat", [0.0, 0.0, 10.0, 10.0])]})
    half, less = [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 4.9]
    assert counts(truth, [("a.jpg", "cat", 0.9, half)]) == {(CAT, CAT): 1}
    assert counts(truth, [("a.jpg", "cat", 0.9, less)]) == {
        (CAT, BACKGROUND): 1,
        (BACKGROUND, CAT): 1,
    }


def test_crowds_and_what_was_found_on_them_do_not_count() -> None:
    table = truth_of({"a.jpg": [("cat", LEFT)]})
    crowd = table.set_column(
        table.column_names.index("is_crowd"),
        table.schema.field("is_crowd"),
        pa.array([[True]], table.schema.field("is_crowd").type),
    )
    assert counts(crowd, [("a.jpg", "dog", 0.9, LEFT), ("a.jpg", "cat", 0.8, LEFT)]) == {}


def test_photos_come_by_their_errors_and_those_without_any_are_left_out() -> None:
    truth = truth_of(
        {
            "good.jpg": [("cat", LEFT)],
            "missed.jpg": [("cat", LEFT)],
            "bad.jpg": [("cat", LEFT), ("dog", RIGHT)],
        }
    )
    found = [
        ("good.jpg", "cat", 0.9, LEFT),
        ("bad.jpg", "owl", 0.9, RIGHT),
        ("bad.jpg", "cat", 0.9, FAR),
    ]
    judgement = judge(detections_of(found), truth)
    worst = worst_photos(judgement, pair_boxes(judgement, 0.5), most=9)
    assert worst == [
        PhotoErrors("bad.jpg", missed=1, false=1, confused=1),
        PhotoErrors("missed.jpg", missed=1, false=0, confused=0),
    ]
    assert worst_photos(judgement, pair_boxes(judgement, 0.5), most=1) == worst[:1]


@pytest.mark.parametrize("truth", [truth_of({"a.jpg": []}), truth_of({}), training_table([], [])])
def test_where_nothing_is_nothing_is_confused(truth: pa.Table) -> None:
    assert counts(truth, []) == {}
