r"""Compare a run's detections with the truth: COCO's mAP, by pycocotools.

python -m jobs.evaluate --table s3://bucket/labels --run 2026-11-21-0a1b2c3d \
    --truth s3://bucket/truth.parquet

The truth is a training table, or a COCO JSON with --images. Images are matched by their URI and
classes by their name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as pads

from jobs.cli import exit_on_input_error, parse
from jobs.printing import print_table
from pipelines import datasets, evaluation, tables


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which run to hold against which truth."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    truth: str
    """A training table (.parquet), or COCO annotations (.json)."""
    images: str = ""
    """With COCO annotations: the folder or prefix that their file names are relative to."""
    run: str = ""
    """Default: the newest complete run."""

    def __post_init__(self) -> None:
        if self.truth.endswith(".json") != bool(self.images):
            raise ValueError(
                f"truth={self.truth!r}, images={self.images!r}: COCO annotations (.json) need "
                "--images, the folder of their photos; a training table names its photos itself"
            )


@exit_on_input_error
def main() -> None:
    config = parse(EvaluateConfig, __doc__)
    truth = _read_truth(config)

    def evaluate_run(views: "tables.Views") -> "tuple[evaluation.Evaluation, str]":
        labelled = tables.read_rows(
            views.images, ["image_uri"], pads.field("status") == tables.LABELLED
        )
        detections = tables.read_rows(views.detections)
        result = evaluation.evaluate(detections, truth, labelled["image_uri"].to_pylist())
        return result, f"Run {views.runs['run'][0]}"

    print_evaluation(*tables.query_run(config.table, config.run, evaluate_run))


def _read_truth(config: EvaluateConfig) -> pa.Table:
    if config.images:
        return datasets.read_coco(config.truth, config.images)
    table, _ = datasets.read_training_table(config.truth)
    return table


def print_evaluation(result: "evaluation.Evaluation", title: str) -> None:
    """Print COCO's numbers, those of each class, and what was left out of them."""
    numbers = [(label, getattr(result, name)) for name, label in _LABELS.items()]
    print_table(_two_columns("COCO", "value", numbers), title)
    per_class = [(name, ap) for name, ap in result.ap_per_class.items() if ap is not None]
    print_table(_two_columns("class", "AP .50:.95", per_class))
    print(
        f"{result.images:,} images in the truth, {result.images_missing:,} not labelled by the run"
    )
    if result.classes_never_detected:
        print(f"never detected (AP 0): {', '.join(result.classes_never_detected)}")
    if result.classes_ignored:
        print(f"not in the truth, ignored: {', '.join(result.classes_ignored)}")


_LABELS = {
    "ap": "AP .50:.95",
    "ap50": "AP .50",
    "ap75": "AP .75",
    "ap_small": "AP small (below 32² px)",
    "ap_medium": "AP medium",
    "ap_large": "AP large (above 96² px)",
    "ar1": "AR, 1 detection per image",
    "ar10": "AR, 10 detections",
    "ar100": "AR, 100 detections",
    "ar_small": "AR small",
    "ar_medium": "AR medium",
    "ar_large": "AR large",
}


def _two_columns(left: str, right: str, rows: Sequence[tuple[str, float | None]]) -> pa.Table:
    names, values = ([row[i] for row in rows] for i in range(2))
    return pa.table({left: pa.array(names, pa.string()), right: pa.array(values, pa.float64())})


if __name__ == "__main__":
    main()
