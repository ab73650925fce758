"""Photos by the names that annotations have for them, which may be names of another machine."""

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.files import is_photo, may_be_photo
from pipelines.errors import InputError
from pipelines.storage import Folder, folder_and_name, is_s3

_Key = tuple[str, ...]
_SAYS_NOTHING = "images"
"""What many a tool calls the folder of all photos."""


@dataclass(frozen=True)
class Matches:
    """What there is, by the names that it was looked for."""

    found: Mapping[str, str]
    doubts: Mapping[str, str]
    """Why it is not clear which one a name means, by that name."""

    def by_tail(self) -> dict[str, str]:
        """Those that there are under another name only."""
        return {
            name: there for name, there in self.found.items() if posixpath.normpath(name) != there
        }


def match_names(wanted: Iterable[str], present: Collection[str]) -> Matches:
    r"""Paths as annotations have them, for paths below a folder.

    A path that is not there as it is written stands for another one if one of them is the tail of
    the other: `C:\photos\cam1\a.jpg` for `cam1/a.jpg`, `a.jpg` for `train/a.jpg`. Backslashes
    are slashes then, and neither case nor Unicode's two ways to write an `ä` matter, nor whether
    all lies in a folder `images`. `train/a.jpg` and `val/a.jpg` are never the same. A photo that
    several names stand for so, or a name with several photos, is in doubt.
    """
    wanted, present = list(dict.fromkeys(wanted)), frozenset(present)
    exact = {name: there for name in wanted if (there := _as_written(name, present))}
    others = [name for name in wanted if name not in exact]
    candidates = _by_tail(others, present) if others else {}
    certain = exact | {name: there for name, (there, *more) in candidates.items() if not more}
    claims = Counter(there for name, there in certain.items() if name in candidates)
    claims.update(set(exact.values()))
    doubts = {
        name: f"may be any of {_some(several)}"
        for name, several in candidates.items()
        if several[1:]
    }
    doubts |= {
        name: f"is one of several names that {there} could have"
        for name, there in certain.items()
        if name in candidates and claims[there] > 1
    }
    return Matches({name: certain[name] for name in certain if name not in doubts}, doubts)


def _as_written(name: str, present: frozenset[str]) -> str:
    normal = posixpath.normpath(name)
    return next((there for there in (name, normal) if there in present), "")


def _by_tail(names: Iterable[str], present: Iterable[str]) -> dict[str, list[str]]:
    """Of each name all that share most of its end with it, where there are any."""
    by_last: dict[str, list[tuple[_Key, str]]] = {}
    for there in sorted(present):
        key = _key(there)
        keys = [key, key[1:]] if key[0] == _SAYS_NOTHING and key[1:] else [key]
        by_last.setdefault(key[-1], []).extend((key, there) for key in keys)
    return {name: found for name in names if (found := _best(_key(name), by_last))}


def _best(key: _Key, by_last: Mapping[str, Sequence[tuple[_Key, str]]]) -> list[str]:
    shared = {
        there: min(len(key), len(other))
        for other, there in by_last.get(key[-1], ())
        if key[-len(other) :] == other[-len(key) :]
    }
    most = max(shared.values(), default=0)
    return [there for there, length in shared.items() if length == most]


def _key(name: str) -> _Key:
    parts = unicodedata.normalize("NFC", name).casefold().replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".")) or ("",)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def tail_notes(matches: Matches) -> list[str]:
    """That photos were found under other names, if so."""
    if not (moved := matches.by_tail()):
        return []
    name, there = next(iter(moved.items()))
    count = f"{len(moved):,} of {len(matches.found):,}"
    return [f"{count} photos were found by the tail of their name: {name} is {there}"]


@dataclass(frozen=True)
class Photos:
    """The photos below a folder, as annotations call them."""

    folder: Folder
    matches: Matches
    uris: frozenset[str] | None = None
    """Of all that are there; None where nobody looked, and every name is believed."""
    notes: Sequence[str] = ()

    def uri_of(self, name: str, where: str) -> str:
        """The photo that is called so; where there is none, that of this name below the folder.

        Raises:
            Fault: several photos may be meant.
        """
        if name in self.matches.doubts:
            message = f"{name} {self.matches.doubts[name]}: write its path in full"
            raise Fault(FaultKind.AMBIGUOUS_IMAGE, where, message)
        if name in self.matches.found:
            return self.folder.uri_of(self.matches.found[name])
        return name if is_s3(name) else self.folder.uri_of(posixpath.normpath(name).lstrip("/"))


def believed_photos(folder: Folder) -> Photos:
    """Photos that nobody looked for: they lie where the annotations say."""
    return Photos(folder, Matches({}, {}))


def find_photos(folder: Folder, present: Collection[str], wanted: Collection[str]) -> Photos:
    """Photos among those that are `present`, paths below the folder, or at s3:// URIs."""
    matches = match_names(wanted, present)
    on_s3 = [name for name in wanted if is_s3(name) and name not in matches.found]
    uris = frozenset([*map(folder.uri_of, present), *on_s3])
    return Photos(folder, matches, uris, tail_notes(matches))


def list_photos(annotations_uri: str, images: str) -> tuple[Folder, list[str]]:
    """The folder of the photos, or else that of the annotations, and the photos below it.

    Raises:
        InputError: there are none.
    """
    if images:
        folder = Folder(images)
        names = list(filter(may_be_photo, folder.list()))
        missing = f"images={images!r} holds no photos: give the folder of the photos"
    else:
        folder, _ = folder_and_name(annotations_uri)
        names = list(filter(is_photo, folder.list()))
        missing = f"{annotations_uri} has no photos with it: say with --images where they are"
    if not names:
        raise InputError(missing)
    return folder, names
