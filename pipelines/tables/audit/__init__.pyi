from .findings import Broken
from .table import AuditConfig, RunAudit, audit_table

__all__ = ["AuditConfig", "Broken", "RunAudit", "audit_table"]
