# SPDX-License-Identifier: MIT
"""How fast check, export and recover are, beside SQLite's own tools and chromadb-ops.

    tests/bench/formats.py [--json] [--megabytes N] [--rounds N] [--rebuild] [DIRECTORY]

In each round all of them run once, in an order that turns round from one to the next, on the same
directory, which is in the page cache. A figure is the median of the rounds; the ratio is to the
reference of the same round (1.5: half as long again). MB/s are of what the tool has to read: the
directory, or the database alone. `chops db info` counts and gives no verdict: it is the nearest
that chromadb-ops has to a check. It has no export.

--rebuild also runs `chops hnsw rebuild`, which heals a torn persist as long as the index can still be
loaded, and which takes minutes, since it makes the graph anew. recover leaves that to Chroma's first
query: "recover, first query" is both. (Chroma >= 1.5 no longer writes the settings that chops wants
to read: they are put in for it.)
"""

import argparse
import json
import os
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

from bench import BUILD, HOME, ROOT, host, quartiles

COMMAND = BUILD / "chromashim"
VENV = ROOT / "build" / "venv" / "bin" / "python"
CHOPS = ROOT / "build" / "venv-ops" / "bin" / "chops"
BIG = Path(__file__).with_name("big_directory.py")


REBUILD = ("import sys; from chroma_ops.hnsw import rebuild_hnsw; "
           "rebuild_hnsw(sys.argv[1], collection_name='big', yes=True)")
QUERY = ("import sys, chromadb; c = chromadb.PersistentClient(sys.argv[1]).get_collection('big'); "
         "assert len(c.query(query_embeddings=[[0.5] * 384], n_results=5)['ids'][0]) == 5")
SETTINGS = '{"vector_index":{"hnsw":{"space":"l2","ef_construction":100,"max_neighbors":16}}}'


def size_of(path):
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()
                                           and ".chromashim" not in p.parts]
    return sum(p.stat().st_size for p in files)


def tear(data):
    """A persist cut off before its pickle, as the most usual damage: an element it does not know."""
    where = next(p.parent for p in data.glob("*/index_metadata.pickle"))
    header = bytearray((where / "header.bin").read_bytes())
    count, stride = struct.unpack_from("<QQ", header, 20)
    with open(where / "data_level0.bin", "r+b") as f:
        element = bytearray(f.read(stride))
        struct.pack_into("<Q", element, stride - 8, count + 1)
        f.seek(count * stride)
        f.write(element)
    struct.pack_into("<QQ", header, 12, count + 1, count + 1)
    (where / "header.bin").write_bytes(header)
    for name in ("length.bin", "link_lists.bin"):
        with open(where / name, "ab") as f:
            f.write(bytes(4))


def give_settings(data):
    """As Chroma wrote them before 1.5."""
    db = sqlite3.connect(data / "chroma.sqlite3")
    db.execute("UPDATE collections SET config_json_str = ?", (SETTINGS,))
    db.commit()
    db.close()


class Tool:
    """A command; damaged: it works on a copy of the directory with a torn persist."""

    def __init__(self, work, name, argv, reads, damaged=False, statuses=(0,)):
        self.work, self.name, self.argv, self.reads = work, name, argv, reads
        self.damaged, self.statuses = damaged, statuses
        self.seconds, self.busy, self.peaks = [], [], []

    def run(self, data):
        target = data
        if self.damaged:
            target = HOME / "damaged"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(data, target)
            tear(target)
            give_settings(target)
        words = [str(w).replace("DATA", str(target)) for w in self.argv]
        begin = time.monotonic()
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        self.seconds.append(time.monotonic() - begin)
        self.busy.append(usage.ru_utime + usage.ru_stime)
        self.peaks.append(usage.ru_maxrss)
        if child.returncode not in self.statuses:
            sys.exit(f"bench: {' '.join(words)} ended with {child.returncode}")


def salvage():
    """The sqlite3 program's .recover; where it is built without it (Debian 12), .dump."""
    done = subprocess.run(["sqlite3", ":memory:", "SELECT * FROM sqlite_dbpage LIMIT 1"],
                          capture_output=True, check=False)
    return ".dump" if done.returncode else ".recover"


