"""Time how soon a job explains itself, and how soon it answers a mistake.

python -m benchmarks.bench_startup > startup.json

Starts each job as people do, with --help and with each of five mistakes where it can be made: a
source or table that is not there, weights that are not there, a wrong value of a flag, a bucket
that is not there, more actors or workers than the machine holds. Prints JSON with the median
seconds of several runs, and as a yardstick those of importing pyarrow and s3fs in the same session.
A mistake that is not answered by exit code 2, or that leaves a file behind, ends it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks.local_s3 import local_s3
from benchmarks.machine import describe_machine
from jobs.__main__ import purposes
from pipelines.datasets import generate_archive, write_training_table

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "assets/shapes/shapes_nano.pth"
YARDSTICK = [sys.executable, "-c", "import pyarrow, s3fs"]
NO_BUCKET = "s3://no-such-bucket-here/x"
TOO_MANY = "999"

Commands = Mapping[str, list[str]]


def main() -> None:
    args = _parse_args()
    with TemporaryDirectory() as folder, local_s3():
        inputs, output = Path(folder, "inputs"), Path(folder, "output")
        truth = generate_archive(inputs, 4, seed=0, uri_prefix=str(inputs / "images"))
        write_training_table(str(inputs / "truth.parquet"), truth)
        commands = _commands(args.jobs, inputs, output)
        # In turn, so that what else the machine does meets all of them.
        rounds = [
            {name: _seconds(command, output) for name, command in commands.items()}
            for _ in range(args.rounds)
        ]
    seconds = {name: median(round_[name] for round_ in rounds) for name in commands}
    yardstick = seconds.pop("yardstick")
    report = {
        "machine": describe_machine(torch.device("cpu")),
        "yardstick": {"import pyarrow, s3fs": round(yardstick, 2)},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "times_the_yardstick": {name: round(v / yardstick, 1) for name, v in seconds.items()},
    }
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", nargs="*", default=sorted(purposes()))
    return parser.parse_args()


def _commands(jobs: list[str], inputs: Path, output: Path) -> dict[str, list[str]]:
    """What is started, by "job: what is wrong with it"."""
    started = {"yardstick": YARDSTICK}
    for job in jobs:
        program = [sys.executable, "-m", f"jobs.{job}"]
        started[f"{job}: --help"] = [*program, "--help"]
        for name, flags in _mistakes(job, inputs, output).items():
            started[f"{job}: {name}"] = [*program, *flags]
    return started


def _mistakes(job: str, inputs: Path, output: Path) -> Commands:
    nowhere, out = str(inputs / "nowhere"), str(output)
    match job:
        case "label":
            right = {"source": f"{inputs}/images", "table": out, "checkpoint": str(CHECKPOINT)}
            return {
                "no source": _flags(right, source=nowhere),
                "no weights": _flags(right, checkpoint=f"{nowhere}.pth"),
                "wrong value": _flags(right, score_threshold="3"),
                "no bucket": _flags(right, table=NO_BUCKET),
                "too many": _flags(right, num_actors=TOO_MANY),
            }
        case "train":
            truth = f"{inputs}/truth.parquet"
            right = {"train": truth, "val": truth, "output": out, "preset": "nano"}
            return {
                "no source": _flags(right, train=f"{nowhere}.parquet"),
                "no weights": _flags(right, initial_weights=f"{nowhere}.pth"),
                "wrong value": _flags(right, epochs="0"),
                "no bucket": _flags(right, output=NO_BUCKET),
                "too many": _flags(right, num_workers=TOO_MANY),
            }
        case "evaluate":
            right = {"table": nowhere, "truth": f"{inputs}/truth.parquet"}
        case "query":
            right = {"table": nowhere, "summary": "true"}
        case "prepare":
            right = {"source": nowhere, "output": f"{out}/train.parquet"}
            return {
                "no source": _flags(right),
                "wrong value": _flags(right, min_score="3"),
                "no bucket": _flags(right, source=NO_BUCKET),
            }
        case "table":
            return {
                "no source": ["list", "--table", nowhere],
                "wrong value": ["compact", "--table", nowhere, "--target_mb", "0"],
                "no bucket": ["list", "--table", NO_BUCKET],
            }
        case "shapes":
            return {"wrong value": ["--output", out, "--num_images", "0"]}
        case _:
            return {}
    return {
        "no source": _flags(right),
        "wrong value": [*_flags(right), "--no_such_flag"],
        "no bucket": _flags(right, table=NO_BUCKET),
    }


def _flags(right: Mapping[str, str], **wrong: str) -> list[str]:
    return [word for name, value in {**right, **wrong}.items() for word in (f"--{name}", value)]


def _seconds(command: list[str], output: Path) -> float:
    started = time.perf_counter()
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    expected = 0 if "--help" in command or command == YARDSTICK else 2
    if ran.returncode != expected or output.exists():
        sys.exit(f"{' '.join(command)}: exit code {ran.returncode}\n{ran.stderr}")
    return seconds


if __name__ == "__main__":
    main()
