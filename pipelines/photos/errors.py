"""What can be wrong with a photo."""

from enum import StrEnum
from typing import Self


class ErrorKind(StrEnum):
    """Why an image could not be labelled; the values of `images.error_kind`."""

    GONE = "gone"
    DENIED = "denied"
    CHANGED = "changed"
    IO_ERROR = "io_error"
    EMPTY_OBJECT = "empty_object"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_MANY_PIXELS = "too_many_pixels"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    NOT_FINITE = "not_finite"


class ImageError(Exception):
    """One image cannot be labelled. It costs one row, so it is returned rather than raised far."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[Self], tuple[ErrorKind, str]]:
        # An exception is otherwise made anew from its message alone, when it is unpickled.
        return type(self), (self.kind, str(self))
