"""Files of a source: which are photos, texts in any encoding, and many files at once."""

import codecs
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image

from pipelines.errors import InputError
from pipelines.photos import (
    PHOTO_SUFFIXES,
    ErrorKind,
    Fetched,
    ImageError,
    ImageRef,
    fetch,
    read_size,
)
from pipelines.storage import folder_and_name, read_bytes, why_named

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Larger files are not fetched."""
_FILES_AT_ONCE = 256
"""Held in memory together."""

_NO_PHOTO_SUFFIXES = (".txt", ".xml", ".json", ".cache", ".npy")
"""Of annotations, and of what Ultralytics writes beside them."""
_ORIENTATION = 0x0112  # EXIF's tag
_TURNED_BY_A_QUARTER = (5, 6, 7, 8)


def is_photo(name: str) -> bool:
    """Whether a file is a photo by its name; what macOS puts beside one (`._a.jpg`) is none."""
    base = name.rpartition("/")[2]
    _, dot, suffix = base.rpartition(".")
    return bool(dot) and suffix.lower() in PHOTO_SUFFIXES and not base.startswith("._")


def may_be_photo(name: str) -> bool:
    """Whether a file in a folder of photos is one, whatever its suffix."""
    return not name.endswith(_NO_PHOTO_SUFFIXES)


def is_file(uri: str) -> bool:
    folder, name = folder_and_name(uri)
    return folder.exists(name)


def read_lines(uri: str) -> list[tuple[int, str]]:
    """(number, text) of the lines of a text file that are not empty.

    Raises:
        InputError: there is no such file, it may not be read, or is no UTF-8.
    """
    body = read_bytes(uri)
    try:
        text = as_text(body)
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{uri}:{line} is not UTF-8 text: save the file again with that encoding"
        ) from error
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in numbered if line]


def as_text(body: bytes, errors: str = "strict") -> str:
    """What is in a text file: UTF-8, or UTF-16 if it begins with the mark that Windows writes."""
    is_utf_16 = body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return body.decode("utf-16" if is_utf_16 else "utf-8-sig", errors)


def why_not_fetched(error: ImageError) -> str:
    """As `storage.why`, of one of many files."""
    match error.kind:
        case ErrorKind.GONE:
            return "it is not there"
        case ErrorKind.DENIED:
            return "you may not read it"
    return why_named(str(error))


def read_files(uris: Sequence[str]) -> Iterator[bytes | ImageError]:
    """The bytes of every file, or why there are none, in the order given; side by side from S3."""
    return (file.body for file in _fetched(uris))


class Measured(NamedTuple):
    """A photo that was read for its size."""

    width: int
    height: int
    etag: str | None


def read_sizes(uris: Sequence[str]) -> Iterator[Measured | ImageError]:
    """The size of every photo after EXIF orientation, or why there is none.

    Photos are read whole: a JPEG's size may stand behind previews of any length.
    """
    for file in _fetched(uris):
        try:
            if isinstance(file.body, ImageError):
                raise file.body
            yield Measured(*_oriented_size(file.body), file.etag)
        except ImageError as error:
            yield error


def _fetched(uris: Sequence[str]) -> Iterator[Fetched]:
    for start in range(0, len(uris), _FILES_AT_ONCE):
        refs = [ImageRef(uri) for uri in uris[start : start + _FILES_AT_ONCE]]
        yield from fetch(refs, MAX_FILE_BYTES)


def _oriented_size(data: bytes) -> tuple[int, int]:
    width, height = read_size(data)
    return (height, width) if _is_turned(data) else (width, height)


def _is_turned(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(_ORIENTATION) in _TURNED_BY_A_QUARTER
    except Exception:  # damaged EXIF, which raises whatever PIL meets in it and turns no photo
        return False
