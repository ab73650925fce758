"""Label Studio's tasks with predictions, to be corrected there."""

from collections.abc import Iterator
from itertools import chain, islice
from statistics import fmean
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pipelines.exports.output import Output
from pipelines.exports.selection import Box, Photo, Selection
from pipelines.exports.text import write_list
from pipelines.storage import is_s3

CONFIG = "label_config.xml"
TASKS_PER_FILE = 50_000
"""Label Studio takes some 200 MB at a time."""

_LOCAL_FILES = "/data/local-files/?d="
"""How it names local photos, below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT: here `/`."""
_FROM, _TO = "label", "image"


def write_label_studio(selection: Selection, output: Output) -> None:
    """`tasks-001.json` and so on, and `label_config.xml`, the labelling interface they need.

    An image without boxes has an empty prediction. Failed images, on which nobody could see
    anything, are no tasks.
    """
    tasks = (_task(photo, selection.location_of(photo)) for photo in selection.labelled())
    for number, some in enumerate(_in_files(tasks), start=1):
        with output.open(f"tasks-{number:03d}.json") as file:
            write_list(file, some)
    output.write_all([(CONFIG, _label_config(selection).encode())])


def _in_files(tasks: Iterator[dict[str, Any]]) -> Iterator[Iterator[dict[str, Any]]]:
    """The tasks of each file; at least one file, which may have none."""
    yield islice(tasks, TASKS_PER_FILE)
    for first in tasks:
        yield chain([first], islice(tasks, TASKS_PER_FILE - 1))


def _task(photo: Photo, location: str) -> dict[str, Any]:
    image = location if is_s3(location) else f"{_LOCAL_FILES}{quote(location.lstrip('/'))}"
    prediction: dict[str, Any] = {
        "model_version": photo.run,
        "result": [_region(box, photo) for box in photo.boxes],
    }
    if photo.boxes:
        prediction["score"] = fmean(box.score for box in photo.boxes)
    return {
        "id": photo.number,
        "data": {"image": image, "image_uri": photo.uri, "run": photo.run},
        "predictions": [prediction],
    }


def _region(box: Box, photo: Photo) -> dict[str, Any]:
    """Corners are percents of the photo's sides."""
    return {
        "id": f"box-{box.detection_index}",
        "type": "rectanglelabels",
        "from_name": _FROM,
        "to_name": _TO,
        "original_width": photo.width,
        "original_height": photo.height,
        "image_rotation": 0,
        "score": box.score,
        "value": {
            "x": 100 * box.x1 / photo.width,
            "y": 100 * box.y1 / photo.height,
            "width": 100 * (box.x2 - box.x1) / photo.width,
            "height": 100 * (box.y2 - box.y1) / photo.height,
            "rotation": 0,
            "rectanglelabels": [box.class_name],
        },
    }


def _label_config(selection: Selection) -> str:
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in selection.class_names)
    return (
        f'<View>\n  <Image name="{_TO}" value="$image"/>\n'
        f'  <RectangleLabels name="{_FROM}" toName="{_TO}">\n'
        f"{labels}\n  </RectangleLabels>\n</View>\n"
    )
