# SPDX-License-Identifier: MIT
"""./chromadb_backups: the files in which people look for what was done to their database."""

import os
import time
from pathlib import Path

from . import _command
from ._protect import say_once

FOLDER = "chromadb_backups"
LOG = "critical_operations.log"
LOG_MOST = 1 << 20  # bytes; one older file is kept
EXPORTS = 5  # of the newest


def _now(form: str) -> str:
    return time.strftime(form, time.gmtime())


def note(outcome: str, operation: str, **more) -> None:
    """A line: time, outcome, operation, and what else is known. Never raises: the operation goes on."""
    words = [_now("%Y-%m-%dT%H:%M:%SZ"), outcome, operation]
    words += [f"{key}={value}" for key, value in more.items() if value is not None]
    line = " ".join(" ".join(str(word).split()) for word in words) + "\n"
    try:
        os.makedirs(FOLDER, exist_ok=True)
        path = os.path.join(FOLDER, LOG)
        if os.path.exists(path) and os.path.getsize(path) > LOG_MOST:
            os.replace(path, path + ".1")
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line.encode(errors="surrogateescape"))  # at once: others write as well
        finally:
            os.close(file)
    except OSError as error:
        say_once(LOG, f"{FOLDER}/{LOG} cannot be written: {error}")


def export(directory: str) -> str:
    """All records of the directory as conversations-TIME.jsonl, which is its name then."""
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, f"conversations-{_now('%Y%m%dT%H%M%SZ')}.jsonl")
    _command.call("export", f"--output={path}", directory, accept=(0, 3))
    for old in sorted(Path(FOLDER).glob("conversations-*.jsonl"))[:-EXPORTS]:
        old.unlink(missing_ok=True)
    return path
