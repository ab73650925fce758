"""write_review(): a folder that people open in a browser, from the disk, without a server."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

import jinja2
from markupsafe import Markup

from pipelines import storage
from pipelines.errors import InputError
from pipelines.photos import ImageError
from pipelines.review.config import ReviewConfig
from pipelines.review.contact_sheet import class_colour
from pipelines.review.sample import Sample, draw_sample
from pipelines.review.thumbnails import Thumbnail, thumbnails
from pipelines.storage import Folder

PAGE = "index.html"
_SCRIPTS = (
    *("photos.js", "kinds.js", "gallery.js", "classes.js", "viewer.js"),
    *("decisions.js", "pointer.js", "saving.js", "begin.js"),
)


@dataclass(frozen=True)
class WrittenReview:
    """What a folder holds."""

    page: str
    photos: int
    drawn_from: int
    failed: int
    """Of the photos, those without a picture."""


def write_review(config: ReviewConfig, sample: Sample | None = None) -> WrittenReview:
    """Write a page with photos and what was found on them.

    Args:
        sample: what to show; without it, photos are drawn from the table.

    Raises:
        InputError: as `draw_sample` and `empty_folder` do, or the output cannot be written.
    """
    output = empty_folder(config.output)
    sample = sample or draw_sample(config)
    try:
        photos = [
            _photo(output, number, image, sample, thumbnail)
            for number, (image, thumbnail) in enumerate(
                zip(sample.images, thumbnails(sample.images, config), strict=True)
            )
        ]
        output.write(PAGE, _page(config, sample, photos))
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"{config.output} cannot be written: {error}") from error
    failed = sum(photo["thumbnail"] is None for photo in photos)
    return WrittenReview(output.uri_of(PAGE), len(photos), sample.num_images, failed)


def empty_folder(uri: str) -> Folder:
    """Where something new can be written.

    Raises:
        InputError: something is there already, or nobody can look.
    """
    folder = Folder(uri)
    try:
        is_empty = folder.is_empty()
    except storage.STORAGE_ERRORS as error:
        raise InputError(f"{uri} cannot be used: {storage.why(error)}") from error
    if not is_empty:
        raise InputError(f"{uri} is not empty: give a folder of its own")
    return folder


def _photo(
    output: Folder, number: int, image: Mapping[str, Any], sample: Sample, thumbnail: Thumbnail
) -> dict[str, Any]:
    """What the page knows of a photo, whose picture is written."""
    kind, message = image["error_kind"], image["error_message"]
    name = f"photos/{number:05d}.jpg"
    if isinstance(thumbnail, ImageError):
        kind, message = kind or str(thumbnail.kind), message or str(thumbnail)
    else:
        output.write(name, thumbnail)
    return {
        "uri": image["image_uri"],
        "name": PurePosixPath(image["image_uri"]).name,
        "etag": image["etag"],
        "run": image["run"],
        "width": image["width"],
        "height": image["height"],
        "error_kind": kind,
        "error_message": message,
        "thumbnail": None if isinstance(thumbnail, ImageError) else name,
        "boxes": [_box(box, sample) for box in sample.boxes.get(image["image_uri"], [])],
    }


def _box(box: Mapping[str, Any], sample: Sample) -> list[float | None]:
    corners = [round(box[side], 2) for side in ("x1", "y1", "x2", "y2")]
    kinds = [kind.name for kind in sample.kinds]
    compared = [kinds.index(box["kind"]), box.get("was")] if kinds else []
    return [*corners, round(box["score"], 4), box["class_id"], *compared]


def _page(config: ReviewConfig, sample: Sample, photos: list[dict[str, Any]]) -> bytes:
    classes = [
        {
            "id": number,
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*class_colour(number)),
            "of_run": name not in sample.foreign_classes,
        }
        for number, name in enumerate(sample.class_names)
    ]
    kinds = [{"id": number, **asdict(kind)} for number, kind in enumerate(sample.kinds)]
    data = {"table": config.table, "classes": classes, "kinds": kinds, "photos": photos}
    data["id"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]
    template = jinja2.Environment(autoescape=True).from_string(_source("page.html"))
    return template.render(
        title=f"Review of {config.table}",
        subtitle=f"{sample.of_what}: {len(photos):,} of {sample.num_images:,} photos",
        kinds=kinds,
        threshold=config.threshold,
        css=_verbatim("page.css"),
        script=Markup("\n").join(map(_verbatim, _SCRIPTS)),
        data=_as_script(data),
    ).encode()


def _source(name: str) -> str:
    return files("pipelines.review").joinpath("page", name).read_text()


def _verbatim(name: str) -> Markup:
    return Markup(_source(name))


def _as_script(data: Mapping[str, Any]) -> str:
    """JSON that can end no script element, whatever a photo is called."""
    return Markup(json.dumps(data).replace("<", "\\u003c"))
