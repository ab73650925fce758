import json
import sys

import pyarrow as pa
import pytest

from benchmarks import bench_parts
from benchmarks.stand_ins import FetchSome
from pipelines.errors import RunStoppedError


def _listed(part: int) -> pa.Table:
    row = {"part": part, "part_rows": 1, "image_uri": "a", "etag": "e", "size_bytes": 1}
    return pa.Table.from_pylist([row])


def test_a_run_is_stopped_by_the_first_part_that_is_not_to_be_done() -> None:
    fetch = FetchSome(2)
    assert fetch(_listed(1))["image_uri"].to_pylist() == ["a"]
    with pytest.raises(RunStoppedError):
        fetch(_listed(2))


@pytest.mark.ray
@pytest.mark.soak
def test_the_benchmark_prints_what_it_promises(capsys, monkeypatch) -> None:
    flags = ["--parts", "40", "2000", "--at_most", "200"]
    monkeypatch.setattr(sys, "argv", ["bench_parts", *flags])
    bench_parts.main()
    report = json.loads(capsys.readouterr().out)
    assert report["machine"].keys() >= {"cpu", "cores", "load", "date"}
    few, many = report["runs"]
    assert few["parts"] == few["parts_done"] == 40
    assert many["parts"] == 2000
    assert 0 < many["parts_done"] <= 200
    assert many["mb_per_10000_parts"].keys() >= {"driver", "raylet", "gcs"}
    share = many["driver_mb_at_end"] / few["driver_mb"]
    assert report["driver_mb_most_of_fewest_parts"] == pytest.approx(share, abs=1e-3)
