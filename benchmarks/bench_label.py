"""Labelling side by side: the official demo's loop, torch, what we do by default, and its bound.

python -m benchmarks.bench_label > label.json

On CPUs, YOLOX-nano at 416 px. In turn, so that what else the machine does meets all of them:
* `loop`: photo by photo as the official demo does it, in this process, start-up not counted;
* `torch` and `default`: the whole command `jobs.label`, from its start to its exit;
* `few torch` and `few default`: the same with ten photos, which is start-up and little else;
* `bound`: decoding, letterboxing, forward and NMS and nothing else, in one process for each core.
Then a 12 Mpx photo is decoded in full and for the canvas. Prints JSON with the machine, medians and
their ratios; `of the bound` takes the default's pace in the middle of its run, by the times that
its rows have. The rows of torch and of the default are compared by their number.
"""

import argparse
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.machine import describe_machine
from pipelines.cluster import usable_cores
from pipelines.detectors import (
    ONNXRUNTIME,
    TORCH,
    DetectorSettings,
    load_runtime_class,
    onnx_of,
    parse_checkpoint,
)
from pipelines.photos import decode_for_canvas, decode_image
from pipelines.tables import open_run, run_query
from yolox_core import decode_outputs, letterbox, postprocess, to_model_input

ROOT = Path(__file__).parent.parent
SIDE = 416
SCORE_THRESHOLD, NMS_THRESHOLD = 0.25, 0.45
"""As the official demo has them."""
FEW = 10
PHOTOS_OF_A_CORE = 200
"""That the bound is measured on, after some that do not count."""
MAX_PIXELS = 10**8
MIDDLE = (0.3, 0.95)
"""Of a run, in shares of its images."""


