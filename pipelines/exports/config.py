"""What to export, as which format, and where to."""

from dataclasses import dataclass
from typing import Literal

from pipelines.tables import check_memory

FormatName = Literal["coco", "yolo", "voc", "labelstudio", "megadetector", "csv"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which rows become whose files."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    format: FormatName
    """What each of them loses is said above."""
    output: str
    """The folder or s3:// prefix to write, which must be empty or not be there yet."""
    run: str = ""
    """Default: the newest complete run; with --sql, all complete ones."""
    sql: str = ""
    """Export only what this query names, a SELECT over the views of jobs.query: its rows name
    images by the columns image_uri and run, and boxes if they have a column detection_index too."""
    min_score: float = 0.0
    """Boxes of a lower score are left out. An image that loses all of its boxes stays, as one
    without boxes."""
    copy_photos: bool = False
    """Copy the photos of all labelled images to the output, each under a name of its own. One that
    cannot be read, or has changed since it was labelled, counts as a failed image."""
    memory_mb: int = 2048
    """What DuckDB may use; the rest goes to TMPDIR."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: a score lies between 0 and 1")
        check_memory(self.memory_mb)
