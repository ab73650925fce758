"""YOLO's text labels with Ultralytics' data.yaml."""

import yaml

from pipelines.exports.lineage import description
from pipelines.exports.naming import stem_of
from pipelines.exports.output import Output
from pipelines.exports.selection import Box, Photo, Selection

PHOTOS = "images"
SPLIT = "train.txt"
DATA_YAML = "data.yaml"


def write_yolo(selection: Selection, output: Output) -> None:
    """`labels/`, the list of photos `train.txt`, and `data.yaml`.

    An image without boxes has an empty file. A failed one has no file and is not in the list, for
    what is in it without boxes is a negative. The photos are looked for in `images/`.
    """
    output.write_all(
        (f"labels/{stem_of(photo.name)}.txt", _labels(photo)) for photo in selection.labelled()
    )
    with output.open(SPLIT) as file:
        for photo in selection.labelled():
            file.write(f"./{PHOTOS}/{photo.name}\n".encode())
    output.write_all([(DATA_YAML, _data_yaml(selection).encode())])


def _labels(photo: Photo) -> bytes:
    return "".join(f"{_line(box, photo)}\n" for box in photo.boxes).encode()


def _line(box: Box, photo: Photo) -> str:
    """Class and centre, width and height in shares of the photo's sides."""
    shares = (
        (box.x1 + box.x2) / 2 / photo.width,
        (box.y1 + box.y2) / 2 / photo.height,
        (box.x2 - box.x1) / photo.width,
        (box.y2 - box.y1) / photo.height,
    )
    return " ".join(map(str, (box.class_number, *shares)))


def _data_yaml(selection: Selection) -> str:
    data = {"train": SPLIT, "val": SPLIT, "names": dict(enumerate(selection.class_names))}
    text: str = yaml.safe_dump(data, allow_unicode=True, sort_keys=False)
    note = "val is train again, for Ultralytics wants one: name other photos there"
    return f"# {description(selection)}\n# {note}\n{text}"
