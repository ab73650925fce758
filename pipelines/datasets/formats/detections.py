"""What a run of jobs.label found, as annotations to correct and to train on."""

from collections.abc import Mapping
from dataclasses import replace

import pyarrow.dataset as pads

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations
from pipelines.datasets.formats.corrections import (
    Correction,
    boxes_of,
    check_corrections,
    read_corrections,
)
from pipelines.tables import LABELLED, Views, query_run, read_rows, run_query


def read_detections(
    table_uri: str,
    run: str,
    min_score: float,
    corrections: str = "",
    only_reviewed: bool = False,
) -> Annotations:
    """The labelled images of one run and its detections of at least `min_score`.

    An image without such detections stays as one without boxes. The classes are those of all
    detections of the run, whatever their score, in the order of their ids, which are made
    contiguous. The photos are not looked at again: the run has read them.

    Args:
        run: its name, or "" for the newest complete one.
        corrections: what a review of the run saved, or "". A photo that somebody rejected is left
            out; one that was accepted or corrected has the boxes that it was left with, whatever
            their score.
        only_reviewed: leave out the photos that the corrections do not name.

    Raises:
        InputError: there is no such table or run, it cannot be read, or the corrections do not fit
            it.
    """
    decided = read_corrections(corrections) if corrections else {}
    found = query_run(table_uri, run, lambda views: _read(views, min_score, corrections, decided))
    return _corrected(found, decided, corrections, only_reviewed) if corrections else found


def _corrected(
    found: Annotations, decided: Mapping[str, Correction], corrections: str, only_reviewed: bool
) -> Annotations:
    """What people said wins over what the model said."""
    names, images = found.class_names, []
    for image in found.images:
        correction = decided.get(image.uri)
        if correction is None:
            images += [] if only_reviewed else [image]
        elif not correction.is_rejected:
            images.append(replace(image, boxes=boxes_of(correction, names, corrections)))
    rejected = sum(correction.is_rejected for correction in decided.values())
    note = (
        f"{len(decided):,} photos as people corrected them in {corrections}, {rejected:,} of them "
        "rejected and left out"
    )
    return replace(found, images=images, notes=[*found.notes, note])


def _read(
    views: Views, min_score: float, corrections: str, decided: Mapping[str, Correction]
) -> Annotations:
    classes = run_query(
        views, "SELECT DISTINCT class_id, class_name FROM detections ORDER BY class_id"
    ).to_pylist()
    class_ids = {row["class_id"]: index for index, row in enumerate(classes)}
    images = read_rows(views.images, _IMAGE).to_pylist()
    looked_at = [row for row in images if row["status"] == LABELLED]
    labelled = [row for row in looked_at if row["decoded_share"] is None]
    cut_short = len(looked_at) - len(labelled)
    check_corrections(
        corrections,
        decided.values(),
        {row["image_uri"]: row for row in images},
        views.runs["run"][0].as_py(),
        [row["class_name"] for row in classes],
    )
    found = read_rows(views.detections, _BOX, pads.field("score") >= min_score).to_pylist()
    boxes_of: dict[str, list[AnnotatedBox]] = {row["image_uri"]: [] for row in labelled}
    for row in found:
        if row["image_uri"] not in boxes_of:
            continue
        where = f"{row['image_uri']}: detection {row['detection_index']}"
        corners = (row["x1"], row["y1"], row["x2"], row["y2"])
        box = AnnotatedBox(class_ids[row["class_id"]], corners, where, source="model")
        boxes_of[row["image_uri"]].append(box)
    return Annotations(
        class_names=[row["class_name"] for row in classes],
        images=[
            AnnotatedImage(
                uri,
                uri,
                boxes_of[uri],
                row["width"],
                row["height"],
                etag=row["etag"],
            )
            for row in labelled
            for uri in [row["image_uri"]]
        ],
        faults=[],
        notes=[f"{cut_short:,} photos left out that were cut short"] if cut_short else [],
    )


_IMAGE = ["image_uri", "etag", "width", "height", "status", "error_kind", "decoded_share"]
_BOX = ["image_uri", "detection_index", "class_id", "x1", "y1", "x2", "y2"]
