r"""Compare a run's detections with the truth: COCO's mAP, by pycocotools.

python -m jobs.evaluate --table s3://bucket/labels --run 2026-11-21-0a1b2c3d \
    --truth s3://bucket/truth.parquet --output evaluation

The truth is a training table, or a COCO JSON with --images. Images are matched by their URI and
classes by their name.

With --output it also writes results.csv, with all figures of each class; curves.png, with
precision over recall, F1 over the threshold of scores, and how far scores are to be trusted;
confusion.png, what was taken for what; and review/index.html, a page of the photos with most
missed, false and confused boxes, as yolox-ray review makes it. The last two count boxes from the
score on at which F1 over all classes is highest.

Exit code 0: compared; 2: something given cannot be used.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.dataset as pads

from jobs.cli import exit_on_input_error, parse
from jobs.printing import print_table, to_csv
from pipelines import datasets, evaluation, review, storage, tables

MOST_REVIEWED = 100
"""Photos on the page of those with most errors."""
MOST_PRINTED = 5


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
    output: str = ""
    """A folder or s3:// prefix for curves, confusion matrix, figures of each class and worst
    photos; it must not hold anything yet."""

    def __post_init__(self) -> None:
        if self.truth.endswith(".json") != bool(self.images):
            raise ValueError(
                f"truth={self.truth!r}, images={self.images!r}: COCO annotations (.json) need "
                "--images, the folder of their photos; a training table names its photos itself"
            )


@exit_on_input_error
def main() -> None:
    config = parse(EvaluateConfig, __doc__)
    output = review.empty_folder(config.output) if config.output else None
    run, judgement = _judge(config, _read_truth(config))
    print_evaluation(judgement.evaluation, f"Run {run}")
    if output:
        _write(output, judgement, config.table, run)


def _judge(config: EvaluateConfig, truth: pa.Table) -> "tuple[str, evaluation.Judgement]":
    def judge_run(views: "tables.Views") -> "tuple[str, evaluation.Judgement]":
        labelled = tables.read_rows(
            views.images, ["image_uri"], pads.field("status") == tables.LABELLED
        )
        detections = tables.read_rows(views.detections)
        judgement = evaluation.judge(detections, truth, labelled["image_uri"].to_pylist())
        return views.runs["run"][0].as_py(), judgement

    return tables.query_run(config.table, config.run, judge_run)


def _read_truth(config: EvaluateConfig) -> pa.Table:
    if config.images:
        return datasets.read_coco(config.truth, config.images)
    table, _ = datasets.read_training_table(config.truth)
    return table


def _write(
    output: "storage.Folder", judgement: "evaluation.Judgement", table: str, run: str
) -> None:
    """Everything that --output is for; what there is is printed."""
    report = evaluation.report_of(judgement)
    files = {
        "results.csv": to_csv(evaluation.results(judgement)),
        "curves.png": report.curves,
        "confusion.png": report.confusion,
    }
    for name, data in files.items():
        storage.write_bytes(output.uri_of(name), data)
    if best := report.best:
        print(
            f"F1 over all classes is highest, {best.f1:.3f}, for scores from {best.threshold:.3f} "
            f"on: precision {best.precision:.3f}, recall {best.recall:.3f}"
        )
    shown = review.ReviewConfig(
        table=table,
        output=output.uri_of("review"),
        run=run,
        threshold=best.threshold if best else 0.0,
    )
    _write_review(shown, evaluation.worst_photos(judgement, report.pairs, MOST_REVIEWED))
    print(f"{', '.join(files)}: {output.uri}")


def _write_review(shown: "review.ReviewConfig", worst: "Sequence[evaluation.PhotoErrors]") -> None:
    uris = [photo.image_uri for photo in worst]
    sample = tables.query_run(
        shown.table, shown.run, lambda views: review.named_photos(views, uris, "most errors")
    )
    if not sample.images:
        print("no photo of the run has an error")
        return
    print_table(
        pa.Table.from_pylist([asdict(photo) for photo in worst]), "Worst photos", MOST_PRINTED
    )
    written = review.write_review(shown, sample)
    print(f"{written.photos:,} photos with most errors: {written.page}")


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
