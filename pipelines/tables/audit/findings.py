"""What an audit finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """A promise that is not kept."""

    promise: str
    what: str
    count: int
    """Of rows, files or images, as `what` says."""
    example: str
