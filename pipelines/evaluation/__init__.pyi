from .coco import Evaluation, evaluate

__all__ = [
    "Evaluation",
    "evaluate",
]
