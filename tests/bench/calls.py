# SPDX-License-Identifier: MIT
"""System calls of fixed pieces of work by real Chroma, without the library and with it.

    tests/bench/calls.py [--json] [--sizes HUNDREDS,SINGLE,COLLECTIONS]

They are counted by strace, and do not depend on what else the machine does; the guardian is off.
Left out are calls by which Chroma's own threads wait for each other.
"""

import argparse
import json
import os
import shutil
import sys

from bench import BUILD, HOME, LIBRARY, ROOT

sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import counted  # noqa: E402 (it is in the other folder)

VENV = ROOT / "build" / "venv" / "bin" / "python"
WORDS = {"hundreds": "upserts of 384 dimensions, in hundreds", "single": "single upserts",
         "collections": "new collections of three records"}


def measured(sizes):
    env = {**os.environ, "CHROMASHIM_GUARD": "off", "ANONYMIZED_TELEMETRY": "False",
           "CHROMASHIM_COMMAND": str(BUILD / "chromashim")}
    both = []
    for name, shim in (("plain", ""), ("with", LIBRARY)):
        data = HOME / f"calls-{name}"
        shutil.rmtree(data, ignore_errors=True)
        both.append(counted.count(VENV, data, shim, sizes, env))
        shutil.rmtree(data)
    return both


def table(plain, under):
    names = [n for n in sorted({*plain, *under}) if max(plain[n], under[n]) > 20]
    lines = [f"  {n:<18}{plain[n]:>9}{under[n]:>9}" for n in names]
    return "\n".join([*lines, f"  {'in all':<18}{plain.total():>9}{under.total():>9}"])


def main():
    parser = argparse.ArgumentParser(prog="calls")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--sizes", default="6000,200,200")
    options = parser.parse_args()
    if not shutil.which("strace"):
        print("System calls are not counted: strace is missing. Run wrappers/setup check.",
              file=sys.stderr)
        return
    HOME.mkdir(parents=True, exist_ok=True)
    sizes = [int(n) for n in options.sizes.split(",")]
    plain, under = measured(sizes)
    if options.json:
        print(json.dumps({"schema_version": 1, "sizes": sizes, "plain": plain, "with": under}))
        return
    for (work, words), size in zip(WORDS.items(), sizes):
        print(f"\nSystem calls of {size} {words}: without, with\n{table(plain[work], under[work])}")


main()
