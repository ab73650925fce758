import json
import sys

import pytest

from benchmarks import bench_feed


def test_a_gpu_that_is_fed_is_held_against_one_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_feed", "--questions", "2", "--rounds", "1"])
    bench_feed.main()
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 512
    assert report["share_waited"].keys() == {"alone", "one_after_another", "in_flight"}
    assert 0 < report["images_per_second"]["alone"] <= 5000  # it sleeps as long as that takes
