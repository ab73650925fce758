"""The second half of the demo: correct what was found, train on it, label again, and compare.

A script plays the person who corrects. It wants every ring to be called a circle.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from pipelines import comparison, datasets, evaluation, labelling, review, tables, training

NUM_REVIEWED = 64
EPOCHS = 4
OLD_NAME, NEW_NAME = "ring", "circle"
MIN_SCORE = 0.5
"""Of a box that a person is shown."""


def correct_and_train(first: "labelling.LabellingConfig", truth: pa.Table, folder: Path) -> None:
    """Correct some photos of a run, train on them, label all photos again, and show what changed.

    Args:
        first: of the run, which is complete.
        truth: schema.TRAINING, of all photos; its names are those before the correction.
        folder: for all that is made.
    """
    wanted = _renamed(truth)
    corrections = _write_corrections(first, folder / "corrections.json")
    prepared = datasets.prepare(
        datasets.PrepareConfig(
            source=first.table,
            run=str(first.run),
            output=str(folder / "corrected.parquet"),
            corrections=str(corrections),
            only_reviewed=True,
        )
    )
    print(f"{len(prepared.table)} photos corrected, their boxes: {_sources(prepared.table)}")
    unseen = _not_in(wanted, prepared.table)
    trained = _train(first, folder, unseen)
    second = replace(first, run="corrected", checkpoint=trained.best_checkpoint)
    labelling.label_images(second)
    before, after = (_evaluated(run, unseen) for run in (first, second))
    print(
        f"AP on the {len(unseen)} photos that nobody corrected: {before.ap:.3f} before, "
        f"{after.ap:.3f} after {EPOCHS} epochs; AP50 {before.ap50:.3f} and {after.ap50:.3f}"
    )
    _show_changes(first, second, folder / "diff")


def _renamed(truth: pa.Table) -> pa.Table:
    names = datasets.class_names_of(truth)
    old, new = names.index(OLD_NAME), names.index(NEW_NAME)
    rows = truth.to_pylist()
    for row in rows:
        row["class_ids"] = [new if number == old else number for number in row["class_ids"]]
    return datasets.training_table(rows, names)


def _write_corrections(run: "labelling.LabellingConfig", path: Path) -> Path:
    """As the page of a review saves them."""
    photos = tables.query_run(run.table, str(run.run), _corrected)
    content = {"format": "yolox-ray corrections", "version": 1, "photos": photos}
    path.write_text(json.dumps(content))
    return path


def _corrected(views: "tables.Views") -> list[dict[str, Any]]:
    images = tables.run_query(views, _REVIEWED).to_pylist()
    boxes = tables.run_query(views, _BOXES).to_pylist()
    of_photo: dict[str, list[dict[str, Any]]] = {image["image_uri"]: [] for image in images}
    for box in boxes:
        of_photo.get(box.pop("image_uri"), []).append(_as_wanted(box))
    return [
        {**image, "decision": "corrected", "boxes": of_photo[image["image_uri"]]}
        for image in images
    ]


def _as_wanted(box: Mapping[str, Any]) -> dict[str, Any]:
    if box["class_name"] == OLD_NAME:
        return {**box, "class_name": NEW_NAME, "source": "person"}
    return {**box, "source": "model"}


_REVIEWED = f"""
    SELECT image_uri, etag, run FROM images WHERE status = '{tables.LABELLED}'
    ORDER BY hash(image_uri) LIMIT {NUM_REVIEWED}
"""
_BOXES = f"""
    SELECT image_uri, class_name, x1, y1, x2, y2 FROM detections WHERE score >= {MIN_SCORE}
    ORDER BY image_uri, detection_index
"""


def _sources(table: pa.Table) -> str:
    sources = [source for row in table["sources"].to_pylist() for source in row]
    return f"{sources.count('accepted')} accepted, {sources.count('person')} by the person"


def _not_in(truth: pa.Table, seen: pa.Table) -> pa.Table:
    return truth.filter(~pads.field("image_uri").isin(seen["image_uri"].to_pylist()))


def _train(
    run: "labelling.LabellingConfig", folder: Path, unseen: pa.Table
) -> "training.TrainingSummary":
    """A few epochs from the run's own checkpoint, with a small learning rate and no mosaic."""
    datasets.write_training_table(str(folder / "unseen.parquet"), unseen.slice(0, 32))
    return training.train_detector(
        training.TrainingConfig(
            train=str(folder / "corrected.parquet"),
            val=str(folder / "unseen.parquet"),
            output=str(folder / "training"),
            initial_weights=run.checkpoint,
            preset="nano",
            input_size=256,
            epochs=EPOCHS,
            batch_size=8,
            learning_rate=0.01,
            warmup_epochs=0,
            no_aug_epochs=1,
            mosaic=0.0,
            multiscale=False,
            num_workers=1,
        )
    )


def _evaluated(run: "labelling.LabellingConfig", truth: pa.Table) -> "evaluation.Evaluation":
    detections = tables.query_run(
        run.table, str(run.run), lambda views: tables.read_rows(views.detections)
    )
    return evaluation.evaluate(detections, truth)


def _show_changes(
    first: "labelling.LabellingConfig", second: "labelling.LabellingConfig", output: Path
) -> None:
    shutil.rmtree(output, ignore_errors=True)
    runs = comparison.ComparisonConfig(
        table=first.table, before=str(first.run), after=str(second.run), min_score=MIN_SCORE
    )
    shown = review.ReviewConfig(
        table=first.table, output=str(output), run=runs.after, threshold=MIN_SCORE, max_photos=100
    )
    with comparison.compare(runs) as compared:
        counts = compared.counts()
        review.write_review(shown, review.changed_photos(compared, shown.max_photos))
    print(f"boxes: {counts.matched:,} matched, {counts.new:,} new, {counts.lost:,} lost")
    print(f"the photos that changed most, to be looked at in a browser: {output / review.PAGE}")
