#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What several processes that write into one collection see, without the library, if nobody ever
persists.

    tests/bench/writers.py [--venv build/venv] [--processes 8] [--records 400] [--kill]

Each upserts ten records at a time and searches now and then. Then each is asked for all that was
acknowledged: by its ids, by its vectors, by a search; and once more after another write of its own;
at last a new process is. --kill ends the first one half-way.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BATCH = 10
NEAR = [[0.5] * 4]


def missing(wanted, ask):
    try:
        return len(wanted - set(ask()))
    except Exception as error:  # pylint: disable=broad-except
        return str(error)[:80]


def seen(books, wanted):
    """Missed by ids, by vectors and by a search; what others have written since is near, too."""
    def search():
        return books.query(query_embeddings=NEAR, n_results=len(wanted) + 100)["ids"][0]

    def vectors():
        got = books.get(include=["embeddings"])
        return [i for i, e in zip(got["ids"], got["embeddings"]) if e is not None]

    return [missing(wanted, lambda: books.get(include=[])["ids"]), missing(wanted, vectors),
            missing(wanted, search)]


def add(books, ids):
    while True:
        try:
            books.upsert(ids=ids, embeddings=[[random.random() for _ in range(4)] for _ in ids])
            return
        except Exception:  # pylint: disable=broad-except
            time.sleep(0.02)  # another one is at it


def work(directory, me, count):
    import chromadb  # pylint: disable=import-outside-toplevel
    books = chromadb.PersistentClient(directory).get_collection("books")
    print("ready", flush=True)
    sys.stdin.readline()
    for first in range(0, count, BATCH):
        add(books, [f"{me}-{n}" for n in range(first, first + BATCH)])
        print(first + BATCH, flush=True)
        if random.random() < 0.05:
            books.query(query_embeddings=NEAR, n_results=3)
    print("done", flush=True)
    wanted = set(json.loads(sys.stdin.readline()))
    told = [seen(books, wanted)]
    if count:
        add(books, [f"more-{me}"])
        told.append(seen(books, wanted))
    print(json.dumps(told), flush=True)


def start(options, directory, me, count):
    child = subprocess.Popen([f"{options.venv}/bin/python", __file__, "--work", directory, str(me),
                              str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True, bufsize=1)
    assert child.stdout.readline() == "ready\n"
    return child


def follow(child, acknowledged, kill_at):
    child.stdin.write("go\n")
    for line in child.stdout:
        if line == "done\n":
            return
        acknowledged.append(int(line))
        if int(line) >= kill_at:
            child.kill()
            return


def measure(options, directory):
    subprocess.run([f"{options.venv}/bin/python", "-c", "import chromadb, sys\n"
                    "chromadb.PersistentClient(sys.argv[1]).create_collection('books', "
                    "configuration={'hnsw': {'sync_threshold': 10**9}})", directory], check=True)
    children = [start(options, directory, n, options.records) for n in range(options.processes)]
    acknowledged = [[0] for _ in children]
    threads = [threading.Thread(target=follow, args=(
        child, acknowledged[n], options.records // 2 if options.kill and n == 0 else float("inf")))
        for n, child in enumerate(children)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = json.dumps([f"{n}-{i}" for n, all_of in enumerate(acknowledged)
                         for i in range(max(all_of))])
    children = children[1:] if options.kill else children
    children.append(start(options, directory, "new", 0))
    children[-1].stdin.write("go\n")
    children[-1].stdout.readline()
    print(f"{sum(map(max, acknowledged))} records; missed by ids, by vectors, by a search:")
    for child in children:
        child.stdin.write(wanted + "\n")
        told = json.loads(child.stdout.readline())
        print("  a new process:" if child is children[-1] else "  a writer:",
              ", after one more write: ".join(map(str, told)))
        child.communicate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", default=str(Path(__file__).parents[2] / "build/venv"))
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="writers-") as directory:
        measure(options, directory)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
