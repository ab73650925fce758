import numpy as np
import pytest

from benchmarks import bench_memory
from benchmarks.memory import Process, Sample


def _samples(mb: list[float]) -> list[Sample]:
    return [Sample(i, {1: Process("driver", held, 0.0)}, 5.0) for i, held in enumerate(mb)]


def test_the_slope_is_that_after_the_warm_up_and_before_the_end() -> None:
    done = np.arange(0.0, 20_000, 100)
    warm_up = 3.0 * np.minimum(done, 5000)
    held = 100 + warm_up + 2 * done / 10_000 - 1000 * (done > 18_000)
    slopes = bench_memory.slopes(_samples(held.tolist()), done, 5000, 18_000)
    assert slopes["driver"]["mb_per_10000_images"] == pytest.approx(2, abs=0.01)
    assert slopes["driver"]["standard_error"] == pytest.approx(0, abs=0.01)
    assert slopes["all processes"] == slopes["driver"]
    assert slopes["object store"] == {
        "mb_per_10000_images": 0,
        "standard_error": 0,
        "mean_mb": 5,
    }


def test_an_archive_of_links_is_as_long_as_it_was_asked_for(tmp_path) -> None:
    mean_bytes = bench_memory.write_archive(tmp_path / "photos", images=7, distinct=3)
    files = sorted((tmp_path / "photos").iterdir())
    assert len(files) == 7
    assert len({path.stat().st_ino for path in files}) == 3
    assert mean_bytes > 90_000
