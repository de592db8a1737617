# SPDX-License-Identifier: MIT
"""Another boot for a process: whoever asks it for the boot's id gets that of a file. As root."""

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MS_BIND = 0x4000, 0x40000, 0x1000
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def libc_must(name: str, *args: Any) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*args):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def own_mounts(more: int = 0) -> None:
    libc_must("unshare", CLONE_NEWNS | more)
    libc_must("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def enter(boot: str) -> None:
    """After own_mounts()."""
    libc_must("mount", boot.encode(), BOOT_ID.encode(), None, MS_BIND, None)


def make(file: Path) -> Path:
    file.write_text("01234567-89ab-cdef-0123-456789abcdef\n", encoding="ascii")
    return file


def possible(file: Path) -> bool:
    """Root in a container may not be allowed to mount."""
    mount = f'mount --bind "$0" {BOOT_ID}'
    return subprocess.run(["unshare", "--mount", "sh", "-c", mount, file], capture_output=True,
                          check=False).returncode == 0
