# SPDX-License-Identifier: MIT
"""What the shim costs: single calls, process start, and Chroma's own throughput.

    make bench BENCH_ARGS="[--json] [--quick] [--no-tracers]"

Each figure comes from pairs of runs, with and without, in alternating order; it is the median of
the pairs' ratios, with the quartiles beside it. "Noise" is a run without the shim against another
one: no difference smaller than its quartiles means anything. strace and libfiu do the same work
for comparison.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("CHROMASHIM_BUILD", "build")
LIBRARY = BUILD / "libchromashim.so"
MICRO = BUILD / "bench" / "micro"
HOME = ROOT / "build" / "bench-data"
PROTECTED, OUTSIDE = HOME / "protected", HOME / "outside"
DATABASE, SEGMENT = PROTECTED / "chroma.sqlite3", PROTECTED / "segment" / "data_level0.bin"
UPSERT = [sys.executable, ROOT / "tests/bench/upsert.py"]


class Tool:
    """A way to run a command: plainly, under the shim, or under something to compare with."""

    def __init__(self, name, prefix=(), preload=None):
        self.name, self.prefix, self.preload = name, prefix, preload

    def run(self, argv):
        env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
        env["CHROMASHIM_GUARD"] = "off"  # measured apart
        if self.preload:
            env["LD_PRELOAD"] = str(self.preload)
        done = subprocess.run([*map(str, self.prefix), *map(str, argv)], env=env, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"bench: {' '.join(map(str, argv))} failed under {self.name}: {done.stderr}")
        return float(done.stdout.split()[-1])


PLAIN = Tool("no shim")
SHIM = Tool("chromashim", preload=LIBRARY)
STRACE = Tool("strace -f", ["strace", "-f", "-o", HOME / "strace.out"])
LIBFIU = Tool("libfiu", ["fiu-run", "-x"])


def fresh():
    """The directories the work is done in, without what earlier runs recorded."""
    shutil.rmtree(PROTECTED, ignore_errors=True)
    SEGMENT.parent.mkdir(parents=True)
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(DATABASE) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    SEGMENT.touch()
    for stale in (HOME / "upsert", HOME / "strace.out"):
        if stale.is_dir():
            shutil.rmtree(stale)
        else:
            stale.unlink(missing_ok=True)


def is_protected(directory):
    """The proof that the shim was at work there. A log stays only where something was changed."""
    return (directory / ".chromashim/identity").exists()


def once(tool, argv, protected):
    """One run. Under the shim it must have left a store in the directory it protects."""
    fresh()
    value = tool.run(argv)
    if tool is SHIM and protected and not is_protected(protected):
        sys.exit(f"bench: the shim did not protect {protected}: no figure would be true. "
                 "Does LD_PRELOAD work here?")
    return value


def pairs(tool, argv, protected, count):
    """Values of `count` pairs of runs: (plain, with the tool)."""
    values = []
    for i in range(count):
        if i % 2:
            after = once(tool, argv, protected)
            values.append((once(PLAIN, argv, protected), after))
        else:
            values.append((once(PLAIN, argv, protected), once(tool, argv, protected)))
    return values


def quartiles(values):
    if len(values) < 3:
        return min(values), statistics.median(values), max(values)
    return tuple(statistics.quantiles(values, n=4, method="inclusive"))


def measure(work, tool, argv=None, count=None, goal=None):
    """One line of the table."""
    name, unit, plain_argv, protected, usual_count, _, inverse = work
    count = count or usual_count
    values = pairs(tool, argv or plain_argv, protected, count)
    ratios = [(a / b if inverse else b / a) for a, b in values]
    low, middle, high = quartiles(ratios)
    verdict = None
    if goal is not None:
        met, possible = ((middle >= goal, high >= goal) if inverse else
                         (middle <= goal, low <= goal))
        verdict = "met" if met else "unclear" if possible else "missed"
    return {
        "work": name, "tool": tool.name if tool is not PLAIN else "noise", "unit": unit,
        "without": statistics.median(a for a, _ in values),
        "with": statistics.median(b for _, b in values),
        "ratio": middle, "ratio_low": low, "ratio_high": high, "pairs": count,
        "goal": goal, "goal_is": None if goal is None else "at least" if inverse else "at most",
        "verdict": verdict,
    }


def works(quick):
    """name, unit, command, directory protected in it, pairs, goal, and whether it is the inverse of
    the value that counts: the value is always a time, the ratio can be one of throughput."""
    many, few, upserts = (9, 5, 3) if quick else (41, 15, 11)
    records = 1000 if quick else 3000
    outside, store = OUTSIDE / "file", HOME / "upsert"
    return [
        ("pwrite 64 bytes, protected", "ns", [MICRO, "pwrite", SEGMENT, 51000, DATABASE],
         PROTECTED, many, 1.25, False),
        ("pwrite 64 bytes, elsewhere", "ns", [MICRO, "pwrite", outside, 51000, DATABASE],
         PROTECTED, many, 1.01, False),
        ("pwrite 64 bytes, nothing protected", "ns", [MICRO, "pwrite", outside, 51000, "-"],
         None, many, 1.01, False),
        ("open + close, protected", "ns", [MICRO, "open", SEGMENT, 10200, DATABASE],
         PROTECTED, few, None, False),
        ("open + close, elsewhere", "ns", [MICRO, "open", outside, 10200, DATABASE],
         PROTECTED, few, None, False),
        ("process start and end", "ns", [MICRO, "spawn", "/bin/true", 204, "-"],
         None, few, None, False),
        (f"Chroma upsert, {records} records of 384 dimensions", "s",
         [*UPSERT, store, records, 384, 100], store, upserts, 0.98, True),
    ]


def run_all(options, progress):
    """Yields a result at a time."""
    for work in works(options.quick):
        name, argv, goal = work[0], work[2], work[5]
        progress(name)
        yield measure(work, SHIM, goal=goal)
        progress(f"{name}, noise")
        yield measure(work, PLAIN)
        for tracer in (STRACE, LIBFIU):
            if options.no_tracers or not shutil.which(tracer.prefix[0]):
                continue
            progress(f"{name}, {tracer.name}")
            short = list(argv)
            if tracer is STRACE and argv[1] in ("pwrite", "open"):
                short[3] = argv[3] // 10
            yield measure(work, tracer, short, 3)


def shown(value, unit):
    return f"{value / 1000:.2f} µs" if unit == "ns" else f"{value:.2f} s"


def line(r):
    goal = ""
    if r["goal"] is not None:
        goal = f"{r['goal_is']} {r['goal']}: {r['verdict']}"
    spread = f"{r['ratio_low']:.3f} … {r['ratio_high']:.3f}"
    return (f"  {r['tool']:<12}{shown(r['without'], r['unit']):>12}{shown(r['with'], r['unit']):>12}"
            f"{r['ratio']:>9.3f}   {spread:<18}{r['pairs']:>5}   {goal}").rstrip()


def host():
    model = next((text.split(":", 1)[1].strip()
                  for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                  if text.startswith("model name")), platform.machine())
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": platform.release(),
            "libc": " ".join(platform.libc_ver()), "python": platform.python_version(),
            "filesystem": subprocess.run(["stat", "-f", "-c", "%T", HOME], capture_output=True,
                                         text=True, check=False).stdout.strip()}


def main():
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer runs: a rough idea")
    parser.add_argument("--no-tracers", action="store_true", help="leave strace and libfiu out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    HOME.mkdir(parents=True, exist_ok=True)
    results, last = [], None

    def progress(text):
        if sys.stderr.isatty():
            print(f"\r\033[K… {text}", end="", file=sys.stderr, flush=True)

    try:
        if not options.json:
            print(f"  {'':<12}{'without':>12}{'with':>12}{'ratio':>9}   {'quartiles':<18}"
                  f"{'pairs':>5}   goal")
        for result in run_all(options, progress):
            progress("")
            results.append(result)
            if not options.json:
                if result["work"] != last:
                    print(f"\n{result['work']}")
                print(line(result), flush=True)
            last = result["work"]
        facts = host()
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    missed = [r for r in results if r["verdict"] not in (None, "met")]
    if options.json:
        print(json.dumps({"schema_version": 1, "host": facts, "results": results}, indent=1))
    else:
        print("\nRatios: with to without for calls (less is better), of throughput for Chroma "
              "(more is better).")
        print("  ".join(f"{k}: {v}" for k, v in facts.items()))
        print("All goals met." if not missed else
              f"Goals not met for certain: {len(missed)} (unclear: the quartiles reach the goal).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
