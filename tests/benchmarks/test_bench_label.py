import json
import sys
from pathlib import Path

import pytest

from benchmarks import bench_label


@pytest.mark.soak
@pytest.mark.ray
def test_all_ways_of_labelling_are_timed_and_find_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shared: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_label", "--num_photos", "60", "--rounds", "1"])
    bench_label.main()
    report = json.loads(capsys.readouterr().out)
    assert report["detections"]["torch"] == report["detections"]["default"] > 100
    assert all(pace > 0 for pace in report["images_per_second"].values())
    assert report["ratios"]["12 Mpx, part to full"] > 0
