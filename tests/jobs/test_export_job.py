"""`yolox-ray export`: what it prints, what it refuses, and that its help says what is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.export import _progress, main
from pipelines.storage.folder import Folder
from tests.conftest import ROOT
from tests.faulty_s3 import FaultyS3, Rule, stall

FORMATS = ["coco", "yolo", "voc", "labelstudio", "megadetector", "csv"]


@pytest.fixture
def table(tmp_path: Path, labelled_run: Callable[..., Any]) -> Folder:
    """Ten images: six with boxes, two without, two failed."""
    table = Folder(str(tmp_path / "labels"))
    labelled_run(num_images=10).write(table)
    return table


def run(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr("sys.argv", ["yolox-ray export", *args])
    main()


@pytest.mark.parametrize("format", FORMATS)
def test_it_says_what_was_written_and_where(
    table: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    format: str,
) -> None:
    output = str(tmp_path / "out")
    run(monkeypatch, "--table", table.uri, "--format", format, "--output", output)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (f"8 images, 2 of them without boxes; 12 boxes; 2 failed images: {output}")
    assert printed[1:] == {
        "coco": ["names of photos are relative to s3://photos/"],
        "megadetector": ["names of photos are relative to s3://photos/"],
        "yolo": [
            f"names of photos are relative to {output}/images",
            "which is not there: link or copy s3://photos/ to it",
        ],
        "voc": [
            f"names of photos are relative to {output}/JPEGImages",
            "which is not there: link or copy s3://photos/ to it",
        ],
    }.get(format, [])


def test_a_query_and_a_score_choose_what_is_exported(
    table: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sql = "SELECT * FROM latest_detections WHERE class_name = 'dog'"
    flags = ["--format=coco", f"--output={tmp_path}/out", "--min_score=0.5"]
    run(monkeypatch, "--table", table.uri, *flags, "--sql", sql)
    # Of the dogs of 0.89, 0.28, 0.25 and 0.9 two are left, and four images.
    expected = "4 images, 2 of them without boxes; 2 boxes; 0 failed images"
    assert capsys.readouterr().out.startswith(expected)
    coco = json.loads((tmp_path / "out/instances.json").read_text())
    assert [note["category_id"] for note in coco["annotations"]] == [2, 2]


def test_photos_that_cannot_be_copied_are_told_of(
    table: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    bucket: Any,
) -> None:
    flags = ["--format=coco", f"--output={tmp_path}/out", "--copy_photos"]
    run(monkeypatch, "--table", table.uri, *flags)
    told = capsys.readouterr().out
    assert "8 photos could not be copied, and count as failed images" in told


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format=xml"], "coco"),
        (["--format=coco", "--table=/nowhere"], "/nowhere is not a table"),
        (["--format=coco", "--run=lost"], "no run 'lost'"),
        (["--format=coco", "--sql=SELECT 1"], "no column image_uri and no run"),
        (["--format=coco", "--sql=FROM read_csv('/etc/passwd')"], "Permission"),
        (["--format=coco", "--min_score=2"], "min_score"),
        (["--format=coco", "--output=gs://bucket"], "gs:// is not supported"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2_and_nothing_is_written(
    table: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, f"--table={table.uri}", f"--output={tmp_path}/out", *flags)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_an_output_with_something_in_it_is_refused(
    table: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, f"--table={table.uri}", "--format=csv", f"--output={table.uri}")
    assert "is not empty: give another folder" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_sigterm_leaves_nothing_behind(
    table: Folder, tmp_path: Path, bucket: Any, faulty_s3: FaultyS3, labelled_run: Any, where: str
) -> None:
    made = labelled_run(num_images=10)
    for row in [row for part in (*made.images.values(), *made.detections.values()) for row in part]:
        row["image_uri"] = row["image_uri"].replace("s3://photos/", f"s3://{bucket.name}/")
        row |= {"etag": None, "size_bytes": 5} if "etag" in row else {}
    made.write(table)
    for row in made.images[0]:
        bucket.put(row["image_uri"].rpartition("/")[2], b"photo")
    faulty_s3.add(Rule(stall(60), method="GET", key="00007.jpg"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    output = str(tmp_path / "out") if where == "disk" else f"s3://{bucket.name}/out"
    flags = ["--table", table.uri, "--format", "yolo", "--output", output, "--copy_photos"]
    command = [sys.executable, "-m", "jobs.export", *flags]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    job = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    while job.poll() is None and not faulty_s3.count("GET", "00007.jpg"):
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 143
    assert told == "stopped by SIGTERM: nothing was written\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "scratch"]
    assert list(scratch.iterdir()) == []
    assert Folder(f"s3://{bucket.name}/out").list() == []


def test_progress_is_told_ever_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    tell = _progress()
    for seen in range(0, 10_000, 128):
        tell(seen)
    told = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in told] == ["1,024", "2,048", "4,096", "8,192"]


def test_the_help_says_what_every_format_loses() -> None:
    command = [sys.executable, "-m", "jobs.export", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for format in FORMATS:
        assert f"\n{format} " in told
    assert told.count("Lost:") == 4
    assert "All but csv lose ETags, times and the ids of classes" in told
