"""Which of the names below a source are listed: photos by their suffix, or what globs say."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.photos import PHOTO_SUFFIXES

_SIDE_CAR = "._*"
"""What macOS puts beside a photo on disks that are not its own."""
_EXCLUDED = "excluded"


@dataclass
class Selection:
    """Says of each name whether it is listed, and counts those that are not."""

    include: Sequence[str] = ()
    """Globs: only what matches one of them, whatever its suffix."""
    exclude: Sequence[str] = ()
    """Globs: nothing that matches one of them."""
    all_files: bool = False
    """Whether the suffix does not matter."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Names that were not taken, by their suffix or by what left them out."""

    def takes(self, name: str) -> bool:
        """Whether to list a file, by its path below the source."""
        why = self._why_not(name)
        if why:
            self.left_out[why] += 1
        return not why

    def _why_not(self, name: str) -> str:
        if self.exclude and any(matches(name, glob) for glob in self.exclude):
            return _EXCLUDED
        if self.include:
            return "" if any(matches(name, glob) for glob in self.include) else _EXCLUDED
        base = name.rpartition("/")[2]
        if self.all_files:
            return ""
        if base.startswith("._"):
            return _SIDE_CAR
        stem, dot, suffix = base.rpartition(".")
        is_photo = not (dot and stem) or suffix.lower() in PHOTO_SUFFIXES
        return "" if is_photo else f".{suffix.lower()}"


def matches(path: str, glob: str, *, whole: bool = False) -> bool:
    """Whether a path matches a glob; one without `/` is about the last part, if not the `whole`.

    `*` and `?` stand for characters other than `/`, `**` for all, `[ab]` for one of some.
    """
    if "/" not in glob and not whole:
        path = path.rpartition("/")[2]
    return re.fullmatch(_pattern(glob), path, re.DOTALL) is not None


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_MEANINGS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _pattern(glob: str) -> str:
    return "".join(_meaning(token) for token in _TOKENS.findall(glob))


def _meaning(token: str) -> str:
    if token in _MEANINGS:
        return _MEANINGS[token]
    if len(token) > 2 and token.startswith("["):
        inside = token[1:-1].replace("\\", r"\\")
        return f"[^{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
    return re.escape(token)


def split_glob(uri: str, specials: str) -> tuple[str, str | None]:
    """(what stands before the first part with one of `specials`, the glob), or (uri, None)."""
    first = next((place for place, letter in enumerate(uri) if letter in specials), None)
    if first is None:
        return uri, None
    base = uri[: uri.rfind("/", 0, first) + 1]
    return base, uri[len(base) :]
