"""corrections.json, as the page of a review saves it: what people said of photos of a run.

{"format": "yolox-ray corrections", "version": 1, "photos": [
    {"image_uri": …, "etag": …, "run": …, "decision": "accepted" | "corrected" | "rejected",
     "by": …, "boxes": [{"class_name": …, "x1": …, …, "source": "model" | "person"}]}]}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.datasets.annotations import AnnotatedBox, Source
from pipelines.datasets.formats.json_files import MALFORMED, read_json, told
from pipelines.errors import InputError
from pipelines.tables import LABELLED

_FORMAT, _VERSION = "yolox-ray corrections", 1
_DECISIONS = ("accepted", "corrected", "rejected")
_SOURCES: Mapping[str, Source] = {"model": "accepted", "person": "person"}
"""What became of a box by what the page calls it: what a person left is as good as accepted."""
_NAMED = 5
"""Photos in an error message."""


@dataclass(frozen=True)
class CorrectedBox:
    class_name: str
    corners: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the photo."""
    source: Source


@dataclass(frozen=True)
class Correction:
    """What somebody decided about one photo."""

    image_uri: str
    etag: str | None
    run: str
    is_rejected: bool
    boxes: Sequence[CorrectedBox]


def read_corrections(uri: str) -> dict[str, Correction]:
    """What was decided, by the photo's URI.

    Raises:
        InputError: it is no such file, or of another version, or holds a photo that cannot be
            understood or that stands there twice; the photos are named.
    """
    photos = _photos(uri)
    found: dict[str, Correction] = {}
    wrong = []
    for number, photo in enumerate(photos):
        try:
            correction = _correction(photo)
            if correction.image_uri in found:
                raise ValueError("it stands there twice")
            found[correction.image_uri] = correction
        except MALFORMED as error:
            name = photo.get("image_uri") if isinstance(photo, dict) else None
            wrong.append(f"{name or f'photos[{number}]'} ({told(error)})")
    _refuse(wrong, f"corrections={uri!r} is damaged", "Save it again from the review")
    return found


def _photos(uri: str) -> Sequence[Any]:
    content = read_json(uri)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(f"corrections={uri!r} was not saved by the page of yolox-ray review")
    if content.get("version") != _VERSION:
        raise InputError(
            f"corrections={uri!r} is of version {content.get('version')!r}, and this reads "
            f"{_VERSION}: save it again from a review that this version wrote"
        )
    photos = content.get("photos")
    if not isinstance(photos, list):
        raise InputError(f"corrections={uri!r} has no list of photos: save it again")
    return photos


def _correction(photo: Mapping[str, Any]) -> Correction:
    if photo["decision"] not in _DECISIONS:
        raise ValueError(f"decision {photo['decision']!r} is none of {', '.join(_DECISIONS)}")
    rejected = photo["decision"] == "rejected"
    boxes = [_box(box) for box in photo["boxes"]]
    return Correction(photo["image_uri"], photo["etag"], photo["run"], rejected, boxes)


def _box(box: Mapping[str, Any]) -> CorrectedBox:
    if box["source"] not in _SOURCES:
        raise ValueError(f"source {box['source']!r} of a box is none of {', '.join(_SOURCES)}")
    corners = (float(box["x1"]), float(box["y1"]), float(box["x2"]), float(box["y2"]))
    return CorrectedBox(box["class_name"], corners, _SOURCES[box["source"]])


def check_corrections(
    uri: str,
    corrections: Iterable[Correction],
    images: Mapping[str, Mapping[str, Any]],
    run: str,
    class_names: Sequence[str],
) -> None:
    """Hold corrections to the run that they are about; all of them count, or none.

    Args:
        images: rows of the run with `etag`, `status` and `error_kind`, by image_uri.

    Raises:
        InputError: some are of another run or of photos that it has not, that have changed since,
            or name a class that the run has not; the photos are named.
    """
    wrong = [
        f"{correction.image_uri} ({why})"
        for correction in corrections
        if (why := _why_wrong(correction, images, run, class_names))
    ]
    _refuse(
        wrong,
        f"corrections={uri!r} does not fit the run {run!r}",
        "Give the --run that was reviewed, or review again",
    )


def _refuse(wrong: Sequence[str], what: str, way_out: str) -> None:
    if wrong:
        more = f" and {len(wrong) - _NAMED:,} more" if len(wrong) > _NAMED else ""
        raise InputError(
            f"{what}, and none of it is used: {'; '.join(wrong[:_NAMED])}{more}. {way_out}"
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
    image = images[correction.image_uri]
    if correction.etag != image["etag"]:
        return "the photo has changed since the review"
    if image["status"] != LABELLED and not correction.is_rejected:
        return f"the run failed on it, {image['error_kind']}: it can be rejected only"
    unknown = {box.class_name for box in correction.boxes} - set(class_names)
    return f"the run has no class {sorted(unknown)[0]!r}" if unknown else ""


def boxes_of(correction: Correction, class_names: Sequence[str], where: str) -> list[AnnotatedBox]:
    """As annotations; the score of what the model said no longer matters."""
    return [
        AnnotatedBox(
            class_names.index(box.class_name),
            box.corners,
            f"{where}: {correction.image_uri}: box {number}",
            source=box.source,
        )
        for number, box in enumerate(correction.boxes)
    ]
