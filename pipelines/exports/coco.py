"""COCO's instances file, with the scores that COCO's results have."""

from collections.abc import Iterator
from typing import Any

from pipelines.exports.lineage import description
from pipelines.exports.output import Output
from pipelines.exports.selection import Box, Photo, Selection
from pipelines.exports.text import write_object

PHOTOS = "images"
INSTANCES = "instances.json"


def write_coco(selection: Selection, output: Output) -> None:
    """`instances.json`; `file_name` is below the folder of the photos, `coco_url` the whole URI.

    Failed images are not in it: an image without annotations is one on which nothing is.
    """
    categories = enumerate(selection.class_names, start=1)
    with output.open(INSTANCES) as file:
        write_object(
            file,
            {
                "info": {"description": description(selection), "runs": list(selection.runs)},
                "categories": [{"id": number, "name": name} for number, name in categories],
                "images": map(_image, selection.labelled()),
                "annotations": _annotations(selection),
            },
        )


def _image(photo: Photo) -> dict[str, Any]:
    return {
        "id": photo.number,
        "file_name": photo.name,
        "width": photo.width,
        "height": photo.height,
        "coco_url": photo.uri,
        "run": photo.run,
    }


def _annotations(selection: Selection) -> Iterator[dict[str, Any]]:
    # pycocotools takes an annotation with id 0 for one that nothing was matched to.
    number = 0
    for photo in selection.labelled():
        for box in photo.boxes:
            number += 1
            yield {"id": number, "image_id": photo.number, **_annotation(box)}


def _annotation(box: Box) -> dict[str, Any]:
    # float32 corners as float64: their differences are exact, and x + width is the corner again.
    width, height = box.x2 - box.x1, box.y2 - box.y1
    return {
        "category_id": box.class_number + 1,
        "bbox": [box.x1, box.y1, width, height],
        "area": width * height,
        "iscrowd": 0,
        "score": box.score,
    }
