from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.tables.audit.table import AuditConfig, audit_table
from pipelines.tables.query import open_run, open_table
from pipelines.tables.removal import drop_run
from pipelines.tables.snapshot import read_snapshot


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_a_record_under_the_name_of_another_run_is_refused(table: Folder, labelled_run) -> None:
    labelled_run("night").write(table)
    Path(table.uri, "runs/night.json").rename(Path(table.uri, "runs/day.json"))
    refusal = r"runs/day\.json is the record of run 'night'.*give the file its name back"
    with pytest.raises(InputError, match=refusal):
        open_table(table.uri)
    with pytest.raises(InputError, match=refusal):
        open_run(table.uri, "day")
    found, *_ = audit_table(AuditConfig(table=table.uri))
    assert (found.run, found.status) == ("day", "unreadable")


def test_a_copy_of_a_record_can_be_dropped_and_leaves_the_run_as_it_was(
    table: Folder, labelled_run
) -> None:
    labelled_run("night").write(table)
    before = table.list()
    table.write("runs/copy.json", table.read("runs/night.json"))
    drop_run(table.uri, "copy")
    assert table.list() == before
    assert open_table(table.uri).runs["run"].to_pylist() == ["night"]


def test_a_table_that_never_stops_changing_is_given_up(table: Folder, labelled_run) -> None:
    labelled_run("night").write(table)
    with pytest.raises(InputError, match="try again"):
        read_snapshot(table, lambda: [{"run": "dropped"}])
