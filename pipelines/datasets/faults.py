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
    DUPLICATE_IMAGE = "duplicate_image"
    UNKNOWN_CLASS = "unknown_class"
    NOT_FINITE = "not_finite"
    ZERO_AREA = "zero_area"
    OUTSIDE = "outside"
    """Wholly outside the image."""
    DUPLICATE_BOX = "duplicate_box"
    """The same box of the same class again on the same image."""
    CLIPPED = "clipped"
    """More than a pixel beyond the image's edge: the part on the image is kept."""


class Fault(Exception):  # noqa: N818 - most are collected, and are no errors of the program
    """One thing that is wrong. It costs a box or an image, so it is collected and not raised far.

    `where` is the file with its line, or with the annotation's id.
    """

    def __init__(self, kind: FaultKind, where: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.where = where


@contextmanager
def collected(faults: list[Fault]) -> Iterator[None]:
    """A fault raised inside goes to the end of the list, and the code goes on after the block."""
    try:
        yield
    except Fault as fault:
        faults.append(fault)
