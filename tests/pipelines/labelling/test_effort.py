from collections.abc import Callable
from dataclasses import replace

import pytest

from pipelines.labelling import effort as effort_module
from pipelines.labelling.effort import Effort
from pipelines.labelling.writing import Part
from pipelines.storage import Folder
from pipelines.tables import Commits, Ledger, RunFolders, RunRecord, part_name, runs
from tests.conftest import Bucket, LabelledRun
from tests.faulty_s3 import FaultyS3

WHOLE = Ledger(40, 32, 8, {"corrupt": 4, "gone": 4}, 48)
"""Of five images the fourth has no boxes and the fifth failed."""


@pytest.fixture
def written(bucket: Bucket, labelled_run: Callable[..., LabelledRun]) -> RunFolders:
    """A run of ten parts of four images, all of them written."""
    return labelled_run(num_images=40).write(Folder(f"s3://{bucket.name}/table"))


def _record(folders: RunFolders) -> RunRecord:
    record = runs.read_record(folders.table, folders.run)
    assert record
    return replace(record, status=runs.RUNNING, ledger=record.ledger.to_begin_with)


def _part(number: int) -> Part:
    """One whose four images are labelled, with seven boxes."""
    return Part(number, Ledger(0, 4, 1, {}, 7), {"detect": 2.0}, 1, 4000, 500)


def _counted(record: RunRecord, folders: RunFolders) -> Effort:
    effort = Effort.of(record)
    effort.count(Commits.of(folders))
    return effort


def test_a_resume_reads_the_parts_that_came_out_after_the_record_was_written(
    written: RunFolders, faulty_s3: FaultyS3
) -> None:
    told = Ledger(40, 26, 6, {"corrupt": 3, "gone": 3}, 39)  # of the first eight
    record = replace(_record(written), ledger=told, counted_parts="0-7")
    faulty_s3.clear()
    effort = _counted(record, written)
    assert effort.ledger == WHOLE
    assert {request.key for request in faulty_s3.requests if request.key.endswith(".parquet")} == {
        f"table/images/date=2026-11-21/run=night/{part_name(part)}" for part in (8, 9)
    }
    assert effort.in_record().counted_parts == "0-9"


def test_what_a_record_counts_is_not_believed_where_a_part_of_it_is_gone(
    written: RunFolders,
) -> None:
    written.images.delete(part_name(3))
    record = replace(_record(written), ledger=replace(WHOLE, labelled=999), counted_parts="0-9")
    effort = _counted(record, written)
    assert effort.ledger.done == 36
    assert effort.in_record().counted_parts == "0-2,4-9"


def test_a_record_of_before_names_no_parts_and_all_are_read(written: RunFolders) -> None:
    assert _counted(replace(_record(written), ledger=WHOLE), written).ledger == WHOLE


def test_a_record_is_told_of_parts_as_they_come_out(written: RunFolders) -> None:
    effort = Effort.of(replace(_record(written), counted_parts="", retries=5))
    effort.add(_part(2))
    effort.add(_part(3))
    record = RunRecord.from_json(effort.in_record().to_json())
    assert record.counted_parts == "2-3"
    assert record.ledger == Ledger(40, 8, 2, {}, 14)
    assert (record.retries, record.stage_seconds["detect"]) == (7, 7004.0)


def test_a_record_is_due_from_time_to_time(written: RunFolders, monkeypatch) -> None:
    effort = Effort.of(_record(written))
    assert not effort.is_to_be_told()
    monkeypatch.setattr(effort_module, "BETWEEN_RECORDS_S", 0.0)
    assert effort.is_to_be_told()
