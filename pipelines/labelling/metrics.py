"""What a run counts for Prometheus: by the driver, on the metrics port of its Ray node.

Ray puts `ray_` before each name. infra/monitoring has a dashboard and alerts over them.
"""

from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from pipelines.labelling.writing import Part
from pipelines.tables import Ledger

_SECONDS: list[float] = [1, 3, 10, 30, 100, 300, 1000]
"""Limits of the histogram's buckets: what the images of one part keep a stage busy."""


class LabellingMetrics:
    """The metrics of one attempt at a run, labelled with its name."""

    def __init__(self, run: str, ledger: Ledger) -> None:
        self._images = _made(
            Counter, "yolox_images", "Images with a row, by outcome and error kind.", run,
            "outcome", "error_kind",
        )  # fmt: skip
        self._detections = _made(Counter, "yolox_detections", "Boxes that were written.", run)
        self._retries = _made(Counter, "yolox_retries", "Requests that were repeated.", run)
        self._bytes = _made(Counter, "yolox_bytes", "Bytes of the images with a row.", run)
        self._left = _made(Gauge, "yolox_images_left", "Images without a row.", run)
        self._detectors = _made(Gauge, "yolox_detectors", "Detectors that have loaded.", run)
        self._last: dict[Any, float] = {self._left: ledger.to_do - ledger.done}
        self._seconds: Any = Histogram(
            "yolox_stage_seconds",
            "Busy seconds of a stage for one part.",
            boundaries=_SECONDS,
            tag_keys=("run", "stage"),
        )
        self._seconds.set_default_tags({"run": run})

    def add(self, part: Part, ledger: Ledger) -> None:
        """A part that is written, and what the run has with it."""
        _increase(self._images, part.ledger.labelled, outcome="labelled", error_kind="")
        for kind, count in part.ledger.failed_by_kind.items():
            _increase(self._images, count, outcome="failed", error_kind=kind)
        _increase(self._detections, part.ledger.detections)
        _increase(self._retries, part.retries)
        _increase(self._bytes, part.size_bytes)
        for stage, seconds in part.stage_seconds.items():
            self._seconds.observe(seconds, {"stage": stage})
        self._last[self._left] = ledger.to_do - ledger.done
        self.refresh()

    def set_detectors(self, running: int) -> None:
        """How many detectors run."""
        self._last[self._detectors] = running

    def refresh(self) -> None:
        """Say again how things stand: Ray forgets a gauge that was not set for 20 s."""
        for gauge, value in self._last.items():
            gauge.set(value)


def _made(kind: type[Any], name: str, what: str, run: str, *tags: str) -> Any:
    metric = kind(name, what, tag_keys=("run", *tags))
    metric.set_default_tags({"run": run})
    return metric


def _increase(counter: Any, count: float, **tags: str) -> None:
    if count:  # Ray refuses to count nothing
        counter.inc(count, tags)
