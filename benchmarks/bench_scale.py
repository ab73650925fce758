"""Label archives of growing size without a pixel: what the pipeline itself costs, and keeps.

python -m benchmarks.bench_scale --sizes 10000 100000 1000000 > scale.json

The source is a Parquet file that names images, fetch and detector are stand-ins, everything else is
what jobs.label runs: listing, Ray, the detectors' processes, Parquet, the ledger. Each command runs
in a fresh process, and seconds count from the start of that process. Prints JSON: images/s, peak
memory, and how long the same command takes where a share of the parts is done already. Folders and
S3 (an S3 server on this machine, whose own pace that is) are listed apart.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import botocore.session
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.local_s3 import local_s3
from benchmarks.machine import describe_machine
from benchmarks.memory import DRIVER, Sample, cpu_s, peak_mb, watched_call
from benchmarks.stand_ins import IMAGE_BYTES, fetch_nothing
from pipelines.labelling import (
    ROWS_PER_TABLE,
    LabellingConfig,
    label_images,
    list_source,
    write_manifest,
)
from pipelines.storage import Folder
from pipelines.tables import LISTED, RunFolders, open_table, run_query, runs

GOALS = {
    "driver_mb_largest_of_smallest_at_most": 1.3,
    "images_per_second_at_least": 5000,
    "seconds_to_resume_0.99_done_at_most": 60,
}
RUN = "scale"
SAMPLE_EVERY_S = 0.5


def main() -> None:
    args = _parse_args()
    sizes = [measure_size(size, args.done) for size in sorted(args.sizes)]
    report = {
        "machine": describe_machine(torch.device("cpu")) | {"load": os.getloadavg()},
        "goals": GOALS,
        "setting": vars(args),
        "sizes": sizes,
        "driver_mb_largest_of_smallest": round(sizes[-1]["driver_mb"] / sizes[0]["driver_mb"], 3),
        "listed_per_second": watched_call(1, time_listings, args.listed_files)[0],
    }
    print(json.dumps(report, indent=2))


def _parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--done", type=float, nargs="*", default=[0.99, 0.5, 0.0], help="shares to resume from"
    )
    parser.add_argument(
        "--listed_files", type=int, default=5000, help="in the folder and in the bucket"
    )
    return parser.parse_args()


def measure_size(size: int, done_shares: Sequence[float]) -> dict[str, Any]:
    """One archive: labelled from nothing, then again from each share of its parts."""
    with tempfile.TemporaryDirectory() as folder:
        source, table = Path(folder, "archive.parquet"), Folder(f"{folder}/table")
        write_source(source, size)
        config = LabellingConfig(
            source=str(source),
            table=table.uri,
            checkpoint=str(source),  # the detector does not look at it
            detector="benchmarks.stand_ins:BlindDetector",
            run=RUN,
            date="2026-01-01",
        )
        whole = measure(config)
        manifest = _files_of(runs.folders_of(table, whole.record).manifest)
        resumed = [resume(config, share) for share in done_shares]
        rows = _count_rows(table)
    record = whole.record
    return {
        "images": size,
        "parts": record.parts,
        "manifest_bytes_per_image": round(sum(file.st_size for file in manifest) / size, 1),
        "images_per_second": round(size / whole.total_s),
        "images_per_second_between_parts": round(whole.steady_pace),
        "core_ms_per_image_between_parts": whole.core_ms_per_image,
        "seconds": whole.seconds,
        "driver_mb": whole.driver_mb,
        "driver_mb_while_listing": whole.driver_mb_while_listing,
        "object_store_mb": round(max(each.object_store_mb for each in whole.samples), 1),
        "peak_mb": peak_mb(whole.samples),
        "cpu_seconds": cpu_s(whole.samples),
        "resumed": resumed,
        **rows,
    }


def write_source(path: Path, size: int) -> None:
    """A manifest of images that are not there, as an inventory of a bucket has them."""
    with pq.ParquetWriter(path, LISTED, compression="zstd") as writer:
        for start in range(0, size, ROWS_PER_TABLE):
            numbers = range(start, min(start + ROWS_PER_TABLE, size))
            columns = {
                "image_uri": [
                    f"s3://photos/2026/{n // 1000:06d}/IMG_{n:010d}.jpg" for n in numbers
                ],
                # Digits as random as a checksum's, for the sake of the manifest's size.
                "etag": [
                    f"{n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}" for n in numbers
                ],
                "size_bytes": [IMAGE_BYTES] * len(numbers),
                "last_modified": pa.nulls(len(numbers), LISTED.field("last_modified").type),
            }
            writer.write_table(pa.Table.from_pydict(columns, schema=LISTED))


@dataclass(frozen=True)
class Measured:
    """One command. Times are seconds since the epoch."""

    record: runs.RunRecord
    labelled_now: int
    started: float
    called: float
    """When the process had imported what it needs."""
    ended: float
    listed: float | None
    """When the manifest was whole; None where there was one already."""
    parts: Sequence[float]
    """When each part was committed, sorted; what was done before is not among them."""
    samples: Sequence[Sample]

    @property
    def total_s(self) -> float:
        return self.ended - self.started

    @property
    def driver_mb(self) -> float:
        return round(max(chain.from_iterable(each.own_mb(DRIVER) for each in self.samples)), 1)

    @property
    def driver_mb_while_listing(self) -> float | None:
        """From where it called the pipeline to where the manifest was whole."""
        then = [s for s in self.samples if self.called <= s.time <= (self.listed or 0)]
        return max((round(mb, 1) for each in then for mb in each.own_mb(DRIVER)), default=None)

    @property
    def seconds(self) -> Mapping[str, float]:
        """What they went to."""
        ready = self.listed or self.called
        stages = {
            "imports": self.called - self.started,
            "listing": ready - self.called,
            "start_to_first_part": self.parts[0] - ready,
            "first_to_last_part": self.parts[-1] - self.parts[0],
            "ledger": self.ended - self.parts[-1],
            "total": self.total_s,
        }
        return {name: round(seconds, 2) for name, seconds in stages.items()}

    @property
    def _steady_images(self) -> float:
        """Images of all parts but the first."""
        return self.labelled_now * (1 - 1 / len(self.parts))

    @property
    def steady_pace(self) -> float:
        """Images/s between the first part and the last."""
        return self._steady_images / max(self.parts[-1] - self.parts[0], 1e-9)

    @property
    def core_ms_per_image(self) -> Mapping[str, float]:
        """By role, between the first part and the last: what no other load on the machine hides."""
        seconds = cpu_s(self.samples, self.parts[0], self.parts[-1])
        seconds["total"] = sum(seconds.values())
        images = max(self._steady_images, 1)
        return {role: round(1000 * value / images, 4) for role, value in seconds.items()}


def measure(config: LabellingConfig) -> Measured:
    """Give the command of one run, in a process of its own."""
    started = time.time()
    (called, ended, record, labelled_now), samples = watched_call(SAMPLE_EVERY_S, _label, config)
    folders = runs.folders_of(Folder(config.table), record)
    manifest = _times_of(folders.manifest)
    return Measured(
        record=record,
        labelled_now=labelled_now,
        started=started,
        called=called,
        ended=ended,
        listed=manifest[-1] if manifest[-1] > started else None,
        parts=[written for written in _times_of(folders.images) if written > started],
        samples=samples,
    )


def _label(config: LabellingConfig) -> tuple[float, float, runs.RunRecord, int]:
    called = time.time()
    summary = label_images(config, fetch=fetch_nothing)
    return called, time.time(), summary.record, summary.labelled_now


def _times_of(folder: Folder) -> list[float]:
    return sorted(file.st_mtime for file in _files_of(folder))


def _files_of(folder: Folder) -> list[os.stat_result]:
    return [Path(folder.uri_of(name)).stat() for name in folder.list()]


def resume(config: LabellingConfig, done_share: float) -> dict[str, Any]:
    """Undo the last parts of a complete run, as if it had been stopped there, and go on with it."""
    table = Folder(config.table)
    record = runs.read_record(table, RUN)
    assert record is not None
    folders = runs.folders_of(table, record)
    _undo(folders, done_share)
    runs.write_record(table, replace(record, status=runs.STOPPED, finished_at=None))
    measured = measure(config)
    return {
        "done": done_share,
        "labelled_now": measured.labelled_now,
        "driver_mb": measured.driver_mb,
        "seconds": measured.seconds,
        "cpu_seconds": cpu_s(measured.samples),
    }


def _undo(folders: RunFolders, done_share: float) -> None:
    names = folders.images.list()
    # At least one part is left to do.
    for name in names[min(int(done_share * len(names)), len(names) - 1) :]:
        folders.images.delete(name)
        folders.detections.delete(name)


def _count_rows(table: Folder) -> dict[str, int]:
    """What is in the table after all that: each image must have one row."""
    sql = "SELECT count(*) AS rows, count(DISTINCT image_uri) AS distinct_images FROM images"
    [counts] = run_query(open_table(table.uri), sql).to_pylist()
    return dict(counts)


def time_listings(files: int) -> dict[str, int]:
    """Files per second of each kind of source, manifest included."""
    return {"folder": _time_listing_of_folder(files), "s3": _time_listing_of_s3(files)}


def _time_listing_of_folder(files: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            path = Path(folder, "photos", f"{number // 1000:06d}", f"IMG_{number:010d}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return _listed_per_second(f"{folder}/photos", files)


def _time_listing_of_s3(files: int) -> int:
    with local_s3():
        client = botocore.session.get_session().create_client("s3")
        client.create_bucket(Bucket="photos")
        for number in range(files):
            client.put_object(Bucket="photos", Key=f"2026/IMG_{number:010d}.jpg", Body=b"")
        return _listed_per_second("s3://photos/2026/", files)


def _listed_per_second(source: str, files: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        summary = write_manifest(list_source(source), Folder(folder), images_per_part=256)
        seconds = time.perf_counter() - started
    assert summary.listed == files
    return round(files / seconds)


if __name__ == "__main__":
    main()
