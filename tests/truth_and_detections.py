"""Small made-up truths and detections."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.datasets import class_names_of, training_table
from pipelines.tables.schema import DETECTIONS

LEFT = [10.0, 10.0, 60.0, 60.0]
RIGHT = [70.0, 20.0, 95.0, 90.0]


def truth_of(targets: dict[str, list[tuple[str, list[float]]]]) -> pa.Table:
    class_names = ["cat", "dog", "owl"]
    rows = [
        {
            "image_uri": image_uri,
            "width": 100,
            "height": 100,
            "boxes": [box for _, box in boxes],
            "class_ids": [class_names.index(name) for name, _ in boxes],
            "is_crowd": [False] * len(boxes),
            "areas": [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in boxes],
        }
        for image_uri, boxes in targets.items()
    ]
    return training_table(rows, class_names)


def detections_of(found: Sequence[tuple[str, str, float, list[float]]]) -> pa.Table:
    """A detector whose class ids differ from the truth's, as they do when it knows 80 classes."""
    rows: list[dict[str, Any]] = [
        {
            "image_uri": image_uri,
            "detection_index": index,
            "class_id": 79 - len(class_name),
            "class_name": class_name,
            "score": score,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            "image_width": 100,
            "image_height": 100,
        }
        for index, (image_uri, class_name, score, box) in enumerate(found)
    ]
    return pa.Table.from_pylist(rows, schema=DETECTIONS)


def detections_equal_to(truth: pa.Table) -> pa.Table:
    names = class_names_of(truth)
    return detections_of(
        [
            (row["image_uri"], names[class_id], 0.9, box)
            for row in truth.to_pylist()
            for box, class_id, crowd in zip(
                row["boxes"], row["class_ids"], row["is_crowd"], strict=True
            )
            if not crowd
        ]
    )
