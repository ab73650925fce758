from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from pipelines.detectors.runtimes.contract import Found
from pipelines.detectors.runtimes.exporting import _agree, export_checkpoint
from pipelines.detectors.runtimes.onnx_file import facts_of
from pipelines.detectors.runtimes.ort import open_session
from tests.pipelines.detectors.runtimes.same import assert_same
from yolox_core import (
    Checkpoint,
    OnnxContents,
    build_model,
    decode_outputs,
    letterbox,
    load_checkpoint,
    postprocess,
    to_model_input,
)

ANY_SIZE = ["batch", "height", "width", 3]
OUTPUTS = {
    "raw": {
        "raw_8": ["batch", 8, "height / 8", "width / 8"],
        "raw_16": ["batch", 8, "height / 16", "width / 16"],
        "raw_32": ["batch", 8, "height / 32", "width / 32"],
    },
    "decoded": {"decoded": ["batch", "points", 8]},
    "nms": {
        "boxes_xyxy": ["detections", 4],
        "scores": ["detections"],
        "class_ids": ["detections"],
        "image_ids": ["detections"],
    },
}
FIXED_OUTPUTS = {
    "raw": {"raw_8": [8, 12], "raw_16": [4, 6], "raw_32": [2, 3]},
    "decoded": {"decoded": ["batch", 126, 8]},  # 8 x 12 + 4 x 6 + 2 x 3
    "nms": OUTPUTS["nms"],
}


@pytest.fixture(scope="module")
def photos(shared: Path) -> NDArray[np.uint8]:
    """(5, 416, 416, 3) uint8: photos on canvases."""
    paths = sorted((shared / "data/coco_val79/images").iterdir())[:5]
    return np.stack([letterbox(cv2.imread(str(path)), (416, 416))[0] for path in paths])


@pytest.fixture(scope="module")
def nano(shared: Path) -> Checkpoint:
    return load_checkpoint(shared / "weights/yolox_nano_coco.pth")


def _torch_decoded(checkpoint: Checkpoint, canvases: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        images = to_model_input(torch.from_numpy(canvases), checkpoint.preprocessing)
        return decode_outputs(checkpoint.model(images))


def _run(model: bytes, canvases: NDArray[np.uint8]) -> list[np.ndarray]:
    return open_session(model).run(None, {"canvases": canvases})


@pytest.mark.parametrize("contents", OUTPUTS)
def test_a_file_declares_the_names_and_shapes_that_it_has(
    contents: OnnxContents, tiny: Checkpoint
) -> None:
    session = open_session(export_checkpoint(tiny, contents))
    [canvases] = session.get_inputs()
    assert (canvases.name, canvases.shape, canvases.type) == ("canvases", ANY_SIZE, "tensor(uint8)")
    assert {output.name: output.shape for output in session.get_outputs()} == OUTPUTS[contents]


@pytest.mark.parametrize("contents", OUTPUTS)
def test_a_file_for_one_size_declares_it(contents: OnnxContents, tiny: Checkpoint) -> None:
    session = open_session(export_checkpoint(tiny, contents, size=(64, 96)))
    [canvases] = session.get_inputs()
    assert canvases.shape == ["batch", 64, 96, 3]
    shapes = {output.name: output.shape for output in session.get_outputs()}
    expected = FIXED_OUTPUTS[contents]
    if contents == "raw":
        expected = {name: ["batch", 8, *cells] for name, cells in expected.items()}
    assert shapes == expected
    assert not facts_of(session).any_size
    assert facts_of(session).input_size == (64, 96)


@pytest.mark.parametrize("contents", OUTPUTS)
def test_a_file_keeps_to_the_standard_and_to_one_opset(
    contents: OnnxContents, tiny: Checkpoint
) -> None:
    model = onnx.load_model_from_string(export_checkpoint(tiny, contents))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]


def test_a_file_says_what_the_checkpoint_says(tiny: Checkpoint) -> None:
    facts = facts_of(open_session(export_checkpoint(tiny)))
    assert (facts.preset, facts.class_names) == (tiny.preset, tiny.class_names)
    assert (facts.input_size, facts.preprocessing) == (tiny.input_size, tiny.preprocessing)
    assert (facts.weights_sha256, facts.contents, facts.any_size) == (tiny.sha256, "raw", True)


