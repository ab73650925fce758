from .coco import Evaluation, Judgement, evaluate, judge
from .confusion import Pairs, PhotoErrors, confusion_matrix, pair_boxes, worst_photos
from .curves import OperatingPoint, best_point, curves_per_class, overall
from .figures import draw_confusion, draw_curves
from .results import results

__all__ = [
    "Evaluation",
    "Judgement",
    "OperatingPoint",
    "Pairs",
    "PhotoErrors",
    "best_point",
    "confusion_matrix",
    "curves_per_class",
    "draw_confusion",
    "draw_curves",
    "evaluate",
    "judge",
    "overall",
    "pair_boxes",
    "results",
    "worst_photos",
]
