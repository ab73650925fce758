"""What people look at: the best threshold, what is wrong from it on, and the pictures."""

from dataclasses import dataclass

from pipelines.evaluation.coco import Judgement
from pipelines.evaluation.confusion import Pairs, pair_boxes
from pipelines.evaluation.curves import OperatingPoint, best_point, curves_per_class, overall
from pipelines.evaluation.figures import draw_confusion, draw_curves


@dataclass(frozen=True)
class Report:
    """Of all classes together, and as PNGs."""

    best: OperatingPoint | None
    """Where F1 over all boxes is highest; None if none was a hit."""
    pairs: Pairs
    """Of the detections from the best threshold on; without one, of all."""
    curves: bytes
    confusion: bytes


def report_of(judgement: Judgement) -> Report:
    """Draw the curves, and the confusion at the best threshold."""
    classes = curves_per_class(judgement)
    best = best_point(overall(classes))
    threshold = best.threshold if best else 0.0
    pairs = pair_boxes(judgement, threshold)
    return Report(
        best,
        pairs,
        curves=draw_curves(classes),
        confusion=draw_confusion(pairs, judgement.class_names, threshold),
    )
