import json
import sys

import pytest

from benchmarks import bench_listing
from pipelines.storage import s3


def test_both_ways_of_listing_are_timed_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num_objects", "3000", "--alone", "2000", "--rounds", "1", "--answer_after_s", "0.01"]
    monkeypatch.setattr(sys, "argv", ["bench_listing", *few])
    for name in ("ENDPOINT_URL", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "")  # and set back afterwards
    s3.connection.cache_clear()
    bench_listing.main()
    s3.connection.cache_clear()
    report = json.loads(capsys.readouterr().out)
    paces = report["objects_per_second"]
    assert len(paces) == 3
    assert report["times_as_fast"] == pytest.approx(
        paces["side_by_side"] / paces["one_after_another"], abs=0.01
    )
