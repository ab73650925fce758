"""What a training tells Prometheus: by the driver, on the metrics port of its Ray node.

Ray puts `ray_` before each name, and forgets a gauge that was not set for 20 s, while an epoch may
take hours: all are set again and again. infra/monitoring has a dashboard over them.
"""

import time
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

from pipelines.training.metrics import EpochRow

_TERMS = {
    "loss": "total",
    "loss_iou": "iou",
    "loss_objectness": "objectness",
    "loss_class": "class",
    "loss_l1": "l1",
}
"""The columns of metrics.csv that are losses, and what YOLOXLoss calls their terms."""

_WHAT = {
    "images_per_second": "Images of all workers, in training.",
    "wait_share": "Share of an epoch that was spent waiting for images.",
    "ap": "AP .50:.95 on the validation table.",
    "ap50": "AP .50 on the validation table.",
    "epoch_seconds": "What an epoch took, with its validation.",
    "epoch_ended_timestamp_seconds": "When an epoch was done, or the training begun.",
    "epoch": "Epochs done.",
    "epochs": "Epochs to do, in all.",
}


class TrainingGauges:
    """Of one start of a training, labelled with the name of its output's folder."""

    def __init__(self, run: str, epochs_done: int, epochs: int) -> None:
        self._gauges = {name: _made(run, name, what) for name, what in _WHAT.items()}
        self._loss = _made(run, "loss", "Mean over an epoch's steps, by term.", "term")
        self._values = {"epochs": float(epochs)} | _of_position(epochs_done)
        self._losses: Mapping[str, float] = {}

    def add(self, row: EpochRow) -> None:
        """An epoch that is done. AP stays as it was where there was no validation."""
        self._losses = {term: getattr(row, column) for column, term in _TERMS.items()}
        measured = {"ap": row.ap, "ap50": row.ap50}
        self._values |= {name: value for name, value in measured.items() if value is not None}
        self._values |= {
            "images_per_second": row.images_per_second,
            "wait_share": row.wait_share,
            "epoch_seconds": row.seconds + row.validation_seconds,
        }
        self._values |= _of_position(row.epoch)

    def tell(self) -> None:
        """To be called more often than every 20 s."""
        for name, value in self._values.items():
            self._gauges[name].set(value)
        for term, value in self._losses.items():
            self._loss.set(value, {"term": term})


def _of_position(epochs_done: int) -> dict[str, float]:
    return {"epoch": float(epochs_done), "epoch_ended_timestamp_seconds": time.time()}


def _made(run: str, name: str, what: str, *tags: str) -> Any:
    gauge: Any = Gauge(f"yolox_training_{name}", what, tag_keys=("run", *tags))
    gauge.set_default_tags({"run": run})
    return gauge
