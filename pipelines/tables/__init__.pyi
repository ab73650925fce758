from . import runs
from .audit import AuditConfig, RunAudit, audit_table
from .commits import Commits, parts_of, ranges_of
from .compaction import CompactionConfig, compact_table
from .connection import check_memory, spilling_connection
from .ddl import ddl
from .layout import RunFolders, part_name
from .ledger import Ledger, read_ledger
from .query import (
    Views,
    open_run,
    open_runs,
    open_table,
    query_run,
    query_table,
    read_rows,
    run_query,
    summarise,
)
from .removal import Kept, Removal, drop_old_runs, drop_run
from .run_list import list_runs
from .runs import RunRecord, RunSettings
from .schema import (
    CLASS_NAMES_KEY,
    DETECTIONS,
    FAILED,
    IMAGES,
    LABELLED,
    LISTED,
    MANIFEST,
    TRAINING,
)

__all__ = [
    "CLASS_NAMES_KEY",
    "DETECTIONS",
    "FAILED",
    "IMAGES",
    "LABELLED",
    "LISTED",
    "MANIFEST",
    "TRAINING",
    "AuditConfig",
    "Commits",
    "CompactionConfig",
    "Kept",
    "Ledger",
    "Removal",
    "RunAudit",
    "RunFolders",
    "RunRecord",
    "RunSettings",
    "Views",
    "audit_table",
    "check_memory",
    "compact_table",
    "ddl",
    "drop_old_runs",
    "drop_run",
    "list_runs",
    "open_run",
    "open_runs",
    "open_table",
    "part_name",
    "parts_of",
    "query_run",
    "query_table",
    "ranges_of",
    "read_ledger",
    "read_rows",
    "run_query",
    "runs",
    "spilling_connection",
    "summarise",
]
