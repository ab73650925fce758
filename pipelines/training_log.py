"""What a training run tells: a line per epoch on the driver's terminal, and metrics.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from typing import Any, Self

from pipelines.evaluation import Evaluation
from pipelines.images import ImageError
from pipelines.storage import Folder
from pipelines.trainer import EpochResult

METRICS = "metrics.csv"

_MEANS = ("loss", "loss_iou", "loss_objectness", "loss_class", "loss_l1", "num_foreground")


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

    @classmethod
    def of(
        cls, result: EpochResult, broken: Mapping[str, ImageError], evaluation: Evaluation | None
    ) -> Self:
        """From the broken images by URI, and from the validation where there was one."""
        return cls(
            result=result,
            broken_images=len(broken),
            broken_examples={str(error.kind): f"{uri}: {error}" for uri, error in broken.items()},
            ap=evaluation.ap if evaluation else None,
            ap50=evaluation.ap50 if evaluation else None,
        )


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One row of metrics.csv: an epoch on all workers. Losses are means over steps."""

    epoch: int
    loss: float
    loss_iou: float
    loss_objectness: float
    loss_class: float
    loss_l1: float
    num_foreground: float
    learning_rate: float
    seconds: float
    """Of the slowest worker, without validation."""
    images_per_second: float
    broken_images: int
    ap: float | None
    ap50: float | None

    @classmethod
    def from_reports(cls, reports: Sequence[WorkerReport]) -> Self:
        """Join the reports of all workers, which make the same number of steps."""
        results = [report.result for report in reports]
        slowest_s = max(result.seconds for result in results)
        return cls(
            epoch=results[0].epoch,
            **{
                term: sum(getattr(result, term) for result in results) / len(results)
                for term in _MEANS
            },
            learning_rate=results[0].learning_rate,
            seconds=slowest_s,
            images_per_second=sum(result.images for result in results) / slowest_s,
            broken_images=sum(report.broken_images for report in reports),
            ap=reports[0].ap,
            ap50=reports[0].ap50,
        )

    @classmethod
    def from_csv(cls, row: dict[str, str]) -> Self:
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
        left = timedelta(seconds=round(row.seconds * (self._epochs - row.epoch)))
        parts = [
            f"epoch {row.epoch}/{self._epochs}",
            f"loss {row.loss:.3f} (iou {row.loss_iou:.3f}, objectness {row.loss_objectness:.3f}, "
            f"class {row.loss_class:.3f}, l1 {row.loss_l1:.3f})",
            f"lr {row.learning_rate:.2g}",
            f"{row.images_per_second:.1f} images/s",
            f"{left} left",
        ]
        if row.broken_images:
            parts.append(f"{row.broken_images} images skipped")
        if row.ap is not None and row.ap50 is not None:
            parts.append(f"AP {row.ap:.3f}, AP50 {row.ap50:.3f}")
        return "  ".join(parts)
