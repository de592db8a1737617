# SPDX-License-Identifier: MIT
"""python -m chromashim VERB...: as the command. install-here [FOLDER]: puts recover_chromadb.py there."""

import argparse
import os
import sys
from pathlib import Path

from ._command import ChromashimError, find

NAME = "recover_chromadb.py"
MARK = "Put here by `python -m chromashim install-here`"
STUB = f'''#!/usr/bin/env python3
"""{MARK}.

    python {NAME}                 full recovery: what heals with the least change
    python {NAME} --backup-only   takes a snapshot, and exports all records
    python {NAME} --restore PATH  a snapshot's number, a copy of the directory, or a .tar.gz
    python {NAME} --health-check  says what is wrong, changes nothing
"""

import sys

sys.path.append({{source!r}})
try:
    from chromashim.recovery import main
except ImportError:
    sys.exit("{NAME}: the Python module of chromashim is not where it was any more. Install it "
             "(`pip install .../chromashim/python`), or use the command: chromashim recover DIR")

if __name__ == "__main__":
    sys.exit(main())
'''


def install(folder: Path) -> int:
    path = folder / NAME
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        print(f"chromashim: '{path}' is another program's, and is left as it is. Move it away, or "
              "name another folder.", file=sys.stderr)
        return 1
    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path.write_text(STUB.format(source=source), encoding="utf-8")
    path.chmod(0o755)
    print(f"'{path}' is there: `python {NAME} --health-check` in its folder tries it.")
    return 0


def become_command(arguments: list) -> int:
    try:
        command = find()
        os.execv(command, [command, *arguments])
    except (ChromashimError, OSError) as error:
        print(f"chromashim: {error}", file=sys.stderr)
    return 127


def main(arguments=None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] != ["install-here"]:
        return become_command(arguments)
    parser = argparse.ArgumentParser(prog="python -m chromashim")
    verbs = parser.add_subparsers(dest="verb", required=True)
    here = verbs.add_parser("install-here", help=f"put {NAME} into a folder of your backend")
    here.add_argument("folder", nargs="?", default=".", type=Path)
    options = parser.parse_args(arguments)
    try:
        return install(options.folder)
    except OSError as error:
        print(f"chromashim: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
