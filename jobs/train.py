r"""Train a YOLOX detector on a training table, on one or more GPUs or CPUs.

python -m jobs.train --train train.parquet --val val.parquet --preset nano --input_size 416 \
    --initial_weights yolox_nano.pth --epochs 30 --output runs/mine

Writes to <output>, a folder or an s3:// prefix: best.pth and last.pth, which jobs.label loads,
metrics.csv, ap_per_class.csv, curves.png and TensorBoard events, and at the end
validation_curves.png and confusion.png. The same command again goes on where a killed one stopped.
With --preview batch.png it draws an augmented batch and stops.

Exit codes: 0 all epochs are done; 1 it cannot go on now; 2 something given cannot be used; 5
another start trains to the output; 6 the cluster had no room for the workers for --wait_timeout
seconds; 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import pyarrow as pa

from jobs.cli import exit_on_input_error, parse
from jobs.leaving import told_with_a_code
from jobs.printing import print_table
from pipelines import cluster, training


@exit_on_input_error
def main() -> None:
    config = parse(training.TrainingConfig, __doc__)
    with told_with_a_code():
        _do(config)


def _do(config: training.TrainingConfig) -> None:
    if config.preview is None:
        _report(training.train_detector(config))
        return
    training.write_preview(config, config.preview)
    print(f"one augmented batch with its boxes: {config.preview}")


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
    cluster.leave_local()
