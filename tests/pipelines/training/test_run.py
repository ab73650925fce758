import csv
import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

from pipelines.datasets import read_training_table
from pipelines.datasets.shapes import CLASS_NAMES
from pipelines.detectors.contract import ONNXRUNTIME, DetectorSettings, LabelledImage
from pipelines.detectors.yolox import YoloxDetector
from pipelines.errors import (
    InputError,
    RunHeldError,
    RunStoppedError,
    TrainingDivergedError,
)
from pipelines.storage.folder import Folder
from pipelines.storage.lease import Lease
from pipelines.training.config import TrainingConfig
from pipelines.training.data import read_weights
from pipelines.training.fit import LEASE, TrainingSummary
from pipelines.training.preview import write_preview
from pipelines.training.run import train_detector
from pipelines.training.worker import _Worker, refuse_other_positions, start_model
from tests.conftest import TrainedRun
from yolox_core import load_checkpoint, save_checkpoint


def config_of(run: TrainedRun, **changes: object) -> TrainingConfig:
    return TrainingConfig(**run.settings | changes)


@pytest.fixture
def folder(trained_run: TrainedRun) -> Path:
    return trained_run.folder


@pytest.fixture(scope="module")
def trained(trained_run: TrainedRun) -> TrainingSummary:
    """Of the run that `trained_run` is."""
    return train_detector(config_of(trained_run))


def metrics(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "run" / "metrics.csv").open()))


@pytest.mark.ray
def test_each_epoch_of_two_workers_has_its_row_and_l1_joins_in_the_last(
    folder: Path, trained: TrainingSummary
) -> None:
    rows = metrics(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [float(row["loss_l1"]) > 0 for row in rows] == [False, False, False, False, True]


@pytest.mark.ray
def test_epochs_with_a_validation_have_an_ap(folder: Path, trained: TrainingSummary) -> None:
    assert [row["ap"] != "" for row in metrics(folder)] == [False, True, False, True, True]


@pytest.mark.ray
def test_a_broken_image_is_skipped_and_counted(folder: Path, trained: TrainingSummary) -> None:
    assert trained.last.broken_images == 1


@pytest.mark.ray
def test_the_checkpoint_finds_objects(folder: Path, trained: TrainingSummary) -> None:
    checkpoint = load_checkpoint(trained.last_checkpoint)
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
    found = YoloxDetector(Path(trained.last_checkpoint).read_bytes(), settings)(bodies)
    assert all(isinstance(image, LabelledImage) and len(image.scores) for image in found)
    settings = replace(settings, runtime=ONNXRUNTIME)
    by_onnx = YoloxDetector(Path(trained.best_onnx).read_bytes(), settings)(bodies)
    assert all(isinstance(image, LabelledImage) and len(image.scores) for image in by_onnx)


@pytest.mark.ray
def test_the_same_command_again_has_nothing_left_to_do(
    trained_run: TrainedRun, trained: TrainingSummary
) -> None:
    before = Path(trained.last_checkpoint).stat().st_mtime_ns
    again = train_detector(config_of(trained_run))
    assert again.trained_epochs == 0
    assert (again.best, again.last) == (trained.best, trained.last)
    assert Path(trained.last_checkpoint).stat().st_mtime_ns == before


@pytest.mark.ray
def test_what_does_not_touch_the_weights_may_be_given_anew(
    trained_run: TrainedRun, trained: TrainingSummary
) -> None:
    again = train_detector(config_of(trained_run, max_cache_bytes=0, publish=True))
    assert again.trained_epochs == 0
    assert [Path(uri).name for uri in again.published] == ["model.safetensors", "model.json"]
    published = load_checkpoint(again.published[0])
    assert published.class_names == CLASS_NAMES


@pytest.mark.ray
def test_the_best_epoch_has_the_highest_ap(folder: Path, trained: TrainingSummary) -> None:
    measured = [float(row["ap"]) for row in metrics(folder) if row["ap"]]
    assert trained.best.ap == max(measured)
    assert Path(trained.best_checkpoint).exists()
    assert list(trained.ap_per_class) == list(CLASS_NAMES)


@pytest.mark.ray
def test_curves_are_drawn(folder: Path, trained: TrainingSummary) -> None:
    for name in ("curves.png", "validation_curves.png", "confusion.png"):
        assert cv2.imread(str(folder / "run" / name)) is not None
    assert list((folder / "run").rglob("*tfevents*"))


@pytest.mark.ray
def test_other_settings_in_the_same_output_are_refused(
    trained_run: TrainedRun, trained: TrainingSummary
) -> None:
    expected = r"other settings \(learning_rate 0\.16 -> 0\.1, seed 0 -> 1\): give another folder"
    with pytest.raises(InputError, match=expected):
        train_detector(config_of(trained_run, learning_rate=0.1, seed=1))


@pytest.mark.ray
def test_a_state_of_other_settings_is_refused_wherever_it_comes_from(
    trained_run: TrainedRun, trained: TrainingSummary
) -> None:
    (trained_run.folder / "copy").mkdir()
    shutil.copytree(trained_run.folder / "run/states", trained_run.folder / "copy/states")
    with pytest.raises(InputError, match=r"copy' holds .* settings \(seed 0 -> 1\)"):
        train_detector(config_of(trained_run, output=str(trained_run.folder / "copy"), seed=1))


def test_workers_that_find_different_states_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "pipelines.training.process_group.gathered", lambda position: [position, (0, 0)]
    )
    output = Folder("s3://bucket/run")
    refuse_other_positions((0, 0), output)
    expected = r"\[\(0, 0\), \(3, 0\)\] \(epochs, steps\) in output='s3://bucket/run'"
    with pytest.raises(RunStoppedError, match=expected):
        refuse_other_positions((3, 0), output)


