"""Pascal VOC: Annotations/*.xml, ImageSets/Main/*.txt and JPEGImages/."""

import re
from xml.sax.saxutils import escape

from pipelines.exports.naming import stem_of
from pipelines.exports.output import Output
from pipelines.exports.selection import Box, Photo, Selection

PHOTOS = "JPEGImages"
SPLIT = "ImageSets/Main/trainval.txt"

_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write_voc(selection: Selection, output: Output) -> None:
    """An annotation file for each labelled image, without objects where it has no boxes.

    A failed image has no file. The photos are looked for in `JPEGImages/`.
    """
    output.write_all(
        (f"Annotations/{stem_of(photo.name)}.xml", _document(photo, selection.table_uri))
        for photo in selection.labelled()
    )
    with output.open(SPLIT) as file:
        for photo in selection.labelled():
            file.write(f"{stem_of(photo.name)}\n".encode())


def _document(photo: Photo, table_uri: str) -> bytes:
    return (
        f"<annotation>\n  <folder>{PHOTOS}</folder>\n"
        f"  <filename>{_text(photo.name.rpartition('/')[2])}</filename>\n"
        f"  <path>{_text(photo.uri)}</path>\n"
        f"  <source><database>{_text(table_uri)}</database>"
        f"<annotation>{_text(photo.run)}</annotation></source>\n"
        f"  <size><width>{photo.width}</width><height>{photo.height}</height>"
        "<depth>3</depth></size>\n  <segmented>0</segmented>\n"
        f"{''.join(map(_object, photo.boxes))}</annotation>\n"
    ).encode()


def _object(box: Box) -> str:
    """VOC counts pixels from 1, and both corners lie inside the box: it has one pixel at least."""
    xmin, ymin = box.x1 + 1, box.y1 + 1
    xmax, ymax = max(box.x2, xmin), max(box.y2, ymin)
    return (
        f"  <object>\n    <name>{_text(box.class_name)}</name>\n    <pose>Unspecified</pose>\n"
        "    <truncated>0</truncated>\n    <difficult>0</difficult>\n    <bndbox>"
        f"<xmin>{_pixels(xmin)}</xmin><ymin>{_pixels(ymin)}</ymin>"
        f"<xmax>{_pixels(xmax)}</xmax><ymax>{_pixels(ymax)}</ymax></bndbox>\n  </object>\n"
    )


def _pixels(value: float) -> str:
    """Without a fraction where there is none, for some readers know whole numbers only."""
    return str(int(value)) if value.is_integer() else str(value)


def _text(value: str) -> str:
    return escape(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", value))
