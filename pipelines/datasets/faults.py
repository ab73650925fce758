"""What can be wrong with annotations, and where it stands."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum


class FaultKind(StrEnum):
    """A fault costs what it is found on, a box or an image; only what is clipped stays."""

    UNREADABLE = "unreadable"
    """A file, a line or an entry that is not of its format, or a photo with a damaged header."""
    MISSING_IMAGE = "missing_image"
    """A photo that is not there, or boxes on an image that the file does not list."""
    AMBIGUOUS_IMAGE = "ambiguous_image"
    """A name that several photos may be meant by, or one photo by several names."""
    DUPLICATE_IMAGE = "duplicate_image"
    UNKNOWN_CLASS = "unknown_class"
    UNWANTED_CLASS = "unwanted_class"
    """One that the given classes leave out."""
    NOT_FINITE = "not_finite"
    ZERO_AREA = "zero_area"
    OUTSIDE = "outside"
    """Wholly outside the image."""
    DUPLICATE_BOX = "duplicate_box"
    """The same box of the same class again on the same image."""
    CLIPPED = "clipped"
    """More than a pixel beyond the image's edge: the part on the image is kept."""
    INCOMPLETE_IMAGE = "incomplete_image"
    """Some of its annotations could not be read, or none of them could be used."""


COST_THE_IMAGE = frozenset({FaultKind.UNREADABLE, FaultKind.UNKNOWN_CLASS, FaultKind.NOT_FINITE})
"""Of an annotation: something is on the image, and nobody knows what or where. Without it, the
model would learn that nothing is there."""
COST_THE_LAST_BOX = COST_THE_IMAGE | {FaultKind.ZERO_AREA, FaultKind.OUTSIDE}
"""If no box is left after them, the image is none of which somebody said that nothing is on it."""


class Fault(Exception):  # noqa: N818 - most are collected, and are no errors of the program
    """One thing that is wrong. It costs a box or an image, so it is collected and not raised far.

    `where` is the file with its line, or with the annotation's id.
    """

    def __init__(self, kind: FaultKind, where: str, message: str) -> None:
        super().__init__(_printable(message))
        self.kind = kind
        self.where = _printable(where)


def _printable(text: str) -> str:
    """Names of files may be bytes that are no text, and JSON can write half a character."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextmanager
def collected(faults: list[Fault]) -> Iterator[None]:
    """A fault raised inside goes to the end of the list, and the code goes on after the block."""
    try:
        yield
    except Fault as fault:
        faults.append(fault)
