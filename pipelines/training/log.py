"""What a training run tells: a line per epoch on the driver's terminal, metrics.csv, curves."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from pipelines.evaluation import Evaluation
from pipelines.storage import Folder
from pipelines.training.curves import EVENTS, draw_curves, tensorboard_events
from pipelines.training.metrics import EpochRow, WorkerReport

METRICS = "metrics.csv"
AP_PER_CLASS = "ap_per_class.csv"
CURVES = "curves.png"
VALIDATION_CURVES = "validation_curves.png"
CONFUSION = "confusion.png"
"""Of the validation after the last epoch."""

LONG_WAIT = 0.1
"""Share of an epoch spent waiting for data that is worth a warning."""


class TrainingLog:
    """The rows of a run, those of earlier attempts included; an epoch done again replaces its row.

    Each file is written anew after each epoch, whole or not at all.
    """

    def __init__(self, output: Folder, epochs: int) -> None:
        self._output = output
        self._epochs = epochs
        self._kinds_told: set[str] = set()
        rows = [EpochRow.from_csv(row) for row in _read_csv(output, METRICS)]
        self._rows = {row.epoch: row for row in rows}
        self._class_rows = _read_csv(output, AP_PER_CLASS)

    @property
    def is_complete(self) -> bool:
        """Whether the last epoch has its row."""
        return self._epochs in self._rows

    @property
    def last(self) -> EpochRow:
        """The row of the last epoch done."""
        return self._rows[max(self._rows)]

    @property
    def rows(self) -> list[EpochRow]:
        """Of the epochs done, in their order."""
        return [row for _, row in sorted(self._rows.items())]

    @property
    def epochs_done(self) -> int:
        return max(self._rows, default=0)

    @property
    def best(self) -> EpochRow:
        """The row with the highest AP, of equal ones the first; there must have been one."""
        return max(self._measured(), key=lambda row: row.ap or 0.0)

    def is_best(self, report: WorkerReport) -> bool:
        """Whether a validated epoch, not yet added, has a higher AP than those before it."""
        assert report.evaluation is not None
        before = [row.ap or 0.0 for row in self._measured() if row.epoch < report.result.epoch]
        return (report.evaluation.ap or 0.0) > max(before, default=-1.0)

    def _measured(self) -> list[EpochRow]:
        return [row for row in self.rows if row.ap is not None]

    @property
    def last_ap_per_class(self) -> dict[str, float | None]:
        """AP of each class in the last validation, None for one without targets."""
        return {
            row["class_name"]: float(row["ap"]) if row["ap"] else None
            for row in self._class_rows
            if row["epoch"] == self._class_rows[-1]["epoch"]
        }

    def add(self, reports: Sequence[WorkerReport]) -> list[str]:
        """Write down an epoch; the lines that tell of it."""
        row = EpochRow.from_reports(reports)
        self._rows[row.epoch] = row
        if reports[0].evaluation:
            self._add_class_rows(row.epoch, reports[0].evaluation)
        self._draw()
        # The last, for it is what makes a run complete.
        self._write_csv(METRICS, [asdict(row) for row in self.rows])
        return [
            *self._broken_images(reports),
            *dict.fromkeys(note for report in reports for note in report.notes),
            self._line(row),
            *_waiting(reports, row),
            *_not_validated(reports[0].evaluation),
        ]

    def _add_class_rows(self, epoch: int, evaluation: Evaluation) -> None:
        earlier = [row for row in self._class_rows if int(row["epoch"]) < epoch]
        self._class_rows = earlier + [
            {"epoch": str(epoch), "class_name": name, "ap": "" if ap is None else str(ap)}
            for name, ap in evaluation.ap_per_class.items()
        ]
        self._write_csv(AP_PER_CLASS, self._class_rows)

    def _write_csv(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        self._output.write(name, file.getvalue().encode())

    def _draw(self) -> None:
        self._output.write(CURVES, draw_curves(self.rows))
        self._output.write(EVENTS, tensorboard_events(self.rows))

    def _broken_images(self, reports: Sequence[WorkerReport]) -> list[str]:
        """Each kind of error once, by an example; later ones are only counted."""
        examples = {
            kind: example for report in reports for kind, example in report.broken_examples.items()
        }
        new = examples.keys() - self._kinds_told
        self._kinds_told |= new
        return [f"skipped, {kind}: {examples[kind]}" for kind in sorted(new)]

    def _line(self, row: EpochRow) -> str:
        parts = [
            f"epoch {row.epoch}/{self._epochs}",
            f"loss {row.loss:.3f} (iou {row.loss_iou:.3f}, objectness {row.loss_objectness:.3f}, "
            f"class {row.loss_class:.3f}, l1 {row.loss_l1:.3f})",
            f"lr {row.learning_rate:.2g}",
            f"{row.images_per_second:.1f} images/s",
            f"{row.wait_share:.0%} waiting",
        ]
        if row.gpu_memory_gb:
            parts.append(f"{row.gpu_memory_gb:.1f} GB")
        parts.append(f"{self._time_left(row)} left")
        if row.skipped_steps:
            parts.append(f"{row.skipped_steps} steps skipped")
        if row.broken_images:
            parts.append(f"{row.broken_images} images skipped")
        if row.ap is not None and row.ap50 is not None:
            parts.append(f"AP {row.ap:.3f}, AP50 {row.ap50:.3f}")
        return "  ".join(parts)

    def _time_left(self, row: EpochRow) -> timedelta:
        """By the pace of this epoch, and of validations so far, spread over the epochs."""
        validations_s = sum(row.validation_seconds for row in self._rows.values()) / len(self._rows)
        return timedelta(seconds=round((row.seconds + validations_s) * (self._epochs - row.epoch)))


def _waiting(reports: Sequence[WorkerReport], row: EpochRow) -> list[str]:
    """A warning where the model waited long for its images, with what they waited for."""
    if row.wait_share < LONG_WAIT:
        return []
    slowest = max(reports, key=lambda report: report.result.wait_seconds / report.result.seconds)
    stage, seconds = max(slowest.stage_seconds.items(), key=lambda item: item[1])
    return [
        f"{row.wait_share:.0%} of epoch {row.epoch} was spent waiting for data: {stage} is short "
        f"({seconds:.1f} s of it)"
    ]


def _not_validated(evaluation: Evaluation | None) -> list[str]:
    """A warning where images of the validation table could not be used."""
    if evaluation is None or not evaluation.failed_by_kind:
        return []
    failed = sum(evaluation.failed_by_kind.values())
    kinds = ", ".join(f"{kind} {count}" for kind, count in evaluation.failed_by_kind.items())
    told = f"warning: {failed} of {evaluation.images} validation images could not be used ({kinds})"
    if failed == evaluation.images:
        return [f"{told}: this AP says nothing about the weights"]
    return [f"{told}: their targets count as missed"]


def _read_csv(output: Folder, name: str) -> list[dict[str, str]]:
    if not output.exists(name):
        return []
    return list(csv.DictReader(output.read(name).decode().splitlines()))
