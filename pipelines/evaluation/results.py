"""All figures of each class as a table."""

from dataclasses import asdict

import pyarrow as pa

from pipelines.evaluation.calibration import reliability
from pipelines.evaluation.coco import Judgement, measured
from pipelines.evaluation.curves import best_point, curves_per_class

RESULTS = pa.schema(
    [
        pa.field("class_name", pa.string()),
        pa.field("targets", pa.int64()),
        pa.field("detections", pa.int64()),
        *(pa.field(name, pa.float64()) for name in ("ap", "ap50", "ap75")),
        *(pa.field(name, pa.float64()) for name in ("ap_small", "ap_medium", "ap_large", "ar100")),
        # Where F1 is highest.
        *(pa.field(name, pa.float64()) for name in ("threshold", "precision", "recall", "f1")),
        pa.field("calibration_error", pa.float64()),
    ]
)
"""A row per class of the truth, in the order of its class ids; null where nothing is measured."""

_AREAS = {"ap": 0, "ap_small": 1, "ap_medium": 2, "ap_large": 3}
_IOUS = {"ap50": 0, "ap75": 5}


def results(judgement: Judgement) -> pa.Table:
    """RESULTS: COCO's figures, the best threshold with what it comes to, and the calibration."""
    precision = judgement.coco_eval.eval["precision"][..., -1]  # (IoUs, recalls, classes, areas)
    recall = judgement.coco_eval.eval["recall"][..., 0, -1]  # (IoUs, classes)
    rows = []
    for class_id, curves in enumerate(curves_per_class(judgement)):
        figures = {name: precision[:, :, class_id, area] for name, area in _AREAS.items()}
        figures |= {name: precision[iou, :, class_id, 0] for name, iou in _IOUS.items()}
        best = best_point(curves)
        rows.append(
            {
                "class_name": curves.name,
                "targets": curves.num_targets,
                "detections": len(curves.scores),
                **{name: measured(values.mean()) for name, values in figures.items()},
                "ar100": measured(recall[:, class_id].mean()),
                **(asdict(best) if best else {}),
                "calibration_error": reliability(curves).error,
            }
        )
    return pa.Table.from_pylist(rows, RESULTS)
