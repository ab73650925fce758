"""`yolox-ray diff`: tables for people, JSON for programs, and an exit code for schedules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.diff import main
from pipelines.storage.folder import Folder


@pytest.fixture
def table(tmp_path: Path, labelled_run: Callable[..., Any]) -> Folder:
    """Twelve boxes before; after, one has moved away and one has another score."""
    table = Folder(str(tmp_path / "labels"))
    labelled_run("before", num_images=10).write(table)
    after = labelled_run("after", num_images=12)
    after.detections[0][0]["score"] = 0.5  # it was 0.9
    after.detections[0][1] |= {"x1": 600.0, "y1": 400.0, "y2": 480.0}
    after.write(table)
    return table


def run(monkeypatch: pytest.MonkeyPatch, table: Folder, *args: str) -> int | str | None:
    """Its exit code."""
    flags = [f"--table={table.uri}", "--before=before", "--after=after"]
    monkeypatch.setattr("sys.argv", ["yolox-ray diff", *flags, *args])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


def cells(printed: str, first: str) -> list[list[str]]:
    """The rows that begin so."""
    return [row for row in map(str.split, printed.splitlines()) if row[:1] == [first]]


def test_people_get_tables(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, table) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == "8 photos labelled by both runs, 1 of them changed"
    assert lines[1] == "12 before, 12 after, 11 matched, 1 new, 1 lost boxes"
    assert lines[2] == (
        "not compared: 2 photos that failed in both, 2 photos that only the run after has"
    )
    boxes, drift = cells(printed, "dog")
    assert boxes == ["dog", "4", "4", "3", "1", "1"]
    assert drift == ["dog", "0", "0", "0", "0", "0"]
    assert cells(printed, "cat")[1][1] == "-0.34"  # of -0.4, 0, 0 and 0 the 5 % quantile
    assert cells(printed, "s3://photos/")[0][1:] == ["8", "1", "12", "12", "11", "1", "1"]
    assert cells(printed, "s3://photos/00001.jpg")[0][1:] == ["2", "2", "1", "1", "1"]


def test_programs_get_one_json_object(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, table, "--json", "--by=day", "--fail_if=new > 5") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config"]["iou"] == 0.5
    assert told["photos"]["labelled_by_both"] == 8
    assert told["photos"]["changed"] == 1
    assert told["boxes"] == {"before": 12, "after": 12, "matched": 11, "new": 1, "lost": 1}
    assert [row["class_name"] for row in told["classes"]] == ["cat", "dog", "bird"]
    assert told["by_day"][0]["day"] == "2026-11-21"
    assert told["most_changed"][0]["image_uri"] == "s3://photos/00001.jpg"
    assert told["condition"] == {"fail_if": "new > 5", "value": 1, "holds": False}


def test_the_photos_that_changed_can_be_reviewed(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = f"{table.uri}-diff/index.html"
    assert run(monkeypatch, table, f"--review={table.uri}-diff") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"1 of 1 photos that changed: {page}"
    assert "changes from run before to run after: 1 of 1 photos" in Path(page).read_text()

    assert run(monkeypatch, table, f"--review={table.uri}-diff") == 2
    assert "is not empty" in capsys.readouterr().err
    assert run(monkeypatch, table, f"--review={table.uri}-json", "--json") == 0
    assert json.loads(capsys.readouterr().out)["review"]["page"].endswith("-json/index.html")


def test_where_nothing_changed_there_is_nothing_to_review(
    table: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, table, "--after=before", f"--review={table.uri}-diff") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no photo changed")
    assert not Path(f"{table.uri}-diff").exists()


@pytest.mark.parametrize("how", [[], ["--json"]])
@pytest.mark.parametrize(
    ("condition", "code"),
    [("lost > 8%", 3), ("lost > 9%", 0), ("new >= 1", 3), ("changed > 12.5%", 0)],
)
def test_the_exit_code_is_3_if_the_condition_holds(
    table: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: list[str],
    condition: str,
    code: int,
) -> None:
    assert run(monkeypatch, table, f"--fail_if={condition}", *how) == code
    printed = capsys.readouterr().out
    if not how:
        verdict = "holds" if code else "does not hold"
        assert printed.splitlines()[-1].startswith(f"{condition} {verdict}: it is ")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--before=lost"], "no run 'lost'"),
        (["--after_table=/nowhere"], "/nowhere is not a table"),
        (["--fail_if=lost"], "for example 'lost > 5%'"),
        (["--iou=2"], "iou=2.0"),
        (["--by=hour"], "prefix"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    table: Folder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    assert run(monkeypatch, table, *flags) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
