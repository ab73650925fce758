import json

import pytest

from pipelines import progress
from pipelines.ledger import Ledger
from pipelines.progress import LabellingProgress


def test_without_a_terminal_progress_is_json_lines_with_an_eta(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    before = Ledger(100, labelled=20)
    with LabellingProgress(before) as shown:
        shown.update(before + Ledger(0, labelled=36, failed_by_kind={"gone": 4}))
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["done"], line["listed"], line["failed"]) == (60, 100, 4)
    # 40 images were done in this attempt and 40 are left: as long again as it took.
    assert line["eta_seconds"] == pytest.approx(40 / line["images_per_second"], abs=1)


def test_within_a_minute_nothing_is_said(capsys) -> None:
    with LabellingProgress(Ledger(2)) as shown:
        shown.update(Ledger(2, labelled=1))
    assert capsys.readouterr().err == ""
