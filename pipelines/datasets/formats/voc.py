"""Pascal VOC's XML, which labelImg, CVAT, Label Studio and Roboflow write too."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from xml.etree.ElementTree import Element

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import read_files
from pipelines.datasets.formats.classes import Classes
from pipelines.datasets.formats.voc_layouts import (
    ANNOTATIONS,
    VocLayout,
    listed,
    photos_of,
    voc_layout,
)
from pipelines.datasets.formats.xml_files import XmlFile, parse_xml

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("width", "height")


def read_voc(
    source: str, splits: Sequence[str], class_names: Sequence[str], images: str = ""
) -> Annotations:
    """The annotations of some splits, or without splits all of them.

    Without `class_names` the classes are those of all annotation files in alphabetical order, so
    that every split of a source has the same ones.

    VOC counts pixels from 1, and both corners lie inside the box: xmin=1, xmax=640 are all columns
    of a photo of 640, here 0 to 640. Corners in one row or column of pixels, which a click without
    a drag leaves, make a box without area. A `difficult` object is flagged as a crowd, for VOC's
    rule is that it counts neither as found nor as missed.

    Args:
        source: VOC's folder (Annotations/, JPEGImages/, ImageSets/Main/), or one of XML files.
        splits: files of ImageSets/Main, or the sub-folders of the XML files.
        images: the folder of the photos; "" where they lie below the source.

    Raises:
        InputError: there are no annotations, no photos, or no such split.
    """
    layout = voc_layout(source, images)
    wanted = listed(layout, splits)
    needed = {stem for stem, _ in wanted} & layout.xml_names.keys()
    files, broken = _read_xml(layout, needed if class_names else layout.xml_names.keys())
    classes = Classes.of(class_names, _names_in(files.values()))
    photos = photos_of(layout, {stem: _text(file.root, "filename") for stem, file in files.items()})
    faults: list[Fault] = []
    images_read = []
    for stem, where in wanted:
        with collected(faults):
            if stem not in files:
                raise broken.get(stem) or _no_xml(stem, where)
            uri = photos.uri_of(stem, where)
            images_read.append(_image(files[stem], uri, where, classes))
    return Annotations(
        class_names=list(classes.ids),
        images=images_read,
        faults=faults,
        photo_uris=photos.uris,
        notes=photos.notes,
    )


def _read_xml(
    layout: VocLayout, stems: Collection[str]
) -> tuple[dict[str, XmlFile], dict[str, Fault]]:
    """The files by their stem, and those that cannot be read."""
    uris = {stem: layout.folder.uri_of(layout.xml_names[stem]) for stem in sorted(stems)}
    files, broken = {}, {}
    for (stem, uri), body in zip(uris.items(), read_files(list(uris.values())), strict=True):
        try:
            files[stem] = _voc(parse_xml(uri, body))
        except Fault as fault:
            broken[stem] = fault
    return files, broken


def _voc(file: XmlFile) -> XmlFile:
    if file.root.tag != "annotation":
        # Of another format, in which nothing is called an object: not an image without any.
        message = f"begins with <{file.root.tag}> where VOC has <annotation>: export it as VOC"
        raise Fault(FaultKind.UNREADABLE, file.where(file.root), message)
    return file


def _no_xml(stem: str, where: str) -> Fault:
    return Fault(FaultKind.UNREADABLE, where, f"{ANNOTATIONS}/{stem}.xml is not there")


def _names_in(files: Iterable[XmlFile]) -> set[str]:
    return {_text(element, "name") for file in files for element in file.root.findall("object")}


def _image(file: XmlFile, photo: str, where: str, classes: Classes) -> AnnotatedImage:
    faults: list[Fault] = []
    boxes = []
    for box_where, element, bndbox in _drawn(file, faults):
        with collected(faults):
            boxes.append(_box(element, bndbox, box_where, classes))
    width, height = (_side(_text(file.root, f"size/{side}")) for side in _SIDES)
    return AnnotatedImage(photo, where, boxes, width, height, faults)


def _side(text: str) -> int:
    """Pixels, or 0 where there is no number: then the photo's header tells."""
    return int(text) if text.isdecimal() else 0


def _drawn(file: XmlFile, faults: list[Fault]) -> Iterator[tuple[str, Element, Element]]:
    """(where, object, bndbox) of every box; an object may have several."""
    for element in file.root.findall("object"):
        bndboxes = element.findall("bndbox")
        if not bndboxes:
            parts = ", ".join(child.tag for child in element if len(child)) or "nothing"
            message = f"an object without a bndbox, it has {parts}: draw it as a box"
            faults.append(Fault(FaultKind.UNREADABLE, file.where(element), message))
        for bndbox in bndboxes:
            yield file.where(bndbox if bndbox in bndboxes[1:] else element), element, bndbox


def _box(element: Element, bndbox: Element, where: str, classes: Classes) -> AnnotatedBox:
    texts = [_text(bndbox, corner) for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = map(float, texts)
    except ValueError as error:
        message = f"bndbox has {dict(zip(_CORNERS, texts, strict=True))}"
        raise Fault(FaultKind.UNREADABLE, where, message) from error
    class_name = _text(element, "name")
    class_id = classes.id_of(class_name, where)
    if x1 == x2 or y1 == y2:
        raise Fault(FaultKind.ZERO_AREA, where, f"{class_name} {', '.join(texts)}")
    # Corners that a tool wrote in another order name the same box.
    (xmin, xmax), (ymin, ymax) = sorted((x1, x2)), sorted((y1, y2))
    is_crowd = _text(element, "difficult") == "1"
    return AnnotatedBox(class_id, (xmin - 1, ymin - 1, xmax, ymax), where, is_crowd=is_crowd)


def _text(element: Element, path: str) -> str:
    return element.findtext(path, "").strip()
