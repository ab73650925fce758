"""A detection table held against a training table by pycocotools: COCO's official numbers."""

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipelines.datasets import class_names_of


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """COCO's twelve numbers, each None where there is nothing that it could be measured on."""

    ap: float | None
    """Mean over classes and IoU thresholds .50:.05:.95, at most 100 detections per image."""
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    """Targets below 32² pixels of area; medium ones end at 96²."""
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    """Mean recall with at most 1 detection per image and class; ar10 and ar100 likewise."""
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None

    ap_per_class: Mapping[str, float | None]
    """In the order of the truth's class ids; None for a class without targets."""
    images: int
    """Images of the truth, all of them counted."""
    images_missing: int
    """Those that the run has not labelled: all their targets count as missed."""
    classes_never_detected: Sequence[str]
    """Classes with targets that no detection is of: their AP is 0."""
    classes_ignored: Sequence[str]
    """Classes that were detected and that the truth does not have."""
    failed_by_kind: Mapping[str, int]
    """Images that a validation in training could not use, counted by what was wrong with them."""


@dataclass(frozen=True)
class Judgement:
    """What pycocotools made of detections and the truth; every other figure is taken from it."""

    evaluation: Evaluation
    class_names: Sequence[str]
    """Index = category id."""
    image_uris: Sequence[str]
    """Index = image id."""
    coco_eval: COCOeval
    """Evaluated and accumulated, with the official parameters."""


def evaluate(
    detections: pa.Table, truth: pa.Table, labelled_uris: Iterable[str] | None = None
) -> Evaluation:
    """COCO's numbers alone, of what `judge` is given."""
    return judge(detections, truth, labelled_uris).evaluation


def judge(
    detections: pa.Table, truth: pa.Table, labelled_uris: Iterable[str] | None = None
) -> Judgement:
    """Compare detections with the truth: images by their URI, classes by their name.

    Detections on images that the truth does not have are left out.

    Args:
        detections: schema.DETECTIONS.
        truth: schema.TRAINING, with class names.
        labelled_uris: the images that the detector saw; without them, all of the truth's.
    """
    class_names = class_names_of(truth)
    image_uris = truth["image_uri"].to_pylist()
    targets = _target_annotations(truth)
    found = _detection_annotations(detections, truth["image_uri"], class_names)
    coco_eval = _run_coco_eval(
        truth=_coco(targets, len(truth), len(class_names)),
        detections=_coco(found, len(truth), len(class_names)),
    )
    stats = {name: measured(value) for name, value in zip(_STATS, coco_eval.stats, strict=True)}

    detected = set(detections["class_name"].unique().to_pylist())
    with_targets = {class_names[row["category_id"]] for row in targets if not row["iscrowd"]}
    unseen = () if labelled_uris is None else set(image_uris).difference(labelled_uris)
    evaluation = Evaluation(
        **stats,
        ap_per_class=_ap_per_class(coco_eval, class_names),
        images=len(set(image_uris)),
        images_missing=len(unseen),
        classes_never_detected=[n for n in class_names if n in with_targets - detected],
        classes_ignored=sorted(detected - set(class_names)),
        failed_by_kind={},
    )
    return Judgement(evaluation, class_names, image_uris, coco_eval)


_STATS = (  # in the order of COCOeval.stats
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


def _target_annotations(truth: pa.Table) -> list[dict[str, Any]]:
    """An image's id is its row."""
    return [
        {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area,
            "iscrowd": int(is_crowd),
        }
        for image_id, row in enumerate(truth.to_pylist())
        for (x1, y1, x2, y2), class_id, is_crowd, area in zip(
            row["boxes"], row["class_ids"], row["is_crowd"], row["areas"], strict=True
        )
    ]


def _detection_annotations(
    detections: pa.Table, image_uris: pa.ChunkedArray, class_names: Sequence[str]
) -> list[dict[str, Any]]:
    image_ids = pc.index_in(detections["image_uri"], image_uris)
    class_ids = pc.index_in(
        detections["class_name"].cast(pa.string()), pa.array(class_names, pa.string())
    )
    known = pc.and_(pc.is_valid(image_ids), pc.is_valid(class_ids))
    columns = [image_ids, class_ids, *(detections[name] for name in ("score", *_CORNERS))]
    return [
        {
            "image_id": image_id,
            "category_id": class_id,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "score": score,
        }
        for image_id, class_id, score, x1, y1, x2, y2 in zip(
            *(column.filter(known).to_pylist() for column in columns), strict=True
        )
    ]


_CORNERS = ("x1", "y1", "x2", "y2")


def _coco(annotations: Sequence[dict[str, Any]], num_images: int, num_classes: int) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image_id} for image_id in range(num_images)],
        "categories": [{"id": class_id} for class_id in range(num_classes)],
        # pycocotools takes a target with id 0 for one that nothing was matched to.
        "annotations": [{"id": id, **row} for id, row in enumerate(annotations, start=1)],
    }
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _run_coco_eval(truth: COCO, detections: COCO) -> COCOeval:
    coco_eval = COCOeval(truth, detections, "bbox")
    with redirect_stdout(io.StringIO()):
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval


def _ap_per_class(coco_eval: COCOeval, class_names: Sequence[str]) -> dict[str, float | None]:
    # (IoU thresholds, recalls, classes, area ranges, maximal detections): all areas, 100 detections
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    return {
        # A class without targets is -1 everywhere, every other one nowhere.
        name: measured(precision[:, :, class_id].mean())
        for class_id, name in enumerate(class_names)
    }


def measured(value: float) -> float | None:
    """pycocotools says -1 where there is nothing to measure on."""
    return None if value == -1 else float(value)
