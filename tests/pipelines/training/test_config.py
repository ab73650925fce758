import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.datasets import read_training_table, training_table, write_training_table
from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.training.config import TrainingConfig, refuse_other_settings, settings_json
from pipelines.training.data import read_training_data
from tests.conftest import write_training_shapes


def test_a_run_that_was_begun_in_the_words_of_before_goes_on(tmp_path: Path) -> None:
    write_training_shapes(tmp_path, 2)
    truth = str(tmp_path / "truth.parquet")
    config = TrainingConfig(
        train=truth,
        val=truth,
        output=str(tmp_path / "run"),
        rule="yolox_pytorch",
        schedule="yolox_pytorch_cosine",
    )
    data = read_training_data(truth, truth)
    settings = json.loads(settings_json(config, data, 2))
    before = settings | {"rule": "seed", "schedule": "seed_cosine"}
    output = Folder(config.output)
    output.write("training.json", json.dumps(before).encode())
    refuse_other_settings(output, config, data, None)  # raises nothing
    with pytest.raises(InputError, match="rule yolox_pytorch -> official"):
        refuse_other_settings(output, replace(config, rule="official"), data, None)


def begun(folder: Path) -> tuple[TrainingConfig, Folder, dict]:
    """A run with two tables of four photos, its output, and the settings that lie there."""
    train, val = folder / "truth.parquet", folder / "val.parquet"
    write_training_shapes(folder, 4)
    shutil.copy(train, val)
    config = TrainingConfig(train=str(train), val=str(val), output=str(folder / "run"))
    settings = settings_json(config, read_training_data(config.train, config.val), 1)
    output = Folder(config.output)
    output.write("training.json", settings)
    return config, output, json.loads(settings)


def move_a_box(uri: str) -> None:
    table, class_names = read_training_table(uri)
    rows = table.to_pylist()
    rows[0]["boxes"][0][0] += 1
    write_training_table(uri, training_table(rows, class_names))


@pytest.mark.parametrize("edited", ["train", "val"])
def test_a_box_that_was_moved_at_the_same_path_is_noticed(tmp_path: Path, edited: str) -> None:
    config, output, _ = begun(tmp_path)
    move_a_box(getattr(config, edited))
    data = read_training_data(config.train, config.val)
    expected = rf"^{getattr(config, edited)} changed since the run in .*run' was .* --output"
    with pytest.raises(InputError, match=expected):
        refuse_other_settings(output, config, data, None)


def test_a_table_at_another_path_is_a_setting_and_not_an_edited_table(tmp_path: Path) -> None:
    config, output, _ = begun(tmp_path)
    moved = replace(config, val=config.train)
    move_a_box(config.train)
    data = read_training_data(moved.train, moved.val)
    with pytest.raises(InputError, match=r"^\S+/truth\.parquet changed since"):
        refuse_other_settings(output, moved, data, None)
    write_training_shapes(tmp_path, 4)
    data = read_training_data(moved.train, moved.val)
    with pytest.raises(InputError, match=r"other settings \(val \S+ -> \S+\)"):
        refuse_other_settings(output, moved, data, None)


def test_a_run_that_was_begun_without_digests_goes_on(tmp_path: Path) -> None:
    config, output, settings = begun(tmp_path)
    del settings["sha256"]
    output.write("training.json", json.dumps(settings).encode())
    move_a_box(config.train)
    refuse_other_settings(output, config, read_training_data(config.train, config.val), None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_disk_bytes": -1}, r"max_disk_bytes=-1: must not be negative; 0 keeps no photos"),
        ({"cache_dir": "s3://b/kept"}, r"cache_dir='s3://b/kept': must be a folder on a disk of"),
        (
            {"cache_dir": __file__},
            r"cache_dir='.*\.py': must be a folder on a disk of the machines",
        ),
        ({"cache_dir": ""}, "the path is empty"),
        ({"cache_dir": "http://kept"}, "http:// is not supported"),
    ],
)
def test_where_photos_cannot_be_kept_is_said_at_once(changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        TrainingConfig(train="a", val="b", output="c", **changes)
