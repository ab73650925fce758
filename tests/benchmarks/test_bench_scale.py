import json
import os
import sys

import pytest

from benchmarks import bench_scale
from benchmarks.memory import Process, Sample, cpu_s, peak_mb, sample, watched_call
from pipelines.labelling.listing import list_source
from pipelines.tables.schema import LISTED


def _sample(time: float, *processes: tuple[int, str, float, float]) -> Sample:
    return Sample(time, {pid: Process(*rest) for pid, *rest in processes}, object_store_mb=0.0)


def test_the_peak_of_a_role_is_that_of_one_process_and_of_all_at_once() -> None:
    samples = [
        _sample(0, (1, "driver", 10, 0), (2, "worker", 5, 0), (3, "worker", 6, 0)),
        _sample(1, (1, "driver", 12, 0), (4, "worker", 8, 0)),
    ]
    assert peak_mb(samples) == {
        "driver": {"one_process": 12, "all_processes": 12, "processes": 1},
        "worker": {"one_process": 8, "all_processes": 11, "processes": 2},
    }


def test_the_seconds_of_a_core_are_those_between_two_moments() -> None:
    samples = [
        _sample(0, (1, "driver", 0, 1.0)),
        _sample(1, (1, "driver", 0, 2.0), (2, "worker", 0, 0.5)),
        _sample(2, (1, "driver", 0, 4.0), (2, "worker", 0, 1.5)),
        _sample(3, (1, "driver", 0, 9.0)),
    ]
    assert cpu_s(samples) == {"driver": 9.0, "worker": 1.5}
    assert cpu_s(samples, first=0, last=2) == {"driver": 3.0, "worker": 1.5}


def test_a_process_and_what_it_started_is_seen_from_outside() -> None:
    assert sample(os.getpid()).own_mb("driver")[0] > 10
    block, samples = watched_call(0.01, bytes, 50_000_000)
    assert len(block) == 50_000_000
    assert peak_mb(samples)["driver"]["processes"] == 1


def test_a_source_lists_as_many_images_as_it_was_asked_for(tmp_path) -> None:
    path = tmp_path / "archive.parquet"
    bench_scale.write_source(path, 20_000)
    tables = list(list_source(str(path)).tables)
    uris = [uri for table in tables for uri in table["image_uri"].to_pylist()]
    assert len(uris) == len(set(uris)) == 20_000
    assert tables[0].schema.equals(LISTED)
    assert tables[0]["size_bytes"].null_count == 0


@pytest.mark.ray
@pytest.mark.soak
def test_the_benchmark_prints_what_it_promises_and_every_image_has_one_row(
    capsys, monkeypatch
) -> None:
    flags = ["--sizes", "300", "--done", "0.99", "--listed_files", "20"]
    monkeypatch.setattr(sys, "argv", ["bench_scale", *flags])
    bench_scale.main()
    report = json.loads(capsys.readouterr().out)
    assert report["machine"].keys() >= {"cpu", "cores", "load", "date"}
    assert report["goals"] == bench_scale.GOALS
    assert report["driver_mb_largest_of_smallest"] == 1.0
    assert report["listed_per_second"].keys() == {"folder", "s3"}
    (size,) = report["sizes"]
    assert size["images"] == size["rows"] == size["distinct_images"] == 300
    assert size["parts"] == 10  # of 32 images each
    assert size["seconds"]["total"] == pytest.approx(300 / size["images_per_second"], rel=0.1)
    assert size["driver_mb"] == size["peak_mb"]["driver"]["one_process"]
    assert size["peak_mb"].keys() >= {"driver", "raylet", "gcs", "detect actors"}
    (resumed,) = size["resumed"]
    assert resumed["done"] == 0.99
    assert resumed["labelled_now"] == 300 - 9 * 32  # the last of 10 parts
