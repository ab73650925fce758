from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipelines.datasets import class_names_of, read_coco, training_table
from pipelines.evaluation.calibration import reliability
from pipelines.evaluation.coco import judge
from pipelines.evaluation.curves import (
    RECALLS,
    Curves,
    best_point,
    curves_per_class,
    operating_points,
    overall,
)
from pipelines.evaluation.results import results
from pipelines.tables.schema import DETECTIONS
from tests.truth_and_detections import LEFT, RIGHT, detections_equal_to, detections_of, truth_of

FAR = [0.0, 90.0, 9.0, 99.0]


def curves_of(scores: list[float], hits: list[bool], num_targets: int) -> Curves:
    nothing = np.full(101, np.nan)
    return Curves("cat", num_targets, nothing, nothing, np.array(scores), np.array(hits, bool))


def interpolated(curves: Curves) -> np.ndarray:
    """Precision at COCO's recalls: the best that is to be had at this recall or a higher one."""
    hits = np.cumsum(curves.hits)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / curves.num_targets
    return np.array([max(precision[recall >= r], default=0.0) for r in RECALLS])


def shaken(truth: pa.Table, seed: int = 0) -> pa.Table:
    """Detections around a truth's targets, its crowds too: moved, scored, some of other classes."""
    random, names = np.random.default_rng(seed), class_names_of(truth)
    found = []
    for row in truth.to_pylist():
        for box, class_id in zip(row["boxes"] * 3, row["class_ids"] * 3, strict=True):
            sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
            name = names[class_id] if random.random() < 0.9 else str(random.choice(names))
            moved = (np.array(box) + random.normal(0, 0.15, 4) * sides).tolist()
            # Two digits: there are many equal scores.
            found.append((row["image_uri"], name, round(random.random(), 2), moved))
    return detections_of(found)


@pytest.fixture(scope="module")
def coco_val79(shared: Path) -> pa.Table:
    folder = shared / "data/coco_val79"
    return read_coco(str(folder / "instances.json"), str(folder / "images"))


def test_hits_and_targets_make_the_precision_that_pycocotools_has(coco_val79: pa.Table) -> None:
    judgement = judge(shaken(coco_val79), coco_val79)
    measured = [curves for curves in curves_per_class(judgement) if curves.num_targets]
    assert len(measured) > 70
    for curves in measured:
        np.testing.assert_allclose(interpolated(curves), curves.precision_50, atol=1e-9)


def test_the_scores_that_pycocotools_has_reach_its_recalls(coco_val79: pa.Table) -> None:
    judgement = judge(shaken(coco_val79), coco_val79)
    scores = judgement.coco_eval.eval["scores"][0, :, 0, 0, -1]  # IoU .5, class person
    person = curves_per_class(judgement)[0]
    reached = [
        person.hits[person.scores >= score].sum() / person.num_targets for score in scores if score
    ]
    assert len(reached) > 50
    assert (np.array(reached) >= RECALLS[: len(reached)]).all()


def test_the_means_of_the_curves_are_cocos_numbers(coco_val79: pa.Table) -> None:
    judgement = judge(shaken(coco_val79), coco_val79)
    everything = overall(curves_per_class(judgement))
    assert everything.precision_50.mean() == pytest.approx(judgement.evaluation.ap50, abs=1e-9)
    assert everything.precision.mean() == pytest.approx(judgement.evaluation.ap, abs=1e-9)


def test_detections_on_crowds_are_neither_hits_nor_false(coco_val79: pa.Table) -> None:
    judgement = judge(shaken(coco_val79), coco_val79)
    crowds = sum(sum(row["is_crowd"]) for row in coco_val79.to_pylist())
    assert crowds > 0
    everything = overall(curves_per_class(judgement))
    boxes = sum(len(row["boxes"]) for row in coco_val79.to_pylist())
    assert everything.num_targets == boxes - crowds
    assert len(everything.scores) < len(shaken(coco_val79))


