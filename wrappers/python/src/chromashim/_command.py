# SPDX-License-Identifier: MIT
"""What is done by the `chromashim` command."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

from . import _library

DATABASE = "chroma.sqlite3"
NO_STORE = 10
START_SECONDS = 5  # until the guardian is there


class ChromashimError(RuntimeError):
    """The command, or a snapshot that was required, failed. `status` is its exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


def find() -> str:
    """The command: CHROMASHIM_COMMAND, of this installation, in PATH, or beside the loaded library."""
    found = os.environ.get("CHROMASHIM_COMMAND")
    own = _library.installed()
    if not found and own:
        return own[1]
    found = found or shutil.which("chromashim")
    library = _library.path()
    if not found and library:
        folder = Path(library).parent
        for candidate in (folder / "chromashim", *(p / "bin" / "chromashim" for p in folder.parents)):
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return str(candidate)
    if not found:
        raise ChromashimError("there is no `chromashim` command in PATH: install it, or name it "
                              "in CHROMASHIM_COMMAND", 127)
    return found


def call(*arguments: str, accept=(0,)) -> subprocess.CompletedProcess:
    """Runs it; an exit status that is not in `accept` is an error with what it said."""
    try:
        done = subprocess.run([find(), *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, encoding="utf-8", errors="surrogateescape", check=False)
    except OSError as error:
        raise ChromashimError(f"cannot run the chromashim command: {error}", 127) from error
    if done.returncode not in accept:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise ChromashimError(f"chromashim {arguments[0]}: {said.removeprefix('chromashim: ')}",
                              done.returncode)
    return done


def find_here(folder: str = ".") -> list:
    """Data directories in a folder: those with the names that Chroma's users give first."""
    usual = [os.path.join(folder, name) for name in ("chroma_data", "chroma", "chroma_db")]
    found = [path for path in usual if os.path.isfile(os.path.join(path, DATABASE))]
    return found[:1] or sorted(str(path.parent) for path in Path(folder).glob(f"*/{DATABASE}"))


def search() -> str:
    """The directory that is named, open, here, or in the folder above (for `cd backend`)."""
    named = default_directory()
    if os.path.isdir(named) or os.environ.get("CHROMASHIM_DIR"):
        return named
    for folder in (".", ".."):
        found = find_here(folder)
        if len(found) > 1:
            raise ChromashimError("there are several data directories here: " + ", ".join(
                f"'{path}'" for path in found) + ". Name one: --path DIR", 2)
        if found:
            print(f"recover_chromadb: the data directory that is here is taken: '{found[0]}'",
                  file=sys.stderr)
            return found[0]
    return named


def default_directory() -> str:
    """CHROMASHIM_DIR, else the directory whose database this process has open, else the default."""
    named = os.environ.get("CHROMASHIM_DIR", "").split(":")[0]
    if named:
        return named
    try:
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                # Only the link is read: opening and closing the file would drop SQLite's locks.
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:
                continue
            if os.path.basename(target) == DATABASE:
                return os.path.dirname(target)
    except OSError:
        pass
    return "./chroma_data"


def directory_of(directory: Optional[os.PathLike]) -> str:
    name = os.fsdecode(directory) if directory is not None else default_directory()
    return name if not name.startswith("-") else f"./{name}"


def guardian(directory) -> Optional[dict[str, Any]]:
    """What the guardian that works there tells of itself, or None. {}: nothing yet."""
    done = call("status", "--json", directory_of(directory), accept=range(256))
    told = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    if not told.get("guardian"):
        return None
    try:
        with open(os.path.join(told["store"], "status.json"), encoding="utf-8") as file:
            own = json.load(file)
    except (OSError, ValueError):
        return {}
    return own if own.get("pid") == told["guardian"] else {}


def start_guardian(directory=None, every_ms: Optional[int] = None) -> Optional[str]:
    """One that takes snapshots by the clock as long as this process, or any other, has the
    directory open; nothing where there is one already. ChromashimError: it cannot be started. Else
    None, or what is not as it was asked for."""
    name = os.path.abspath(directory_of(directory))
    if not os.path.isfile(os.path.join(name, DATABASE)):
        what = "database in" if os.path.isdir(name) else "directory"
        raise ChromashimError(f"there is no {what} '{name}' yet: start it when Chroma's client is "
                              "there")
    settings = {n: v for n, v in os.environ.items() if n != "LD_PRELOAD"}
    if every_ms is not None:
        settings["CHROMASHIM_EVERY"] = f"{every_ms}ms"
    with tempfile.TemporaryFile() as said:
        # Of a shell that ends at once: it must not be a child of this process, which waits for its
        # own.
        subprocess.run(["/bin/sh", "-c", '"$@" >/dev/null &', "sh", find(), "guard", name,
                        f"--follow={os.getpid()}", "--background"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=said, env=settings, check=True,
                       start_new_session=True)
        told = wait_for_guardian(name, said)
    every = told.get("every_seconds", 0)
    # One that follows nobody gives way to ours; "every" is in whole seconds there, and 0 is never.
    if not every_ms or not told.get("follows") or 0 < every <= max(1, every_ms / 1000):
        return None
    often = f"one every {every} s" if every else "none by the clock"
    return (f"the guardian of '{name}' that is there already takes {often}, and not one every "
            f"{every_ms / 1000:.10g} s: set CHROMASHIM_EVERY where it is started")


def wait_for_guardian(name: str, said) -> dict[str, Any]:
    """Until there is one, or what was started has `said` why not."""
    end = time.monotonic() + START_SECONDS
    while True:
        is_over = os.fstat(said.fileno()).st_size > 0 or time.monotonic() > end
        told = guardian(name)
        if told:
            return told
        if is_over:
            said.seek(0)
            why = " ".join(said.read().decode(errors="replace").split())
            raise ChromashimError(why.removeprefix("chromashim: ") or
                                  f"the guardian of '{name}' does not start")
        time.sleep(0.02)


def create_snapshot(directory=None, description: str = "", verify: bool = True) -> dict[str, Any]:
    """Takes a snapshot. Its `id`, `state`, `records`, `size` and so on."""
    options = [] if verify else ["--no-verify"]
    done = call("snapshot", "create", "--json", "--quiet", *options, f"--description={description}",
                directory_of(directory), accept=(0, 3))
    return json.loads(done.stdout)


def snapshots(directory=None) -> list[dict[str, Any]]:
    """All snapshots of a directory, the oldest first."""
    done = call("snapshot", "list", "--json", directory_of(directory), accept=(0, NO_STORE))
    return json.loads(done.stdout) if done.stdout.strip() else []


def restore(snapshot="latest", directory=None, output=None) -> str:
    """Brings a snapshot back, in place or into `output`. What the command said."""
    where = [f"--output={os.fspath(output)}"] if output is not None else []
    done = call("restore", f"--to={snapshot}", "--yes", *where, directory_of(directory))
    return (done.stdout + done.stderr).strip()


def check(directory=None) -> dict[str, Any]:
    """Judges a directory by its files: `verdict` (fine, warning, damage, unknown), `findings`."""
    done = call("check", "--json", directory_of(directory), accept=(0, 1, 2))
    return json.loads(done.stdout)
