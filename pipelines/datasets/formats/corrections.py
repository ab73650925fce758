"""corrections.json, as the page of a review saves it: what people said of photos of a run.

{"format": "yolox-ray corrections", "version": 1, "photos": [
    {"image_uri": …, "etag": …, "run": …, "decision": "accepted" | "corrected" | "rejected",
     "by": …, "boxes": [{"class_name": …, "x1": …, …, "source": "model" | "person"}]}]}
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines import storage
from pipelines.datasets.annotations import AnnotatedBox
from pipelines.errors import InputError

_FORMAT, _VERSION = "yolox-ray corrections", 1
_DECISIONS = ("accepted", "corrected", "rejected")
_NAMED = 5
"""Photos in an error message."""


@dataclass(frozen=True)
class Correction:
    """What somebody decided about one photo."""

    image_uri: str
    etag: str | None
    run: str
    is_rejected: bool
    boxes: Sequence[Mapping[str, Any]]


def read_corrections(uri: str) -> dict[str, Correction]:
    """What was decided, by the photo's URI.

    Raises:
        InputError: it is no such file, or of another version.
    """
    try:
        content = json.loads(storage.read_bytes(uri))
    except ValueError as error:
        raise InputError(f"corrections={uri!r} is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"corrections={uri!r} was not saved by the page of yolox-ray review")
    if content.get("version") != _VERSION:
        raise InputError(
            f"corrections={uri!r} is of version {content.get('version')!r}, and this reads "
            f"{_VERSION}: save it again from a review that this version wrote"
        )
    try:
        found = [_correction(photo) for photo in content["photos"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"corrections={uri!r} has a photo without {error}") from error
    return {correction.image_uri: correction for correction in found}


def _correction(photo: Mapping[str, Any]) -> Correction:
    if photo["decision"] not in _DECISIONS:
        raise ValueError(f"one of the decisions {', '.join(_DECISIONS)}")
    boxes = [
        {name: box[name] for name in ("class_name", "x1", "y1", "x2", "y2")}
        for box in photo["boxes"]
    ]
    rejected = photo["decision"] == "rejected"
    return Correction(photo["image_uri"], photo["etag"], photo["run"], rejected, boxes)


def check_corrections(
    uri: str,
    corrections: Iterable[Correction],
    images: Mapping[str, Mapping[str, Any]],
    run: str,
    class_names: Sequence[str],
) -> None:
    """Hold corrections to the run that they are about; all of them count, or none.

    Args:
        images: rows of the run with `etag`, by image_uri.

    Raises:
        InputError: some are of another run or of photos that it has not, that have changed since,
            or name a class that the run has not; the photos are named.
    """
    wrong = [
        f"{correction.image_uri} ({why})"
        for correction in corrections
        if (why := _why_wrong(correction, images, run, class_names))
    ]
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise InputError(
            f"corrections={uri!r} does not fit the run {run!r}, and none of it is used: "
            f"{'; '.join(wrong[:_NAMED])}{more}. Give the --run that was reviewed, or review again"
        )


def _why_wrong(
    correction: Correction,
    images: Mapping[str, Mapping[str, Any]],
    run: str,
    class_names: Sequence[str],
) -> str:
    if correction.run != run:
        return f"it is about run {correction.run!r}"
    if correction.image_uri not in images:
        return "the run has no such photo"
    if correction.etag != images[correction.image_uri]["etag"]:
        return "the photo has changed since the review"
    unknown = {box["class_name"] for box in correction.boxes} - set(class_names)
    return f"the run has no class {sorted(unknown)[0]!r}" if unknown else ""


def boxes_of(correction: Correction, class_names: Sequence[str], where: str) -> list[AnnotatedBox]:
    """As annotations; the score of what the model said no longer matters."""
    return [
        AnnotatedBox(
            class_names.index(box["class_name"]),
            (box["x1"], box["y1"], box["x2"], box["y2"]),
            f"{where}: {correction.image_uri}: box {number}",
        )
        for number, box in enumerate(correction.boxes)
    ]