@pytest.mark.ray
def test_another_number_of_workers_is_refused(
    trained_run: TrainedRun, trained: TrainingSummary
) -> None:
    (trained_run.folder / "run/metrics.csv").rename(trained_run.folder / "metrics.csv")
    with pytest.raises(InputError, match="a run with 2 workers, and Ray would now start 1"):
        train_detector(config_of(trained_run, num_workers=None))
    (trained_run.folder / "metrics.csv").rename(trained_run.folder / "run/metrics.csv")


@pytest.mark.ray
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_workers": 4}, "Ray has 3 CPUs"),
        ({"num_workers": 3}, "batch_size=4 cannot be shared .* for example 6"),
        ({"sync_batchnorm": True}, "needs GPUs, and Ray has none"),
    ],
)
def test_workers_that_cannot_run_are_refused(
    trained_run: TrainedRun,
    tmp_path: Path,
    local_ray: None,
    changes: dict,
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        train_detector(config_of(trained_run, output=str(tmp_path), **changes))


def test_fine_tuning_for_other_classes_starts_the_class_layers_anew(
    trained_run: TrainedRun, tiny_checkpoint: bytes
) -> None:
    initial = load_checkpoint(io.BytesIO(tiny_checkpoint)).model.state_dict()
    config = config_of(trained_run, initial_weights="tiny.pth")

    model, preprocessing, notes = start_model(config, tiny_checkpoint, ["cat", "dog", "cow"])
    assert "start anew for cat, dog, cow" in notes[0]
    assert preprocessing == "official"
    same = {key for key, value in model.state_dict().items() if torch.equal(value, initial[key])}
    # Their biases are the prior's, then and now.
    assert initial.keys() - same == {f"head.cls_preds.{level}.weight" for level in range(3)}


def test_a_worker_that_is_started_again_has_the_weights_that_were_read_once(
    trained_run: TrainedRun, tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    file = tmp_path / "tiny.pth"
    file.write_bytes(tiny_checkpoint)
    config = config_of(trained_run, initial_weights=str(file))
    weights = read_weights(config.initial_weights)
    first, _, _ = start_model(config, weights, ["cat", "dog", "bird"])
    file.unlink()
    again, _, _ = start_model(config, weights, ["cat", "dog", "bird"])
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)


@pytest.mark.ray
def test_an_output_that_another_start_trains_to_is_refused_and_left_alone(
    trained_run: TrainedRun, tmp_path: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.lease.RENEW_EVERY_S", 0.2)
    output = Folder(str(tmp_path / "run"))
    expected = r"run' is being trained to by process \d+ on .* give another --output"
    with Lease.acquire(output, LEASE), pytest.raises(RunHeldError, match=expected):
        train_detector(config_of(trained_run, output=output.uri))
    assert output.list() == []


def test_weights_of_another_preset_are_refused_before_anything_starts(
    trained_run: TrainedRun, tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    (tmp_path / "tiny.pth").write_bytes(tiny_checkpoint)
    config = config_of(
        trained_run,
        preset="tiny",
        output=str(tmp_path / "run"),
        initial_weights=str(tmp_path / "tiny.pth"),
    )
    with pytest.raises(InputError, match="is a YOLOX-nano: give --preset nano"):
        train_detector(config)
    assert not (tmp_path / "run").exists()


def test_an_epoch_without_a_validation_leaves_its_weights_too(tmp_path: Path) -> None:
    log = SimpleNamespace(add=lambda _: [])
    worker = SimpleNamespace(_output=Folder(str(tmp_path)), _log=log, _save_state=lambda: [])
    _Worker._write(worker, [SimpleNamespace(evaluation=None)], b"weights")
    assert (tmp_path / "last.pth").read_bytes() == b"weights"
    assert not (tmp_path / "best.pth").exists()


def test_a_preview_shows_a_batch_with_its_boxes(trained_run: TrainedRun, tmp_path: Path) -> None:
    path = tmp_path / "batch.png"
    write_preview(config_of(trained_run, mosaic=1.0), str(path))
    height, width, _ = cv2.imread(str(path)).shape
    assert width > 1000  # four images side by side
    assert height > 250


@pytest.mark.ray
@pytest.mark.soak
def test_weights_with_folded_batchnorm_get_statistics_and_a_run_that_diverges_is_given_up_at_once(
    trained_run: TrainedRun,
    tmp_path: Path,
    tiny_checkpoint: bytes,
    local_ray: None,
    capsys,
) -> None:
    folded = load_checkpoint(io.BytesIO(tiny_checkpoint)).model  # untrained: mean 0, variance 1
    torch.nn.init.ones_(folded.backbone.backbone.stem.conv.bn.bias)  # which no fresh model has
    weights = tmp_path / "folded.pth"
    save_checkpoint(
        weights,
        folded,
        class_names=("cat", "dog", "bird"),
        input_size=(64, 64),
        preprocessing="official",
    )
    changes = {"initial_weights": str(weights), "learning_rate": 1e30, "num_workers": 1}
    with pytest.raises(TrainingDivergedError, match=r"10 steps in a row.* a lower learning_rate"):
        train_detector(config_of(trained_run, output=str(tmp_path / "run"), **changes))
    assert "its statistics were estimated on 44 images" in capsys.readouterr().out
