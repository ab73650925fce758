from .config import ExportConfig, FormatName
from .export import Exported, export_table
from .selection import Counts

__all__ = [
    "Counts",
    "ExportConfig",
    "Exported",
    "FormatName",
    "export_table",
]
