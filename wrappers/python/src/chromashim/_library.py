# SPDX-License-Identifier: MIT
"""The C API of libchromashim.so (include/chromashim.h), if it is in this process."""

import ctypes
import os
from pathlib import Path

SNAPSHOT = 0x1
SNAPSHOT_ALWAYS = 0x2
LIBRARY = Path("libexec/chromashim/libchromashim.so")  # below the environment, from the wheel

_PROTOTYPES = {
    "chromashim_version": (ctypes.c_char_p, []),
    "chromashim_active": (ctypes.c_int, []),
    "chromashim_protect_begin": (ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_uint]),
    "chromashim_protect_snapshot": (ctypes.c_int64, [ctypes.c_uint64]),
    "chromashim_protect_end": (ctypes.c_int, [ctypes.c_uint64, ctypes.c_int]),
}


def _find():
    try:
        library = ctypes.CDLL(None)
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (AttributeError, OSError, TypeError):
        return None
    return library


_library = _find()


def loaded() -> bool:
    """Whether libchromashim.so is in this process."""
    return _library is not None


def active() -> int:
    """How many data directories this process protects now."""
    return max(0, _library.chromashim_active()) if _library else 0


def version():
    """The library's version, or None where it is not loaded."""
    return _library.chromashim_version().decode() if _library else None


def installed():
    """Where the library and the command of this very installation are: two paths, or None. pip puts
    them into libexec and bin of the environment in which this module is, or of --target."""
    for folder in Path(__file__).resolve().parents:
        library, command = folder / LIBRARY, folder / "bin" / "chromashim"
        if library.is_file() and os.access(command, os.X_OK):
            return str(library), str(command)
    return None


def path():
    """Where the loaded library lies, or None."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                if os.path.basename(line.rstrip("\n")).startswith("libchromashim"):
                    return line.rstrip("\n").split(None, 5)[5]
    except OSError:
        pass
    return None


def begin(name: str, flags: int) -> int:
    """The token of an operation that is now recorded; 0: nothing is protected."""
    text = name.replace("\0", " ").encode("utf-8", "replace")
    return _library.chromashim_protect_begin(text, flags) if _library else 0


def snapshot(token: int, directory: str) -> int:
    """The number of that directory's snapshot before it; 0: none; < 0: -errno."""
    try:
        function = _library.chromashim_protect_snapshot_in
    except AttributeError:  # of an older library
        return _library.chromashim_protect_snapshot(token)
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_uint64, ctypes.c_char_p]
    return function(token, os.fsencode(directory))


def end(token: int, outcome: int) -> None:
    """It ended; 0 is success."""
    _library.chromashim_protect_end(token, outcome)
