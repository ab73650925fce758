"""Hold what `jobs.label --dry_run` predicts against the run that follows.

    python -m benchmarks.bench_dry_run > dry_run.json

On the demo's archive and on 10,000 generated photos: both commands, one after the other, as people
type them; the seconds, boxes and bytes of the tables of each, and the median ratio of some rounds.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.machine import describe_machine
from pipelines.datasets import generate_archive
from pipelines.storage import Folder
from pipelines.tables import RunFolders, runs

ROOT = Path(__file__).parent.parent
CHECKPOINT = ROOT / "assets/shapes/shapes_nano.pth"
DEMO_IMAGES, DEMO_SEED = 400, 100


def main() -> None:
    args = _parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archives = {f"{number} images": Path(folder, str(number)) for number in args.num_images}
        for number, archive in zip(args.num_images, archives.values(), strict=True):
            generate_archive(archive, number, DEMO_SEED, str(archive / "images"))
        result = {
            name: _summary([_compare(archive) for _ in range(args.rounds)])
            for name, archive in archives.items()
        }
    print(json.dumps({"machine": describe_machine(torch.device("cpu")), **result}, indent=2))


def _summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    ratios = [
        {name: round_["predicted"][name] / was for name, was in round_["was"].items()}
        for round_ in rounds
    ]
    medians = {name: round(median(ratio[name] for ratio in ratios), 3) for name in ratios[0]}
    return {"rounds": rounds, "predicted_to_was": medians}


def _compare(archive: Path) -> dict[str, dict[str, float]]:
    table = archive / "table"
    shutil.rmtree(table, ignore_errors=True)
    command = [sys.executable, "-m", "jobs.label", "--source", str(archive / "images")]
    command += ["--table", str(table), "--checkpoint", str(CHECKPOINT), "--run", "whole"]
    told = json.loads(_run([*command, "--dry_run"])[0])
    assert not table.exists()
    _, seconds = _run(command)
    folder = Folder(str(table))
    record = runs.read_record(folder, "whole")
    assert record is not None
    predicted = {
        "seconds": told["durations"][0]["seconds"],
        "detections": told["detections"],
        "table_bytes": told["table_bytes"],
    }
    was = {
        "seconds": seconds,
        "detections": record.ledger.detections,
        "table_bytes": _size(runs.folders_of(folder, record)),
    }
    return {"predicted": predicted, "was": was}


def _run(command: list[str]) -> tuple[str, float]:
    started = time.perf_counter()
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return ended.stdout, time.perf_counter() - started


def _size(folders: RunFolders) -> int:
    both = (Path(folder.uri) for folder in (folders.images, folders.detections))
    return sum(path.stat().st_size for folder in both for path in folder.iterdir())


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_images", type=int, nargs="+", default=[DEMO_IMAGES, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
