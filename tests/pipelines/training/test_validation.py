import io
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.datasets import training_table
from pipelines.detectors.contract import DetectorSettings
from pipelines.errors import RunStoppedError
from pipelines.photos.errors import ErrorKind, ImageError
from pipelines.photos.fetching import Fetched
from pipelines.training.validation import validate
from yolox_core import build_model, save_checkpoint


@pytest.fixture
def truth(tmp_path: Path) -> pa.Table:
    """A good photo, one that is gone, a broken one, and one that is not of the table's size."""
    for name, side in (("good", 64), ("resized", 32)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((side, side, 3), 50, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"<html>")
    names = ["good", "gone", "broken", "resized"]
    return training_table(
        [
            {"image_uri": f"{tmp_path}/{name}.png", "width": 64, "height": 64}
            | {"boxes": [[0, 0, 9, 9]], "class_ids": [0], "is_crowd": [False], "areas": [81]}
            for name in names
        ],
        ["cat", "dog", "bird"],
    )


def test_images_that_cannot_be_used_are_counted_by_kind(
    truth: pa.Table, settings: DetectorSettings, tiny_checkpoint: bytes
) -> None:
    evaluation = validate(tiny_checkpoint, truth, settings).evaluation
    assert evaluation.images == 4
    assert evaluation.failed_by_kind == {"gone": 1, "not_an_image": 1, "changed": 1}


def test_weights_that_are_not_finite_fail_on_every_image(
    truth: pa.Table, settings: DetectorSettings
) -> None:
    model = build_model("nano", num_classes=3)
    torch.nn.init.constant_(model.head.stems[0].conv.weight, torch.nan)
    file = io.BytesIO()
    save_checkpoint(
        file,
        model,
        class_names=("cat", "dog", "bird"),
        input_size=(64, 64),
        preprocessing="official",
    )
    evaluation = validate(file.getvalue(), truth.slice(0, 1), settings).evaluation
    assert evaluation.failed_by_kind == {"not_finite": 1}


def test_what_may_be_readable_tomorrow_stops_the_run(
    truth: pa.Table,
    settings: DetectorSettings,
    tiny_checkpoint: bytes,
) -> None:
    outage = Fetched(ImageError(ErrorKind.IO_ERROR, "S3 is away"))
    with pytest.raises(RunStoppedError, match=r"cannot be read now .*S3 is away"):
        validate(tiny_checkpoint, truth, settings, lambda images, _: [outage] * len(images))
