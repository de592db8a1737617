# SPDX-License-Identifier: MIT
"""busy.py DIRECTORY MEGABYTES DIMENSIONS PAUSE: a backend that upserts until its input ends.

Chroma's database is first filled up to the size. Prints "ready", then, for each upsert of ten
records, its begin and end (time.monotonic) on one line.
"""

import os
import select
import sqlite3
import sys
import time

os.environ["ANONYMIZED_TELEMETRY"] = "False"

import chromadb
import numpy as np

PIECE = 1 << 20


def fill(path, megabytes):
    """Blobs in a table of its own: vectors by the gigabyte take Chroma an hour."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE IF NOT EXISTS filling (v BLOB)")
    have = db.execute("SELECT count(*) FROM filling").fetchone()[0]
    for _ in range(megabytes - have):
        db.execute("INSERT INTO filling VALUES (?)", (os.urandom(PIECE),))
    db.commit()
    db.close()


def main():
    directory, megabytes, dimensions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pause = float(sys.argv[4])
    client = chromadb.PersistentClient(directory)
    fill(f"{directory}/chroma.sqlite3", megabytes)
    collection = client.get_or_create_collection("bench")
    rng = np.random.default_rng(1)
    count = 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        ids = [f"record-{count + n}" for n in range(10)]
        vectors = rng.random((10, dimensions), dtype=np.float32)
        begin = time.monotonic()
        collection.upsert(ids=ids, embeddings=vectors)
        print(f"{begin:.6f} {time.monotonic():.6f}", flush=True)
        count += 10
        time.sleep(pause)


main()
