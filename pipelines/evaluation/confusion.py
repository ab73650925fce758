"""What was taken for what: boxes paired whatever their classes, the confusion matrix, worst photos.

The rule: detections with a score of the threshold or more take, by falling score and whatever their
class, the free target of their image that they overlap most, if by IoU .5 or more. pycocotools
pairs them, with useCats off. A detection on a crowd, of whatever class, is left out, and so are the
crowds.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.evaluation.coco import Judgement

BACKGROUND = -1
"""In place of a class: of a missed target's detection, and of a false detection's target."""

IOU = 0.5


@dataclass(frozen=True)
class Pairs:
    """Each target and each detection once, with its partner if it has one; all (P,) int."""

    image_ids: NDArray[np.int64]
    target_classes: NDArray[np.int64]
    detection_classes: NDArray[np.int64]

    @property
    def are_wrong(self) -> NDArray[np.bool_]:
        """Whether each is a missed target, a false detection, or one of another class."""
        return np.not_equal(self.target_classes, self.detection_classes)


@dataclass(frozen=True)
class PhotoErrors:
    """What is wrong on one photo."""

    image_uri: str
    missed: int
    """Targets without a detection."""
    false: int
    """Detections where nothing is."""
    confused: int
    """Targets found as another class."""

    @property
    def total(self) -> int:
        return self.missed + self.false + self.confused


def pair_boxes(judgement: Judgement, threshold: float) -> Pairs:
    """Pair targets with the detections of a score of `threshold` or more, by the rule above."""
    targets, detections = judgement.coco_eval.cocoGt, judgement.coco_eval.cocoDt
    found = [row for row in detections.dataset["annotations"] if row["score"] >= threshold]
    classes = {"target": _classes(targets.dataset["annotations"]), "detection": _classes(found)}
    rows = [
        (one["image_id"], *pair)
        for one in _paired_by_pycocotools(targets, found)
        for pair in _pairs_of(one, classes["target"], classes["detection"])
    ]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    return Pairs(*columns)


def _classes(annotations: Sequence[dict[str, Any]]) -> dict[int, int]:
    return {row["id"]: row["category_id"] for row in annotations}


def _paired_by_pycocotools(targets: COCO, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What pycocotools says of each image that has a target or a detection."""
    with redirect_stdout(io.StringIO()):
        detections = COCO()
        detections.dataset = {**targets.dataset, "annotations": found}
        detections.createIndex()
        coco_eval = COCOeval(targets, detections, "bbox")
        coco_eval.params.useCats = 0
        coco_eval.params.iouThrs = np.array([IOU])
        coco_eval.params.areaRng, coco_eval.params.areaRngLbl = [[0, 1e10]], ["all"]
        coco_eval.params.maxDets = [max(1, len(found))]
        coco_eval.evaluate()
    return [one for one in coco_eval.evalImgs if one]


def _pairs_of(
    one: dict[str, Any], target_class: dict[int, int], detection_class: dict[int, int]
) -> Iterator[tuple[int, int]]:
    """(target's class, detection's class) of each pair on one image."""
    for detection, target, ignored in zip(
        one["dtIds"], one["dtMatches"][0], one["dtIgnore"][0], strict=True
    ):
        if not ignored:
            found_on = target_class[int(target)] if target else BACKGROUND
            yield found_on, detection_class[detection]
    for target, detection, ignored in zip(
        one["gtIds"], one["gtMatches"][0], one["gtIgnore"], strict=True
    ):
        if not ignored and not detection:
            yield target_class[target], BACKGROUND


def confusion_matrix(pairs: Pairs, num_classes: int) -> NDArray[np.int64]:
    """(K + 1, K + 1) counts: a row for each target's class, a column for each detection's.

    The last column holds the missed targets, the last row the false detections.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(matrix, (pairs.target_classes, pairs.detection_classes), 1)  # -1 is the last one
    return matrix


def worst_photos(judgement: Judgement, pairs: Pairs, most: int) -> list[PhotoErrors]:
    """The photos with most errors, worst first; none without an error."""
    num_images = len(judgement.image_uris)
    missed, false = (
        np.bincount(pairs.image_ids[classes == BACKGROUND], minlength=num_images)
        for classes in (pairs.detection_classes, pairs.target_classes)
    )
    total = np.bincount(pairs.image_ids[pairs.are_wrong], minlength=num_images)
    worst = np.argsort(-total, kind="stable")[:most]
    return [
        PhotoErrors(
            judgement.image_uris[image_id],
            missed=int(missed[image_id]),
            false=int(false[image_id]),
            confused=int((total - missed - false)[image_id]),
        )
        for image_id in worst[total[worst] > 0]
    ]