def test_f1_is_highest_where_one_more_detection_costs_more_than_it_finds() -> None:
    # From .7 on two of three are hits, and two of two targets are found: 2 * 2 / (3 + 2).
    curves = curves_of([0.9, 0.8, 0.7, 0.6], [True, False, True, False], num_targets=2)
    best = best_point(curves)
    assert best is not None
    assert (best.threshold, best.f1) == (0.7, pytest.approx(0.8))
    assert (best.precision, best.recall) == (pytest.approx(2 / 3), 1.0)


def test_equal_scores_are_above_a_threshold_together() -> None:
    points = operating_points(curves_of([0.9, 0.5, 0.5], [True, True, False], num_targets=2))
    assert points.thresholds.tolist() == [0.9, 0.5]
    assert points.precision.tolist() == [1.0, 2 / 3]
    assert points.recall.tolist() == [0.5, 1.0]


def test_of_equal_f1_the_higher_threshold_is_best() -> None:
    # 2 * 1 / (1 + 2) and 2 * 2 / (4 + 2)
    best = best_point(curves_of([0.9, 0.5, 0.4, 0.3], [True, False, False, True], num_targets=2))
    assert best is not None
    assert best.threshold == 0.9


def test_without_a_hit_no_threshold_is_best() -> None:
    assert best_point(curves_of([0.9], [False], num_targets=1)) is None
    assert best_point(curves_of([], [], num_targets=0)) is None


def test_calibration_is_off_by_how_far_scores_are_from_the_share_of_hits() -> None:
    # Four of score .95, all hits: .05 apart. Of two of .15 one is a hit: .35 apart.
    curves = curves_of([0.95] * 4 + [0.15] * 2, [True] * 5 + [False], num_targets=9)
    found = reliability(curves)
    assert found.counts.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 4]
    assert found.precision[[1, 9]].tolist() == [0.5, 1.0]
    assert found.error == pytest.approx((4 * 0.05 + 2 * 0.35) / 6)


def test_a_score_of_1_belongs_to_the_last_bin_and_no_detections_have_no_error() -> None:
    assert reliability(curves_of([1.0], [True], num_targets=1)).counts.tolist() == [0] * 9 + [1]
    assert reliability(curves_of([], [], num_targets=1)).error is None


def test_the_table_of_results_has_a_row_for_each_class_of_the_truth() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)], "b.jpg": [("cat", LEFT)]})
    found = [("a.jpg", "cat", 0.9, LEFT), ("b.jpg", "cat", 0.7, FAR), ("b.jpg", "owl", 0.6, LEFT)]
    cat, dog, owl = results(judge(detections_of(found), truth)).to_pylist()
    assert (cat["targets"], cat["detections"]) == (2, 2)
    assert cat["ap50"] == cat["ap_medium"] == pytest.approx(51 / 101)
    assert cat["ap_small"] is None
    assert (cat["ar100"], cat["precision"], cat["recall"]) == (0.5, 1.0, 0.5)
    assert cat["threshold"] == pytest.approx(0.9)
    assert (dog["class_name"], dog["ap"], dog["threshold"], dog["f1"]) == ("dog", 0.0, None, None)
    assert (owl["targets"], owl["detections"], owl["ap"]) == (0, 1, None)
    assert owl["calibration_error"] == pytest.approx(0.6)


@pytest.mark.parametrize("truth", [truth_of({"a.jpg": []}), truth_of({}), training_table([], [])])
@pytest.mark.parametrize("found", [[], [("a.jpg", "cat", 0.9, LEFT)]])
def test_without_targets_there_are_no_curves_to_be_averaged(truth: pa.Table, found: list) -> None:
    judgement = judge(detections_of(found) if found else DETECTIONS.empty_table(), truth)
    everything = overall(curves_per_class(judgement))
    assert everything.num_targets == 0
    assert np.isnan(everything.precision).all()
    assert len(results(judgement)) == len(class_names_of(truth))


def test_the_truth_found_again_is_found_at_any_threshold() -> None:
    truth = truth_of({"a.jpg": [("cat", LEFT), ("dog", RIGHT)]})
    best = best_point(overall(curves_per_class(judge(detections_equal_to(truth), truth))))
    assert best is not None
    assert (best.precision, best.recall, best.f1) == (1.0, 1.0, 1.0)
