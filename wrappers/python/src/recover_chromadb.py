# SPDX-License-Identifier: MIT
"""Brings a Chroma directory back, by the chromashim command.

    python -m recover_chromadb [--path DIR]     full recovery: what heals with the least change
    … --backup-only                             only takes a snapshot
    … --restore ID_OR_PATH                      a snapshot by its number (or `latest`), or a copy
                                                of the directory made by other means
    … --health-check                            says what is wrong, changes nothing

Nothing is thrown away: the state before is kept as a snapshot, or beside DIR.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import chromashim
from chromashim import ChromashimError, _command

STORE = ".chromashim"
# Undo files and pins belong to the old files; on the new ones they would do harm.
MOVES_ALONG = ("snapshots", "oplog", "quarantine")


def backup(directory: str) -> int:
    taken = chromashim.create_snapshot(directory, "recover_chromadb --backup-only")
    print(f"snapshot {taken['id']}: {taken['state']}, {taken['records']} records. "
          f"`chromashim restore --to={taken['id']} {directory}` brings it back.")
    return 0 if taken["state"] == "verified" else 3


def health(directory: str) -> int:
    """As a monitoring plugin: 0 fine, 1 warning, 2 damage."""
    done = _command.call("check", directory, accept=(0, 1, 2))
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def recover(directory: str) -> int:
    """The command's own recovery; what it says is passed on as it comes."""
    sys.stdout.flush()
    return os.spawnvp(os.P_WAIT, _command.find(), ["chromashim", "recover", "--yes", directory])


def restore(what: str, directory: str) -> int:
    if os.path.isdir(what):
        return restore_copy(Path(what), Path(directory))
    print(chromashim.restore(what, directory))
    return 0


def restore_copy(copy: Path, directory: Path) -> int:
    """A copy takes the directory's place; the snapshots move along, the old state stays beside."""
    verdict = chromashim.check(copy)["verdict"]
    if verdict not in ("fine", "warning"):
        raise ChromashimError(f"'{copy}' is not sound ({verdict}); `chromashim check {copy}` tells "
                              "more, `chromashim recover` may heal it. Nothing was changed.")
    if copy.resolve() == directory.resolve():
        raise ChromashimError(f"'{copy}' is the directory itself. Nothing was changed.")
    if directory.exists() and chromashim.check(directory).get("processes"):
        raise ChromashimError(f"a process has '{directory}' open: stop it first. Nothing was "
                              "changed.", 14)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    fresh = directory.with_name(f"{directory.name}.restoring-{stamp}")
    old = directory.with_name(f"{directory.name}.before-{stamp}")
    try:
        shutil.copytree(copy, fresh, symlinks=True, ignore=shutil.ignore_patterns(STORE))
        os.sync()
        if directory.exists():
            os.rename(directory, old)
        os.rename(fresh, directory)
    except BaseException:
        if old.exists() and not directory.exists():
            os.rename(old, directory)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    for name in MOVES_ALONG:
        if (old / STORE / name).exists():
            (directory / STORE).mkdir(mode=0o700, exist_ok=True)
            os.rename(old / STORE / name, directory / STORE / name)
    print(f"'{directory}' is now what '{copy}' was"
          + (f"; what was there before is in '{old}'." if old.exists() else "."))
    return 0


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="recover_chromadb", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="the directory (CHROMASHIM_DIR or ./chroma_data)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--backup-only", action="store_true", help="take a snapshot")
    what.add_argument("--restore", metavar="ID_OR_PATH", help="bring a snapshot or a copy back")
    what.add_argument("--health-check", action="store_true", help="say what is wrong")
    options = parser.parse_args(arguments)
    directory = _command.directory_of(options.path)
    try:
        if options.backup_only:
            return backup(directory)
        if options.restore:
            return restore(options.restore, directory)
        return health(directory) if options.health_check else recover(directory)
    except (ChromashimError, OSError) as error:
        print(f"recover_chromadb: {error}", file=sys.stderr)
        return getattr(error, "status", 1)


if __name__ == "__main__":
    sys.exit(main())
