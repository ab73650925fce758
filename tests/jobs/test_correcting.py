"""Look, correct, train, label again: what a detector got wrong is right after the next training."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from jobs.demo import CHECKPOINT
from pipelines.comparison import ComparisonConfig, compare
from pipelines.datasets import CLASS_NAMES, PrepareConfig, generate_archive, prepare
from pipelines.evaluation import Evaluation, evaluate
from pipelines.labelling import LabellingConfig, label_images
from pipelines.tables import query_run, read_rows
from pipelines.training import TrainingConfig, train_detector
from yolox_core import load_checkpoint, save_checkpoint

NUM_CORRECTED = 48
MIXED_UP = {"circle": "square", "square": "circle"}


@pytest.fixture
def truth(tmp_path: Path) -> pa.Table:
    return generate_archive(tmp_path, 80, 11, str(tmp_path / "images"))


@pytest.fixture
def mixed_up(tmp_path: Path) -> Path:
    """A detector that calls circles squares, and squares circles."""
    known = load_checkpoint(CHECKPOINT)
    path = tmp_path / "mixed_up.pth"
    save_checkpoint(
        path,
        known.model,
        class_names=[MIXED_UP.get(name, name) for name in known.class_names],
        input_size=known.input_size,
        preprocessing=known.preprocessing,
    )
    return path


def _label(folder: Path, checkpoint: str, run: str) -> None:
    label_images(
        LabellingConfig(
            source=str(folder / "images"),
            table=str(folder / "labels"),
            checkpoint=checkpoint,
            run=run,
            num_actors=1,
        )
    )


def _corrections(folder: Path, truth: pa.Table) -> str:
    """What somebody saves who draws what is really there."""
    images = query_run(f"{folder}/labels", "wrong", lambda views: read_rows(views.images))
    etags = dict(zip(images["image_uri"].to_pylist(), images["etag"].to_pylist(), strict=True))
    photos = [
        {
            "image_uri": row["image_uri"],
            "etag": etags[row["image_uri"]],
            "run": "wrong",
            "decision": "corrected",
            "boxes": [
                {
                    **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
                    "class_name": CLASS_NAMES[class_id],
                    "source": "person",
                }
                for box, class_id in zip(row["boxes"], row["class_ids"], strict=True)
            ],
        }
        for row in truth.to_pylist()
    ]
    content = {"format": "yolox-ray corrections", "version": 1, "photos": photos}
    (folder / "corrections.json").write_text(json.dumps(content))
    return str(folder / "corrections.json")


def _train(folder: Path, table: str, mixed_up: Path) -> str:
    """The checkpoint that was learnt from."""
    config = TrainingConfig(
        train=table,
        val=table,
        output=str(folder / "training"),
        initial_weights=str(mixed_up),
        preset="nano",
        input_size=256,
        epochs=4,
        batch_size=8,
        learning_rate=0.02,
        warmup_epochs=0,
        no_aug_epochs=1,
        mosaic=0.0,
        multiscale=False,
        num_workers=1,
    )
    return train_detector(config).last_checkpoint


def _evaluated(folder: Path, run: str, truth: pa.Table) -> Evaluation:
    detections = query_run(f"{folder}/labels", run, lambda views: read_rows(views.detections))
    return evaluate(detections, truth)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_what_people_corrected_is_found_on_photos_that_they_have_not_seen(
    tmp_path: Path, truth: pa.Table, mixed_up: Path
) -> None:
    _label(tmp_path, str(mixed_up), "wrong")
    prepared = prepare(
        PrepareConfig(
            source=f"{tmp_path}/labels",
            output=f"{tmp_path}/train.parquet",
            corrections=_corrections(tmp_path, truth.slice(0, NUM_CORRECTED)),
            only_reviewed=True,
        )
    )
    assert len(prepared.table) == NUM_CORRECTED
    _label(tmp_path, _train(tmp_path, f"{tmp_path}/train.parquet", mixed_up), "right")

    seen = prepared.table["image_uri"].to_pylist()
    unseen = truth.filter(~pads.field("image_uri").isin(seen))
    before, after = (_evaluated(tmp_path, run, unseen) for run in ("wrong", "right"))
    assert after.ap > before.ap + 0.1
    for name in MIXED_UP:
        assert before.ap_per_class[name] < 0.1 < after.ap_per_class[name]

    runs = ComparisonConfig(
        table=f"{tmp_path}/labels", before="wrong", after="right", min_score=0.5
    )
    with compare(runs) as compared:
        changed = {row["class_name"]: row for row in compared.classes().to_pylist()}
    for name in MIXED_UP:
        assert changed[name]["lost"] > changed[name]["matched"]
        assert changed[name]["new"] > 0
