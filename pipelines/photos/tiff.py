"""What a TIFF's directory says of its pixels, to tell why they do not decode."""

import io
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2 as Directory

_BITS, _SAMPLE_FORMAT = 258, 339
_PIECES = ((273, 279), (324, 325))
"""Tags of where strips and tiles begin, and of how long they are."""

_KINDS = {1: "whole", 2: "signed", 3: "floating-point"}


def end_of_pixels(data: bytes) -> int:
    """Where the last of the pixels, or of the directory, ends by the file's own word, in bytes."""
    directory = _directory(data)
    if directory is None:
        return int(Directory(data[:8]).next) + 2 if len(data) >= 8 else 8
    ends = [0]
    for starts, lengths in _PIECES:
        pieces = zip(directory.get(starts, ()), directory.get(lengths, ()), strict=False)
        ends += [start + length for start, length in pieces]
    return max(ends)


def unknown_layout(data: bytes) -> str | None:
    """The layout of the pixels, where it alone is what PIL cannot read."""
    directory = _directory(data)
    if directory is None or _is_known(data):
        return None
    bits, formats = directory.get(_BITS, (1,)), directory.get(_SAMPLE_FORMAT, (1,))
    return f"{len(bits)} x {bits[0]} bits ({_KINDS.get(formats[0], 'unknown')} numbers)"


def _directory(data: bytes) -> Any:
    """None where it cannot be read."""
    try:
        directory = Directory(data[:8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
    except Exception:  # a damaged directory raises whatever its parsing meets
        return None
    return directory if len(directory) else None


def _is_known(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)):
            return True
    except Exception:  # as above
        return False
