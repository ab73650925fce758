from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.datasets import class_names_of, read_coco, training_table
from pipelines.evaluation.coco import evaluate
from pipelines.tables.schema import DETECTIONS
from tests.truth_and_detections import LEFT, RIGHT, detections_equal_to, detections_of, truth_of

ROOT = Path(__file__).parents[3]
COCO_VAL79 = ROOT.parent / "shared" / "data" / "coco_val79"


def test_the_truth_found_again_scores_1() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)], "b.jpg": [("dog", LEFT)]})
    result = evaluate(detections_equal_to(truth), truth)
    assert (result.ap, result.ap50, result.ar100) == pytest.approx((1.0, 1.0, 1.0))
    assert result.ap_per_class == {
        "cat": pytest.approx(1.0),
        "dog": pytest.approx(1.0),
        "owl": None,
    }
    assert (result.images, result.images_missing) == (2, 0)


def test_a_class_that_is_never_detected_counts_0_and_is_named() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)]})
    result = evaluate(detections_of([("a.jpg", "cat", 0.9, LEFT)]), truth)
    assert result.ap == pytest.approx(0.5)
    assert result.ap_per_class == {"cat": pytest.approx(1.0), "dog": 0.0, "owl": None}
    assert result.classes_never_detected == ["dog"]


def test_a_detected_class_that_the_truth_lacks_is_ignored_and_named() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    found = [("a.jpg", "cat", 0.5, LEFT), ("a.jpg", "zebra", 0.9, LEFT)]
    result = evaluate(detections_of(found), truth)
    assert result.ap == pytest.approx(1.0)
    assert result.classes_ignored == ["zebra"]


def test_a_false_alarm_above_the_hit_halves_the_precision() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    found = [("a.jpg", "cat", 0.9, RIGHT), ("a.jpg", "cat", 0.5, LEFT)]
    assert evaluate(detections_of(found), truth).ap == pytest.approx(0.5)


def test_detections_on_images_outside_the_truth_are_left_out() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    found = [("elsewhere.jpg", "cat", 0.9, LEFT), ("a.jpg", "cat", 0.5, LEFT)]
    assert evaluate(detections_of(found), truth).ap == pytest.approx(1.0)


def test_images_that_the_run_has_not_labelled_are_counted_and_missed() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)], "b.jpg": [("cat", LEFT)]})
    result = evaluate(detections_of([("a.jpg", "cat", 0.9, LEFT)]), truth, ["a.jpg", "c.jpg"])
    assert result.images_missing == 1
    assert result.ar100 == 0.5


def test_sizes_go_by_the_truths_areas_and_not_by_its_boxes() -> None:
    table = truth_of({"a.jpg": [("cat", LEFT)]})  # a box of 50 x 50, medium
    thin = table.set_column(
        table.column_names.index("areas"),
        table.schema.field("areas"),
        pa.array([[100.0]], table.schema.field("areas").type),
    )
    result = evaluate(detections_equal_to(thin), thin)
    assert result.ap_small == pytest.approx(1.0)
    assert result.ap_medium is None


def test_no_detections_score_0() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    result = evaluate(DETECTIONS.empty_table(), truth)
    assert (result.ap, result.ar100) == (0.0, 0.0)
    assert result.classes_never_detected == ["cat"]


@pytest.mark.parametrize("truth", [truth_of({"a.jpg": []}), truth_of({}), training_table([], [])])
def test_without_targets_there_is_nothing_to_measure(truth: pa.Table) -> None:
    result = evaluate(detections_of([("a.jpg", "cat", 0.9, LEFT)]), truth)
    assert result.ap is result.ap50 is result.ap_small is result.ar1 is result.ar100 is None
    assert set(result.ap_per_class.values()) <= {None}


def test_evaluating_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT)]})
    evaluate(detections_equal_to(truth), truth)
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not COCO_VAL79.exists(), reason="needs ../shared/data/coco_val79")
def test_cocos_own_annotations_score_1_and_their_crowds_neither_help_nor_hurt() -> None:
    truth = read_coco(str(COCO_VAL79 / "instances.json"), str(COCO_VAL79 / "images"))
    assert truth.num_rows == 79
    assert len(class_names_of(truth)) == 80
    result = evaluate(detections_equal_to(truth), truth)
    assert result.ap == pytest.approx(1.0)
    assert result.ar100 == pytest.approx(1.0)
