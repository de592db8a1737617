# SPDX-License-Identifier: MIT
"""Protected operations, snapshots and import for Chroma directories under chromashim."""

from ._command import ChromashimError, check, create_snapshot, default_directory, restore, snapshots
from ._library import active, installed, loaded, version
from ._protect import Operation, protected_operation

__version__ = "0.1.0"
__all__ = ["ChromashimError", "Operation", "active", "check", "create_snapshot",
           "default_directory", "import_jsonl", "installed", "loaded", "protected_operation", "restore",
           "snapshots", "version"]


def __getattr__(name):
    # Only when asked for, so that `python -m chromashim.importer` does not find itself loaded.
    if name == "import_jsonl":
        from .importer import import_jsonl
        return import_jsonl
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
