r"""Train a YOLOX detector on a training table, on one or more GPUs or CPUs.

python -m jobs.train --train train.parquet --val val.parquet --preset nano --input_size 416 \
    --epochs 30 --output runs/shapes

Writes <output>/model.pth, which jobs.label loads, and <output>/metrics.csv. The same command again
goes on where a killed one stopped.
"""

from jobs.cli import exit_on_input_error, parse
from pipelines.training import TrainingConfig, train_detector


@exit_on_input_error
def main() -> None:
    summary = train_detector(parse(TrainingConfig, __doc__))
    last = summary.last
    print(f"trained {last.epoch} epochs: {summary.checkpoint}")
    print(f"AP {last.ap:.4f}, AP50 {last.ap50:.4f} on the validation table")


if __name__ == "__main__":
    main()
