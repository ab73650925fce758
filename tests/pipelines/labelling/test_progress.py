import json

import pytest

from pipelines import logs
from pipelines.labelling.progress import LabellingProgress, ListingProgress
from pipelines.labelling.writing import Part
from pipelines.tables.ledger import Ledger

PART = Part(17, Ledger(0, labelled=9, failed_by_kind={"gone": 1}), {"detect": 2.0}, 3, 500, 70)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds, which the test moves on."""
    seconds = [0.0]
    monkeypatch.setattr("pipelines.labelling.progress.time.monotonic", lambda: seconds[0])
    return seconds


def test_without_a_terminal_progress_is_json_lines_with_an_eta(clock, capsys) -> None:
    before = Ledger(100, labelled=20)
    with LabellingProgress("night", before) as shown:
        clock[0] = 4
        shown.update(before + Ledger(0, labelled=30), PART)
        assert capsys.readouterr().err == ""
        clock[0] = 80
        shown.update(before + Ledger(0, labelled=36, failed_by_kind={"gone": 4}), PART)
    # 40 images were done by this attempt in 80 s and 40 are left: as long again.
    told, at_the_end = map(json.loads, capsys.readouterr().err.splitlines())
    assert told == at_the_end
    assert told == {
        "run": "night",
        "done": 60,
        "to_do": 100,
        "failed": 4,
        "images_per_second": 0.5,
        "eta_seconds": 80,
    }


def test_lines_come_soon_and_then_ever_more_seldom(clock, capsys) -> None:
    with LabellingProgress("night", Ledger(100)) as shown:
        for second in range(400):
            clock[0] = second
            shown.update(Ledger(100, labelled=1), PART)
    told = [json.loads(line)["images_per_second"] for line in capsys.readouterr().err.splitlines()]
    assert len(told) == len([5, 15, 35, 75, 135, 195, 255, 315, 375, "the last one"])


def test_a_listing_says_how_far_it_is_without_what_an_earlier_start_had_listed(
    clock, capsys
) -> None:
    with ListingProgress() as shown:
        shown.update(1000, 5, "s3://photos/a.jpg")
        clock[0] = 80
        shown.update(9000, 7, "s3://photos/b.jpg")
    told = {"listed": 9000, "left_out": 7, "per_second": 100, "at": "s3://photos/b.jpg"}
    assert json.loads(capsys.readouterr().err) == told


def test_where_the_log_is_json_each_part_has_a_line(clock, capsys, monkeypatch) -> None:
    monkeypatch.setenv(logs.VARIABLE, logs.JSON)
    with LabellingProgress("night", Ledger(100)) as shown:
        shown.update(Ledger(100) + PART.ledger, PART)
    assert json.loads(capsys.readouterr().err) == {
        "run": "night",
        "part": 17,
        "labelled": 9,
        "failed": {"gone": 1},
        "detections": 0,
        "retries": 3,
        "seconds": {"detect": 2.0},
    }
