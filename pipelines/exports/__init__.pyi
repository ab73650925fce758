from .config import ExportConfig, FormatName
from .database import check_memory, scratch_database
from .export import Exported, export_table
from .selection import Counts

__all__ = [
    "Counts",
    "ExportConfig",
    "Exported",
    "FormatName",
    "check_memory",
    "export_table",
    "scratch_database",
]