def tools(data, rebuild):
    database = data / "chroma.sqlite3"
    all_of_it, rows = size_of(data), size_of(database)
    uri = "file:DATA/chroma.sqlite3?mode=ro"
    salvaged = [f"sqlite3 {salvage()}", ["sqlite3", uri, salvage()], rows]
    found = [
        Tool("check", "PRAGMA integrity_check", ["sqlite3", uri, "PRAGMA integrity_check"], rows),
        Tool("check", "check --quick", [COMMAND, "check", "DATA"], all_of_it),
        Tool("check", "check --full", [COMMAND, "check", "--full", "DATA"], all_of_it),
        Tool("export", *salvaged),
        Tool("export", "export", [COMMAND, "export", "DATA"], all_of_it),
        Tool("export", "export --zstd", [COMMAND, "export", "--zstd", "DATA"], all_of_it),
        Tool("export", "--no-embeddings", [COMMAND, "export", "--no-embeddings", "DATA"], rows),
    ]
    if CHOPS.exists():
        found.insert(3, Tool("check", "chops db info", [CHOPS, "db", "info", "DATA"], all_of_it))
    heal = {"damaged": True, "statuses": (0, 3)}
    found.append(Tool("recover", *salvaged))
    found.append(Tool("recover", "recover", [COMMAND, "recover", "-y", "DATA"], all_of_it, **heal))
    if rebuild:
        found.append(Tool("recover", "recover, first query",
                          ["sh", "-c", '"$0" recover -y "$1" && "$2" -c "$3" "$1"', COMMAND, "DATA",
                           VENV, QUERY], all_of_it, **heal))
    if rebuild and CHOPS.exists():
        found.append(Tool("recover", "chops hnsw rebuild", [CHOPS.with_name("python"), "-c", REBUILD,
                                                            "DATA"], all_of_it, **heal))
    return found


def measure(found, data, rounds, progress):
    for round_ in range(rounds):
        for tool in found if round_ % 2 == 0 else reversed(found):
            progress(f"round {round_ + 1} of {rounds}: {tool.name}")
            tool.run(data)


def result_of(tool, reference):
    low, middle, high = quartiles([a / b for a, b in zip(tool.seconds, reference.seconds)])
    seconds = statistics.median(tool.seconds)
    return {"work": tool.work, "tool": tool.name, "seconds": seconds,
            "cpu_seconds": statistics.median(tool.busy),
            "megabytes_per_second": tool.reads / seconds / 1e6, "megabytes": tool.reads / 1e6,
            "reference": reference.name, "ratio": middle, "ratio_low": low, "ratio_high": high,
            "rounds": len(tool.seconds), "peak_megabytes": max(tool.peaks) / 1024}


def line(r):
    spread = f"{r['ratio_low']:.2f} … {r['ratio_high']:.2f}"
    return (f"  {r['tool']:<24}{r['seconds']:>8.2f} s{r['cpu_seconds']:>8.2f} s CPU{r['megabytes_per_second']:>9.0f} MB/s"
            f"{r['peak_megabytes']:>8.0f} MB{r['ratio']:>8.2f}   {spread}")


def main():
    parser = argparse.ArgumentParser(prog="formats")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rebuild", action="store_true", help="also what makes an index anew")
    parser.add_argument("directory", nargs="?", type=Path, help="not one that is made for this")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    HOME.mkdir(parents=True, exist_ok=True)

    def progress(text):
        if sys.stderr.isatty():
            print(f"\r\033[K… {text}", end="", file=sys.stderr, flush=True)

    try:
        data = options.directory or HOME / "big"
        if not options.directory:
            progress("making the directory")
            subprocess.run([sys.executable, BIG, data, str(options.megabytes)], check=True)
        db = sqlite3.connect(f"file:{data}/chroma.sqlite3?mode=ro", uri=True)
        records = db.execute("SELECT count(*) FROM embeddings").fetchone()[0]
        db.close()
        found = tools(data, options.rebuild)
        found[0].run(data)  # into the page cache
        for tool in found:
            tool.seconds.clear()
            tool.busy.clear()
        measure(found, data, options.rounds, progress)
        facts = {**host(), "records": records, "megabytes": round(size_of(data) / 1e6)}
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    progress("")
    references = {}
    results = [result_of(t, references.setdefault(t.work, t)) for t in found]
    if options.json:
        print(json.dumps({"schema_version": 1, "host": facts, "results": results}, indent=1))
        return 0
    for n, r in enumerate(results):
        if n == 0 or r["work"] != results[n - 1]["work"]:
            print(f"\n{r['work']}: ratio to {r['reference']}")
        print(line(r))
    print("\n" + "  ".join(f"{k}: {v}" for k, v in facts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
