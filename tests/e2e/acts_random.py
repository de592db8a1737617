# SPDX-License-Identifier: MIT
"""A random client: adds, updates, upserts, deletes of every kind, collections, and calls that fail.

    acts_random.py DIR SEED CALLS SYNC_THRESHOLD

After each call it prints a JSON line with what the call has put into Chroma's queue, as the queue
itself says: [[seq_id, operation, collection's number, id], …]. With a threshold that is never
reached nothing is purged, and the lines are the truth to which the log of acts is compared.
"""

import contextlib
import json
import random
import sqlite3
import sys
from typing import Any

import numpy as np

import workload

DIMENSIONS = 8
VERBS = ("add", "update", "upsert", "delete")


def vectors(n: int) -> list[list[float]]:
    return np.random.default_rng(n).random((n, DIMENSIONS), dtype=np.float32).tolist()


class Client:
    """Deeds, chosen by a seed: every run of one seed does the same."""

    def __init__(self, path: str, seed: int, threshold: int) -> None:
        self.client = workload.connect(path)
        self.rng = random.Random(seed)
        self.metadata = {"hnsw:batch_size": min(100, threshold), "hnsw:sync_threshold": threshold,
                         "hnsw:num_threads": 1}
        self.collections: list[Any] = []
        self.names: list[str] = []  # ids of collections, in the order they were made
        self.made = 0

    def make(self) -> None:
        self.made += 1
        made = self.client.create_collection(f"coll-{self.made}", metadata=self.metadata)
        self.collections.append(made)
        self.names.append(str(made.id))

    def drop(self) -> None:
        if len(self.collections) > 1:
            gone = self.collections.pop(self.rng.randrange(len(self.collections)))
            self.client.delete_collection(gone.name)

    def rename(self) -> None:
        one = self.rng.choice(self.collections)
        self.made += 1
        one.modify(name=f"{one.name[:20]}-{self.made}")

    def ids(self) -> list[str]:
        count = self.rng.choice([1, 1, 1, 2, 3, 10, 40, 120])
        return [f"{'ü' if n % 5 == 0 else 'i'}{n}" for n in self.rng.sample(range(300), count)]

    def write(self) -> None:
        ids, verb = self.ids(), self.rng.choice(VERBS[:3])
        more: dict[str, Any] = {"embeddings": vectors(len(ids))}
        if self.rng.random() < 0.5:
            more["metadatas"] = [{"n": int(i[1:]) % 7, f"k{self.made}": "x" * 50} for i in ids]
        if self.rng.random() < 0.5:
            more["documents"] = ["y" * self.rng.choice([1, 100, 9000]) for _ in ids]
        getattr(self.rng.choice(self.collections), verb)(ids=ids, **more)

    def metadata_only(self) -> None:
        ids = self.ids()
        self.rng.choice(self.collections).update(ids=ids, metadatas=[{"n": 3, "m": 1.5} for _ in ids])

    def delete(self) -> None:
        self.rng.choice(self.collections).delete(ids=self.ids())

    def delete_where(self) -> None:
        self.rng.choice(self.collections).delete(where={"n": self.rng.randrange(9)})

    def fail(self) -> None:
        one, how = self.rng.choice(self.collections), self.rng.randrange(6)
        if how == 0:
            one.add(ids=["a", "a"], embeddings=vectors(2))
        elif how == 1:
            one.add(ids=["a"], embeddings=[[1.0, 2.0, 3.0]])
        elif how == 2:
            one.delete(ids=[])
        elif how == 3:
            one.update(ids=["nowhere", "i1"], embeddings=vectors(2))
        elif how == 4:
            one.delete(ids=["nowhere"])
        else:
            self.client.create_collection(one.name)

    def step(self) -> None:
        deed = self.rng.choices(
            [self.write, self.delete, self.delete_where, self.metadata_only, self.fail, self.make,
             self.drop, self.rename], [50, 12, 6, 6, 10, 2, 1, 1])[0]
        with contextlib.suppress(Exception):
            deed()


def main() -> None:
    path, seed, calls, threshold = sys.argv[1], *map(int, sys.argv[2:5])
    client, seen = Client(path, seed, threshold), 0
    client.make()
    with contextlib.closing(sqlite3.connect(f"file:{path}/chroma.sqlite3?mode=ro", uri=True)) as queue:
        for _ in range(calls):
            client.step()
            rows = queue.execute("SELECT seq_id, operation, substr(topic, -36), id FROM embeddings_queue "
                                 "WHERE seq_id > ? ORDER BY seq_id", (seen,)).fetchall()
            # With a collection its rows go, and the last numbers come again.
            seen, = queue.execute("SELECT coalesce(max(seq_id), 0) FROM embeddings_queue").fetchone()
            print(json.dumps([[s, o, client.names.index(t), i] for s, o, t, i in rows]), flush=True)


if __name__ == "__main__":
    main()
