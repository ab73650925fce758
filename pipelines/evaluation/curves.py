"""Precision and recall as a score threshold falls: of each class, and of all boxes together.

A detection is a hit if pycocotools matched it to a target at IoU .5: by falling score, within its
image and class, at most 100 of them. Those on crowds are neither hits nor false.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.coco import Judgement

Floats = NDArray[np.float64]

RECALLS = np.linspace(0, 1, 101)
"""Those at which COCO takes the precision."""

ALL = "all classes"

_IOU_50, _ALL_AREAS, _MOST_DETECTIONS = 0, 0, -1


@dataclass(frozen=True)
class Curves:
    """What all curves of a class are drawn from."""

    name: str
    num_targets: int
    """Without crowds."""
    precision_50: Floats
    """(101,) at RECALLS, interpolated as COCO does, at IoU .5; NaN without targets."""
    precision: Floats
    """(101,) likewise, the mean over IoU .50:.05:.95."""
    scores: Floats
    """(N,) of the detections, falling."""
    hits: NDArray[np.bool_]
    """(N,) whether each found a target."""


@dataclass(frozen=True)
class OperatingPoints:
    """What each threshold that makes a difference comes to, all (M,), by falling threshold."""

    thresholds: Floats
    """The scores that there are: a detection counts from its own on."""
    precision: Floats
    recall: Floats
    f1: Floats


@dataclass(frozen=True)
class OperatingPoint:
    """What detections with a score of `threshold` or more come to."""

    threshold: float
    precision: float
    recall: float
    f1: float


def curves_per_class(judgement: Judgement) -> list[Curves]:
    """In the order of the truth's class ids."""
    precision = judgement.coco_eval.eval["precision"][:, :, :, _ALL_AREAS, _MOST_DETECTIONS]
    # pycocotools says -1 where there is nothing to measure on.
    precision = np.where(precision == -1, np.nan, precision)
    return [
        Curves(
            name,
            precision_50=precision[_IOU_50, :, class_id],
            precision=precision[:, :, class_id].mean(axis=0),
            **_matches(judgement, class_id),
        )
        for class_id, name in enumerate(judgement.class_names)
    ]


def _matches(judgement: Judgement, class_id: int) -> dict[str, Any]:
    """Targets, scores and hits as pycocotools counts them, from what it says of each image."""
    params, num_images = judgement.coco_eval.params, len(judgement.image_uris)
    first = class_id * len(params.areaRng) * num_images
    images = [one for one in judgement.coco_eval.evalImgs[first : first + num_images] if one]
    scores = np.concatenate([np.zeros(0), *(one["dtScores"] for one in images)])
    hits = np.concatenate([np.zeros(0), *(one["dtMatches"][_IOU_50] for one in images)]) > 0
    ignored = np.concatenate([np.zeros(0), *(one["dtIgnore"][_IOU_50] for one in images)]) > 0
    kept = np.argsort(-scores, kind="stable")
    kept = kept[~ignored[kept]]
    num_targets = sum(int(np.count_nonzero(one["gtIgnore"] == 0)) for one in images)
    return {"num_targets": num_targets, "scores": scores[kept], "hits": hits[kept]}


def overall(classes: Sequence[Curves]) -> Curves:
    """All classes in one: the precision is their mean, as in COCO's AP; boxes count alike."""
    measured = [one for one in classes if one.num_targets]
    nothing = np.full((1, len(RECALLS)), np.nan)
    scores = np.concatenate([np.zeros(0), *(one.scores for one in classes)])
    hits = np.concatenate([np.zeros(0, bool), *(one.hits for one in classes)])
    order = np.argsort(-scores, kind="stable")
    return Curves(
        ALL,
        num_targets=sum(one.num_targets for one in classes),
        precision_50=np.mean([one.precision_50 for one in measured] or nothing, axis=0),
        precision=np.mean([one.precision for one in measured] or nothing, axis=0),
        scores=scores[order],
        hits=hits[order],
    )


def operating_points(curves: Curves) -> OperatingPoints:
    """Of equal scores all detections count, or none. Without targets the recall is 0."""
    is_last_of_equals = np.append(np.diff(curves.scores) != 0, True)[: len(curves.scores)]
    found = np.flatnonzero(is_last_of_equals) + 1
    hits = np.cumsum(curves.hits)[is_last_of_equals]
    return OperatingPoints(
        thresholds=curves.scores[is_last_of_equals],
        precision=hits / found,
        recall=hits / max(1, curves.num_targets),
        f1=2 * hits / (found + curves.num_targets),
    )


def best_point(curves: Curves) -> OperatingPoint | None:
    """Where F1 is highest, of equals at the highest threshold; None if nothing was a hit."""
    if not curves.hits.any():
        return None
    points = operating_points(curves)
    best = int(np.argmax(points.f1))
    return OperatingPoint(
        threshold=float(points.thresholds[best]),
        precision=float(points.precision[best]),
        recall=float(points.recall[best]),
        f1=float(points.f1[best]),
    )
