"""`python -m jobs.train` as a person runs it, and jobs.label on the weights that it wrote."""

import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from pipelines.labelling.config import LabellingConfig
from pipelines.labelling.run import label_images
from tests.conftest import write_training_shapes

ROOT = Path(__file__).parents[2]
NUM_IMAGES = 8


def train(folder: Path, *flags: str) -> str:
    """What one epoch of two steps prints, of which the weights and curves are in `run`."""
    command = [sys.executable, "-m", "jobs.train", f"--output={folder}/run"]
    command += [f"--{table}={folder}/truth.parquet" for table in ("train", "val")]
    command += ["--preset=nano", "--input_size=64", "--batch_size=4"]
    command += ["--epochs=1", "--warmup_epochs=0", "--no_aug_epochs=0", "--multiscale=false"]
    told = subprocess.run(
        [*command, *flags],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return told.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated shapes with a truth, and one photo that is an image no more."""
    folder = tmp_path_factory.mktemp("job")
    table = write_training_shapes(folder, NUM_IMAGES)
    Path(table["image_uri"][5].as_py()).write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> str:
    return train(folder)


def test_a_preview_is_a_picture_and_trains_nothing(folder: Path) -> None:
    picture = folder / "batch.png"
    assert f"one augmented batch with its boxes: {picture}" in train(folder, f"--preview={picture}")
    assert cv2.imread(str(picture)) is not None
    assert not (folder / "run/metrics.csv").exists()


@pytest.mark.ray
def test_progress_is_printed_with_all_that_was_left_out(folder: Path, told: str) -> None:
    assert "skipped, not_an_image: " in told
    assert "epoch 1/1  loss " in told
    assert "warning: 1 of 8 validation images could not be used (not_an_image 1)" in told
    assert f"{folder}/run/best.pth: epoch 1, AP " in told
    assert "nothing left to do" not in told


@pytest.mark.ray
def test_a_second_start_says_that_nothing_is_left_to_do(folder: Path, told: str) -> None:
    before = (folder / "run/best.pth").stat().st_mtime_ns
    again = train(folder)
    assert "nothing left to do" in again
    assert f"{folder}/run/best.pth: epoch 1, AP " in again
    assert (folder / "run/best.pth").stat().st_mtime_ns == before


@pytest.mark.ray
def test_the_labelling_job_runs_on_the_best_weights(
    folder: Path, told: str, local_ray: None
) -> None:
    summary = label_images(
        LabellingConfig(
            source=str(folder / "images"),
            table=str(folder / "labels"),
            checkpoint=str(folder / "run/best.pth"),
        )
    )
    assert (summary.ledger.labelled, summary.ledger.failed) == (NUM_IMAGES - 1, 1)


def test_states_that_are_all_damaged_are_not_trained_over(folder: Path) -> None:
    states = folder / "damaged/states"
    states.mkdir(parents=True)
    (states / "epoch-00007-step-0000014.pt").write_bytes(b"half a st")
    with pytest.raises(subprocess.CalledProcessError) as refused:
        train(folder, f"--output={folder}/damaged")
    assert refused.value.returncode == 2
    *_, told = refused.value.stderr.splitlines()
    assert told.startswith(f"error: all 1 states in {states} are damaged, and a run that starts")
