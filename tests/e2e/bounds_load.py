# SPDX-License-Identifier: MIT
"""Persists of hnswlib itself, one after the other, as Chroma makes them; for what it writes.

    bounds_load.py DIRECTORY PERSISTS SEED    prints how many were made

Runs in a virtual environment with Chroma's hnswlib. Indexes of all shapes: few links and many,
small vectors and large ones, growing by little and by much, updated, deleted from, loaded anew.
Nothing is deleted from a graph of few links: where a search meets none but deleted elements,
hnswlib itself dies of SIGSEGV at the next one that is added, with M=2 once in 20 000 persists.
"""

import json
import os
import pickle
import random
import sqlite3
import sys
import uuid

import hnswlib
import numpy as np

FEW = 16  # links


class Segment:
    def __init__(self, root: str, rng: random.Random) -> None:
        self.rng = rng
        self.path = os.path.join(root, str(uuid.UUID(int=rng.getrandbits(128), version=4)))
        os.mkdir(self.path)
        self.space = rng.choice(["l2", "ip", "cosine"])
        self.dimension = rng.choice([1, 2, 3, 8, 24, 100])
        self.id_size = rng.choice([1, 8, 36, 36, 36, 500])
        self.ids: dict[int, str] = {}
        self.last = 0
        self.capacity = rng.choice([1, 2, 10, 100, 100, 1000])
        self.links = rng.choice([2, 3, 5, 16, 16, 48, 100])
        self.index = hnswlib.Index(self.space, self.dimension)
        self.index.init_index(max_elements=self.capacity, M=self.links,
                              ef_construction=rng.choice([1, 10, 100]),
                              random_seed=rng.randrange(1 << 30), is_persistent_index=True,
                              persistence_location=self.path)
        self.index.set_num_threads(1)

    def put(self, labels: list[int]) -> None:
        vectors = np.random.default_rng(self.rng.randrange(1 << 30)).normal(
            size=(len(labels), self.dimension)).astype(np.float32)
        self.index.add_items(vectors, labels)

    def grow(self, database: sqlite3.Connection) -> None:
        n = self.rng.choice([1, 1, 1, 2, 5, 10, 40])
        if self.last + n > self.capacity:
            self.capacity = max(self.last + n, int(self.capacity * self.rng.choice([1.05, 1.2, 2])))
            self.index.resize_index(self.capacity)
        labels = list(range(self.last + 1, self.last + n + 1))
        self.last += n
        for label in labels:
            self.ids[label] = f"{label:x}".rjust(self.id_size, "i")
        database.executemany("INSERT INTO ids VALUES (?)", [(self.ids[k],) for k in labels])
        self.put(labels)

    def change(self) -> None:
        some = self.rng.sample(sorted(self.ids), min(len(self.ids), self.rng.choice([1, 1, 3, 10])))
        if self.rng.random() < .7 or self.links < FEW:
            self.put(some)
            return
        for label in some:
            self.index.mark_deleted(label)
            del self.ids[label]

    def load(self) -> None:
        self.index.close_file_handles()
        self.index = hnswlib.Index(self.space, self.dimension)
        if self.rng.random() < .3:
            self.capacity = int(self.capacity * 1.2) + 1
        self.index.load_index(self.path, max_elements=self.capacity, is_persistent_index=True)
        self.index.set_num_threads(1)
        self.capacity = self.index.get_max_elements()

    def persist(self) -> None:
        self.index.persist_dirty()
        maps = {"dimensionality": self.dimension, "total_elements_added": self.last,
                "id_to_label": {i: k for k, i in self.ids.items()}, "label_to_id": self.ids,
                "id_to_seq_id": {i: k + (1 << 40) for k, i in self.ids.items()}}
        with open(os.path.join(self.path, "index_metadata.pickle"), "wb") as f:
            pickle.dump(maps, f, pickle.HIGHEST_PROTOCOL)

    def step(self, database: sqlite3.Connection) -> None:
        roll = self.rng.random()
        database.execute("INSERT INTO ids VALUES ('')")
        if not self.ids or roll < .3:
            self.grow(database)
        else:
            self.change()
        self.persist()
        database.commit()
        if roll > .97 and self.ids:
            self.load()

    def remove(self) -> None:
        self.index.close_file_handles()
        for name in os.listdir(self.path):
            os.unlink(os.path.join(self.path, name))
        os.rmdir(self.path)


def main() -> None:
    root, persists, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    database = sqlite3.connect(os.path.join(root, "chroma.sqlite3"))
    database.execute("PRAGMA synchronous = off")
    database.execute("CREATE TABLE ids (id TEXT)")
    done = 0
    while done < persists:
        segment = Segment(root, rng)
        for _ in range(min(persists - done, rng.choice([5, 50, 300]))):
            segment.step(database)
            done += 1
        if rng.random() < .9:
            segment.remove()
    json.dump({"persists": done}, sys.stdout)


if __name__ == "__main__":
    main()
