import pytest
import ray

from pipelines.labelling.monitor import Monitor, in_hand, start_monitor


def test_a_report_says_what_each_stage_has_in_hand() -> None:
    monitor = Monitor()
    for part in (3, 4):
        monitor.begin("fetch", part, "host, process 5")
        monitor.end("fetch", part)
    monitor.begin("detect", 3, "host, process 6")
    monitor.begin("detect", 4, "host, process 7")
    assert monitor.report(("fetch", "detect", "write")) == [
        "fetch: idle for 0 s, after 2 parts",
        "detect: part 3 for 0 s (host, process 6), part 4 for 0 s (host, process 7)",
        "write: has not begun",
    ]
    assert monitor.seconds_since_a_sign() < 60


def test_only_what_comes_further_than_before_is_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("pipelines.labelling.monitor.time.monotonic", lambda: now)
    monitor = Monitor()
    monitor.begin("detect", 3, "host, process 5")
    monitor.go_on("detect", 3, 32)
    now = 100.0  # process 5 has died over image 40
    monitor.begin("detect", 3, "host, process 6")
    monitor.go_on("detect", 3, 32)
    assert monitor.seconds_since_a_sign() == 100
    monitor.go_on("detect", 3, 64)
    assert monitor.seconds_since_a_sign() == 0
    now = 200.0
    monitor.begin("detect", 4, "host, process 6")
    assert monitor.seconds_since_a_sign() == 0


@pytest.mark.ray
def test_a_part_stays_in_hand_where_a_stage_fails(local_ray) -> None:
    monitor = start_monitor()
    with in_hand(monitor, "write", 1):
        pass
    with pytest.raises(OSError), in_hand(monitor, "write", 2):  # noqa: PT011
        raise OSError
    [line] = ray.get(monitor.report.remote(("write",)))
    assert line.startswith("write: part 2 for 0 s (")
