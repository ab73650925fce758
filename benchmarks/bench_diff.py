"""How fast two runs over the same photos are compared, and one of them exported.

    python -m benchmarks.bench_diff --num_images 1000000

The tables are generated: three boxes a photo on average, of which the second run lost some, found
some new ones and moved the others a little.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks.machine import describe_machine
from benchmarks.memory import DRIVER, Sample, watched_call
from pipelines.comparison import ComparisonConfig, compare
from pipelines.exports import ExportConfig, FormatName, export_table
from pipelines.storage import Folder
from pipelines.tables import DETECTIONS, IMAGES, LABELLED, RunFolders, part_name

CLASSES = ("cat", "dog", "bird", "car", "person")
BOXES_PER_PHOTO = 3
PHOTOS_PER_PART = 10_000
PHOTO_SIZE_PX = 1000
LOST_SHARE = 0.03
"""Of the boxes of the first run; as many of the second one are new."""
DATE = "2026-11-28"


def main() -> None:
    args = _parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_runs(f"{folder}/table", args.num_images)
        generated_s = time.perf_counter() - started
        diff, samples = watched_call(0.2, _diff, f"{folder}/table", args.memory_mb)
        exports = {name: _watched_export(folder, name, args.memory_mb) for name in args.formats}
    result = {
        "machine": describe_machine(torch.device("cpu")),
        "config": vars(args),
        "generated_s": round(generated_s, 1),
        "diff": {**diff, **_memory(samples)},
        "export": exports,
    }
    print(json.dumps(result, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num_images", type=int, default=100_000)
    parser.add_argument("--memory_mb", type=int, default=2048, help="that DuckDB may use")
    parser.add_argument("--formats", nargs="*", default=["coco"], help="to export")
    return parser.parse_args()


def write_runs(table: str, num_images: int) -> None:
    """The runs `before` and `after` over the same photos, in a table."""
    rng = np.random.default_rng(0)
    folders = [RunFolders(Folder(table), run, DATE) for run in ("before", "after")]
    for part, first in enumerate(range(0, num_images, PHOTOS_PER_PART)):
        photos = np.arange(first, min(first + PHOTOS_PER_PART, num_images))
        before = _random_boxes(rng, photos)
        for run, boxes in zip(folders, (before, _changed(rng, before)), strict=True):
            counts = np.bincount(boxes["photo"] - first, minlength=len(photos))
            run.detections.write_table(part_name(part), _detections(boxes))
            run.images.write_table(part_name(part), _images(photos, counts))
    for run in folders:
        record = {"run": run.run, "date": DATE, "status": "complete", "listed": num_images}
        Folder(table).write(f"runs/{run.run}.json", json.dumps(record).encode())


Boxes = dict[str, NDArray[Any]]
"""photo, class, score, and corners (N, 4), sorted by photo and falling score."""


def _random_boxes(rng: np.random.Generator, photos: NDArray[np.int64]) -> Boxes:
    photo = np.repeat(photos, rng.poisson(BOXES_PER_PHOTO, len(photos)))
    near = rng.uniform(0, 0.7 * PHOTO_SIZE_PX, (len(photo), 2))
    far = near + rng.uniform(0.05, 0.3, (len(photo), 2)) * PHOTO_SIZE_PX
    return _in_order(
        {
            "photo": photo,
            "class": rng.integers(0, len(CLASSES), len(photo)),
            "score": rng.uniform(0.05, 1, len(photo)),
            "corners": np.hstack([near, far]),
        }
    )


def _changed(rng: np.random.Generator, boxes: Boxes) -> Boxes:
    """Some lost, as many new, the others moved by some pixels."""
    kept = rng.random(len(boxes["photo"])) >= LOST_SHARE
    moved = {name: values[kept] for name, values in boxes.items()}
    moved["corners"] = moved["corners"] + rng.normal(0, 3, moved["corners"].shape)
    moved["score"] = np.clip(moved["score"] + rng.normal(0, 0.05, kept.sum()), 0.05, 1)
    photos = rng.choice(boxes["photo"], (len(kept) - kept.sum()) // BOXES_PER_PHOTO)
    new = _random_boxes(rng, np.sort(photos))
    return _in_order({name: np.concatenate([moved[name], new[name]]) for name in moved})


def _in_order(boxes: Boxes) -> Boxes:
    order = np.lexsort((-boxes["score"], boxes["photo"]))
    return {name: values[order] for name, values in boxes.items()}


def _uris(photos: NDArray[np.int64]) -> pa.Array:
    return pa.array([f"s3://photos/2026/{n // 100_000:03d}/img_{n:08d}.jpg" for n in photos])


def _detections(boxes: Boxes) -> pa.Table:
    photo = boxes["photo"]
    _, first, inverse = np.unique(photo, return_index=True, return_inverse=True)
    corners = boxes["corners"].astype(np.float32)
    sides = pa.array(np.full(len(photo), PHOTO_SIZE_PX, np.int32))
    names = pa.DictionaryArray.from_arrays(
        pa.array(boxes["class"].astype(np.int32)), pa.array(CLASSES)
    )
    columns = [
        _uris(photo),
        pa.array((np.arange(len(photo)) - first[inverse]).astype(np.int32)),
        pa.array(boxes["class"].astype(np.int32)),
        names,
        pa.array(boxes["score"].astype(np.float32)),
        *(pa.array(corners[:, side]) for side in range(4)),
        sides,
        sides,
    ]
    return pa.table(columns, schema=DETECTIONS)


def _images(photos: NDArray[np.int64], num_detections: NDArray[np.int64]) -> pa.Table:
    count = len(photos)
    constants = {
        "etag": "0123456789abcdef",
        "size_bytes": 150_000,
        "width": PHOTO_SIZE_PX,
        "height": PHOTO_SIZE_PX,
        "status": LABELLED,
        "error_kind": None,
        "error_message": None,
        "labelled_at": datetime(2026, 11, 28, 1, tzinfo=UTC),
        "decoded_share": None,
    }
    columns = {
        name: pa.repeat(pa.scalar(value, _plain(IMAGES.field(name).type)), count)
        for name, value in constants.items()
    }
    columns |= {"image_uri": _uris(photos), "num_detections": pa.array(num_detections, pa.int32())}
    return pa.table([columns[name].cast(IMAGES.field(name).type) for name in IMAGES.names], IMAGES)


def _plain(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _diff(table: str, memory_mb: int) -> dict[str, Any]:
    config = ComparisonConfig(table=table, before="before", after="after", memory_mb=memory_mb)
    started = time.perf_counter()
    with compare(config) as compared:
        matched = time.perf_counter()
        counts = compared.counts()
        compared.classes(), compared.groups(), compared.most_changed()
        counted = time.perf_counter()
        rows = sum(len(batch) for batch in compared.changes())
        streamed = time.perf_counter()
    return {
        "matched_s": round(matched - started, 1),
        "counted_s": round(counted - matched, 1),
        "rows_streamed_s": round(streamed - counted, 1),
        "photos_per_second": round(counts.photos / (counted - started)),
        "rows": rows,
        "counts": asdict(counts),
    }


def _watched_export(folder: str, format: FormatName, memory_mb: int) -> dict[str, Any]:
    output = f"{folder}/{format}"
    seconds, samples = watched_call(0.2, _export, f"{folder}/table", format, output, memory_mb)
    files = [path for path in Path(output).rglob("*") if path.is_file()]
    return {
        "seconds": round(seconds, 1),
        **_memory(samples),
        "files": len(files),
        "mb": round(sum(path.stat().st_size for path in files) / 1e6, 1),
    }


def _memory(samples: Sequence[Sample]) -> dict[str, float]:
    """Of the process, before it began and at most."""
    held = [mb for sample in samples for mb in sample.own_mb(DRIVER)]
    return {"start_mb": round(held[0], 1), "peak_mb": round(max(held), 1)}


def _export(table: str, format: FormatName, output: str, memory_mb: int) -> float:
    started = time.perf_counter()
    export_table(
        ExportConfig(table=table, run="before", format=format, output=output, memory_mb=memory_mb)
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
