"""Label many real-sized JPEGs, and watch the memory of every process.

python -m benchmarks.bench_memory > memory.json

Generates some hundred JPEGs of 640 x 480 px with grain, 100 kB each, hard-linked under many names
in a folder, and labels them with the demo's checkpoint at a small input size: fetching, decoding,
the model, NMS and writing are what jobs.label does. Prints JSON: the peaks by role, and for what
came after the warm-up the slope of memory over images done, with its standard error.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from benchmarks.machine import describe_machine
from benchmarks.memory import Sample, peak_mb, watched_call
from pipelines.labelling import LabellingConfig, label_images
from pipelines.storage import Folder
from pipelines.tables import RunRecord, runs

GOALS = {"slope_within_standard_errors_of_0": 2}
CHECKPOINT = Path(__file__).parent.parent / "assets/shapes/shapes_nano.pth"
SAMPLE_EVERY_S = 1.0
LAST = 0.85
"""Share of the images after which actors begin to find nothing more to do, and end."""
WINDOWS = 10
"""That the slope is fitted to the means of: samples a second apart are not independent."""

Series = npt.NDArray[np.float64]


def main() -> None:
    args = _parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file_bytes = write_archive(Path(folder, "photos"), args.images, args.distinct)
        config = LabellingConfig(
            source=f"{folder}/photos",
            table=f"{folder}/table",
            checkpoint=str(CHECKPOINT),
            input_size=args.input_size,
        )
        record, samples = watched_call(SAMPLE_EVERY_S, _label, config)
        done = images_done(Folder(config.table), record, samples)
    report = {
        "machine": describe_machine(torch.device("cpu")) | {"load": os.getloadavg()},
        "goals": GOALS,
        "setting": vars(args) | {"mean_file_bytes": round(file_bytes)},
        "labelled": record.ledger.labelled,
        "images_per_second": round(record.images_per_second or 0, 1),
        "samples": len(samples),
        "peak_mb": peak_mb(samples),
        "object_store_mb": round(max(each.object_store_mb for each in samples), 1),
        "slopes": slopes(samples, done, args.warm_up * args.images, LAST * args.images),
    }
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--distinct", type=int, default=200)
    parser.add_argument("--input_size", type=int, default=160, help="pixels; decoding stays whole")
    parser.add_argument("--warm_up", type=float, default=0.5, help="share of the images")
    return parser.parse_args()


def write_archive(folder: Path, images: int, distinct: int) -> float:
    """Write JPEGs and link them under further names; the mean size of a file in bytes."""
    folder.mkdir()
    paths = [folder / f"{number:07d}.jpg" for number in range(images)]
    for number, path in enumerate(paths[:distinct]):
        path.write_bytes(_photo(number))
    for number, path in enumerate(paths[distinct:]):
        os.link(paths[number % distinct], path)
    return float(np.mean([path.stat().st_size for path in paths[:distinct]]))


def _photo(seed: int) -> bytes:
    """640 x 480 px of smooth colours with the grain of a sensor."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (640, 480))
    grain = rng.normal(0, 10, smooth.shape)
    pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _label(config: LabellingConfig) -> RunRecord:
    return label_images(config).record


def images_done(table: Folder, record: RunRecord, samples: Sequence[Sample]) -> Series:
    """(S,) images that were written at the time of each sample."""
    folder = runs.folders_of(table, record).images
    paths = [Path(folder.uri_of(name)) for name in folder.list()]
    parts = sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in paths)
    times, rows = zip(*parts, strict=True)
    counts = np.concatenate(([0], np.cumsum(rows)))
    done: Series = counts[np.searchsorted(times, [each.time for each in samples])].astype(float)
    return done


def slopes(
    samples: Sequence[Sample], done: Series, first: float, last: float
) -> dict[str, dict[str, float]]:
    """MB per 10,000 images of each role, of all and of the object store, while these were done.

    Args:
        samples: S of them.
        done: (S,) images done by then.
        first: images of the warm-up, which do not count.
        last: images from which on samples do not count either.
    """
    kept = np.flatnonzero((done >= first) & (done < last))
    held = [samples[index] for index in kept.tolist()]
    roles = sorted({process.role for each in held for process in each.processes.values()})
    series = {role: [sum(each.own_mb(role)) for each in held] for role in roles}
    series["all processes"] = [sum(values) for values in zip(*series.values(), strict=True)]
    series["object store"] = [each.object_store_mb for each in held]
    return {name: _slope(done[kept], np.array(values)) for name, values in series.items()}


def _slope(images: Series, mb: Series) -> dict[str, float]:
    """Least squares through the means of windows."""
    bounds = np.linspace(0, len(images), min(WINDOWS, len(images)) + 1).astype(int)
    windows = [slice(*bound) for bound in pairwise(bounds)]
    x = np.array([images[window].mean() for window in windows]) / 10_000
    y = np.array([mb[window].mean() for window in windows])
    deviation = x - x.mean()
    slope = (deviation @ y) / (deviation @ deviation)
    residuals = y - y.mean() - slope * deviation
    variance = (residuals @ residuals) / (len(x) - 2) / (deviation @ deviation)
    return {
        "mb_per_10000_images": round(float(slope), 2),
        "standard_error": round(float(np.sqrt(variance)), 2),
        "mean_mb": round(float(y.mean()), 1),
    }


if __name__ == "__main__":
    main()
