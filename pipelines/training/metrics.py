"""What an epoch came to: its result, a worker's report, and the row of all in metrics.csv."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipelines.evaluation import Evaluation
from pipelines.photos import ImageError

_MEANS = ("loss", "loss_iou", "loss_objectness", "loss_class", "loss_l1", "num_foreground")


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch did. Losses are means over its steps, on one worker or on all."""

    epoch: int
    """Counted from 1."""
    loss: float
    loss_iou: float
    loss_objectness: float
    loss_class: float
    loss_l1: float
    num_foreground: float
    """Anchor points that were assigned to a target, per step."""
    learning_rate: float
    """Of the last step."""
    skipped_steps: int
    """Steps whose loss or gradient was not finite."""
    images: int
    seconds: float
    wait_seconds: float
    """Of them, those spent waiting for a batch."""
    gpu_memory_bytes: int
    """The most that torch held at once so far; 0 on a CPU."""


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What one worker sends after an epoch."""

    result: EpochResult
    stage_seconds: Mapping[str, float]
    """Wall time that loading the epoch's images took, by stage."""
    broken_images: int
    """Images met so far that cannot be used."""
    broken_examples: Mapping[str, str]
    """One of them for each kind of error."""
    evaluation: Evaluation | None
    """Of the averaged weights, after a validation."""
    validation_seconds: float
    notes: Sequence[str]
    """What else is to be told."""

    @classmethod
    def of(
        cls,
        result: EpochResult,
        stage_seconds: Mapping[str, float],
        broken: Mapping[str, ImageError],
        evaluation: Evaluation | None,
        validation_seconds: float,
        notes: Sequence[str] = (),
    ) -> Self:
        """From the broken images by URI, and from the validation where there was one."""
        return cls(
            result=result,
            stage_seconds=stage_seconds,
            broken_images=len(broken),
            broken_examples={str(error.kind): f"{uri}: {error}" for uri, error in broken.items()},
            evaluation=evaluation,
            validation_seconds=validation_seconds,
            notes=notes,
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
    wait_share: float
    """Of those seconds, how much was waiting for data, on the worker that waited most."""
    validation_seconds: float
    gpu_memory_gb: float
    """The most that one worker held so far, in 10^9 bytes."""
    skipped_steps: int
    """Steps without a finite gradient."""
    broken_images: int
    ap: float | None
    ap50: float | None

    @classmethod
    def from_reports(cls, reports: Sequence[WorkerReport]) -> Self:
        """Join the reports of all workers, which make the same number of steps."""
        results = [report.result for report in reports]
        slowest_s = max(result.seconds for result in results)
        evaluation = reports[0].evaluation
        return cls(
            epoch=results[0].epoch,
            **{
                term: sum(getattr(result, term) for result in results) / len(results)
                for term in _MEANS
            },
            learning_rate=results[0].learning_rate,
            seconds=slowest_s,
            images_per_second=sum(result.images for result in results) / slowest_s,
            wait_share=max(result.wait_seconds / result.seconds for result in results),
            validation_seconds=max(report.validation_seconds for report in reports),
            gpu_memory_gb=max(result.gpu_memory_bytes for result in results) / 1e9,
            skipped_steps=results[0].skipped_steps,
            broken_images=sum(report.broken_images for report in reports),
            ap=evaluation.ap if evaluation else None,
            ap50=evaluation.ap50 if evaluation else None,
        )

    @classmethod
    def from_csv(cls, row: dict[str, str]) -> Self:
        """From a row of metrics.csv."""
        values: dict[str, Any] = {name: float(text) if text else None for name, text in row.items()}
        counts = {name: int(row[name]) for name in ("epoch", "skipped_steps", "broken_images")}
        return cls(**values | counts)
