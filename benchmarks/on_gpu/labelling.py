"""The labelling job on JPEGs of 640 x 480 px, beside the bare forward pass and bare decoding."""

import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import cv2
import torch

from benchmarks.bench_memory import write_archive
from benchmarks.on_gpu.forward import images_per_second, random_canvases, ready_model
from benchmarks.on_gpu.sizes import ROOT, Mode, Result, Sizes
from pipelines import cluster
from pipelines.labelling import LabellingConfig, label_images
from pipelines.photos import decode_image
from pipelines.storage import Folder
from pipelines.tables import RunRecord, runs
from yolox_core import build_model, letterbox, load_checkpoint, save_checkpoint

DEMO = ROOT / "assets/shapes/shapes_nano.pth"
BATCH_SIZE = 64
"""Of the bare forward pass; the job has its own default."""
MAX_PIXELS = 10**7
FINDS_NOTHING = -20.0
"""Objectness of a model without training, which would else find something everywhere."""


def measure(sizes: Sizes) -> Iterator[Result]:
    """For each model a short run, and one of `labelling_seconds` by the short one's pace.

    The demo's weights stand for nano, and random ones that find nothing for the other presets.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file_bytes = write_archive(folder / "photos", sizes.first_photos, sizes.distinct_photos)
        yield {"mean_file_bytes": round(file_bytes)}
        photos = sorted((folder / "photos").iterdir())[: sizes.distinct_photos]
        for preset, side in sizes.models:
            checkpoint = _checkpoint(preset, folder)
            bounds = {
                "bare_forward": _bare_forward(checkpoint, side, sizes),
                "decoding": decoded_per_second(photos, side),
            }
            short = label(folder / "photos", checkpoint, side, sizes)
            yield {"model": f"{preset}@{side}", **_beside(short, bounds)}
            # Parts that end together make a short run look faster than it can be.
            pace = min(short["images_per_second_between_parts"], *bounds.values())
            count = round(sizes.labelling_seconds * pace)
            more = folder / f"photos-{preset}"
            write_archive(more, max(count, sizes.first_photos), sizes.distinct_photos)
            long = label(more, checkpoint, side, sizes)
            yield {"model": f"{preset}@{side}", **_beside(long, bounds)}


def decoded_per_second(photos: Sequence[Path], side: int) -> float:
    """Photos that all cores decode and letterbox in a second, each in a process of its own."""
    cores = cluster.usable_cores()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_decode_all, repeat(photos[:1], cores), repeat(side)))  # all are started
        started = time.perf_counter()
        list(pool.map(_decode_all, repeat(photos, cores), repeat(side)))
        return cores * len(photos) / (time.perf_counter() - started)


def label(photos: Path, checkpoint: Path, side: int, sizes: Sizes) -> Result:
    """Label a folder as jobs.label does, with a local Ray that later calls find started."""
    with tempfile.TemporaryDirectory() as table:
        config = LabellingConfig(
            source=str(photos),
            table=table,
            checkpoint=str(checkpoint),
            input_size=side,
            gpus_per_actor=None if sizes.on_gpu else 0,
        )
        started = time.perf_counter()
        record = label_images(config).record
        seconds = time.perf_counter() - started
        return {
            "labelled": record.ledger.labelled,
            "detections": record.ledger.detections,
            "seconds": round(seconds, 1),
            "images_per_second": round(record.ledger.labelled / seconds, 1),
            "images_per_second_between_parts": round(_pace_between_parts(table, record), 1),
        }


def _pace_between_parts(table: str, record: RunRecord) -> float:
    """From the first file to the last one, which leaves the start-up of Ray and model out."""
    images = runs.folders_of(Folder(table), record).images
    written = sorted(Path(images.uri_of(name)).stat().st_mtime for name in images.list())
    later = record.ledger.labelled * (1 - 1 / len(written))
    return later / max(written[-1] - written[0], 1e-9)


def _beside(found: Result, bounds: dict[str, float]) -> Result:
    """A run beside the paces that it cannot exceed."""
    pace = found["images_per_second_between_parts"]
    paces = {f"{name}_per_second": round(bound, 1) for name, bound in bounds.items()}
    return found | paces | {f"share_of_{n}": round(pace / bound, 3) for n, bound in bounds.items()}


def _bare_forward(checkpoint: Path, side: int, sizes: Sizes) -> float:
    device = sizes.torch_device
    model = ready_model(load_checkpoint(checkpoint).model, device)
    mode: Mode = "graph" if sizes.on_gpu else "eager"
    return images_per_second(model, random_canvases(BATCH_SIZE, side, device), mode, sizes)


def _checkpoint(preset: str, folder: Path) -> Path:
    if preset == "nano":
        return DEMO
    torch.manual_seed(0)
    model = build_model(preset)
    for name, parameter in model.named_parameters():
        if re.fullmatch(r"head\.obj_preds\.\d\.bias", name):
            torch.nn.init.constant_(parameter, FINDS_NOTHING)
    path = folder / f"{preset}.pth"
    names = [str(number) for number in range(model.config.num_classes)]
    save_checkpoint(path, model, class_names=names, input_size=(640, 640), preprocessing="official")
    return path


def _decode_all(photos: Sequence[Path], side: int) -> None:
    cv2.setNumThreads(1)
    for photo in photos:
        letterbox(decode_image(photo.read_bytes(), MAX_PIXELS), (side, side))
