import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.tables.query import (
    ReadError,
    Views,
    open_run,
    open_table,
    query_run,
    query_table,
    read_rows,
    run_query,
    summarise,
)
from pipelines.tables.schema import DETECTIONS, IMAGES


def write_run(table: Folder, run: str, day: str, status: str = "complete", **more: Any) -> None:
    """Three images: a cat and a dog on one, nothing on another, a third that failed."""
    images = [
        image_row("s3://photos/two.jpg", "labelled", num_detections=2),
        image_row("s3://photos/none.jpg", "labelled"),
        image_row("s3://photos/bad.jpg", "failed", error_kind="corrupt"),
    ]
    detections = [
        detection_row("s3://photos/two.jpg", 0, "cat", 0.9),
        detection_row("s3://photos/two.jpg", 1, "dog", 0.25),
    ]
    part = f"date={day}/run={run}/part-0.parquet"
    table.write_table(f"detections/{part}", pa.Table.from_pylist(detections, DETECTIONS))
    table.write_table(f"images/{part}", pa.Table.from_pylist(images, IMAGES))
    record = {"run": run, "date": day, "status": status, "listed": 3, **more}
    table.write(f"runs/{run}.json", json.dumps(record).encode())


def image_row(uri: str, status: str, **more: Any) -> dict[str, Any]:
    labelled_at = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
    row = {"image_uri": uri, "status": status, "num_detections": 0, "labelled_at": labelled_at}
    return row | more


def detection_row(uri: str, index: int, class_name: str, score: float) -> dict[str, Any]:
    return {
        "image_uri": uri,
        "detection_index": index,
        "class_id": index,
        "class_name": class_name,
        "score": score,
        **dict.fromkeys(("x1", "y1", "x2", "y2"), 1.0),
        "image_width": 640,
        "image_height": 480,
    }


def rows(views: Views, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in run_query(views, sql).to_pylist()]


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def test_rows_carry_the_date_and_the_run_that_made_them(table: Folder) -> None:
    write_run(table, "first", "2026-11-20")
    write_run(table, "second", "2026-11-21")
    views = open_table(table.uri)
    by_run = [(date(2026, 11, 20), "first", 3), (date(2026, 11, 21), "second", 3)]
    assert rows(views, "SELECT date, run, count(*) FROM images GROUP BY ALL ORDER BY ALL") == by_run
    assert rows(views, "SELECT run, class_name FROM detections ORDER BY ALL DESC LIMIT 1") == [
        ("second", "dog")
    ]


def test_a_table_in_s3_answers_like_one_on_a_disk(bucket) -> None:
    table = Folder(f"s3://{bucket.name}/labels")
    write_run(table, "night", "2026-11-21")
    asked = "SELECT class_name, score FROM detections JOIN images USING (run, image_uri) ORDER BY 1"
    assert rows(open_table(table.uri), asked) == [("cat", pytest.approx(0.9)), ("dog", 0.25)]


def test_only_complete_runs_are_seen_unless_all_are_asked_for(table: Folder) -> None:
    write_run(table, "done", "2026-11-20")
    write_run(table, "going", "2026-11-21", status="running")
    for view in ("images", "detections", "runs"):
        asked = f"SELECT DISTINCT run FROM {view} ORDER BY run"
        assert rows(open_table(table.uri), asked) == [("done",)]
        assert rows(open_table(table.uri, all_runs=True), asked) == [("done",), ("going",)]


def test_the_files_of_a_running_run_are_not_even_listed(table: Folder) -> None:
    write_run(table, "done", "2026-11-20")
    table.write("images/date=2026-11-21/run=going/part-0.parquet", b"half a file")
    table.write("runs/going.json", b'{"run": "going", "status": "running"}')
    assert rows(open_table(table.uri), "SELECT count(*) FROM images") == [(3,)]


def test_detections_whose_images_were_never_committed_are_not_seen(table: Folder) -> None:
    write_run(table, "going", "2026-11-21", status="running")
    table.delete("images/date=2026-11-21/run=going/part-0.parquet")
    views = open_table(table.uri, all_runs=True)
    assert rows(views, "SELECT count(*) FROM detections") == [(0,)]


