import json
import sys

import pytest

from benchmarks import bench_fetch
from pipelines.storage import s3


def test_both_ways_of_getting_photos_are_timed_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num_images", "100", "--size_bytes", "20000", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_fetch", *few])
    for name in ("ENDPOINT_URL", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "")  # and set back afterwards
    s3.connection.cache_clear()
    bench_fetch.main()
    s3.connection.cache_clear()
    report = json.loads(capsys.readouterr().out)
    core_ms = report["core_ms_per_get"]
    assert report["core_ms_by_fetch_to_by_client"] == pytest.approx(
        core_ms["fetch"] / core_ms["client"], abs=0.01
    )
    assert all(pace > 0 for pace in report["gets_per_second"].values())
