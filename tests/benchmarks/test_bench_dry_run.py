import json
import sys

import pytest

from benchmarks import bench_dry_run


@pytest.mark.soak
@pytest.mark.ray
def test_what_was_predicted_is_held_against_what_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_dry_run", "--num_images", "20", "--rounds", "1"])
    bench_dry_run.main()
    told = json.loads(capsys.readouterr().out)["20 images"]
    [round_] = told["rounds"]
    # All twenty images are the sample, so their boxes are known.
    assert round_["predicted"]["detections"] == round_["was"]["detections"] > 0
    assert told["predicted_to_was"]["detections"] == 1
    assert round_["was"]["seconds"] > 0
