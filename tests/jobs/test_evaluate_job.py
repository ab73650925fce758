import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from jobs.evaluate import EvaluateConfig, main
from pipelines.datasets import training_table, write_training_table
from pipelines.storage.folder import Folder
from pipelines.tables.schema import DETECTIONS, IMAGES

BOX = [10.0, 10.0, 60.0, 60.0]


def write_table_and_truth(folder: Path, photos: str = "s3://photos") -> tuple[str, str]:
    """A cat that was found, and a second image that the run could not read."""
    table, truth = Folder(f"{folder}/labels"), f"{folder}/truth.parquet"
    image: dict[str, Any] = {"num_detections": 0, "labelled_at": 0}
    images = [
        {**image, "image_uri": f"{photos}/cat.jpg", "status": "labelled", "num_detections": 1},
        {**image, "image_uri": f"{photos}/bad.jpg", "status": "failed", "error_kind": "corrupt"},
    ]
    cat = {
        **{"image_uri": f"{photos}/cat.jpg", "detection_index": 0},
        **{"class_id": 15, "class_name": "cat", "score": 0.9},
        **dict(zip(("x1", "y1", "x2", "y2"), BOX, strict=True)),
        **{"image_width": 100, "image_height": 100},
    }
    part = "date=2026-11-21/run=night/part-0.parquet"
    table.write_table(f"detections/{part}", pa.Table.from_pylist([cat], DETECTIONS))
    table.write_table(f"images/{part}", pa.Table.from_pylist(images, IMAGES))
    table.write("runs/night.json", json.dumps({"run": "night", "status": "complete"}).encode())
    target = {"boxes": [BOX], "class_ids": [0], "is_crowd": [False], "areas": [2500.0]}
    rows = [
        {"image_uri": f"{photos}/{name}.jpg", "width": 100, "height": 100, **target}
        for name in ("cat", "bad")
    ]
    write_training_table(truth, training_table(rows, ["cat"]))
    return table.uri, truth


def test_a_run_is_measured_and_what_it_missed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, truth = write_table_and_truth(tmp_path)
    monkeypatch.setattr("sys.argv", ["jobs.evaluate", "--table", table, "--truth", truth])
    main()
    printed = capsys.readouterr().out
    assert "Run night" in printed
    # One of two cats: precision 1 for the recalls 0, .01, … .5, that is at 51 of COCO's 101 points.
    assert f"{51 / 101:.4g}" in printed
    assert "2 images in the truth, 1 not labelled by the run" in printed


def run_with_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output, of photos that lie on the disk."""
    cv2.imwrite(str(folder / "cat.jpg"), np.zeros((100, 100, 3), np.uint8))
    (folder / "bad.jpg").write_bytes(b"no photo")
    table, truth = write_table_and_truth(folder, str(folder))
    flags = ["--table", table, "--truth", truth, "--output", str(folder / "out")]
    monkeypatch.setattr("sys.argv", ["jobs.evaluate", *flags])
    main()
    return folder / "out"


def test_the_output_has_figures_pictures_and_a_page_of_the_worst_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run_with_output(tmp_path, monkeypatch)
    [cat] = csv.DictReader((output / "results.csv").read_text().splitlines())
    assert cat["class_name"] == "cat"
    assert float(cat["ap50"]) == pytest.approx(51 / 101)
    assert (cat["targets"], cat["detections"], cat["recall"]) == ("2", "1", "0.5")
    for name in ("curves.png", "confusion.png"):
        assert cv2.imread(str(output / name)) is not None
    # One of two cats and nothing else: F1 is 2 * 1 / (1 + 2).
    printed = capsys.readouterr().out
    assert "highest, 0.667, for scores from 0.900 on: precision 1.000, recall 0.500" in printed
    page = (output / "review/index.html").read_text()
    assert "bad.jpg" in page
    assert "cat.jpg" not in page  # nothing is wrong on it


def test_an_output_that_holds_something_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    flags = ["--table", "nowhere", "--truth", "nowhere.parquet", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["jobs.evaluate", *flags])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("view", ["images", "detections"])
def test_a_table_that_cannot_be_read_is_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    view: str,
) -> None:
    table, truth = write_table_and_truth(tmp_path)
    Folder(table).write(f"{view}/date=2026-11-21/run=night/part-0.parquet", b"no Parquet")
    monkeypatch.setattr("sys.argv", ["jobs.evaluate", "--table", table, "--truth", truth])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "part-0.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("truth", "images"), [("instances.json", ""), ("truth.parquet", "s3://photos")]
)
def test_photos_are_named_with_coco_annotations_and_only_then(truth: str, images: str) -> None:
    with pytest.raises(ValueError, match="--images"):
        EvaluateConfig(table="labels", truth=truth, images=images)
