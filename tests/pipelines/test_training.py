import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from pipelines.annotations import read_training_table, write_training_table
from pipelines.detector import Detector, DetectorSettings, LabelledImage
from pipelines.errors import InputError
from pipelines.shapes import CLASS_NAMES, generate_archive
from pipelines.training import TrainingConfig, TrainingSummary, start_model, train_detector
from yolox_core import load_checkpoint

NUM_IMAGES = 12


def config_of(folder: Path, **changes: object) -> TrainingConfig:
    values = {
        "train": str(folder / "truth.parquet"),
        "val": str(folder / "truth.parquet"),
        "output": str(folder / "run"),
        "preset": "nano",
        "input_size": 64,
        "epochs": 5,
        "batch_size": 4,
        "learning_rate": 0.16,
        "warmup_epochs": 0,
        "no_aug_epochs": 1,
        "eval_every": 2,
        "num_workers": 2,
    }
    return TrainingConfig(**values | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated shapes with a truth; one of the files is not an image any more."""
    folder = tmp_path_factory.mktemp("training")
    table = generate_archive(folder, NUM_IMAGES, 3, str(folder / "images"))
    write_training_table(str(folder / "truth.parquet"), table)
    Path(table["image_uri"][5].as_py()).write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path, local_ray: None) -> TrainingSummary:
    """Five epochs on two workers."""
    return train_detector(config_of(folder))


def metrics(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "run" / "metrics.csv").open()))


@pytest.mark.ray
def test_the_loss_falls_on_two_workers(folder: Path, trained: TrainingSummary) -> None:
    rows = metrics(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert float(rows[4]["loss_objectness"]) < float(rows[0]["loss_objectness"])
    assert [float(row["loss_l1"]) > 0 for row in rows] == [False, False, False, False, True]


@pytest.mark.ray
def test_epochs_with_a_validation_have_an_ap(folder: Path, trained: TrainingSummary) -> None:
    assert [row["ap"] != "" for row in metrics(folder)] == [False, True, False, True, True]


@pytest.mark.ray
def test_a_broken_image_is_skipped_and_counted(folder: Path, trained: TrainingSummary) -> None:
    assert trained.last.broken_images == 1


@pytest.mark.ray
def test_the_checkpoint_finds_objects(folder: Path, trained: TrainingSummary) -> None:
    checkpoint = load_checkpoint(trained.checkpoint)
    assert checkpoint.preset == "nano"
    assert checkpoint.class_names == CLASS_NAMES
    assert checkpoint.input_size == (64, 64)
    settings = DetectorSettings(
        input_size=(64, 64),
        score_threshold=0.0,
        nms_threshold=0.65,
        max_pixels=10**8,
        batch_size=2,
        threads=1,
        device="cpu",
    )
    table, _ = read_training_table(str(folder / "truth.parquet"))
    bodies = [Path(uri).read_bytes() for uri in table["image_uri"][:2].to_pylist()]
    found = Detector(Path(trained.checkpoint).read_bytes(), settings).detect(bodies)
    assert all(isinstance(image, LabelledImage) and len(image.scores) for image in found)


@pytest.mark.ray
def test_the_same_command_again_has_nothing_left_to_do(
    folder: Path, trained: TrainingSummary
) -> None:
    before = Path(trained.checkpoint).stat().st_mtime_ns
    assert train_detector(config_of(folder)) == trained
    assert Path(trained.checkpoint).stat().st_mtime_ns == before


@pytest.mark.ray
def test_other_settings_in_the_same_output_are_refused(
    folder: Path, trained: TrainingSummary
) -> None:
    with pytest.raises(InputError, match=r"other settings \(seed 0 -> 1\): give another folder"):
        train_detector(config_of(folder, seed=1))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": 4}, "Ray has 3 CPUs"),
        ({"num_workers": 3}, "batch_size=4 cannot be shared .* for example 6"),
    ],
)
def test_workers_that_cannot_run_are_refused(
    folder: Path, tmp_path: Path, local_ray: None, changes: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_detector(config_of(folder, output=str(tmp_path), **changes))


def test_fine_tuning_for_other_classes_starts_the_class_layers_anew(
    folder: Path, tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    initial = load_checkpoint(tmp_path / "tiny.pth").model.state_dict()
    config = config_of(folder, initial_weights=str(tmp_path / "tiny.pth"))

    model, preprocessing = start_model(config, ["cat", "dog", "cow"])
    assert preprocessing == "official"
    same = {key for key, value in model.state_dict().items() if torch.equal(value, initial[key])}
    # Their biases are the prior's, then and now.
    assert initial.keys() - same == {f"head.cls_preds.{level}.weight" for level in range(3)}


def test_weights_of_another_preset_are_refused_before_anything_starts(
    folder: Path, tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    config = config_of(
        folder,
        preset="tiny",
        output=str(tmp_path / "run"),
        initial_weights=str(tmp_path / "tiny.pth"),
    )
    with pytest.raises(InputError, match="is a YOLOX-nano: give --preset nano"):
        train_detector(config)
    assert not (tmp_path / "run").exists()


def test_an_output_on_s3_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="must be a local folder"):
        dataclasses.replace(config_of(folder), output="s3://bucket/run")
