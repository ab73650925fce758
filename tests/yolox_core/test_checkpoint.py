import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from yolox_core import (
    COCO_CLASSES,
    PRESETS,
    YOLOX,
    Checkpoint,
    CheckpointError,
    build_model,
    load_checkpoint,
    save_checkpoint,
    save_safetensors,
)


def save_nano(path: Path, **changes: Any) -> Path:
    """A checkpoint of ours, with keys changed, or removed where None."""
    save_checkpoint(
        path,
        build_model("nano", num_classes=2),
        class_names=("cat", "dog"),
        input_size=(320, 416),
        preprocessing="official",
    )
    stored = torch.load(path, weights_only=True) | changes
    torch.save({key: value for key, value in stored.items() if value is not None}, path)
    return path


def published_nano() -> bytes:
    """A safetensors file of ours."""
    file = io.BytesIO()
    save_safetensors(
        file,
        build_model("nano", num_classes=2),
        class_names=("cat", "größer"),
        input_size=(320, 416),
        preprocessing="seed",
    )
    return file.getvalue()


def assert_same_weights(a: YOLOX, b: YOLOX) -> None:
    expected = b.state_dict()
    assert a.state_dict().keys() == expected.keys()
    assert all(value.equal(expected[key]) for key, value in a.state_dict().items())


def test_the_official_nano_says_what_it_is(official_nano: Checkpoint) -> None:
    assert official_nano.preset == "nano"
    assert official_nano.class_names == COCO_CLASSES
    assert official_nano.input_size == (416, 416)
    assert official_nano.preprocessing == "official"
    assert not official_nano.model.training


def test_our_checkpoints_round_trip(tmp_path: Path) -> None:
    model = build_model("tiny", num_classes=3, activation="relu")
    path = tmp_path / "model.pt"
    save_checkpoint(
        path, model, class_names=["a", "b", "c"], input_size=(320, 416), preprocessing="seed"
    )
    loaded = load_checkpoint(path)
    assert_same_weights(loaded.model, model)
    assert loaded.model.config == model.config
    assert loaded.preset == "tiny"
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.input_size == (320, 416)
    assert loaded.preprocessing == "seed"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_checkpoints_travel_through_open_files() -> None:
    model, file = build_model("nano", num_classes=1), io.BytesIO()
    save_checkpoint(file, model, class_names=["a"], input_size=(416, 416), preprocessing="official")
    content = file.getvalue()
    loaded = load_checkpoint(io.BytesIO(content))
    assert_same_weights(loaded.model, model)
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()


def test_safetensors_files_round_trip(tmp_path: Path) -> None:
    model = build_model("tiny", num_classes=2, activation="relu")
    path = tmp_path / "model.safetensors"
    save_safetensors(
        path, model, class_names=["cat", "größer"], input_size=(320, 416), preprocessing="seed"
    )
    loaded = load_checkpoint(path)
    assert_same_weights(loaded.model, model)
    assert loaded.model.config == model.config
    assert loaded.class_names == ("cat", "größer")
    assert loaded.input_size == (320, 416)
    assert loaded.preprocessing == "seed"
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(tmp_path.iterdir()) == [path]  # no temporary file stays


def test_a_safetensors_file_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(published_nano())
    assert load_checkpoint(tmp_path / "model.pth").class_names == ("cat", "größer")
    assert load_checkpoint(io.BytesIO(published_nano())).preprocessing == "seed"


def test_a_model_in_channels_last_gives_the_same_safetensors_bytes() -> None:
    model = build_model("nano", num_classes=1)
    files = [io.BytesIO(), io.BytesIO()]
    for file, memory_format in zip(
        files, (torch.contiguous_format, torch.channels_last), strict=True
    ):
        save_safetensors(
            file,
            model.to(memory_format=memory_format),
            class_names=["a"],
            input_size=(416, 416),
            preprocessing="official",
        )
    assert files[0].getvalue() == files[1].getvalue()


