#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fresh directories of every release of the migration table: `check` finds nothing wrong, and
`export` gives what that release's own client gives.

    tests/releases.py [--markdown FILE] [RELEASE...]

Each release is installed from PyPI into build/releases, tried, and removed again; some install only
with an older Python (PYTHON=). Tried are the first and last release of each row of the migration
table unless named. Not part of `make check`: it takes an hour, and gigabytes of downloads.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / "build" / "releases"
COMMAND = ROOT / os.environ.get("CHROMASHIM_BUILD", "build") / "chromashim"
LOAD = ROOT / "tests/e2e/releases_load.py"
# What older releases leave open and newer packages have broken since.
PINS = ["numpy<2", "posthog<6", "setuptools<70"]
OLD = ["pydantic<2", "fastapi<0.100"]
ENVIRONMENT = {**os.environ, "ANONYMIZED_TELEMETRY": "False"}


def eras():
    """(first, last, counts) of each row of core/chroma/migrations.c."""
    source = (ROOT / "shim/core/chroma/migrations.c").read_text(encoding="utf-8")
    rows = re.findall(r'\{"([\d.]+)", "([\d.]+)", \{(\d+), (\d+), (\d+)\}\}', source)
    return [(first, last, [int(n) for n in counts]) for first, last, *counts in rows]


def key(release):
    return [int(n) for n in release.split(".")]


def era_of(release):
    return next(e for e in eras() if key(e[0]) <= key(release) <= key(e[1]))


def call(argv, **how):
    done = subprocess.run([str(a) for a in argv], env=ENVIRONMENT, text=True, capture_output=True,
                          check=False, **how)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        told = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
        raise RuntimeError(told[-1][:100] if told else f"exit status {done.returncode}")
    return done.stdout


def install(release, venv):
    python = os.environ.get("PYTHON", "/usr/bin/python3")
    call([python, "-m", "venv", venv])
    pins = PINS if key(release) < [1, 0, 0] else []
    if key(release) < [0, 4, 15]:
        pins = pins + OLD
    call([venv / "bin/pip", "install", "-q", "--prefer-binary", f"chromadb=={release}", *pins],
         timeout=1800)


def exported(data):
    """{collection: {id: record}}"""
    told = call([COMMAND, "export", data])
    result = {}
    for line in told.splitlines():
        record = json.loads(line)
        result.setdefault(record.pop("collection"), {})[record.pop("id")] = record
    return result


def close(a, b):
    return a == b or (a is not None and b is not None and len(a) == len(b) and
                      all(abs(x - y) <= 1e-5 * max(1, abs(y)) for x, y in zip(a, b)))


def differences(mine, client):
    if {n: set(r) for n, r in mine.items()} != {n: set(r) for n, r in client.items() if r}:
        return ["other ids"]
    wrong = []
    for name, records in mine.items():
        for i, record in records.items():
            theirs = client[name][i]
            same = (record["document"] == theirs["document"] and
                    record["metadata"] == theirs["metadata"] and
                    close(record["embedding"], theirs["embedding"]))
            wrong += [] if same else [f"{name}/{i}"]
    return wrong


def checked(data, depth):
    done = subprocess.run([COMMAND, "check", "--json", depth, data], capture_output=True, text=True,
                          check=False)
    result = json.loads(done.stdout)
    found = [f["code"] for f in result["findings"] if f["severity"] != "note"]
    if done.returncode or found:
        raise RuntimeError(f"check {depth}: {result['verdict']} {' '.join(found)}")
    return result


def attempt(release, venv, data, *words):
    load = [venv / "bin/python", LOAD, data]
    call([*load, "load", *words], timeout=600)
    told = {}
    for depth in ("--quick", "--full"):
        told = checked(data, depth)
    wrote = next((r["first"] for r in told["releases"] if r["wrote_it"]), None)
    if wrote != era_of(release)[0]:
        raise RuntimeError(f"taken for {wrote}")
    mine = exported(data)
    client = json.loads(call([*load, "dump"], timeout=600))
    wrong = differences(mine, client)
    if wrong:
        raise RuntimeError(f"export differs: {len(wrong)} records, as {wrong[0]}")
    return sum(map(len, mine.values()))


def is_true(venv, data):
    """Whether the release's own client fails on what check calls damaged."""
    try:
        call([venv / "bin/python", LOAD, data, "dump"], timeout=600)
    except RuntimeError:
        return True
    return False


def attempt_both(release, venv, data):
    try:
        return f"{attempt(release, venv, data)} records equal"
    except RuntimeError as e:
        if not str(e).startswith("check") or not is_true(venv, data):
            raise
    # 0.5.7 purges the queue of all collections by the mark of one.
    records = attempt(release, venv, data.with_name("alone"), "alone")
    return (f"{records} records of one collection equal; with several of them check says damage, "
            "and its own client fails as well")


def try_release(release):
    """(outcome, remark): "fine", "not installed" or "FAILED"."""
    home = HOME / release
    shutil.rmtree(home, ignore_errors=True)
    (home / "data").mkdir(parents=True)
    try:
        try:
            install(release, home / "venv")
            call([home / "venv/bin/python", "-c", "import chromadb"], timeout=300)
        except (RuntimeError, subprocess.TimeoutExpired) as e:
            return "not installed", str(e)
        return "fine", attempt_both(release, home / "venv", home / "data" / "chroma")
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        shutil.move(home / "data", HOME / f"{release}-data")
        return "FAILED", str(e)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/releases.py")
    parser.add_argument("--markdown", metavar="FILE", help="the outcome as a table")
    parser.add_argument("release", nargs="*")
    options = parser.parse_args()
    releases = options.release or [r for first, last, _ in eras() for r in dict.fromkeys((first, last))]
    table, failed = [], 0
    for release in releases:
        outcome, remark = try_release(release)
        failed += outcome == "FAILED"
        counts = " / ".join(map(str, era_of(release)[2]))
        table.append(f"| {release} | {counts} | {outcome} | {remark.replace('|', '/')} |")
        print(f"{release:8} {counts:10} {outcome:14} {remark}", flush=True)
        if options.markdown:
            head = ["| Release | Migrations | Check and export | |", "|---|---|---|---|"]
            Path(options.markdown).write_text("\n".join(head + table) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
