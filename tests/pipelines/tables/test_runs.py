import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.tables import runs
from pipelines.tables.ledger import Ledger
from pipelines.tables.runs import RunRecord
from tests.run_settings import SETTINGS


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def _record(run: str, date: str, status: str = runs.RUNNING) -> RunRecord:
    return RunRecord(
        run=run,
        date=date,
        settings=SETTINGS,
        weights_uri="w",
        status=status,
        ledger=Ledger(9, 3, 1, {"gone": 2}, 7, skipped=4),
        skipped_in={"earlier": 4},
        parts=2,
        counted_parts="1",
        retries=6,
        stage_seconds={"fetch": 1.5},
    )


def test_a_record_is_read_back_as_it_was_written(table: Folder) -> None:
    record = _record("r", "2026-11-21")
    runs.write_record(table, record)
    assert runs.read_record(table, "r") == record
    assert runs.read_record(table, "another") is None


def test_a_record_says_what_made_the_rows() -> None:
    record = replace(_record("r", "2026-11-21"), elapsed_seconds=2.5)
    stored = json.loads(record.to_json())
    assert stored["images_per_second"] == 2.0  # 5 rows in 2.5 s
    assert stored["failed"] == 2
    assert stored["weights_sha256"] == "ab" * 32
    assert stored["package_versions"]["ray"]
    assert stored["code_version"]


def test_a_record_of_a_newer_version_can_be_read() -> None:
    stored = json.loads(_record("r", "2026-11-21").to_json()) | {"added_later": 1}
    assert RunRecord.from_json(json.dumps(stored).encode()).run == "r"


def test_a_named_run_is_continued_with_the_same_settings_only(table: Folder) -> None:
    runs.write_record(table, _record("night", "2026-11-21"))
    found = runs.find_record(table, "night", None, SETTINGS)
    assert found is not None
    assert found.date == "2026-11-21"
    other = replace(SETTINGS, score_threshold=0.5)
    with pytest.raises(InputError, match=r"other settings \(score_threshold 0.01, now 0.5\)"):
        runs.find_record(table, "night", None, other)
    with pytest.raises(InputError, match="date '2026-11-21', now '2026-11-22'"):
        runs.find_record(table, "night", "2026-11-22", SETTINGS)
    assert runs.find_record(table, "another", None, other) is None


def test_an_unnamed_run_killed_before_midnight_goes_on_after_it(table: Folder) -> None:
    name = runs.default_run_name(table, "2020-01-01", SETTINGS)
    runs.write_record(table, _record(name, "2020-01-01"))
    found = runs.find_record(table, None, None, SETTINGS)
    assert found is not None
    assert found.run == name


def test_an_unnamed_run_that_is_complete_is_todays_only(table: Folder) -> None:
    yesterday = runs.default_run_name(table, "2020-01-01", SETTINGS)
    runs.write_record(table, _record(yesterday, "2020-01-01", runs.COMPLETE))
    assert runs.find_record(table, None, None, SETTINGS) is None
    today = runs.default_run_name(table, runs.today(), SETTINGS)
    runs.write_record(table, _record(today, runs.today(), runs.COMPLETE))
    found = runs.find_record(table, None, None, SETTINGS)
    assert found is not None
    assert found.run == today


def test_what_is_new_can_be_asked_for_twice_a_day(table: Folder) -> None:
    settings = replace(SETTINGS, selection=runs.NEW)
    first = runs.default_run_name(table, runs.today(), settings)
    record = replace(_record(first, runs.today(), runs.COMPLETE), settings=settings)
    runs.write_record(table, record)
    assert runs.find_record(table, None, None, settings) is None
    second = runs.default_run_name(table, runs.today(), settings)
    assert second == f"{first}-2"
    runs.write_record(table, replace(record, run=second, status=runs.STOPPED))
    found = runs.find_record(table, None, None, settings)
    assert found is not None
    assert found.run == second


def test_runs_label_alike_if_only_what_was_listed_differs(table: Folder) -> None:
    settings = replace(SETTINGS, source="s3://b/other/", selection=runs.NEW)
    runs.write_record(table, _record("all", "2020-01-01", runs.COMPLETE))
    runs.write_record(table, _record("unfinished", "2020-01-01", runs.STOPPED))
    other = replace(SETTINGS, weights_sha256="cd" * 32)
    record = replace(_record("other weights", "2020-01-01", runs.COMPLETE), settings=other)
    runs.write_record(table, record)
    assert runs.labelled_alike(table, settings) == ["all"]


def test_a_record_of_an_older_version_is_read_but_not_gone_on_with() -> None:
    stored = json.loads(_record("r", "2026-11-21").to_json())
    for name in ("parts", "skipped", "skipped_in", "retries", "detector", "selection"):
        del stored[name]
    record = RunRecord.from_json(json.dumps(stored).encode())
    assert record.settings == SETTINGS
    with pytest.raises(InputError, match=r"older version.* another --run"):
        runs.begin_attempt(record)


def test_other_settings_are_another_unnamed_run(table: Folder) -> None:
    name = runs.default_run_name(table, "2020-01-01", SETTINGS)
    runs.write_record(table, _record(name, "2020-01-01"))
    assert runs.find_record(table, None, None, replace(SETTINGS, nms_threshold=0.5)) is None


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "ä"])
def test_a_run_name_that_cannot_name_files_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="letters, digits"):
        runs.check_name(name)
