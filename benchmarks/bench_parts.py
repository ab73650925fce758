"""Label an archive of many small parts, and what the driver holds of them, against one of few.

python -m benchmarks.bench_parts --parts 1000 100000 > parts.json

Fetch and detector are stand-ins, a part has one image, everything else is what jobs.label runs. A
part keeps Ray busy for 20 to 100 ms, so that a run is stopped when --at_most of its parts are done,
and what the rest would add is told by the slope. Prints JSON: the driver's memory at its most, and
MB per 10,000 parts of each role, with the standard error.
"""

import argparse
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench_memory import images_done, slopes
from benchmarks.bench_scale import write_source
from benchmarks.machine import describe_machine
from benchmarks.memory import DRIVER, watched_call
from benchmarks.stand_ins import FetchSome
from pipelines.errors import RunStoppedError
from pipelines.labelling import LabellingConfig, label_images
from pipelines.storage import Folder
from pipelines.tables import runs

GOALS = {"driver_mb_most_of_fewest_parts_at_most": 1.5}
SAMPLE_EVERY_S = 0.5
WARM_UP = 0.5
"""Share of the parts that are done, before the slope begins."""


def main() -> None:
    args = _parse_args()
    runs_of = [measure(parts, args.at_most) for parts in sorted(args.parts)]
    fewest, most = runs_of[0], runs_of[-1]
    report = {
        "machine": describe_machine(torch.device("cpu")) | {"load": os.getloadavg()},
        "goals": GOALS,
        "setting": vars(args),
        "runs": runs_of,
        "driver_mb_most_of_fewest_parts": round(most["driver_mb_at_end"] / fewest["driver_mb"], 3),
    }
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--at_most", type=int, default=3000, help="parts to be done of each run")
    return parser.parse_args()


def measure(parts: int, at_most: int) -> dict[str, Any]:
    """One run, from nothing until it has no part left or `at_most` are done."""
    with tempfile.TemporaryDirectory() as folder:
        source, table = Path(folder, "archive.parquet"), Folder(f"{folder}/table")
        write_source(source, parts)
        config = LabellingConfig(
            source=str(source),
            table=table.uri,
            checkpoint=str(source),  # the detector does not look at it
            detector="benchmarks.stand_ins:BlindDetector",
            run="parts",
            date="2026-01-01",
            images_per_part=1,
        )
        _, samples = watched_call(SAMPLE_EVERY_S, _label, config, at_most)
        record = runs.read_record(table, "parts")
        assert record is not None
        done = images_done(table, record, samples)
    written = int(done.max())
    per_10000 = slopes(samples, done, WARM_UP * written, written)
    driver_mb = max(mb for each in samples for mb in each.own_mb(DRIVER))
    to_come = (parts - written) / 10_000 * per_10000[DRIVER]["mb_per_10000_images"]
    return {
        "parts": record.parts,
        "parts_done": written,
        "driver_mb": round(driver_mb, 1),
        "driver_mb_at_end": round(driver_mb + max(to_come, 0.0), 1),
        "mb_per_10000_parts": per_10000,
    }


def _label(config: LabellingConfig, at_most: int) -> None:
    with suppress(RunStoppedError):
        label_images(config, fetch=FetchSome(at_most))


if __name__ == "__main__":
    main()