@pytest.mark.parametrize("keep", [0, 5, 9, 1000, 1_000_000])
def test_a_truncated_safetensors_file_is_named(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(published_nano()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: not a safetensors file, or dam"):
        load_checkpoint(path)


def test_a_safetensors_file_of_others_is_told_from_ours(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    weights = build_model("nano", num_classes=1).state_dict()
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="without 'yolox_core' in its metadata"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("no JSON", "not a JSON object"),
        ("[1, 2]", "not a JSON object"),
        ("{}", "its format is None"),
        (json.dumps({"format": "yolox_core/99"}), "its format is 'yolox_core/99'"),
        (json.dumps({"format": "yolox_core/1"}), "'input_size' is missing"),
    ],
)
def test_bad_metadata_of_a_safetensors_file_is_refused(
    metadata: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    weights = build_model("nano", num_classes=1).state_dict()
    safetensors.torch.save_file(weights, path, metadata={"yolox_core": metadata})
    with pytest.raises(CheckpointError, match=rf"ours\.safetensors: .*{message}"):
        load_checkpoint(path)


@pytest.mark.parametrize("preset", PRESETS[:3])
def test_an_official_file_is_recognised_by_its_shapes(preset: str, tmp_path: Path) -> None:
    model = build_model(preset, num_classes=7)
    torch.save({"model": model.state_dict(), "start_epoch": 300}, tmp_path / "official.pth")
    loaded = load_checkpoint(tmp_path / "official.pth")
    assert_same_weights(loaded.model, model)
    assert loaded.preset == preset
    assert loaded.class_names == tuple(f"class_{i}" for i in range(7))
    assert loaded.input_size == ((640, 640) if preset == "s" else (416, 416))
    assert loaded.preprocessing == "official"


def test_an_official_file_with_its_numpy_ap_is_read(tmp_path: Path) -> None:
    model = build_model("nano", num_classes=1)
    stored = {"model": model.state_dict(), "best_ap": np.float64(0.258)}
    torch.save(stored, tmp_path / "best_ckpt.pth")
    assert load_checkpoint(tmp_path / "best_ckpt.pth").preset == "nano"


def test_a_bare_state_dict_is_the_seeds(tmp_path: Path) -> None:
    torch.save(build_model("nano", num_classes=20).state_dict(), tmp_path / "seed.pth")
    loaded = load_checkpoint(tmp_path / "seed.pth")
    assert loaded.preprocessing == "seed"
    assert len(loaded.class_names) == 20


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    state_dict = build_model("nano", num_classes=1).half().state_dict()
    torch.save({"model": state_dict}, tmp_path / "half.pth")
    model = load_checkpoint(tmp_path / "half.pth").model
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "code-has-run"
    torch.save({"model": Hostile(marker)}, tmp_path / "hostile.pth")
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(Hostile(marker), protocol=2))
    for name in ("hostile.pth", "hostile.pkl"):
        with pytest.raises(CheckpointError, match=f"{name}: not a torch file, damaged"):
            load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: No such file"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match=r"empty\.pth: the file is empty"):
        load_checkpoint(tmp_path / "empty.pth")


@pytest.mark.parametrize("keep", [1, 100, 100_000])
def test_a_truncated_file_is_named(keep: int, tmp_path: Path) -> None:
    path = save_nano(tmp_path / "cut.pth")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"cut\.pth: not a torch file, damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([1, 2], "holds a list, not a dict"),
        ({"model": [1, 2]}, '"model" is a list, not a state dict'),
        ({"fc.weight": torch.zeros(2, 2)}, "not the weights of a YOLOX, no tensor"),
        ({"model": {}}, "not the weights of a YOLOX, no tensor"),
    ],
)
def test_a_foreign_file_is_told_from_a_yolox(stored: Any, message: str, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match=rf"foreign\.pth: {message}"):
        load_checkpoint(tmp_path / "foreign.pth")


def test_missing_and_misshapen_weights_are_listed(tmp_path: Path) -> None:
    weights = build_model("nano", num_classes=1).state_dict()
    del weights["head.stems.1.conv.weight"]
    weights["head.stems.2.conv.weight"] = torch.zeros(3)
    weights["extra"] = torch.zeros(3)
    torch.save({"model": weights}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "odd.pth")
    message = str(caught.value)
    assert "head.stems.1.conv.weight is missing" in message
    assert "extra is unexpected" in message
    assert "head.stems.2.conv.weight is (3,) instead of (64, 256, 1, 1)" in message


def test_a_width_between_the_presets_is_refused(tmp_path: Path) -> None:
    weights = build_model("nano", num_classes=1).state_dict()
    weights["backbone.backbone.stem.conv.conv.weight"] = torch.zeros(20, 12, 3, 3)
    torch.save(weights, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="20 stem channels with depthwise convolutions"):
        load_checkpoint(tmp_path / "odd.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "yolox_core/99"}, "its format is 'yolox_core/99'"),
        ({"class_names": None}, "'class_names' is missing"),
        ({"class_names": ["cat"]}, "1 class names for 2 classes"),
        ({"input_size": [100, 100]}, "multiples of 32"),
        ({"input_size": 416}, "cannot unpack"),
        ({"preprocessing": "other"}, "must be official or seed"),
        ({"activation": "gelu"}, "activation='gelu'"),
    ],
)
def test_bad_metadata_of_ours_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = save_nano(tmp_path / "ours.pt", **changes)
    with pytest.raises(CheckpointError, match=rf"ours\.pt: .*{message}"):
        load_checkpoint(path)


def test_metadata_that_does_not_fit_is_not_written(tmp_path: Path) -> None:
    model = build_model("nano", num_classes=2)
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        save_checkpoint(
            tmp_path / "model.pt",
            model,
            class_names=["cat"],
            input_size=(416, 416),
            preprocessing="official",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_nano(tmp_path / "model.pt")
    before = path.read_bytes()

    def fail(stored: object, file: Any) -> None:
        file.write(b"half a checkpoint")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_nano(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_there_are_80_different_coco_classes() -> None:
    assert len(set(COCO_CLASSES)) == len(COCO_CLASSES) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[17], COCO_CLASSES[79]) == (
        "person",
        "horse",
        "toothbrush",
    )