@pytest.mark.parametrize(
    ("preset", "activation"),
    [("tiny", "silu"), ("nano", "relu"), ("nano", "lrelu"), ("nano", "mish")],
)
def test_plain_convolutions_and_each_activation_are_exported_as_torch_has_them(
    preset: str, activation: str, tiny: Checkpoint
) -> None:
    model = build_model(preset, 3, activation).eval()
    export_checkpoint(replace(tiny, model=model))  # which compares the two


def test_raw_outputs_on_photos_are_torch_s(nano: Checkpoint, photos: NDArray[np.uint8]) -> None:
    raw = [torch.from_numpy(level) for level in _run(export_checkpoint(nano), photos)]
    assert _agree(decode_outputs(raw), _torch_decoded(nano, photos), side=416)


@pytest.mark.parametrize("size", [None, (416, 416)])
def test_decoded_outputs_on_photos_are_torch_s(
    size: tuple[int, int] | None, nano: Checkpoint, photos: NDArray[np.uint8]
) -> None:
    [decoded] = _run(export_checkpoint(nano, "decoded", size), photos)
    assert decoded.shape == (5, 3549, 85)
    assert _agree(torch.from_numpy(decoded), _torch_decoded(nano, photos), side=416)


@pytest.mark.parametrize("thresholds", [(0.01, 0.65), (0.3, 0.45)])
def test_detections_on_photos_are_torch_s(
    thresholds: tuple[float, float], nano: Checkpoint, photos: NDArray[np.uint8]
) -> None:
    model = export_checkpoint(nano, "nms", None, *thresholds)
    boxes, scores, class_ids, image_ids = _run(model, photos)
    assert (np.diff(image_ids) >= 0).all()
    for image, expected in enumerate(postprocess(_torch_decoded(nano, photos), *thresholds)):
        mine = Found(boxes, scores, class_ids).taken(image_ids == image)
        mine = mine.taken(np.argsort(-mine.scores, kind="stable"))
        assert_same(mine, Found(*(column.numpy() for column in expected)))


def test_one_image_and_no_detection_are_no_special_case(tiny: Checkpoint) -> None:
    canvases = np.zeros((1, 64, 64, 3), np.uint8)
    boxes, scores, class_ids, image_ids = _run(export_checkpoint(tiny, "nms"), canvases)
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))
    assert class_ids.dtype == image_ids.dtype == np.int64
    [decoded] = _run(export_checkpoint(tiny, "decoded"), canvases)
    assert decoded.shape == (1, 84, 8)


def test_a_score_at_the_threshold_is_kept_in_the_file_too(tiny: Checkpoint) -> None:
    canvases = np.full((1, 64, 64, 3), 200, np.uint8)
    decoded = _torch_decoded(tiny, canvases)
    everything = len(postprocess(decoded, 0.0, 1.0)[0].scores)
    boxes, *_ = _run(export_checkpoint(tiny, "nms", None, 0.0, 1.0), canvases)
    assert len(boxes) == everything == 84


def test_a_difference_of_more_than_a_ten_thousandth_is_noticed() -> None:
    expected = torch.rand(2, 5, 8) * torch.tensor([400, 400, 50, 50, 1, 1, 1, 1])
    assert _agree(expected.clone(), expected, side=416)
    for column, by in ((0, 0.1), (2, 0.1), (4, 2e-4), (7, 2e-4), (7, torch.nan)):
        found = expected.clone()
        found[1, 3, column] += by
        assert not _agree(found, expected, side=416)
    expected[0, 0, 2] = torch.inf
    expected[0, 1] = torch.nan
    assert _agree(expected.clone(), expected, side=416)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [({"contents": "boxes"}, "must be raw, decoded, nms"), ({"size": (60, 64)}, "multiples of 32")],
)
def test_contents_and_sizes_that_there_are_not_are_refused(
    given: dict, complaint: str, tiny: Checkpoint
) -> None:
    with pytest.raises(ValueError, match=complaint):
        export_checkpoint(tiny, **given)