def test_a_run_record_becomes_typed_columns_maps_and_its_whole_json(table: Folder) -> None:
    more = {
        "started_at": "2026-11-21T01:00:00+00:00",
        "finished_at": "2026-11-21T03:30:00+00:00",
        "failed_by_kind": {"corrupt": 1},
        "input_size": [416, 640],
        "colour": "blue",
    }
    write_run(table, "night", "2026-11-21", **more)
    asked = """SELECT date, hour(finished_at - started_at), failed_by_kind['corrupt'],
                      input_size[2], record->>'colour', attempts FROM runs"""
    expected = [(date(2026, 11, 21), 2, 1, 640, "blue", None)]
    assert rows(open_table(table.uri), asked) == expected


def test_filters_reach_the_files_and_other_days_stay_unopened(table: Folder) -> None:
    write_run(table, "day", "2026-11-20")
    write_run(table, "night", "2026-11-21")
    asked = "SELECT count(*) FROM detections WHERE date = '2026-11-21' AND class_name = 'cat'"
    views = open_table(table.uri)
    ((_, plan),) = rows(views, f"EXPLAIN {asked}")
    scan = plan[plan.index("Arrow Scan") :]
    assert "'2026-11-21'" in scan
    assert "'cat'" in scan
    table.write("detections/date=2026-11-20/run=day/part-0.parquet", b"opening this would raise")
    assert rows(views, asked) == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY images TO '/tmp/copy.csv'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM sql",  # a Python variable where the query runs
    ],
)
def test_sql_reaches_no_files_no_network_no_settings_and_no_variables(
    table: Folder, sql: str
) -> None:
    write_run(table, "night", "2026-11-21")
    with pytest.raises(InputError, match=r"Permission|Catalog|locked"):
        run_query(open_table(table.uri), sql)


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT colour FROM images", 'column "colour" not found'),
        ("SELEC", "syntax error"),
        ("SELECT * FROM photos", "photos does not exist"),
        (";", "gives no rows"),
    ],
)
def test_wrong_sql_is_one_sentence(table: Folder, sql: str, named: str) -> None:
    write_run(table, "night", "2026-11-21")
    with pytest.raises(InputError, match=named) as caught:
        run_query(open_table(table.uri), sql)
    assert "\n" not in str(caught.value)


def test_the_summary_counts_days_classes_and_failures(table: Folder) -> None:
    write_run(table, "first", "2026-11-20")
    write_run(table, "second", "2026-11-21")
    summary = {
        title: table.to_pylist() for title, table in summarise(open_table(table.uri)).items()
    }
    assert [row["run"] for row in summary["Runs"]] == ["first", "second"]
    assert summary["Images per day"][1] == {
        "date": date(2026, 11, 21),
        "images": 3,
        "labelled": 2,
        "without_objects": 1,
        "failed": 1,
        "detections": 2,
    }
    assert summary["Detections per class"][0] == {
        "class_name": "cat",
        "detections": 2,
        "images": 1,
        "mean_score": 0.9,
    }
    assert summary["Failures by kind"] == [
        {"error_kind": "corrupt", "images": 2, "example": "s3://photos/bad.jpg"}
    ]


def test_a_run_that_saw_nothing_gives_empty_views(table: Folder) -> None:
    table.write("runs/night.json", b'{"run": "night", "status": "complete"}')
    views = open_table(table.uri)
    assert rows(views, "SELECT count(*), max(date) FROM images") == [(0, None)]
    assert all(
        answer.num_rows == 0 for title, answer in summarise(views).items() if title != "Runs"
    )


def test_a_folder_that_is_no_table_is_refused(table: Folder, bucket) -> None:
    in_s3 = f"s3://{bucket.name}"
    for uri in (table.uri, f"{table.uri}/missing", in_s3, "s3://no-such-bucket/labels"):
        with pytest.raises(InputError, match=uri):
            open_table(uri)


def test_a_table_without_a_complete_run_says_what_it_has(table: Folder) -> None:
    write_run(table, "night", "2026-11-21", status="failed")
    with pytest.raises(InputError, match=r"night: failed.*--all_runs"):
        open_table(table.uri)


