"""Which runs to compare, and how."""

from dataclasses import dataclass
from typing import Literal

from pipelines.tables import check_memory

MAX_DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class ComparisonConfig:
    """Two runs, of one table or of two."""

    table: str
    """The folder or s3:// prefix that jobs.label wrote to."""
    before: str
    """The run to compare with."""
    after: str
    """The run that is compared."""
    after_table: str = ""
    """Default: the same table."""
    iou: float = 0.5
    """Boxes of one class that overlap by at least so much may be one."""
    min_score: float = 0.0
    """Boxes of a lower score are left out, on both sides."""
    by: Literal["prefix", "day"] = "prefix"
    """Changes are also counted by folder of the photos, or by the UTC day on which the second run
    labelled them."""
    depth: int = 1
    """With --by prefix: so many folders below the deepest one that holds all photos."""
    top: int = 20
    """So many of the photos that changed most are named."""
    memory_mb: int = 2048
    """What DuckDB may use; the rest goes to TMPDIR."""

    def __post_init__(self) -> None:
        if not 0 < self.iou <= 1:
            raise ValueError(f"iou={self.iou}: must be more than 0 and at most 1")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score={self.min_score}: a score lies between 0 and 1")
        if not 1 <= self.depth <= MAX_DEPTH:
            raise ValueError(f"depth={self.depth}: must be 1 to {MAX_DEPTH}")
        if self.top < 0:
            raise ValueError(f"top={self.top}: must not be negative")
        check_memory(self.memory_mb)
