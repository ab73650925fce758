"""`python -m jobs.train` as a person runs it, and jobs.label on the weights that it wrote."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import pytest

from pipelines.datasets import read_training_table, training_table, write_training_table
from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.run import label_images
from tests.conftest import ROOT, Bucket, TrainedRun, told_by_training
from tests.faulty_s3 import FaultyS3, Hold, Rule

pytestmark = pytest.mark.ray


def test_a_preview_is_a_picture_and_trains_nothing(trained_run: TrainedRun, tmp_path: Path) -> None:
    picture = tmp_path / "batch.png"
    asked = {"preview": picture, "output": tmp_path / "run"}
    told = told_by_training(trained_run.settings | asked)
    assert f"one augmented batch with its boxes: {picture}" in told
    assert cv2.imread(str(picture)) is not None
    assert not (tmp_path / "run").exists()


def test_progress_is_printed_with_all_that_was_left_out(trained_run: TrainedRun) -> None:
    assert "skipped, not_an_image: " in trained_run.told
    assert "epoch 5/5  loss " in trained_run.told
    told = "warning: 1 of 44 validation images could not be used (not_an_image 1)"
    assert told in trained_run.told
    assert f"{trained_run.folder}/run/best.pth: epoch " in trained_run.told
    assert "nothing left to do" not in trained_run.told


def test_a_second_start_says_that_nothing_is_left_to_do(trained_run: TrainedRun) -> None:
    weights = trained_run.folder / "run/best.pth"
    before = weights.stat().st_mtime_ns
    again = told_by_training(trained_run.settings)
    assert "nothing left to do" in again
    assert f"{weights}: epoch " in again
    assert weights.stat().st_mtime_ns == before


def test_the_labelling_job_runs_on_the_best_weights(
    trained_run: TrainedRun, tmp_path: Path, local_ray: None
) -> None:
    summary = label_images(
        LabellingConfig(
            source=str(trained_run.folder / "images"),
            table=str(tmp_path / "labels"),
            checkpoint=str(trained_run.folder / "run/best.pth"),
        )
    )
    assert (summary.ledger.labelled, summary.ledger.failed) == (43, 1)


def test_epochs_and_validations_fetch_each_photo_of_s3_once(
    trained_run: TrainedRun, tmp_path: Path, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    truth, class_names = read_training_table(str(trained_run.folder / "truth.parquet"))
    rows = truth.slice(10, 8).to_pylist()
    for number, row in enumerate(rows):
        row["image_uri"] = bucket.put(f"{number}.jpg", Path(row["image_uri"]).read_bytes())
    table = str(tmp_path / "truth.parquet")
    write_training_table(table, training_table(rows, class_names))
    asked = {"train": table, "val": table, "output": tmp_path / "run", "epochs": 2}
    kept = {"max_cache_bytes": 0, "cache_dir": tmp_path / "kept"}
    told = told_by_training(trained_run.settings | asked | kept | {"eval_every": 1})
    assert "epoch 2/2" in told
    assert Counter(r.key for r in faulty_s3.requests if r.method == "GET") == {
        f"{number}.jpg": 1 for number in range(8)
    }


def test_states_that_are_all_damaged_are_not_trained_over(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    states = tmp_path / "states"
    states.mkdir(parents=True)
    (states / "epoch-00007-step-0000014.pt").write_bytes(b"half a st")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        told_by_training(trained_run.settings | {"output": tmp_path})
    assert refused.value.returncode == 2
    *_, told = refused.value.stderr.splitlines()
    assert told.startswith(f"error: all 1 states in {states} are damaged, and a run that starts")


def start_training(run: TrainedRun, **changes: object) -> subprocess.Popen[str]:
    flags = [f"--{name}={value}" for name, value in (run.settings | changes).items()]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.train", *flags], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_second_start_is_refused_and_one_that_is_stopped_gives_its_output_back(
    trained_run: TrainedRun, bucket: Bucket, faulty_s3: FaultyS3
) -> None:
    hold = Hold()
    faulty_s3.add(Rule(hold, method="PUT", key="run/training.json"))
    output = f"s3://{bucket.name}/run"
    first = start_training(trained_run, output=output)
    assert hold.reached.wait(120)
    second = start_training(trained_run, output=output)
    _, told = second.communicate(timeout=120)
    assert second.returncode == 5
    assert f"error: output='{output}' is being trained to by process {first.pid} on " in told
    os.kill(first.pid, signal.SIGTERM)
    _, told = first.communicate(timeout=60)
    assert first.returncode == 143
    assert "stopped by SIGTERM. What is written is safe; the same command goes on" in told
    assert "Contents" not in bucket.client.list_objects_v2(Bucket=bucket.name)
