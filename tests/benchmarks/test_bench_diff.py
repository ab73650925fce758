import json
import sys

import pytest

from benchmarks import bench_diff


def test_two_generated_runs_are_compared_and_one_is_exported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--num_images", "2000", "--formats", "csv"]
    monkeypatch.setattr(sys, "argv", ["bench_diff", *few])
    bench_diff.main()
    report = json.loads(capsys.readouterr().out)
    counts = report["diff"]["counts"]
    assert counts["photos"] == 2000
    assert counts["matched"] + counts["lost"] == counts["before"]
    assert counts["matched"] + counts["new"] == counts["after"]
    assert report["diff"]["rows"] == counts["matched"] + counts["new"] + counts["lost"]
    assert 0.02 < counts["lost"] / counts["before"] < 0.05
    assert report["export"]["csv"]["files"] == 2
