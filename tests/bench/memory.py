# SPDX-License-Identifier: MIT
"""What the library adds to the memory of a backend: real Chroma upserts, with it and without.

    memory.py LIBRARY RECORDS BATCH [PAIRS]

Pairs of runs, in turn; resident size at the end in KiB, their differences, the median, and what of
it are maps of the library's own (its file and the store's, and the memory beside it).
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile

WORK = """
import collections, os, re, sys
os.environ["ANONYMIZED_TELEMETRY"] = "False"
import chromadb, numpy as np
where, records, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
one = chromadb.PersistentClient(where).create_collection("bench")
rng = np.random.default_rng(1)
for at in range(0, records, batch):
    ids = [f"r{n}" for n in range(at, at + batch)]
    one.upsert(ids=ids, embeddings=rng.random((batch, 384), dtype=np.float32),
               documents=[f"document {i}" for i in ids])
maps, name, last = collections.Counter(), None, None
for line in open("/proc/self/smaps"):
    head = re.match(r"[0-9a-f]+-[0-9a-f]+ (\\S+) \\S+ \\S+ \\S+ *(.*)", line)
    if head and ":" not in line.split()[0]:
        name = head[2].strip()
        if not name and last and "chromashim.so" in last:
            name = "(beside the library)"
        elif "/oplog/" in name or "/acts/" in name:
            name = "(log)"
        elif ".chromashim/" in name:
            name = "(store: " + name.split(".chromashim/")[1].split("/")[0] + ")"
        last = name
    elif line.startswith("Rss:"):
        maps["all"] += int(line.split()[1])
        if "chromashim" in name or name.startswith("("):
            maps[os.path.basename(name)] += int(line.split()[1])
print(dict(maps))
"""


def run(library: str | None, records: str, batch: str) -> dict[str, int]:
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    if library:
        env["LD_PRELOAD"] = os.path.abspath(library)
    # Not removed at once: a guardian is still at work on it.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as where:
        done = subprocess.run([sys.executable, "-c", WORK, where, records, batch], env=env,
                              check=True, capture_output=True, text=True)
    found = re.findall(r"'([^']+)': (\d+)", done.stdout)
    return {name: int(size) for name, size in found}


def main() -> None:
    library, records, batch = sys.argv[1:4]
    pairs = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    differences, own = [], []
    for _ in range(pairs):
        without, with_it = run(None, records, batch), run(library, records, batch)
        differences.append(with_it["all"] - without["all"])
        maps = {name: size for name, size in with_it.items() if name != "all"}
        own.append(sum(maps.values()))
        print(f"{without['all']:>8} {with_it['all']:>8} {differences[-1]:+6}  {maps}", flush=True)
    print(f"median {statistics.median(differences):+} KiB, own maps "
          f"{statistics.median(own)} KiB")


main()
