from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from yolox_core import Detections, decode_outputs, postprocess, postprocess_raw


def decoded(*rows: list[float]) -> Tensor:
    """One image; rows are cx, cy, w, h, objectness, class probabilities."""
    return torch.tensor([rows])


def random_raw(batch: int = 2, num_classes: int = 3) -> list[Tensor]:
    return [torch.randn(batch, 5 + num_classes, 64 // s, 96 // s) * 2 for s in (8, 16, 32)]


def assert_same(found: Detections, expected: Detections) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("mode", ["cls", "agn"])
@pytest.mark.parametrize("nms_threshold", [0.45, 0.65])
@pytest.mark.parametrize("score_threshold", [0.25, 0.001])
@pytest.mark.parametrize("source", ["real", "syn"])
def test_kept_boxes_are_those_of_the_official_code(
    source: str, score_threshold: float, nms_threshold: float, mode: str, golden: Path
) -> None:
    figures = np.load(golden / "postprocess.npz")
    predictions = torch.from_numpy(figures[f"{source}_pred"])
    found = postprocess(predictions, score_threshold, nms_threshold, class_agnostic=mode == "agn")
    for i, image in enumerate(found):
        key = f"{source}/c{score_threshold}_n{nms_threshold}_{mode}/img{i}"
        anchors = torch.from_numpy(figures[f"{key}/anchor"]).long()
        kept = predictions[i, anchors]  # in the official order: by falling score
        assert len(image.scores) == len(anchors)
        if len(anchors):
            det = torch.from_numpy(figures[f"{key}/det"])
            torch.testing.assert_close(image.boxes_xyxy, det[:, :4], atol=0, rtol=0)
            assert image.scores.equal(kept[:, 4] * kept[:, 5:].amax(dim=1))
            assert image.class_ids.equal(det[:, 6].long())


def test_golden_settings_include_a_crowded_and_an_empty_image(golden: Path) -> None:
    figures = np.load(golden / "postprocess.npz")
    assert len(figures["real/c0.001_n0.65_cls/img0/anchor"]) == 284
    assert len(figures["syn/c0.25_n0.45_cls/img1/anchor"]) == 0


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("score_threshold", [0.0, 0.01, 0.3, 0.999])
def test_raw_and_decoded_outputs_give_the_same_detections(
    score_threshold: float, class_agnostic: bool
) -> None:
    raw = random_raw()
    from_raw = postprocess_raw(raw, score_threshold, 0.65, class_agnostic=class_agnostic)
    from_decoded = postprocess(
        decode_outputs(raw), score_threshold, 0.65, class_agnostic=class_agnostic
    )
    assert len(from_raw) == len(from_decoded) == 2
    for a, b in zip(from_raw, from_decoded, strict=True):
        assert_same(a, b)


def test_raw_and_decoded_agree_where_class_probabilities_saturate() -> None:
    raw = random_raw(batch=1)
    for output in raw:
        output[:, 4] = 40
        output[:, 5], output[:, 6] = 30, 40  # both are 1.0 as float32 probabilities
    [a], [b] = postprocess_raw(raw, 0.5, 0.65), postprocess(decode_outputs(raw), 0.5, 0.65)
    assert_same(a, b)


def test_a_detection_is_xyxy_with_objectness_times_its_best_class() -> None:
    [image] = postprocess(decoded([10, 20, 4, 6, 0.5, 0.25, 0.75]), 0.1, 0.65)
    assert image.boxes_xyxy.tolist() == [[8, 17, 12, 23]]
    assert image.scores.tolist() == [0.375]
    assert image.class_ids.tolist() == [1]
    assert image.class_ids.dtype == torch.int64


def test_a_score_equal_to_the_threshold_is_kept() -> None:
    [image] = postprocess(decoded([10, 20, 4, 6, 0.5, 0.5]), 0.25, 0.65)
    assert len(image.scores) == 1


def test_boxes_of_different_classes_suppress_each_other_only_when_asked() -> None:
    boxes = decoded([10, 10, 8, 8, 0.9, 1, 0], [10, 10, 8, 8, 0.8, 0, 1])
    [aware] = postprocess(boxes, 0.1, 0.5)
    [agnostic] = postprocess(boxes, 0.1, 0.5, class_agnostic=True)
    assert aware.class_ids.tolist() == [0, 1]
    assert agnostic.class_ids.tolist() == [0]


def test_classes_stay_apart_where_boxes_reach_below_zero() -> None:
    # Offsets of the largest coordinate alone would lay the second box onto the first.
    boxes = decoded([9, 9, 2, 2, 0.9, 1, 0], [-2, -2, 2, 2, 0.8, 0, 1])
    [image] = postprocess(boxes, 0.1, 0.1)
    assert len(image.scores) == 2


def test_a_wild_box_leaves_the_others_their_precision() -> None:
    wild = [10, 10, 1e30, 1e30, 0.9, 1, 0]
    boxes = decoded(wild, [10, 10, 8, 8, 0.8, 0, 1], [10, 11, 8, 8, 0.7, 0, 1])
    [image] = postprocess(boxes, 0.1, 0.5)
    assert torch.allclose(image.scores, torch.tensor([0.9, 0.8]))


def test_nms_above_a_thousand_boxes_is_still_exact() -> None:
    # 600 pairs of one class each; the pairs do not touch each other.
    x = torch.arange(600) * 10.0 + 5000
    row = torch.stack((x, torch.zeros(600), torch.full((600,), 8.0), torch.full((600,), 8.0)), 1)
    scores = torch.linspace(0.9, 0.5, 600)[:, None]
    classes = torch.eye(80)[torch.arange(600) % 80]
    better = torch.cat((row, scores, classes), dim=1)
    worse = better.clone()
    worse[:, 0] += 1  # IoU 7/9
    worse[:, 4] -= 0.1
    [image] = postprocess(torch.cat((better, worse))[None], 0.01, 0.65)
    assert image.scores.equal(scores[:, 0])


def test_equal_scores_keep_the_order_of_the_anchor_points() -> None:
    boxes = decoded([10, 10, 8, 8, 0.5, 1], [50, 50, 8, 8, 0.5, 1], [90, 90, 8, 8, 0.5, 1])
    [image] = postprocess(boxes, 0.1, 0.5)
    assert image.boxes_xyxy[:, 0].tolist() == [6, 46, 86]


def test_max_detections_keeps_the_best() -> None:
    boxes = decoded([10, 10, 8, 8, 0.3, 1], [50, 50, 8, 8, 0.5, 1], [90, 90, 8, 8, 0.4, 1])
    [image] = postprocess(boxes, 0.1, 0.5, max_detections=2)
    assert torch.allclose(image.scores, torch.tensor([0.5, 0.4]))


@pytest.mark.parametrize("column", range(7))
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_neither_nan_nor_an_infinite_box_survives(column: int, value: float) -> None:
    boxes = decoded([10, 10, 8, 8, 0.9, 1, 0.5], [50, 50, 8, 8, 0.8, 1, 0.5])
    boxes[0, 0, column] = value
    [image] = postprocess(boxes, 0.1, 0.5)
    assert torch.allclose(image.scores[-1], torch.tensor(0.8))
    assert image.boxes_xyxy.isfinite().all()
    assert not image.scores.isnan().any()


def test_inputs_are_left_as_they_were() -> None:
    raw = random_raw()
    copies = [output.clone() for output in raw]
    outputs = decode_outputs(raw)
    outputs_copy = outputs.clone()
    postprocess_raw(raw, 0.01, 0.65)
    postprocess(outputs, 0.01, 0.65)
    assert outputs.equal(outputs_copy)
    assert all(a.equal(b) for a, b in zip(raw, copies, strict=True))


def test_nothing_above_the_threshold_gives_empty_detections_of_the_right_shapes() -> None:
    found = postprocess(torch.zeros(2, 10, 85), 0.5, 0.65)
    assert [tuple(x.shape) for image in found for x in image] == [(0, 4), (0,), (0,)] * 2


def test_an_empty_batch_gives_no_detections() -> None:
    assert postprocess(torch.zeros(0, 10, 85), 0.5, 0.65) == []
    assert postprocess_raw(random_raw(batch=0), 0.5, 0.65) == []
