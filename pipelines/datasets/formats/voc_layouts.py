"""Where VOC's XML files and their photos lie: in VOC's own folders, or side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.datasets.files import is_photo, may_be_photo, read_lines
from pipelines.datasets.formats.splits import chosen
from pipelines.datasets.photo_names import Matches, Photos, match_names, tail_notes
from pipelines.errors import InputError
from pipelines.storage import Folder

ANNOTATIONS = "Annotations"
PHOTOS = "JPEGImages"
SPLITS = "ImageSets/Main"


@dataclass(frozen=True)
class VocLayout:
    """The files of a source. A stem is a file's path below the place of its kind, without suffix:
    `Annotations/cam1/a.xml` and `JPEGImages/cam1/a.jpg` both have `cam1/a`.
    """

    folder: Folder
    names: Sequence[str]
    """Of all files below the folder."""
    xml_names: Mapping[str, str]
    """Below the folder, by their stem."""
    photos: Folder
    at: str
    """The place of the photos below their folder, with a slash at its end, or ""."""
    photo_names: Mapping[str, Sequence[str]]
    """Below the folder of the photos, by their stem."""

    def photo_uris(self) -> frozenset[str]:
        every = (name for names in self.photo_names.values() for name in names)
        return frozenset(map(self.photos.uri_of, every))


def voc_layout(source: str, images: str) -> VocLayout:
    """Args:
        images: the folder of the photos; "" where they lie below the source.

    Raises:
        InputError: there are no annotations, or no photos.
    """
    folder = Folder(source)
    names = folder.list()
    below = _place(names, (ANNOTATIONS, ANNOTATIONS.lower()), is_xml)
    xml_names = {stem: found[0] for stem, found in _by_stem(names, below, is_xml).items()}
    if not xml_names:
        raise InputError(
            f"{folder.uri} has no {ANNOTATIONS}/*.xml: the source of VOC annotations is the folder "
            f"that holds {ANNOTATIONS}/ and {PHOTOS}/, or one with XML files beside its photos"
        )
    photos = Folder(images) if images else folder
    photo_names = photos.list() if images else names
    at = "" if images else _place(names, (PHOTOS, PHOTOS.lower(), "images"), is_photo)
    by_stem = _by_stem(photo_names, at, may_be_photo if images or at else is_photo)
    if not by_stem:
        raise InputError(
            f"{photos.uri} has no {PHOTOS}/*.jpg and no other photos: say with --images where "
            "they are"
        )
    return VocLayout(folder, names, xml_names, photos, f"{at}/" if at else "", by_stem)


def is_xml(name: str) -> bool:
    return name.lower().endswith(".xml")


def stem_of(path: str) -> str:
    r"""A path without its suffix, `C:\photos\a.jpg` too."""
    return str(PurePosixPath(path.replace("\\", "/")).with_suffix("")) if path else ""


def _place(names: Sequence[str], folders: Iterable[str], is_one: Callable[[str], bool]) -> str:
    """The first of the folders that has files of a kind, or "" for the source itself."""
    found = (at for at in folders if _by_stem(names, at, is_one))
    return next(found, "")


def _by_stem(
    names: Iterable[str], below: str, is_one: Callable[[str], bool]
) -> dict[str, list[str]]:
    start = f"{below}/" if below else ""
    by_stem: dict[str, list[str]] = {}
    for name in names:
        if name.startswith(start) and is_one(name):
            by_stem.setdefault(stem_of(name.removeprefix(start)), []).append(name)
    return by_stem


def listed(layout: VocLayout, splits: Sequence[str]) -> list[tuple[str, str]]:
    """(stem, where) of every image that the splits name, or without splits of all.

    Raises:
        InputError: there is no such split.
    """
    every = [(stem, layout.folder.uri_of(name)) for stem, name in layout.xml_names.items()]
    if not splits:
        return every
    lists = {
        stem_of(name.removeprefix(f"{SPLITS}/")): layout.folder.uri_of(name)
        for name in layout.names
        if name.startswith(f"{SPLITS}/") and name.endswith(".txt")
    }
    folders = {stem.partition("/")[0] for stem in layout.xml_names if "/" in stem}
    names = chosen(layout.folder.uri, splits, lists or folders)
    if lists:
        return [line for name in names for line in _of_list(lists[name])]
    return [(stem, where) for stem, where in every if stem.partition("/")[0] in names]


def _of_list(uri: str) -> list[tuple[str, str]]:
    # CVAT puts names with spaces in quotes.
    return [(line.strip('"'), f"{uri}:{number}") for number, line in read_lines(uri)]


def photos_of(layout: VocLayout, filenames: Mapping[str, str]) -> Photos:
    """The photos by the stems of their XML files.

    A photo has the stem of its XML file, for the <filename> inside often lies; only where there is
    none, it is one of that name which no XML file has the stem of.

    Args:
        filenames: as the files say, by their stem.
    """
    by_stem = match_names(layout.xml_names, layout.photo_names)
    inside = {stem: stem_of(name) for stem, name in filenames.items() if stem not in by_stem.found}
    free = layout.photo_names.keys() - layout.xml_names.keys() - set(by_stem.found.values())
    by_filename = match_names(inside.values(), free)
    found = dict(by_stem.found)
    found |= {s: by_filename.found[name] for s, name in inside.items() if name in by_filename.found}
    doubts = {stem: doubt for stem, doubt in by_stem.doubts.items() if stem not in found}
    names = {s: _named(layout.photo_names[stem], filenames.get(s, "")) for s, stem in found.items()}
    missing = {stem: f"{layout.at}{stem}.jpg" for stem in layout.xml_names if stem not in found}
    return Photos(
        layout.photos,
        Matches({**missing, **names}, doubts),
        layout.photo_uris(),
        [*tail_notes(by_stem), *tail_notes(by_filename), *_of_others(layout, found)],
    )


def _of_others(layout: VocLayout, found: Mapping[str, str]) -> list[str]:
    others = len(layout.photo_names.keys() - set(found.values()))
    if not others:
        return []
    count = f"{others:,} of {len(layout.photo_names):,} photos have no XML file"
    return [f"{count}: nobody has said what is on them, and they are left out"]


def _named(names: Sequence[str], filename: str) -> str:
    """Of photos that differ in their suffix only, the one that the XML names, or the first."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    return next((name for name in names if name.rpartition("/")[2] == last), names[0])
