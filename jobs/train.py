r"""Train a YOLOX detector on a training table, on one or more GPUs or CPUs.

python -m jobs.train --train train.parquet --val val.parquet --preset nano --input_size 416 \
    --initial_weights yolox_nano.pth --epochs 30 --output runs/mine

Writes to <output>, a folder or an s3:// prefix: best.pth and last.pth, which jobs.label loads,
metrics.csv, ap_per_class.csv, curves.png and TensorBoard events. The same command again goes on
where a killed one stopped. With --preview batch.png it draws an augmented batch and stops.
"""

import sys

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse
from jobs.printing import print_table
from pipelines import training
from pipelines.errors import ClusterTooSmallError, RunStoppedError, TrainingDivergedError

EXIT_STOPPED = 1
EXIT_CLUSTER_TOO_SMALL = 6


@exit_on_input_error
def main() -> None:
    config = parse(training.TrainingConfig, __doc__)
    if config.preview is not None:
        training.write_preview(config, config.preview)
        print(f"one augmented batch with its boxes: {config.preview}")
        return
    try:
        _report(training.train_detector(config))
    except ClusterTooSmallError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_CLUSTER_TOO_SMALL)
    except (TrainingDivergedError, RunStoppedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_STOPPED)


def _report(summary: "training.TrainingSummary") -> None:
    if not summary.trained_epochs:
        print("nothing left to do")
    names, aps = summary.ap_per_class.keys(), summary.ap_per_class.values()
    print_table(
        pa.table({"class": list(names), "AP .50:.95": pa.array(aps, pa.float64())}),
        f"After epoch {summary.last.epoch}, on the validation table",
    )
    for checkpoint, row in (
        (summary.best_checkpoint, summary.best),
        (summary.last_checkpoint, summary.last),
    ):
        print(f"{checkpoint}: epoch {row.epoch}, AP {row.ap:.4f}, AP50 {row.ap50:.4f}")
    for uri in summary.published:
        print(f"published: {uri}")


if __name__ == "__main__":
    main()
