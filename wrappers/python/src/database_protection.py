# SPDX-License-Identifier: MIT
"""chromashim under the names that programs with a protection service of their own use.

Critical ones, and what fails, have lines in ./chromadb_backups/critical_operations.log.

Timed backups are the guardian's, a process beside this one; not a thread's in here.
"""

import os
import subprocess
import threading
import uuid
from contextlib import ContextDecorator
from datetime import datetime
from typing import Any, Optional

import chromashim
from chromashim import _command, _journal
from chromashim._protect import decorated, is_decorated, say_once

__all__ = ["DatabaseProtectionService", "get_protection_service", "protected_db_operation"]

# Before these a backup is taken without being asked for.
RISKY = ("collection_delete", "collection_recreate", "database_reset", "bulk_update", "bulk_delete",
         "schema_migration", "migration")


class _ProtectedOperation(ContextDecorator):
    """Gives a dict with operation_id, operation, backup, backup_path, start_time."""

    def __init__(self, name: str, force_backup: bool, directory):
        snapshot = _snapshot(name, force_backup)
        self._is_critical = bool(snapshot)
        self._under = chromashim.protected_operation(name, snapshot=snapshot, directory=directory)

    def _recreate_cm(self):
        again = object.__new__(type(self))
        again._is_critical = self._is_critical
        again._under = self._under._recreate_cm()
        return again

    def __call__(self, function):
        return decorated(self, function)

    def _begin(self, operation: chromashim.Operation) -> dict[str, Any]:
        described = {"operation_id": f"{operation.name}_{uuid.uuid4().hex[:12]}",
                     "operation": operation.name, "backup": operation.snapshot,
                     "backup_path": operation.snapshot, "start_time": datetime.now()}
        self._noted = (operation.name, described["operation_id"])
        if self._is_critical:
            _journal.note("begin", operation.name, id=described["operation_id"],
                          snapshot=operation.snapshot)
        return described

    def _end(self, value) -> None:
        name, number = self._noted
        error = None if value is None else f"{type(value).__name__}: {value}"
        if self._is_critical or error:
            _journal.note("failed" if error else "done", name, id=number, error=error)

    def __enter__(self) -> dict[str, Any]:
        return self._begin(self._under.__enter__())

    def __exit__(self, kind, value, trace) -> bool:
        self._end(value)
        return self._under.__exit__(kind, value, trace)

    async def __aenter__(self) -> dict[str, Any]:
        return self._begin(await self._under.__aenter__())

    async def __aexit__(self, kind, value, trace) -> bool:
        self._end(value)
        return await self._under.__aexit__(kind, value, trace)


class DatabaseProtectionService:
    """Backups are chromashim's snapshots; a backup is named by its number."""

    def __init__(self, db_path=None, backup_interval_hours: Optional[float] = None):
        if backup_interval_hours is not None and backup_interval_hours < 0:
            raise ValueError("backup_interval_hours cannot be less than 0 (no backups by the clock)")
        self.db_path = db_path
        self.backup_interval_hours = backup_interval_hours

    def protected_operation(self, operation_name: str, force_backup: bool = False):
        """For `with` and `async with`, and as a decorator."""
        return _ProtectedOperation(operation_name, force_backup, self.db_path)

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
        """What `chromashim check` finds, whether it is healthy, and the newest verified backup.

        Never raises: where nothing can be found out, `verdict` is "unknown" and `error` says why.
        """
        try:
            found = chromashim.check(self.db_path)
            verified = [s for s in self.list_backups() if s["state"] == "verified"]
        except Exception as error:  # whatever it is: this is asked for by monitoring
            found, verified = {"verdict": "unknown", "findings": [], "error": str(error)}, []
        return {**found, "healthy": found["verdict"] in ("fine", "warning"),
                "status": {"fine": "healthy"}.get(found["verdict"], found["verdict"]),
                "protection_active": chromashim.active() > 0,
                "last_backup": verified[0]["time"] if verified else None}

    get_health_status = health_check

    def start_protection(self) -> bool:
        """Backups by the clock, without the library as well. False: there will be none, which is
        said on stderr, as it is where they are taken less often than was asked for."""
        every = None
        if self.backup_interval_hours is not None:
            every = round(self.backup_interval_hours * 3_600_000)
            every = max(1000, every) if self.backup_interval_hours else 0
        try:
            other = _command.start_guardian(self.db_path, every)
        except (chromashim.ChromashimError, OSError, subprocess.SubprocessError) as error:
            say_once(f"guardian {self.db_path}", f"no backups will be made by the clock: {error}")
            return False
        if other:
            say_once(f"every {self.db_path} {every}", other)
        return True

    def stop_protection(self) -> None:
        """Nothing to stop: the guardian ends with the last process that has the directory open."""


def _snapshot(name: str, force: bool):
    if force:
        return "always"
    return any(word in name.lower() for word in RISKY)


_services: dict[str, DatabaseProtectionService] = {}
_services_lock = threading.Lock()


def get_protection_service(db_path=None) -> DatabaseProtectionService:
    """The one of this directory; without db_path the first that was asked for."""
    with _services_lock:
        if db_path is None and _services:
            return next(iter(_services.values()))
        key = os.path.realpath(_command.directory_of(db_path))
        if key not in _services:
            _services[key] = DatabaseProtectionService(db_path)
        return _services[key]


def protected_db_operation(operation_name="", force_backup: bool = False):
    """Decorator of functions, generators, and async ones of both; with parentheses or without."""
    if is_decorated(operation_name):
        return protected_db_operation()(operation_name)

    def decorate(function):
        name = operation_name or getattr(function, "__name__", "operation")
        # Looked up late: the service may be made after the module that decorates is imported.
        return _ProtectedOperation(name, force_backup,
                                   lambda: get_protection_service().db_path)(function)
    return decorate
