"""MegaDetector's output format, which Timelapse, AddaxAI and its own tools read.

https://lila.science/megadetector-output-format
"""

from typing import Any

from pipelines.exports.lineage import description
from pipelines.exports.output import Output
from pipelines.exports.selection import Box, Photo, Selection
from pipelines.exports.text import write_object

RESULTS = "megadetector.json"
FORMAT_VERSION = "1.6"


def write_megadetector(selection: Selection, output: Output) -> None:
    """`megadetector.json`. A failed image has `failure` and no detections, not an empty list."""
    names = enumerate(selection.class_names, start=1)  # 0 stands for "empty" there
    weights = [run["weights_uri"] or "" for run in selection.runs]
    with output.open(RESULTS) as file:
        write_object(
            file,
            {
                "info": {
                    "format_version": FORMAT_VERSION,
                    "detector": ", ".join(uri.rpartition("/")[2] for uri in weights),
                    "summary_report": description(selection),
                },
                "detection_categories": {str(number): name for number, name in names},
                "images": map(_image, selection.photos()),
            },
        )


def _image(photo: Photo) -> dict[str, Any]:
    if photo.failure:
        return {"file": photo.name, "failure": photo.failure, "detections": None}
    return {
        "file": photo.name,
        "width": photo.width,
        "height": photo.height,
        "detections": [_detection(box, photo) for box in photo.boxes],
    }


def _detection(box: Box, photo: Photo) -> dict[str, Any]:
    return {
        "category": str(box.class_number + 1),
        "conf": box.score,
        "bbox": [
            box.x1 / photo.width,
            box.y1 / photo.height,
            (box.x2 - box.x1) / photo.width,
            (box.y2 - box.y1) / photo.height,
        ],
    }
