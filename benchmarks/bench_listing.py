"""How fast an S3 prefix is listed, side by side and one after another.

    python -m benchmarks.bench_listing

The server answers each LIST after 80 ms, as S3 does. The ways take turns.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from benchmarks.list_server import list_server
from benchmarks.machine import describe_machine
from pipelines.labelling import list_source
from pipelines.storage import ABREAST, list_objects


def main() -> None:
    args = _parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder, "names")
        keys = (f"photos/2026/img_{number:07d}.jpg\n" for number in range(args.num_objects))
        names.write_text("".join(keys))
        with list_server(names, args.answer_after_s) as url:
            os.environ |= {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "benchmark",
                "AWS_SECRET_ACCESS_KEY": "benchmark",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            rounds = [
                (_pace(args.num_objects), _pace(args.alone, abreast=1), _pace_of_tables())
                for _ in range(args.rounds)
            ]
    abreast, alone, tables = (median(figures) for figures in zip(*rounds, strict=True))
    result = {
        "machine": describe_machine(torch.device("cpu")),
        "config": vars(args),
        "objects_per_second": {
            "side_by_side": round(abreast),
            "one_after_another": round(alone),
            "side_by_side_to_the_tables_of_a_manifest": round(tables),
        },
        "times_as_fast": round(abreast / alone, 2),
    }
    print(json.dumps(result, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_objects", type=int, default=400_000)
    parser.add_argument("--alone", type=int, default=30_000, help="of them, one after another")
    parser.add_argument("--answer_after_s", type=float, default=0.08)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _pace(num_objects: int, abreast: int = ABREAST) -> float:
    """Objects a second."""
    started = time.perf_counter()
    objects = list_objects("s3://bench/photos/", abreast=abreast)
    seen = sum(1 for _ in islice(objects, num_objects))
    return seen / (time.perf_counter() - started)


def _pace_of_tables() -> float:
    started = time.perf_counter()
    seen = sum(len(table) for table in list_source("s3://bench/photos/").tables)
    return seen / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
