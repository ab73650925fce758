"""Pascal VOC: a folder with Annotations/*.xml, ImageSets/Main/*.txt and JPEGImages/."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pipelines.datasets.annotations import AnnotatedBox, AnnotatedImage, Annotations
from pipelines.datasets.faults import Fault, FaultKind, collected
from pipelines.datasets.files import read_files
from pipelines.errors import InputError
from pipelines.photos import ImageError
from pipelines.storage import Folder

ANNOTATIONS = "Annotations"
PHOTOS = "JPEGImages"
SPLITS = "ImageSets/Main"

_Names = Mapping[str, Sequence[str]]  # of files, by their stem
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("width", "height")


@dataclass(frozen=True)
class _Document:
    """An XML file with the line that each of its elements starts on."""

    uri: str
    root: Element
    lines: Mapping[Element, int]

    def objects(self) -> Iterator[tuple[str, Element]]:
        """(where, element) of every annotated object."""
        for element in self.root.findall("object"):
            yield f"{self.uri}:{self.lines[element]}", element


def read_voc(source: str, splits: Sequence[str], class_names: Sequence[str]) -> Annotations:
    """The annotations of some splits, or without splits all of them.

    Without `class_names` the classes are those of all annotation files in alphabetical order, so
    that every split of a source has the same ones.

    VOC counts pixels from 1, and both corners lie inside the box: xmin=1, xmax=640 are all columns
    of a photo of 640, here 0 to 640. Corners in one row or column of pixels, which a click without
    a drag leaves, make a box without area. A `difficult` object is flagged as a crowd, for VOC's
    rule is that it counts neither as found nor as missed.

    Raises:
        InputError: there are no annotations, no photos, or no such split.
    """
    folder = Folder(source)
    xml_names = {stem: names[0] for stem, names in _by_stem(folder, ANNOTATIONS, ".xml").items()}
    photo_names = _by_stem(folder, PHOTOS)
    unclaimed = {stem: names for stem, names in photo_names.items() if stem not in xml_names}
    listed = _listed(folder, splits) if splits else _all_of(folder, xml_names)
    needed = {stem for stem, _ in listed} & set(xml_names) if class_names else set(xml_names)
    documents = _read_documents({stem: folder.uri_of(xml_names[stem]) for stem in needed})
    class_names = class_names or _names_in(documents.values())
    class_ids = {name: index for index, name in enumerate(class_names)}

    faults: list[Fault] = []
    images = []
    for stem, where in listed:
        with collected(faults):
            document = documents.get(stem) or _no_xml(stem, where)
            if isinstance(document, Fault):
                raise document
            photo = folder.uri_of(_photo_name(document, stem, photo_names, unclaimed))
            images.append(_image(document, photo, where, class_ids, faults))
    return Annotations(
        class_names=class_names,
        images=images,
        faults=faults,
        photo_uris={folder.uri_of(name) for names in photo_names.values() for name in names},
    )


def _by_stem(folder: Folder, below: str, suffix: str = "") -> dict[str, list[str]]:
    """The names of files, by their paths below a sub-folder without their suffix."""
    by_stem: dict[str, list[str]] = {}
    for name in folder.list(below):
        if name.endswith(suffix):
            stem = PurePosixPath(name).relative_to(below).with_suffix("")
            by_stem.setdefault(str(stem), []).append(name)
    if not by_stem:
        raise InputError(
            f"{folder.uri} has no {below}/*{suffix}: the source of VOC annotations is the folder "
            f"that holds {ANNOTATIONS}/ and {PHOTOS}/"
        )
    return by_stem


def _all_of(folder: Folder, xml_names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(stem, folder.uri_of(name)) for stem, name in xml_names.items()]


def _listed(folder: Folder, splits: Iterable[str]) -> list[tuple[str, str]]:
    """(stem, where) of every image that the splits name."""
    listed = []
    for split in splits:
        name = f"{SPLITS}/{split}.txt"
        try:
            lines = folder.read(name).decode("utf-8-sig").splitlines()
        except FileNotFoundError as error:
            known = [PurePosixPath(name).stem for name in folder.list(SPLITS)]
            raise InputError(
                f"split={split!r}: {folder.uri_of(name)} is not there; {SPLITS}/ has {known}"
            ) from error
        except UnicodeDecodeError as error:
            raise InputError(f"{folder.uri_of(name)} is not UTF-8 text: {error}") from error
        where = folder.uri_of(name)
        stems = ((number, line.strip()) for number, line in enumerate(lines, start=1))
        listed += [(stem, f"{where}:{number}") for number, stem in stems if stem]
    return listed


def _read_documents(uris: Mapping[str, str]) -> dict[str, _Document | Fault]:
    bodies = read_files(list(uris.values()))
    return {stem: _parse(uri, body) for (stem, uri), body in zip(uris.items(), bodies, strict=True)}


def _parse(uri: str, body: bytes | ImageError) -> _Document | Fault:
    if isinstance(body, ImageError):
        return Fault(FaultKind.UNREADABLE, uri, str(body))
    builder, parser = TreeBuilder(), expat.ParserCreate()
    lines: dict[Element, int] = {}

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(body, True)
        return _Document(uri, builder.close(), lines)
    # LookupError and ValueError: an encoding that Python or expat does not know.
    except (expat.ExpatError, LookupError, ValueError) as error:
        return Fault(FaultKind.UNREADABLE, f"{uri}:{parser.CurrentLineNumber}", str(error))


def _refuse_doctype(*_: object) -> None:
    # Entities that stand for each other can unfold a kilobyte to gigabytes; VOC has none.
    raise ValueError("has a DOCTYPE, which VOC does not have")


def _names_in(documents: Iterable[_Document | Fault]) -> list[str]:
    read = [document for document in documents if isinstance(document, _Document)]
    names = {_class_name(element) for document in read for _, element in document.objects()}
    return sorted(names - {""})


def _no_xml(stem: str, where: str) -> Fault:
    return Fault(FaultKind.UNREADABLE, where, f"{ANNOTATIONS}/{stem}.xml is not there")


def _photo_name(document: _Document, stem: str, photos: _Names, unclaimed: _Names) -> str:
    """The photo with the stem of the XML file, for the <filename> inside often lies; only where
    there is none, a photo of that name which no other XML file has the stem of.
    """
    filename = PurePosixPath(document.root.findtext("filename", "").strip())
    names = photos.get(stem) or unclaimed.get(filename.stem) or [f"{PHOTOS}/{stem}.jpg"]
    return next((name for name in names if name.endswith(f"/{filename}")), names[0])


def _image(
    document: _Document, photo: str, where: str, class_ids: Mapping[str, int], faults: list[Fault]
) -> AnnotatedImage:
    boxes = []
    for box_where, element in document.objects():
        with collected(faults):
            boxes.append(_box(element, box_where, class_ids))
    width, height = (_side(document.root.findtext(f"size/{side}", "")) for side in _SIDES)
    return AnnotatedImage(photo, where, boxes, width, height)


def _side(text: str) -> int:
    """Pixels, or 0 where there is no number: then the photo's header tells."""
    return int(text) if text.strip().isdecimal() else 0


def _box(element: Element, where: str, class_ids: Mapping[str, int]) -> AnnotatedBox:
    texts = [element.findtext(f"bndbox/{corner}", "") for corner in _CORNERS]
    try:
        xmin, ymin, xmax, ymax = map(float, texts)
    except ValueError as error:
        message = f"bndbox has {dict(zip(_CORNERS, texts, strict=True))}"
        raise Fault(FaultKind.UNREADABLE, where, message) from error
    class_name = _class_name(element)
    if class_name not in class_ids:
        raise Fault(FaultKind.UNKNOWN_CLASS, where, f"no class is named {class_name!r}")
    if xmin >= xmax or ymin >= ymax:
        raise Fault(FaultKind.ZERO_AREA, where, f"{class_name} {', '.join(texts)}")
    return AnnotatedBox(
        class_ids[class_name],
        (xmin - 1, ymin - 1, xmax, ymax),
        where,
        is_crowd=element.findtext("difficult", "").strip() == "1",
    )


def _class_name(element: Element) -> str:
    return element.findtext("name", "").strip()
