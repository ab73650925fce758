from .coco import Evaluation, Judgement, evaluate, judge
from .confusion import PhotoErrors, worst_photos
from .report import Report, report_of
from .results import results

__all__ = [
    "Evaluation",
    "Judgement",
    "PhotoErrors",
    "Report",
    "evaluate",
    "judge",
    "report_of",
    "results",
    "worst_photos",
]
