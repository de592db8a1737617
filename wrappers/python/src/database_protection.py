# SPDX-License-Identifier: MIT
"""chromashim under the names that programs with a protection service of their own use.

Timed backups are the guardian's (`chromashim run`, CHROMASHIM_EVERY), not a thread's in here.
"""

import uuid
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Optional

import chromashim

__all__ = ["DatabaseProtectionService", "get_protection_service", "protected_db_operation"]

# Before these a backup is taken without being asked for.
RISKY = ("collection_delete", "collection_recreate", "database_reset", "bulk_update", "bulk_delete",
         "schema_migration", "migration")


class DatabaseProtectionService:
    """Backups are chromashim's snapshots; a backup is named by its number."""

    def __init__(self, db_path=None, backup_interval_hours: Optional[float] = None):
        self.db_path = db_path
        self.backup_interval_hours = backup_interval_hours

    @contextmanager
    def protected_operation(self, operation_name: str, force_backup: bool = False):
        """Gives a dict with operation_id, operation, backup, backup_path, start_time."""
        with chromashim.protected_operation(
                operation_name, snapshot=_snapshot(operation_name, force_backup),
                directory=self.db_path) as operation:
            yield {"operation_id": f"{operation_name}_{uuid.uuid4().hex[:12]}",
                   "operation": operation_name, "backup": operation.snapshot,
                   "backup_path": operation.snapshot, "start_time": datetime.now()}

    def create_backup(self, description: str = "") -> dict[str, Any]:
        """Takes a snapshot, opened and checked. Its `id`, `state`, `records` and so on."""
        return chromashim.create_snapshot(self.db_path, description or "backup")

    def emergency_backup(self) -> dict[str, Any]:
        return self.create_backup("emergency backup")

    def list_backups(self) -> list[dict[str, Any]]:
        """The newest first."""
        return chromashim.snapshots(self.db_path)[::-1]

    def restore_backup(self, backup="latest", output=None) -> str:
        """In place, for which nobody may have the directory open; or into `output`."""
        if isinstance(backup, dict):
            backup = backup["id"]
        return chromashim.restore(backup, self.db_path, output)

    def health_check(self) -> dict[str, Any]:
        """What `chromashim check` finds, whether it is healthy, and the newest verified backup."""
        found = chromashim.check(self.db_path)
        verified = [s for s in self.list_backups() if s["state"] == "verified"]
        return {**found, "healthy": found["verdict"] in ("fine", "warning"),
                "status": {"fine": "healthy"}.get(found["verdict"], found["verdict"]),
                "protection_active": chromashim.active() > 0,
                "last_backup": verified[0]["time"] if verified else None}

    get_health_status = health_check

    def start_protection(self) -> None:
        """Nothing to start: the library protects from the first open on."""

    def stop_protection(self) -> None:
        """Nothing to stop."""


def _snapshot(name: str, force: bool):
    if force:
        return "always"
    return any(word in name.lower() for word in RISKY)


_service: Optional[DatabaseProtectionService] = None


def get_protection_service(db_path=None) -> DatabaseProtectionService:
    """The one of this process; db_path is taken from the first call."""
    global _service
    if _service is None:
        _service = DatabaseProtectionService(db_path)
    return _service


def protected_db_operation(operation_name: str, force_backup: bool = False):
    """Decorator of functions, also async ones."""
    def decorate(function):
        # Looked up late: the service may be made after the module that decorates is imported.
        return chromashim.protected_operation(
            operation_name, snapshot=_snapshot(operation_name, force_backup),
            directory=lambda: get_protection_service().db_path)(function)
    return decorate
