import json
import sys

import pytest

from benchmarks import bench_startup


def test_each_mistake_of_a_job_is_timed_and_must_be_answered_by_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_startup", "--rounds", "1", "--jobs", "label"])
    for name in (
        *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ):
        monkeypatch.setenv(name, "")  # and set back afterwards
    bench_startup.main()
    report = json.loads(capsys.readouterr().out)
    mistakes = ("no source", "no weights", "wrong value", "no bucket", "too many")
    assert set(report["seconds"]) == {f"label: {name}" for name in ("--help", *mistakes)}
    assert report["times_the_yardstick"].keys() == report["seconds"].keys()
