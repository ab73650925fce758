"""audit_table(): does a table keep what it promises? Asked of the files alone.

Every run's record, manifest, rows, boxes and files are held to each other, by code that shares
nothing with what wrote or counted them. What an unfinished run still owes is no fault: images
without a row, and detections whose images file is not written yet, which are noted.
"""

from pipelines.tables.audit.findings import Broken
from pipelines.tables.audit.table import AuditConfig, RunAudit, audit_table

__all__ = ["AuditConfig", "Broken", "RunAudit", "audit_table"]