def main() -> None:
    args = _parse_args()
    with TemporaryDirectory() as folder:
        report = measure(Path(folder), args)
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = ROOT.parent / "shared"
    parser.add_argument("--weights", type=Path, default=shared / "weights/yolox_nano_coco.pth")
    parser.add_argument("--photos", type=Path, default=shared / "data/coco_val79/images")
    parser.add_argument("--num_photos", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, and the ratios that matter."""
    photos = sorted(args.photos.iterdir())
    many, few = (_copied(photos, n, folder / str(n)) for n in (args.num_photos, FEW))
    weights = args.weights.read_bytes()
    model = onnx_of(weights)  # that of a first run ever takes some seconds more
    ways: dict[str, Callable[[], float]] = {
        "loop": lambda: _loop(weights, photos),
        "torch": lambda: args.num_photos / _label(args.weights, many, folder / "torch", TORCH),
        "default": lambda: args.num_photos / _label(args.weights, many, folder / "default"),
        "middle of default": lambda: _pace_in_the_middle(folder / "default", args.num_photos),
        "few torch": lambda: FEW / _label(args.weights, few, folder / "few-torch", TORCH),
        "few default": lambda: FEW / _label(args.weights, few, folder / "few-default"),
        "bound": lambda: _bound(model, photos),
    }
    rounds = [{name: way() for name, way in ways.items()} for _ in range(args.rounds)]
    pace = {name: median(of_round[name] for of_round in rounds) for name in ways}
    return {
        "machine": describe_machine(torch.device("cpu")) | {"processes": usable_cores()},
        "num_photos": args.num_photos,
        "images_per_second": {name: round(value, 2) for name, value in pace.items()},
        "seconds_of_ten_photos": {way: round(FEW / pace[f"few {way}"], 1) for way in _BOTH},
        "detections": {way: _count_of_detections(folder / way) for way in _BOTH},
        "ratios": _ratios(pace) | _of_large_photos(photos, args.rounds),
    }


_BOTH = ("torch", "default")


def _ratios(pace: dict[str, float]) -> dict[str, float]:
    return {
        "default to torch": round(pace["default"] / pace["torch"], 2),
        "default to the loop": round(pace["default"] / pace["loop"], 2),
        "default of the bound": round(pace["middle of default"] / pace["bound"], 3),
        "ten photos, default to torch": round(pace["few torch"] / pace["few default"], 2),
    }


def _copied(photos: list[Path], count: int, folder: Path) -> Path:
    """So many photos, each of them several times, by names of their own."""
    folder.mkdir()
    for number in range(count):
        photo = photos[number % len(photos)]
        shutil.copyfile(photo, folder / f"{number:06}{photo.suffix}")
    return folder


def _label(weights: Path, source: Path, table: Path, runtime: str = "auto") -> float:
    """Seconds of the whole command, whose table is left for a look at it."""
    shutil.rmtree(table, ignore_errors=True)
    given = {"source": source, "table": table, "checkpoint": weights, "runtime": runtime}
    given |= {"score_threshold": SCORE_THRESHOLD, "nms_threshold": NMS_THRESHOLD, "run": "r"}
    flags = [f"--{name}={value}" for name, value in given.items()]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "jobs.label", *flags], cwd=ROOT, check=True, capture_output=True
    )
    return time.perf_counter() - started


def _pace_in_the_middle(table: Path, count: int) -> float:
    """Images a second without the start and the end, when not all that there is has begun."""
    first, last = MIDDLE
    moments = (f"epoch(quantile_disc(labelled_at, {share}))" for share in MIDDLE)
    row = run_query(open_run(str(table), "r"), f"SELECT {', '.join(moments)} FROM images")
    from_s, to_s = (moment[0].as_py() for moment in row.columns)
    pace: float = (last - first) * count / (to_s - from_s)
    return pace


def _count_of_detections(table: Path) -> int:
    [[count]] = run_query(open_run(str(table), "r"), "SELECT count(*) FROM detections")
    found: int = count.as_py()
    return found


@torch.inference_mode()
def _loop(weights: bytes, photos: list[Path]) -> float:
    """Images a second of reading, letterboxing and looking at one after the other, as published."""
    checkpoint = parse_checkpoint(weights, "weights")
    model = checkpoint.model.eval()

    def look(photo: Path) -> None:
        pixels = np.asarray(cv2.imread(str(photo)), np.uint8)
        canvas, _ = letterbox(pixels, (SIDE, SIDE))
        # The whole canvas as float32 before it is a tensor, and all outputs decoded.
        batch = to_model_input(torch.from_numpy(canvas[None]), checkpoint.preprocessing)
        postprocess(decode_outputs(model(batch.contiguous())), SCORE_THRESHOLD, NMS_THRESHOLD)

    look(photos[0])
    started = time.perf_counter()
    for photo in photos:
        look(photo)
    return len(photos) / (time.perf_counter() - started)


def _bound(model: bytes, photos: list[Path]) -> float:
    """Images a second of all cores together, each with a detector and nothing besides."""
    bodies = [photo.read_bytes() for photo in photos]
    cores = usable_cores()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(_pace_of_a_core, [model] * cores, [bodies] * cores))


def _pace_of_a_core(model: bytes, bodies: list[bytes]) -> float:
    settings = DetectorSettings(
        input_size=(SIDE, SIDE),
        max_pixels=MAX_PIXELS,
        batch_size=None,
        threads=1,
        device="cpu",
        runtime=ONNXRUNTIME,
        score_threshold=SCORE_THRESHOLD,
        nms_threshold=NMS_THRESHOLD,
    )
    cv2.setNumThreads(1)
    runtime = load_runtime_class(ONNXRUNTIME, "cpu")(model, settings)

    def look(body: bytes) -> None:
        photo = decode_for_canvas(body, MAX_PIXELS, (SIDE, SIDE))
        canvas, back = letterbox(photo.pixels, (SIDE, SIDE), original_size=photo.size)
        [found] = runtime.begin(canvas[None])()
        assert found is not None
        back.to_original(found.boxes_xyxy)

    for body in bodies:
        look(body)
    started = time.perf_counter()
    for number in range(PHOTOS_OF_A_CORE):
        look(bodies[number % len(bodies)])
    return PHOTOS_OF_A_CORE / (time.perf_counter() - started)


def _of_large_photos(photos: list[Path], rounds: int) -> dict[str, float]:
    """How much sooner a 12 Mpx JPEG is decoded for a canvas than in full."""
    pixels = np.asarray(cv2.imread(str(photos[0])))
    enlarged = cv2.resize(pixels, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    body = cv2.imencode(".jpg", enlarged)[1].tobytes()
    seconds: dict[str, list[float]] = {"full": [], "part": []}
    for _ in range(5 * rounds):
        for way, decode in (
            ("full", lambda: decode_image(body, MAX_PIXELS)),
            ("part", lambda: decode_for_canvas(body, MAX_PIXELS, (SIDE, SIDE))),
        ):
            started = time.perf_counter()
            decode()
            seconds[way].append(time.perf_counter() - started)
    return {"12 Mpx, part to full": round(median(seconds["full"]) / median(seconds["part"]), 2)}


if __name__ == "__main__":
    main()