def test_a_broken_run_record_is_named(table: Folder) -> None:
    table.write("runs/night.json", b"{")
    with pytest.raises(InputError, match=r"night\.json is not a run record"):
        open_table(table.uri)


def test_one_run_is_opened_by_name_and_the_newest_complete_one_without(table: Folder) -> None:
    write_run(table, "b-early", "2026-11-20")
    write_run(table, "a-late", "2026-11-21")
    write_run(table, "going", "2026-11-22", status="running")
    assert open_run(table.uri).runs["run"].to_pylist() == ["a-late"]
    assert open_run(table.uri, "going").runs["run"].to_pylist() == ["going"]
    with pytest.raises(InputError, match="no run 'lost'"):
        open_run(table.uri, "lost")


def test_latest_has_each_image_once_as_the_newest_complete_run_saw_it(
    table: Folder, labelled_run
) -> None:
    labelled_run("b-first", "2026-11-20", num_images=8).write(table)
    labelled_run("a-second", "2026-11-21", num_images=10, skipped=8, skipped_in="b-first").write(
        table
    )
    again = labelled_run("c-third", "2026-11-22", num_images=2)
    again.detections = {0: []}
    again.images[0] = [row | {"num_detections": 0} for row in again.images[0]]
    again.write(table)
    labelled_run("unfinished", "2026-11-23", status="running").write(table)
    asked = "SELECT run, count(*), sum(num_detections) FROM latest GROUP BY run ORDER BY run"
    found = [("a-second", 2, 0), ("b-first", 6, 9), ("c-third", 2, 0)]
    for all_runs in (False, True):
        views = open_table(table.uri, all_runs)
        assert rows(views, asked) == found
        assert rows(views, "SELECT run, count(*) FROM latest_detections GROUP BY run") == [
            ("b-first", 9)
        ]


def test_of_two_runs_that_finished_together_the_name_decides(table: Folder, labelled_run) -> None:
    labelled_run("a").write(table)
    labelled_run("b").write(table)
    labelled_run("without a time").write(table)
    record = labelled_run("without a time").record | {"finished_at": None}
    table.write("runs/without a time.json", json.dumps(record).encode())
    assert rows(open_table(table.uri), "SELECT DISTINCT run FROM latest") == [("b",)]


def test_finding_the_latest_rows_reads_no_detections(table: Folder, labelled_run) -> None:
    folders = labelled_run().write(table)
    views = open_table(table.uri)
    for name in folders.detections.list():
        folders.detections.write(name, b"opening this would raise")
    assert rows(views, "SELECT count(*) FROM latest") == [(10,)]


def test_a_table_whose_files_vanish_is_opened_once_more(table: Folder) -> None:
    write_run(table, "night", "2026-11-21")
    opened = []

    def drop_a_file_then_ask(views: Views) -> list[tuple[Any, ...]]:
        opened.append(views)
        if len(opened) == 1:
            table.delete("images/date=2026-11-21/run=night/part-0.parquet")
        return rows(views, "SELECT count(*) FROM images WHERE num_detections >= 0")

    assert query_table(table.uri, False, drop_a_file_then_ask) == [(0,)]
    assert len(opened) == 2


def test_a_file_that_cannot_be_read_is_said_after_the_second_try(table: Folder) -> None:
    write_run(table, "night", "2026-11-21")
    table.write("images/date=2026-11-21/run=night/part-0.parquet", b"no Parquet")
    opened = []

    def ask(views: Views) -> list[tuple[Any, ...]]:
        opened.append(views)
        return rows(views, "SELECT count(*) FROM images WHERE num_detections >= 0")

    with pytest.raises(ReadError, match=r"part-0\.parquet"):
        query_table(table.uri, False, ask)
    assert len(opened) == 2


def test_the_rows_of_a_run_whose_files_vanish_are_read_once_more(table: Folder) -> None:
    write_run(table, "night", "2026-11-21")
    opened = []

    def drop_a_file_then_read(views: Views) -> int:
        opened.append(views)
        if len(opened) == 1:
            table.delete("detections/date=2026-11-21/run=night/part-0.parquet")
        return read_rows(views.detections).num_rows

    assert query_run(table.uri, "night", drop_a_file_then_read) == 0
    assert len(opened) == 2
