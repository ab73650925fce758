"""What a training run tells: a line per epoch on the driver's terminal, and metrics.csv."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipelines.progress import format_duration
from pipelines.storage import Folder
from pipelines.trainer import EpochResult

METRICS = "metrics.csv"


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What one worker sends after an epoch."""

    result: EpochResult
    broken_images: int
    """Images met so far that cannot be used."""
    broken_examples: dict[str, str]
    """One of them for each kind of error."""
    ap: float | None = None
    """COCO AP of the averaged weights, after a validation; ap50 likewise."""
    ap50: float | None = None


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One row of metrics.csv: an epoch on all workers. Losses are means over steps."""

    epoch: int
    total: float
    iou: float
    objectness: float
    class_: float
    l1: float
    num_foreground: float
    learning_rate: float
    images_per_second: float
    broken_images: int
    ap: float | None
    ap50: float | None

    @classmethod
    def from_reports(cls, reports: Sequence[WorkerReport]) -> "EpochRow":
        """Join the reports of all workers, which make the same number of steps."""
        results = [report.result for report in reports]
        slowest_s = max(result.seconds for result in results)
        return cls(
            epoch=results[0].epoch,
            **{
                term: sum(getattr(result, term) for result in results) / len(results)
                for term in ("total", "iou", "objectness", "class_", "l1", "num_foreground")
            },
            learning_rate=results[0].learning_rate,
            images_per_second=sum(result.images for result in results) / slowest_s,
            broken_images=sum(report.broken_images for report in reports),
            ap=reports[0].ap,
            ap50=reports[0].ap50,
        )

    @classmethod
    def from_csv(cls, row: dict[str, str]) -> "EpochRow":
        """From a row of metrics.csv."""
        values: dict[str, Any] = {name: float(text) if text else None for name, text in row.items()}
        counts = {name: int(row[name]) for name in ("epoch", "broken_images")}
        return cls(**values | counts)


class TrainingLog:
    """The rows of a run, those of earlier attempts included; an epoch done again replaces its row.

    The file is written anew after each epoch, whole or not at all.
    """

    def __init__(self, output: Folder, epochs: int) -> None:
        self._output = output
        self._epochs = epochs
        self._rows: dict[int, EpochRow] = {}
        self._kinds_told: set[str] = set()
        self._started = time.monotonic()
        self._done_now = 0
        if output.exists(METRICS):
            lines = output.read(METRICS).decode().splitlines()
            rows = [EpochRow.from_csv(row) for row in csv.DictReader(lines)]
            self._rows = {row.epoch: row for row in rows}

    @property
    def is_complete(self) -> bool:
        """Whether the last epoch has its row."""
        return self._epochs in self._rows

    @property
    def last(self) -> EpochRow:
        """The row of the last epoch done."""
        return self._rows[max(self._rows)]

    def add(self, reports: Sequence[WorkerReport]) -> None:
        """Write down an epoch, and tell of it."""
        row = EpochRow.from_reports(reports)
        self._rows[row.epoch] = row
        self._done_now += 1
        self._output.write(METRICS, self._to_csv().encode())
        self._tell_of_broken_images(reports)
        print(self._line(row), flush=True)

    def _to_csv(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, [field.name for field in fields(EpochRow)])
        writer.writeheader()
        writer.writerows(asdict(self._rows[epoch]) for epoch in sorted(self._rows))
        return file.getvalue()

    def _tell_of_broken_images(self, reports: Sequence[WorkerReport]) -> None:
        """Each kind of error once, by an example; later ones are only counted."""
        for report in reports:
            for kind, example in report.broken_examples.items():
                if kind not in self._kinds_told:
                    self._kinds_told.add(kind)
                    print(f"skipped, {kind}: {example}", flush=True)

    def _line(self, row: EpochRow) -> str:
        seconds_per_epoch = (time.monotonic() - self._started) / self._done_now
        parts = [
            f"epoch {row.epoch}/{self._epochs}",
            f"loss {row.total:.3f} (iou {row.iou:.3f}, objectness {row.objectness:.3f}, "
            f"class {row.class_:.3f}, l1 {row.l1:.3f})",
            f"lr {row.learning_rate:.2g}",
            f"{row.images_per_second:.1f} images/s",
            f"{format_duration(seconds_per_epoch * (self._epochs - row.epoch))} left",
        ]
        if row.broken_images:
            parts.append(f"{row.broken_images} images skipped")
        if row.ap is not None and row.ap50 is not None:
            parts.append(f"AP {row.ap:.3f}, AP50 {row.ap50:.3f}")
        return "  ".join(parts)
