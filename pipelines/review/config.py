"""What a review shows, and where it goes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """Which photos of a table are to be looked at."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    output: str
    """A folder or s3:// prefix for the page and its pictures; it must not hold anything yet."""
    run: str = ""
    """The run to look at; without it, and without --sql, the newest complete one."""
    sql: str = ""
    """A query, in DuckDB's SQL, whose rows name the photos by image_uri, for example "FROM
    latest_detections WHERE class_name = 'dog'". They are shown as the newest complete run that
    looked at each saw them."""
    max_photos: int = 500
    """Of more, a sample is drawn: of each class, of the failures of each kind and of the photos
    without boxes as many, as far as there are."""
    seed: int = 0
    """Another one draws another sample."""
    threshold: float = 0.3
    """Where the slider of scores begins."""
    side: int = 1024
    """Longest side of the pictures in the page, in pixels."""
    max_image_bytes: int = 256 * 1024 * 1024
    """Larger files are not fetched."""
    max_pixels: int = 100_000_000
    """Larger images are not decoded."""

    def __post_init__(self) -> None:
        if self.run and self.sql:
            raise ValueError(f"run={self.run!r}, sql={self.sql!r}: give one of the two")
        for name in ("max_photos", "side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold}: must lie between 0 and 1")
