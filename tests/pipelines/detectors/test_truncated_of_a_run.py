"""Photos that were cut short: what a run does with them is one of the settings that make it."""

import json
from dataclasses import replace

import pytest

from pipelines.labelling.config import LabellingConfig
from pipelines.tables import Ledger, RunRecord, runs
from tests.run_settings import SETTINGS

FAILING = replace(SETTINGS, max_pixels=100_000_000, max_image_bytes=100_000_000)
LABELLING = replace(FAILING, truncated="label")


def test_a_run_goes_on_with_what_it_was_begun_with() -> None:
    assert LABELLING.differences(FAILING) == ["truncated 'label', now 'fail'"]
    assert LABELLING.fingerprint() != FAILING.fingerprint()


def test_a_record_from_before_there_was_a_choice_is_of_failing_and_has_its_name() -> None:
    record = RunRecord(
        run="r", date=runs.today(), settings=FAILING, weights_uri="w", ledger=Ledger(9)
    )
    stored = json.loads(record.to_json())
    del stored["truncated"]
    assert RunRecord.from_json(json.dumps(stored).encode()).settings == FAILING
    assert FAILING.fingerprint() == "cd1dfd5d"


def test_an_incremental_night_takes_whole_photos_for_its_own_but_not_parts_of_some() -> None:
    assert FAILING.labels_like(LABELLING)
    assert LABELLING.labels_like(LABELLING)
    assert not LABELLING.labels_like(FAILING)


def test_truncated_is_for_yolox_only() -> None:
    with pytest.raises(ValueError, match="truncated='label': is for the detector yolox only"):
        LabellingConfig(source="s", table="t", checkpoint="c", detector="a:B", truncated="label")
