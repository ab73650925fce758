"""From the bytes of images to what is on them, in Arrow: a detector's answers, checked."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.detectors import Answers, ImageDetector, IsolatedDetector, LabelledImage
from pipelines.labelling.blocks import DETECTED, FOUND, PART_KEYS
from pipelines.photos import ErrorKind, ImageError
from pipelines.tables import IMAGES

_OF_THE_BOX = [field for field in FOUND if field.name != "class_name"]
"""The columns that a detector gives; the class's name follows from its id."""
_OF_THE_IMAGE = [field.name for field in fields(LabelledImage) if field.name in IMAGES.names]


class _Boxes(NamedTuple):
    """The boxes of all images of a block."""

    rows: npt.NDArray[np.int64]  # (K,) the image's row in the block
    columns: Mapping[str, npt.NDArray[Any]]  # (K,) each, as LabelledImage.box_columns() names them

    def taken(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "_Boxes":
        taken = {name: column[which] for name, column in self.columns.items()}
        return _Boxes(self.rows[which], taken)


def detect_block(detector: ImageDetector, fetched: pa.Table) -> pa.Table:
    """From blocks.FETCHED to blocks.DETECTED, one row per image, its boxes by falling score.

    Boxes are clipped to their image, and dropped where that leaves no area. An image with a box or
    a score that is not finite becomes a row with `not_finite`.

    Raises:
        RuntimeError: an answer does not keep to the ImageDetector contract.
    """
    results, seconds = _results(detector, fetched)
    boxes = _boxes_of(results)
    _check_class_ids(boxes.columns["class_id"], len(detector.class_names))
    results, boxes = _refuse_what_is_not_finite(results, boxes)
    found = _found(_on_their_images(results, boxes), len(results), detector.class_names)
    images = [None if isinstance(result, ImageError) else result for result in results]
    errors = [result if isinstance(result, ImageError) else None for result in results]
    columns = {
        **{key: fetched[key] for key in PART_KEYS},
        "image_uri": fetched["image_uri"],
        "etag": fetched["etag"],
        "size_bytes": fetched["size_bytes"],
        **{name: [image and getattr(image, name) for image in images] for name in _OF_THE_IMAGE},
        "error_kind": [error and str(error.kind) for error in errors],
        "error_message": [error and str(error) for error in errors],
        "found": found,
        "labelled_at": [datetime.now(UTC)] * len(results),
        "fetch_seconds": fetched["fetch_seconds"],
        "retries": fetched["retries"],
        "detect_seconds": [seconds / max(len(results), 1)] * len(results),
    }
    return pa.Table.from_pydict(columns, schema=DETECTED)


def _results(detector: ImageDetector, fetched: pa.Table) -> Answers:
    """The detector's answers, and between them why there was nothing to ask."""
    columns = (fetched[name].to_pylist() for name in ("data", "error_kind", "error_message"))
    bodies = [
        ImageError(ErrorKind(kind), message) if kind else data
        for data, kind, message in zip(*columns, strict=True)
    ]
    asked = [body for body in bodies if not isinstance(body, ImageError)]
    answers, seconds = _asked(detector, asked)
    if len(answers) != len(asked):
        raise RuntimeError(f"the detector gave {len(answers)} answers for {len(asked)} images")
    for answer in answers:
        _check_answer(answer)
    remaining = iter(answers)
    results = [body if isinstance(body, ImageError) else next(remaining) for body in bodies]
    return Answers(results, seconds)


def _asked(detector: ImageDetector, bodies: Sequence[bytes]) -> Answers:
    if isinstance(detector, IsolatedDetector):  # which may be busy with another question first
        return detector.ask(bodies)
    started = time.perf_counter()
    answers = detector(bodies) if bodies else []
    return Answers(answers, time.perf_counter() - started)


def _check_answer(answer: object) -> None:
    if isinstance(answer, ImageError):
        return
    if not isinstance(answer, LabelledImage):
        raise RuntimeError(
            f"the detector answered with a {type(answer).__name__}: must be a LabelledImage or an "
            "ImageError"
        )
    columns = (answer.boxes_xyxy, answer.scores, answer.class_ids)
    shapes = tuple(np.shape(column) for column in columns)
    count = len(answer.scores)
    if shapes != ((count, 4), (count,), (count,)):
        raise RuntimeError(
            f"the detector answered with boxes_xyxy, scores, class_ids of shapes {shapes}: must be "
            "(N, 4), (N,), (N,)"
        )


def _boxes_of(results: Sequence[LabelledImage | ImageError]) -> _Boxes:
    labelled = {row: image for row, image in enumerate(results) if isinstance(image, LabelledImage)}
    columns = [image.box_columns() for image in labelled.values()]
    counts = np.array([len(image.scores) for image in labelled.values()], np.int64)
    return _Boxes(
        np.repeat(np.array(list(labelled), np.int64), counts),
        {field.name: _joined([of[field.name] for of in columns], field) for field in _OF_THE_BOX},
    )


def _joined(columns: Sequence[npt.NDArray[Any]], field: pa.Field) -> npt.NDArray[Any]:
    """(K,) of a field's type, also where there is nothing to join."""
    dtype = field.type.to_pandas_dtype()
    return np.concatenate([np.empty(0, dtype), *columns]).astype(dtype)


def _check_class_ids(class_ids: npt.NDArray[np.int32], num_classes: int) -> None:
    wrong = class_ids[(class_ids < 0) | (class_ids >= num_classes)]
    if len(wrong):
        raise RuntimeError(
            f"the detector answered with class id {wrong[0]}: it has {num_classes} class_names, so "
            f"it must be between 0 and {num_classes - 1}"
        )


def _refuse_what_is_not_finite(
    results: Sequence[LabelledImage | ImageError], boxes: _Boxes
) -> tuple[list[LabelledImage | ImageError], _Boxes]:
    """Errors in place of images with a box or a score that is not finite, and the others' boxes."""
    finite = np.isfinite(np.stack(list(boxes.columns.values()))).all(axis=0)
    refused = np.unique(boxes.rows[~finite])
    kept = list(results)
    for row in refused:
        kept[row] = ImageError(ErrorKind.NOT_FINITE, "the detector gave NaN or infinite numbers")
    return kept, boxes.taken(~np.isin(boxes.rows, refused))


def _on_their_images(results: Sequence[LabelledImage | ImageError], boxes: _Boxes) -> _Boxes:
    """Clipped, without those that then have no area, by image and falling score."""
    sizes = [
        (0, 0) if isinstance(result, ImageError) else (result.width, result.height)
        for result in results
    ]
    width, height = np.array(sizes, np.float32).reshape(-1, 2)[boxes.rows].T  # (K,) each
    limits = {"x1": width, "y1": height, "x2": width, "y2": height}
    clipped = {name: boxes.columns[name].clip(0, limit) for name, limit in limits.items()}
    x1, y1, x2, y2 = clipped.values()
    boxes = boxes._replace(columns={**boxes.columns, **clipped})
    # What lies beside the image, as in the padding of a canvas, has no area on it.
    boxes = boxes.taken((x1 < x2) & (y1 < y2))
    return boxes.taken(np.lexsort((-boxes.columns["score"], boxes.rows)))


def _found(boxes: _Boxes, num_images: int, class_names: Sequence[str]) -> pa.ListArray:
    """(num_images,) lists of blocks.FOUND; an empty list for an image that failed."""
    counts = np.bincount(boxes.rows, minlength=num_images)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    columns = {name: pa.array(column) for name, column in boxes.columns.items()}
    names = pa.array(class_names, pa.string())
    columns["class_name"] = pa.DictionaryArray.from_arrays(columns["class_id"], names)
    structs = pa.StructArray.from_arrays([columns[f.name] for f in FOUND], fields=list(FOUND))
    return pa.ListArray.from_arrays(offsets, structs)
