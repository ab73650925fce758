import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.detector import Detector, DetectorSettings, LabelledImage
from pipelines.images import ErrorKind, ImageError
from pipelines.schema import DETECTED, FETCHED


def _detector(checkpoint: bytes, size: tuple[int, int] = (64, 64), **changes: object) -> Detector:
    settings = {
        "input_size": size,
        "score_threshold": 0.0,
        "nms_threshold": 0.65,
        "max_pixels": 100_000_000,
        "batch_size": 2,
        "threads": 2,
        "device": "cpu",
    }
    return Detector(checkpoint, DetectorSettings(**(settings | changes)))


@pytest.fixture(scope="module")
def detector(tiny_checkpoint: bytes) -> Detector:
    return _detector(tiny_checkpoint)


def _jpeg(width: int, height: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_boxes_lie_on_the_photo_and_scores_fall(detector: Detector) -> None:
    [found] = detector.detect([_jpeg(300, 100, seed=1)])
    assert isinstance(found, LabelledImage)
    assert (found.width, found.height) == (300, 100)
    assert len(found.scores) > 0
    x1, y1, x2, y2 = found.boxes_xyxy.T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 300)).all()
    assert ((y1 >= 0) & (y1 < y2) & (y2 <= 100)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.class_ids) <= {0, 1, 2}


def test_a_bad_image_changes_nothing_for_its_neighbours(detector: Detector) -> None:
    good = [_jpeg(80, 60, seed) for seed in range(3)]
    alone = detector.detect(good)
    passed_on = ImageError(ErrorKind.GONE, "not there")
    first, bad, second, third, gone = detector.detect([good[0], b"<html>", *good[1:], passed_on])
    assert bad.kind is ErrorKind.NOT_AN_IMAGE
    assert gone is passed_on
    for before, after in zip(alone, (first, second, third), strict=True):
        np.testing.assert_allclose(before.boxes_xyxy, after.boxes_xyxy, atol=1e-2)
        np.testing.assert_array_equal(before.class_ids, after.class_ids)


def test_no_images_and_only_bad_images_give_as_many_rows(detector: Detector) -> None:
    assert detector.detect([]) == []
    assert [error.kind for error in detector.detect([b"", b""])] == ["empty_object"] * 2


def test_a_table_of_bytes_becomes_a_table_of_boxes(detector: Detector) -> None:
    fetched = pa.Table.from_pylist(
        [
            {"image_uri": "a", "etag": "e", "size_bytes": 9, "data": _jpeg(50, 40, 0)},
            {"image_uri": "b", "error_kind": "denied", "error_message": "403"},
        ],
        schema=pa.schema([field.with_nullable(True) for field in FETCHED]),
    )
    fetched = fetched.set_column(6, FETCHED.field("fetch_seconds"), [pa.array([0.5, 0.5])])
    detected = detector(fetched)
    assert detected.schema.equals(DETECTED)
    labelled, failed = detected.to_pylist()
    assert (labelled["width"], labelled["height"], labelled["error_kind"]) == (50, 40, None)
    assert labelled["found"][0]["class_name"] in ("cat", "dog", "bird")
    assert (failed["width"], failed["error_kind"], failed["error_message"]) == (
        None,
        "denied",
        "403",
    )
    assert failed["found"] == []


def test_a_detector_keeps_to_the_threads_it_was_given(tiny_checkpoint: bytes) -> None:
    _detector(tiny_checkpoint, threads=1)
    assert torch.get_num_threads() == 1
    assert cv2.getNumThreads() == 1
