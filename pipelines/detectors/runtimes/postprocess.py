"""Raw outputs to detections without torch: `yolox_core.postprocess_raw` once more, in NumPy.

An anchor point gives at most one detection, of its best class; score = objectness x class.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.detectors.runtimes.contract import Found
from yolox_core import STRIDES

Floats = npt.NDArray[np.float32]

_MAX_DETECTIONS = 1000
"""Per image, the best ones."""


def postprocess_arrays(
    raw: Sequence[Floats], score_threshold: float, nms_threshold: float
) -> list[Found | None]:
    """What is on each image, decoding only what may pass the threshold.

    Args:
        raw: one (B, 5 + C, h, w) per level, as `YOLOX` gives them: 4 box numbers, objectness, C
            classes, all before sigmoid.
        score_threshold: keep scores at or above it.
        nms_threshold: of two boxes of one class with a larger IoU, the better one stays.

    Returns:
        B times what was found; None where an output is NaN or infinite.
    """
    return [
        _detections(of_image, score_threshold, nms_threshold) if _is_finite(of_image) else None
        for of_image in zip(*raw, strict=True)
    ]


def _is_finite(raw: Sequence[Floats]) -> bool:
    # One NaN or infinity makes the sum NaN or infinite, and a sum is cheaper than a look at each.
    return all(np.isfinite(level.sum()) for level in raw)


def _detections(raw: Sequence[Floats], score_threshold: float, nms_threshold: float) -> Found:
    levels = [
        _candidates(level, stride, score_threshold)
        for level, stride in zip(raw, STRIDES, strict=True)
    ]
    columns: Any = zip(*levels, strict=True)
    found = Found(*map(np.concatenate, columns))
    return found.taken(_nms(found, nms_threshold)[:_MAX_DETECTIONS])


def _candidates(raw: Floats, stride: int, score_threshold: float) -> Found:
    """Of one level, (5 + C, h, w), what passes the threshold, row by row of its cells."""
    objectness = _sigmoid(raw[4])
    # A score never exceeds its objectness, so this loses nothing and spares most of the work.
    rows, columns = np.nonzero(objectness >= score_threshold)
    kept = raw[:, rows, columns]  # (5 + C, K)
    classes = _sigmoid(kept[5:])
    class_ids = classes.argmax(axis=0)
    scores = objectness[rows, columns] * classes[class_ids, np.arange(len(rows))]
    boxes = _boxes(kept[:4], np.stack((columns, rows)).astype(np.float32), stride)
    passed = (scores >= score_threshold) & np.isfinite(boxes).all(axis=1)
    return Found(boxes, scores, class_ids).taken(passed)


def _boxes(raw: Floats, cells: Floats, stride: int) -> Floats:
    """(4, K) box numbers at (2, K) columns and rows to (K, 4) xyxy, letterboxed pixels."""
    centre = (raw[:2] + cells) * np.float32(stride)
    with np.errstate(over="ignore"):  # to infinity, which is dropped
        half = np.exp(raw[2:]) * np.float32(stride) / 2
    corners: Floats = np.concatenate((centre - half, centre + half))
    return corners.T


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # to infinity, whose inverse is 0
        probability: Floats = np.reciprocal(1 + np.exp(-x))
    return probability


def _nms(found: Found, threshold: float) -> npt.NDArray[np.int64]:
    """The indices of what stays, best first; classes do not suppress each other."""
    if not len(found.scores):
        return np.empty(0, np.int64)
    # Each class gets its own stretch of the plane, in float64 and clamped, as in yolox_core.
    boxes = found.boxes_xyxy.astype(np.float64).clip(-1e7, 1e7)
    boxes += found.class_ids[:, None] * (boxes.max() - boxes.min() + 1)
    boxes[:, 2:] -= boxes[:, :2]  # OpenCV wants x, y, width, height
    order = np.argsort(-found.scores, kind="stable")
    # Their ranks for scores, since it drops a score of 0.
    ranks = np.arange(len(order), 0, -1, dtype=np.float32)
    suppress: Any = cv2.dnn.NMSBoxes  # its types say lists, it takes arrays
    kept = suppress(boxes[order], ranks, 0.0, threshold)
    return order[np.asarray(kept, np.int64)]
