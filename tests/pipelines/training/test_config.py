import json
from dataclasses import replace
from pathlib import Path

import pytest

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
