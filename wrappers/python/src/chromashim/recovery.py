# SPDX-License-Identifier: MIT
"""Brings a Chroma directory back, by the chromashim command.

    python -m recover_chromadb [--path DIR]     full recovery: what heals with the least change
    … --backup-only                             takes a snapshot, and exports all records
    … --restore ID_OR_PATH                      a snapshot by its number (or `latest`), or a copy
                                                of the directory made by other means, also packed
                                                by tar
    … --health-check                            says what is wrong, changes nothing

Nothing is thrown away: the state before is kept as a snapshot. What was done stands in
./chromadb_backups/critical_operations.log, and the exports are beside it.
"""

import argparse
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Optional

import chromashim
from chromashim import ChromashimError, _command, _journal

__all__ = ["backup", "health", "main", "recover", "restore"]


def backup(directory: str) -> int:
    taken = chromashim.create_snapshot(directory, "recover_chromadb --backup-only")
    print(f"snapshot {taken['id']}: {taken['state']}, {taken['records']} records. "
          f"`chromashim restore --to={taken['id']} {directory}` brings it back.")
    print(f"All records are in '{_journal.export(directory)}', too.")
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
    if os.path.isfile(what):
        return restore_archive(Path(what), Path(directory))
    print(chromashim.restore(what, directory))
    return 0


def restore_copy(copy: Path, directory: Path, of: Optional[Path] = None) -> int:
    """By the command: locked, checked, and what was there is a snapshot afterwards."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    done = _command.call("restore", f"--from={copy}", "--yes", _command.directory_of(directory))
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    print(f"'{directory}' is now what '{of or copy}' was.")
    return 0


def unpack(archive: Path, folder: str) -> None:
    """Files, directories, and second names of files; no symbolic links, and nothing outside."""
    def is_inside(name: str) -> bool:
        return os.path.normpath(os.path.join(folder, name)).startswith(folder + os.sep)

    try:
        packed = tarfile.open(archive)
    except tarfile.ReadError as error:
        raise ChromashimError(f"'{archive}' is no archive that tar has made. Unpack it, and name the "
                              f"directory with {_command.DATABASE} in it. Nothing was changed."
                              ) from error
    with packed:
        members = [m for m in packed.getmembers() if m.isfile() or m.isdir() or m.islnk()]
        members = [m for m in members if os.path.normpath(m.name) != "."]
        if not all(is_inside(m.name) and (not m.islnk() or is_inside(m.linkname)) for m in members):
            raise ChromashimError(f"'{archive}' has names that lead out of it. Nothing was changed.")
        packed.extractall(folder, members)


def restore_archive(archive: Path, directory: Path) -> int:
    """What is packed is unpacked beside the directory; the database tells which folder it is."""
    beside = Path(os.path.realpath(directory)).parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.unpacking-", dir=beside) as folder:
        unpack(archive, folder)
        found = sorted((path.parent for path in Path(folder).rglob(_command.DATABASE)
                        if ".chromashim" not in path.parts), key=lambda path: len(path.parts))
        if not found:
            raise ChromashimError(f"there is no {_command.DATABASE} in '{archive}'. Nothing was "
                                  "changed.")
        found = [path for path in found if len(path.parts) == len(found[0].parts)]
        if len(found) > 1:
            names = ", ".join(f"'{path.relative_to(folder)}'" for path in sorted(found))
            raise ChromashimError(f"there are several data directories in '{archive}': {names}. "
                                  "Unpack it, and name one of them. Nothing was changed.")
        return restore_copy(found[0], directory, archive)


def perform(options, directory: str) -> int:
    if options.backup_only:
        return backup(directory)
    if options.restore:
        return restore(options.restore, directory)
    return health(directory) if options.health_check else recover(directory)


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="recover_chromadb", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="the directory (CHROMASHIM_DIR, else the one that is here)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--backup-only", action="store_true", help="take a snapshot")
    what.add_argument("--restore", metavar="ID_OR_PATH", help="bring a snapshot or a copy back")
    what.add_argument("--health-check", action="store_true", help="say what is wrong")
    options = parser.parse_args(arguments)
    name = ("backup-only" if options.backup_only else "restore" if options.restore else
            "health-check" if options.health_check else "recover")
    directory = None
    try:
        directory = options.path or _command.search()
        directory = _command.directory_of(directory)
        status = perform(options, directory)
    except (ChromashimError, OSError, tarfile.TarError) as error:
        print(f"recover_chromadb: {error}", file=sys.stderr)
        status = getattr(error, "status", 1)
    if not options.health_check:
        _journal.note("failed" if status not in (0, 3) else "done", name, directory=directory,
                      source=options.restore, status=status)
    return status


if __name__ == "__main__":
    sys.exit(main())
