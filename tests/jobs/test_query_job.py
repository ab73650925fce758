import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.printing import print_table, to_csv, to_json, to_parquet
from jobs.query import QueryConfig, main
from pipelines.storage.folder import Folder
from pipelines.tables.schema import DETECTIONS

ODD = pa.table(
    {
        "name": pa.array(['cat, "grey"', "[red]", None]),
        "count": pa.array([1234567, 0, None]),
        "by_kind": pa.array([[("gone", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    }
)


@pytest.fixture
def table(tmp_path: Path) -> Folder:
    table = Folder(str(tmp_path / "labels"))
    table.write("runs/night.json", b'{"run": "night", "status": "complete", "listed": 0}')
    return table


def ask(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["jobs.query", *args])
    main()


def test_a_query_prints_a_table_or_json(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, "--table", table.uri, "SELECT run, listed FROM runs")
    assert "night" in capsys.readouterr().out
    ask(monkeypatch, "--table", table.uri, "--format=json", "SELECT run, listed FROM runs")
    assert json.loads(capsys.readouterr().out) == [{"run": "night", "listed": 0}]


def test_the_summary_has_four_tables(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(monkeypatch, "--table", table.uri, "--summary")
    printed = capsys.readouterr().out
    for title in ("Runs", "Images per day", "Detections per class", "Failures by kind"):
        assert title in printed


def test_an_answer_is_written_to_a_file(
    table: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers" / "runs.parquet"
    ask(
        monkeypatch,
        *("--table", table.uri, "--format=parquet", f"--output={path}", "SELECT run FROM runs"),
    )
    assert pq.read_table(path).to_pylist() == [{"run": "night"}]


def test_wrong_sql_is_one_line_on_stderr_and_exit_code_2(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        ask(monkeypatch, "--table", table.uri, "SELECT colour FROM images")
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'column "colour" not found' in captured.err
    assert captured.err.count("\n") == 1


def test_csv_keeps_commas_quotes_and_maps_apart() -> None:
    read = list(csv.reader(io.StringIO(to_csv(ODD).decode())))
    assert read == [
        ["name", "count", "by_kind"],
        ['cat, "grey"', "1234567", '{"gone": 1}'],
        ["[red]", "0", "{}"],
        ["", "", ""],
    ]


def test_json_and_parquet_hold_the_same_rows() -> None:
    assert json.loads(to_json(ODD))[0] == {
        "name": 'cat, "grey"',
        "count": 1234567,
        "by_kind": {"gone": 1},
    }
    assert pq.read_table(pa.BufferReader(to_parquet(ODD))).equals(ODD)
    assert json.loads(to_json(ODD.slice(0, 0))) == []


def test_a_printed_table_is_readable_in_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    wide = DETECTIONS.empty_table()
    print_table(ODD, "Odd things")
    print_table(pa.table({"uri": ["s3://bucket/" + "x" * 300]}))
    print_table(wide)
    printed = capsys.readouterr().out
    assert "1,234,567" in printed
    assert "[red]" in printed
    assert max(len(line) for line in printed.splitlines()) <= 100


def test_rows_too_wide_for_the_line_are_printed_below_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(pa.table({f"column_{i}": ["value " * 4] for i in range(7)}))
    lines = [line for line in capsys.readouterr().out.splitlines() if "value" in line]
    assert [line.split()[0] for line in lines] == [f"column_{i}" for i in range(7)]


def test_a_long_table_says_how_much_of_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(pa.table({"n": list(range(2000))}))
    assert "the first 200 of 2,000 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({}, "--summary"),
        ({"sql": "SELECT 1", "summary": True}, "--summary"),
        ({"summary": True, "format": "csv"}, "--format"),
        ({"sql": "SELECT 1", "format": "parquet"}, "needs --output"),
        ({"sql": "SELECT 1", "output": "a.csv"}, "needs --format"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        QueryConfig(table="labels", **flags)
