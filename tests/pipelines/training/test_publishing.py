import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipelines.detectors.checkpoint import read_checkpoint
from pipelines.errors import InputError
from pipelines.storage import read_bytes
from pipelines.storage.folder import Folder
from pipelines.training.publishing import publish
from yolox_core import CheckpointError, load_checkpoint

FACTS = {"ap": 0.4, "recipe": {"epochs": 300}}


def test_what_is_published_is_the_checkpoint(tmp_path: Path, tiny_checkpoint: bytes) -> None:
    weights_uri, _ = publish(tiny_checkpoint, Folder(str(tmp_path / "out")), FACTS)
    published, data = read_checkpoint(weights_uri), read_bytes(weights_uri)
    original = load_checkpoint(io.BytesIO(tiny_checkpoint))
    assert data == (tmp_path / "out/model.safetensors").read_bytes()
    assert published.class_names == original.class_names == ("cat", "dog", "bird")
    assert published.input_size == (64, 64)
    assert published.preprocessing == "official"
    expected = original.model.state_dict()
    assert all(value.equal(expected[key]) for key, value in published.model.state_dict().items())


def test_the_card_says_what_was_published(tmp_path: Path, tiny_checkpoint: bytes) -> None:
    uris = publish(tiny_checkpoint, Folder(str(tmp_path)), FACTS)
    assert uris == [str(tmp_path / "model.safetensors"), str(tmp_path / "model.json")]
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "preset": "nano",
        "class_names": ["cat", "dog", "bird"],
        "input_size": [64, 64],
        "preprocessing": "official",
        "num_parameters": 912_159 - 77 * 3 * 65,  # 80 classes have 912,159; 77 fewer on 3 levels
        "weights": "model.safetensors",
        "weights_sha256": hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest(),
        "checkpoint_sha256": hashlib.sha256(tiny_checkpoint).hexdigest(),
        "facts": FACTS,
    }


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path, tiny_checkpoint: bytes) -> None:
    for name in ("a", "b"):
        publish(tiny_checkpoint, Folder(str(tmp_path / name)), FACTS)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_is_published_to_s3_and_read_from_there(
    bucket: Any, tiny_checkpoint: bytes
) -> None:
    folder = Folder(f"s3://{bucket.name}/models/shapes")
    uris = publish(tiny_checkpoint, folder, FACTS)
    assert uris == [f"{folder.uri}/model.safetensors", f"{folder.uri}/model.json"]
    published, data = read_checkpoint(uris[0]), read_bytes(uris[0])
    assert published.class_names == ("cat", "dog", "bird")
    card = json.loads(folder.read("model.json"))
    assert card["weights_sha256"] == hashlib.sha256(data).hexdigest() == published.sha256


def test_a_damaged_file_is_bad_input_by_its_name(tmp_path: Path, tiny_checkpoint: bytes) -> None:
    uri, _ = publish(tiny_checkpoint, Folder(str(tmp_path)), {})
    Path(uri).write_bytes(Path(uri).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors: not a safetensors file, or damaged"):
        read_checkpoint(uri)


def test_nothing_is_published_of_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        publish(b"no weights", Folder(str(tmp_path)), FACTS)
    assert list(tmp_path.iterdir()) == []


def test_facts_that_are_not_json_are_refused_before_anything_is_written(
    tmp_path: Path, tiny_checkpoint: bytes
) -> None:
    with pytest.raises(ValueError, match="JSON"):
        publish(tiny_checkpoint, Folder(str(tmp_path)), {"ap": math.nan})
    assert list(tmp_path.iterdir()) == []
