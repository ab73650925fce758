"""Time what runs YOLOX on a CPU: torch, ONNX Runtime and, where it is installed, OpenVINO.

python -m benchmarks.bench_runtimes > runtimes.json

Two processes of one thread each work at once, as the detectors of a run do, and take everything in
turn, round by round, so that what else the machine does meets all of it. Prints JSON with the
machine and medians: images a second of both processes together, and core-ms an image, which other
work disturbs less. Measured are the forward pass by the number of images in it, of YOLOX-nano at
416 px and of an untrained YOLOX-s at 640 px; what makes boxes of nano's raw outputs on photos; and
nano's whole detector, from the bytes of photos to their boxes.
"""

import argparse
import io
import json
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.machine import describe_machine
from pipelines.detectors import (
    ONNXRUNTIME,
    TORCH,
    DetectorSettings,
    YoloxDetector,
    export_checkpoint,
    load_runtime_class,
    parse_checkpoint,
    postprocess_arrays,
)
from pipelines.photos import Pixels
from yolox_core import (
    Checkpoint,
    build_model,
    fuse_conv_bn,
    letterbox,
    postprocess_raw,
    save_checkpoint,
    to_model_input,
)

PROCESSES = 2
NMS_THRESHOLD = 0.65
BATCHES = (1, 4, 16)

Calls = dict[str, tuple[int, Callable[[], object]]]
"""What is timed, and how many images it is about."""


def main() -> None:
    args = _parse_args()
    photos = [path.read_bytes() for path in sorted(args.photos.iterdir())[: args.num_photos]]
    given = (args.weights.read_bytes(), photos, args.rounds)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(PROCESSES), context.SimpleQueue()
    workers = [
        context.Process(target=_work, args=(*given, barrier, results)) for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    of_each = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    print(json.dumps({"machine": _machine(), "results": _together(of_each)}, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).parents[2] / "shared"
    parser.add_argument("--weights", type=Path, default=shared / "weights/yolox_nano_coco.pth")
    parser.add_argument("--photos", type=Path, default=shared / "data/coco_val79/images")
    parser.add_argument("--num_photos", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _machine() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("onnxruntime", "openvino"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return describe_machine(torch.device("cpu")) | versions | {"processes": PROCESSES}


def _work(weights: bytes, photos: list[bytes], rounds: int, barrier: Barrier, results: Any) -> None:
    """Time everything in one of the processes."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    nano, small = parse_checkpoint(weights, "weights"), _untrained("s")
    calls = _forward("nano@416", nano, 416, BATCHES) | _forward("s@640", small, 640, BATCHES[:2])
    calls |= _postprocessing(nano, photos) | _detectors(weights, nano, photos)
    for _, call in calls.values():
        call()
    timed: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (images, call) in calls.items():
            barrier.wait()
            wall, core = time.perf_counter(), time.process_time()
            call()
            wall, core = time.perf_counter() - wall, time.process_time() - core
            timed[name].append((wall / images, core / images))
    results.put(timed)


def _untrained(preset: str) -> Checkpoint:
    torch.manual_seed(0)
    file = io.BytesIO()
    model, names = build_model(preset), [str(number) for number in range(80)]
    about: dict[str, Any] = {"input_size": (640, 640), "preprocessing": "official"}
    save_checkpoint(file, model, class_names=names, **about)
    return parse_checkpoint(file.getvalue(), preset)


def _forward(name: str, checkpoint: Checkpoint, side: int, batches: tuple[int, ...]) -> Calls:
    most = max(batches)
    canvases = np.random.default_rng(0).integers(0, 256, (most, side, side, 3), np.uint8)
    return {
        f"{name}: forward, {runtime}, {batch} at once": (most, _in_batches(run, canvases, batch))
        for runtime, run in _runtimes(checkpoint).items()
        for batch in batches
    }


def _in_batches(
    run: Callable[[Pixels], object], canvases: Pixels, batch: int
) -> Callable[[], object]:
    starts = range(0, len(canvases), batch)
    return lambda: [run(canvases[start : start + batch]) for start in starts]


def _runtimes(checkpoint: Checkpoint) -> dict[str, Callable[[Pixels], Any]]:
    """From canvases to raw outputs, each in one thread."""
    model = export_checkpoint(checkpoint)
    found = {TORCH: _by_torch(checkpoint), ONNXRUNTIME: _by_onnxruntime(model)}
    try:
        return found | {"openvino": _by_openvino(model)}
    except ImportError:
        return found


def _by_torch(checkpoint: Checkpoint) -> Callable[[Pixels], Any]:
    fused = fuse_conv_bn(checkpoint.model).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(canvases: Pixels) -> Any:
        return fused(to_model_input(torch.from_numpy(canvases), checkpoint.preprocessing))

    return run


def _by_onnxruntime(model: bytes) -> Callable[[Pixels], Any]:
    load_runtime_class(ONNXRUNTIME, "cpu")  # which sees to its telemetry
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda canvases: session.run(None, {"canvases": canvases})


def _by_openvino(model: bytes) -> Callable[[Pixels], Any]:
    import openvino

    one_thread = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", one_thread | {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()
    return lambda canvases: request.infer({0: canvases})


def _postprocessing(checkpoint: Checkpoint, photos: list[bytes]) -> Calls:
    """Image by image, as torch does it and as NumPy and OpenCV do."""
    decoded = [cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR) for body in photos]
    canvases = [letterbox(np.asarray(photo, np.uint8), (416, 416))[0] for photo in decoded]
    run = _by_torch(checkpoint)
    tensors = [run(canvas[None]) for canvas in canvases]
    arrays = [[np.ascontiguousarray(level.numpy()) for level in raw] for raw in tensors]
    calls: Calls = {}
    for threshold in (0.25, 0.01):
        for name, find, raws in (
            (TORCH, postprocess_raw, tensors),
            ("numpy", postprocess_arrays, arrays),
        ):
            call = _each(find, raws, threshold)
            calls[f"nano@416: postprocessing, {name}, score {threshold}"] = (len(raws), call)
    return calls


def _each(find: Any, raws: list[Any], threshold: float) -> Callable[[], object]:
    return lambda: [find(raw, threshold, NMS_THRESHOLD) for raw in raws]


def _detectors(weights: bytes, checkpoint: Checkpoint, photos: list[bytes]) -> Calls:
    calls: Calls = {}
    for runtime, data in ((TORCH, weights), (ONNXRUNTIME, export_checkpoint(checkpoint))):
        settings = DetectorSettings(
            input_size=(416, 416),
            score_threshold=0.01,
            nms_threshold=NMS_THRESHOLD,
            max_pixels=10**8,
            batch_size=16,
            threads=1,
            device="cpu",
            runtime=runtime,
        )
        call = _detector(YoloxDetector(data, settings), photos)
        calls[f"nano@416: detector, {runtime}"] = (len(photos), call)
    return calls


def _detector(detector: YoloxDetector, photos: list[bytes]) -> Callable[[], object]:
    return lambda: detector(photos)


def _together(of_each: list[dict[str, list[tuple[float, float]]]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds: the processes' paces added up, their core times averaged."""
    summed: dict[str, dict[str, float]] = {}
    for name in of_each[0]:
        walls, cores = zip(
            *(map(median, zip(*of[name], strict=True)) for of in of_each), strict=True
        )
        summed[name] = {
            "images_per_second": round(sum(1 / wall for wall in walls), 1),
            "core_ms_per_image": round(1000 * sum(cores) / len(cores), 2),
        }
    return summed


if __name__ == "__main__":
    main()
