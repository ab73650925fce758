"""Hold what `jobs.label --dry_run` predicts against the run that follows.

    python -m benchmarks.bench_dry_run > dry_run.json

On the demo's archive and on 10,000 generated photos: both commands, one after the other, as people
type them, and the seconds, boxes, bytes of the tables and share of failures of each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
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
        result = {name: _compare(archive) for name, archive in archives.items()}
    print(json.dumps({"machine": describe_machine(torch.device("cpu")), **result}, indent=2))


def _compare(archive: Path) -> dict[str, Any]:
    table = archive / "table"
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
    return {
        "predicted": predicted,
        "was": was,
        "ratio": {name: round(predicted[name] / was[name], 3) for name in was},
    }


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
    return parser.parse_args()


if __name__ == "__main__":
    main()
