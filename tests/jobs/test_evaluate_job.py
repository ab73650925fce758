import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.evaluate import EvaluateConfig, main
from pipelines.datasets import training_table, write_training_table
from pipelines.storage.folder import Folder
from pipelines.tables.schema import DETECTIONS, IMAGES

BOX = [10.0, 10.0, 60.0, 60.0]


def write_table_and_truth(folder: Path) -> tuple[str, str]:
    """A cat that was found, and a second image that the run could not read."""
    table, truth = Folder(f"{folder}/labels"), f"{folder}/truth.parquet"
    image: dict[str, Any] = {"num_detections": 0, "labelled_at": 0}
    images = [
        {**image, "image_uri": "s3://photos/cat.jpg", "status": "labelled", "num_detections": 1},
        {**image, "image_uri": "s3://photos/bad.jpg", "status": "failed", "error_kind": "corrupt"},
    ]
    cat = {
        **{"image_uri": "s3://photos/cat.jpg", "detection_index": 0},
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
        {"image_uri": f"s3://photos/{name}.jpg", "width": 100, "height": 100, **target}
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
