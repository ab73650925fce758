"""How long a fast GPU waits for images: a stand-in that takes 5,000 a second, fed as by a run.

`python -m benchmarks.bench_feed` sends photos of 170 kB from Arrow tables through the pipe to a
detector's process, where a stand-in sleeps for each batch as long as a GPU would be busy, and makes
rows of what it answers. Nothing is decoded: cores that decode as fast are a matter of buying them.
Prints JSON: for questions one after the other and for as many in flight as a run has, the images a
second and the share of the time in which the stand-in waited; medians of rounds that take turns.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from statistics import median

import pyarrow as pa
import torch

from benchmarks.machine import describe_machine
from benchmarks.stand_ins import SleepingGPU
from pipelines.detectors import IN_FLIGHT, DetectorSettings, IsolatedDetector
from pipelines.labelling import FETCHED, detect_block

PHOTO_BYTES = 170_000
IMAGES_AT_ONCE = 256
"""As labelling asks about on a GPU."""
SETTINGS = DetectorSettings(
    input_size=(640, 640),
    score_threshold=0.01,
    nms_threshold=0.65,
    max_pixels=10**8,
    batch_size=None,
    threads=1,
    device="cuda",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--questions", type=int, default=60, help="of 256 images, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(json.dumps(measure(given.questions, given.rounds), indent=2))


def measure(questions: int, rounds: int) -> dict[str, object]:
    """What the stand-in does alone, and when it is fed in either way."""
    block = _fetched(IMAGES_AT_ONCE)
    images = questions * IMAGES_AT_ONCE
    alone = SleepingGPU(b"", SETTINGS)
    with closing(IsolatedDetector("benchmarks.stand_ins:SleepingGPU", b"", SETTINGS)) as detector:
        ways: dict[str, Callable[[], object]] = {
            "alone": lambda: [alone.detect([b""] * IMAGES_AT_ONCE) for _ in range(questions)],
            "one_after_another": lambda: _feed(detector, block, questions, 1),
            "in_flight": lambda: _feed(detector, block, questions, IN_FLIGHT),
        }
        taken = [{way: _seconds(call) for way, call in ways.items()} for _ in range(rounds)]
    medians = {way: median(of_round[way] for of_round in taken) for way in ways}
    return {
        "machine": describe_machine(torch.device("cpu")),
        "photo_bytes": PHOTO_BYTES,
        "images": images,
        "images_per_second": {way: round(images / s) for way, s in medians.items()},
        "share_waited": {way: round(1 - medians["alone"] / s, 3) for way, s in medians.items()},
    }


def _feed(detector: IsolatedDetector, block: pa.Table, questions: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for rows in pool.map(lambda _: detect_block(detector, block), range(questions)):
            assert len(rows) == len(block)


def _fetched(count: int) -> pa.Table:
    """As the fetch stage gives them."""
    columns = {
        "part": [0] * count,
        "part_rows": [count] * count,
        "image_uri": [f"s3://bucket/{number}.jpg" for number in range(count)],
        "data": [os.urandom(PHOTO_BYTES) for _ in range(count)],
        "fetch_seconds": [0.0] * count,
        "retries": [0] * count,
    }
    empty = {name: pa.nulls(count) for name in FETCHED.names if name not in columns}
    return pa.Table.from_pydict(columns | empty, schema=FETCHED)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
