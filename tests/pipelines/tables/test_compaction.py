import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from pipelines.storage import lease
from pipelines.storage.folder import Folder
from pipelines.tables import compaction
from pipelines.tables.compaction import Compaction, CompactionConfig, compact_table
from pipelines.tables.query import ReadError, open_run, open_table, query_table, run_query
from pipelines.tables.records import read_named
from pipelines.tables.snapshot import Snapshot, read_snapshot


@pytest.fixture(params=["disk", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "disk":
        return Folder(str(tmp_path / "table"))
    return Folder(f"s3://{request.getfixturevalue('bucket').name}/table")


@pytest.fixture
def disk(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "table"))


def compact(table: Folder, run: str = "", **more: Any) -> list[Compaction]:
    config = CompactionConfig(table=table.uri, run=run, **{"grace_seconds": 0, **more})
    return list(compact_table(config))


def rows(table: Folder) -> dict[str, list[dict]]:
    views = open_table(table.uri)
    order = {"images": "image_uri", "detections": "image_uri, detection_index"}
    return {
        view: run_query(views, f"FROM {view} ORDER BY run, {by}").to_pylist()
        for view, by in order.items()
    }


def files(table: Folder) -> list[str]:
    return [name.rpartition("/")[2] for view in VIEWS for name in table.list(view)]


VIEWS = ("images", "detections")


def test_a_compacted_run_has_the_same_rows_in_few_files(table: Folder, labelled_run) -> None:
    labelled_run(num_images=40, per_part=10).write(table)
    before = rows(table)
    [done] = compact(table)
    assert (done.run, done.files_before, done.files_after) == ("night", 8, 2)
    assert set(files(table)) == {"compact-1-00000.parquet"}
    assert rows(table) == before
    assert compact(table) == []


def test_all_complete_runs_are_compacted_from_the_oldest(disk: Folder, labelled_run) -> None:
    labelled_run("b", "2026-11-20").write(disk)
    labelled_run("a", skipped=4, skipped_in="b").write(disk)
    labelled_run("going", status="running").write(disk)
    before = rows(disk)
    assert [done.run for done in compact(disk)] == ["b", "a"]
    assert rows(disk) == before


def test_only_the_run_that_is_named_is_compacted(disk: Folder, labelled_run) -> None:
    labelled_run("a", "2026-11-20").write(disk)
    labelled_run("b").write(disk)
    compact(disk, "b")
    assert open_run(disk.uri, "a").runs["compacted"].to_pylist() == [None]
    assert open_run(disk.uri, "b").runs["compacted"].to_pylist() == [1]


def test_the_record_keeps_all_else_that_it_says(disk: Folder, labelled_run) -> None:
    run = labelled_run()
    run.record["colour"] = "größe"
    run.write(disk)
    compact(disk, target_mb=2)
    stored = json.loads(disk.read("runs/night.json"))
    assert (stored.pop("compacted"), stored.pop("compacted_mb")) == (1, 2)
    del stored["compacted_at"]
    assert stored == run.record


def test_detections_are_sorted_by_class_and_falling_score_and_images_by_uri(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_GROUP", 2048)  # DuckDB's smallest batch
    labelled_run(num_images=8000, per_part=1000).write(disk)
    compact(disk, target_mb=0.01)
    read = {
        view: pa.concat_tables(pq.read_table(disk.uri_of(name)) for name in disk.list(view))
        for view in VIEWS
    }
    assert len(disk.list("detections")) > 2
    uris = read["images"]["image_uri"].to_pylist()
    assert uris == sorted(uris)
    names, scores = (read["detections"][name].to_pylist() for name in ("class_name", "score"))
    keys = [(name, -score) for name, score in zip(names, scores, strict=True)]
    assert keys == sorted(keys)


def test_a_query_for_a_class_reads_only_its_row_groups(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_GROUP", 2048)
    labelled_run(num_images=16_000, per_part=1000).write(disk)
    compact(disk)
    detections = open_table(disk.uri).detections
    [fragment] = detections.get_fragments()

    def groups(condition: pads.Expression) -> int:
        return len(fragment.split_by_row_group(condition, detections.schema))

    birds = pads.field("class_name") == "bird"
    everything = groups(pads.scalar(True))
    assert everything > 8
    assert groups(birds) <= everything / 3 + 1
    assert groups(birds & (pads.field("score") > 0.87)) < groups(birds)


def test_files_are_of_the_size_that_was_asked_for(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_GROUP", 2048)
    labelled_run(num_images=8000, per_part=1000).write(disk)
    [done] = compact(disk, target_mb=0.01)
    sizes = [Path(disk.uri_of(name)).stat().st_size for name in disk.list("detections")]
    assert len(sizes) > 1
    assert all(10_000 <= size < 25_000 for size in sizes[:-1])
    [again] = compact(disk, target_mb=1)
    assert (again.files_before, again.files_after) == (done.files_after, 2)
    assert set(files(disk)) == {"compact-2-00000.parquet"}


def test_a_run_in_which_nothing_was_seen_keeps_an_empty_detections_file(
    disk: Folder, labelled_run
) -> None:
    run = labelled_run(num_images=1)
    run.images[0][0]["num_detections"] = run.record["detections"] = 0
    run.detections[0].clear()
    run.write(disk)
    compact(disk)
    assert files(disk) == ["compact-1-00000.parquet"] * 2
    assert rows(disk)["detections"] == []


def test_a_run_that_skipped_everything_has_nothing_to_compact(disk: Folder, labelled_run) -> None:
    labelled_run(num_images=3, skipped=3).write(disk)
    assert compact(disk) == []


def test_readers_see_every_row_once_at_every_moment(table: Folder, labelled_run) -> None:
    labelled_run(num_images=60, per_part=10).write(table)
    sql = "SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM detections)"
    expected = run_query(open_table(table.uri), sql).to_pylist()
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            answer = query_table(table.uri, False, lambda views: run_query(views, sql))
            seen.append(answer.to_pylist())

    reader = threading.Thread(target=read)
    reader.start()
    # No grace at all: a reader whose files vanish opens the table anew.
    compact(table)
    stop.set()
    reader.join()
    assert seen == [expected] * len(seen)


def test_a_query_that_began_before_the_switch_may_finish(disk: Folder, labelled_run) -> None:
    labelled_run().write(disk)
    views = open_table(disk.uri)
    compactions = compact_table(CompactionConfig(table=disk.uri, grace_seconds=1))
    next(compactions)
    assert read_named(disk, "night")["compacted"] == 1
    assert run_query(views, "SELECT count(*) AS n FROM images").to_pylist() == [{"n": 10}]
    assert list(compactions) == []  # waits, and deletes
    with pytest.raises(ReadError):
        run_query(views, "SELECT count(*) FROM detections WHERE score > 0")


def test_a_run_that_is_compacted_between_record_and_listing_is_read_again(
    disk: Folder, labelled_run
) -> None:
    labelled_run().write(disk)
    records = []

    def read_then_compact() -> list:
        records.append(read_named(disk, "night"))
        if len(records) == 1:
            compact(disk)
        return records[-1:]

    contents = read_snapshot(disk, read_then_compact)
    assert [name.rpartition("/")[2] for name in contents.images] == ["compact-1-00000.parquet"]
    assert len(records) == 2


def test_rows_that_contradict_the_record_are_left_as_they_are(disk: Folder, labelled_run) -> None:
    run = labelled_run()
    run.record["labelled"] += 1
    run.write(disk)
    before = files(disk)
    with pytest.raises(InputError, match=r"'rows': 10.*jobs\.table check"):
        compact(disk)
    assert files(disk) == before
    assert "compacted" not in read_named(disk, "night")


def test_a_run_that_is_changed_meanwhile_is_left_as_it_is(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_run().write(disk)
    before = files(disk)
    begin = compaction._next_generation

    def change_and_begin(contents: Snapshot) -> int:
        disk.write("runs/night.json", b'{"run": "night"}')
        return begin(contents)

    monkeypatch.setattr(compaction, "_next_generation", change_and_begin)
    with pytest.raises(InputError, match="changed or dropped meanwhile"):
        compact(disk)
    assert files(disk) == before


def test_a_run_that_somebody_else_is_at_work_on_is_refused(
    disk: Folder, labelled_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_EVERY_S", 0.1)
    labelled_run().write(disk)
    before = files(disk)
    with lease.Lease.acquire(disk, "night"), pytest.raises(InputError, match="process"):
        compact(disk)
    assert files(disk) == before
    assert len(compact(disk)) == 1


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_that_is_still_written_to_is_refused(disk: Folder, labelled_run, status) -> None:
    labelled_run(status=status).write(disk)
    with pytest.raises(InputError, match=f"night' is {status}"):
        compact(disk, "night")
    assert compact(disk) == []
    with pytest.raises(InputError, match="no run 'day': the last of its 1 runs are night"):
        compact(disk, "day")


@pytest.mark.parametrize(
    "flags", [{"target_mb": 0}, {"grace_seconds": -1}, {"memory_mb": 1}], ids=str
)
def test_sizes_that_make_no_sense_are_refused(flags: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(flags))):
        CompactionConfig(table="t", **flags)


@pytest.mark.parametrize("view", ["images", "detections"])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_changed(
    disk: Folder, labelled_run, view: str
) -> None:
    labelled_run().write(disk)
    part = f"{view}/date=2026-11-21/run=night/part-00000001.parquet"
    disk.write(part, b"no Parquet")
    before = disk.list()
    with pytest.raises(InputError, match=r"cannot be compacted.*part-00000001\.parquet"):
        compact(disk)
    assert disk.list() == before
