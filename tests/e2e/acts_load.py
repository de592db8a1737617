# SPDX-License-Identifier: MIT
"""What a client does to its collections, told call by call as the acts of the log have to tell it.

    acts_load.py TARGET        every kind of call; prints a JSON line for each that changes something
    acts_load.py TARGET until  upserts of 20 records without end; prints "ack N" after each

TARGET is a directory (PersistentClient) or host:port (HttpClient).
"""

import contextlib
import inspect
import itertools
import json
import sys

import numpy as np

import workload

DIMENSIONS = 384
METADATA = {"hnsw:batch_size": 50, "hnsw:sync_threshold": 200, "hnsw:num_threads": 1}
VERBS = {"add": "added", "update": "updated", "upsert": "upserted", "delete": "deleted"}


def vectors(n):
    return np.random.default_rng(n).random((n, DIMENSIONS), dtype=np.float32).tolist()


def tell(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


class Told:
    """A collection whose calls are told."""

    def __init__(self, client, name, metadata=METADATA):
        self.collection = client.create_collection(name, metadata=metadata)
        self.id = str(self.collection.id)
        tell("created", collection=self.id, name=name)

    def write(self, verb, ids, **more):
        getattr(self.collection, verb)(ids=ids, **more)
        tell("records", collection=self.id, verb=VERBS[verb], ids=ids)

    def put(self, verb, ids, **more):
        self.write(verb, ids, embeddings=vectors(len(ids)), **more)

    def modify(self, **how):
        self.collection.modify(**how)


def live(client):
    one, two = Told(client, "one"), Told(client, "two")
    one.put("add", ["a", "b", "c"], documents=["SECRET-DOCUMENT"] * 3)
    one.put("upsert", ["c", "d"], metadatas=[{"k": "SECRET-METADATA"}] * 2)
    one.put("update", ["a", "b"])
    one.write("update", ["a"], metadatas=[{"n": 1}])
    two.put("add", ["a"])
    one.write("delete", ["d"])
    many = [f"many-{n}" for n in range(1300)]
    two.put("add", many, metadatas=[{"third": n % 3, "text": "x" * 700} for n in range(1300)])
    third = [i for i in many if int(i[5:]) % 3 == 1]
    two.collection.delete(where={"third": 1})
    tell("records", collection=two.id, verb="deleted", ids=third)
    for n in range(6):
        one.put("upsert", [f"again-{i}" for i in range(n, n + 45)])
    one.modify(name="uno")
    tell("renamed", collection=one.id, name="uno", old_name="one")
    if "configuration" in inspect.signature(one.collection.modify).parameters:
        plain = Told(client, "plain", None)
        with contextlib.suppress(ValueError):  # of the client's own model, when it is done
            plain.modify(configuration={"hnsw": {"ef_search": 77}})
        tell("configured", collection=plain.id, name="plain")
    client.delete_collection("two")
    tell("deleted", collection=two.id, name="two")
    three = Told(client, "three")
    three.put("add", ["a", "long-" + "i" * 3000, "z"])


def until(client):
    books = client.get_or_create_collection("books", metadata=METADATA)
    for n in itertools.count():
        ids = [f"id-{i}" for i in range(20 * n, 20 * n + 20)]
        books.upsert(ids=ids, embeddings=vectors(20))
        print("ack", n, flush=True)


if __name__ == "__main__":
    (until if sys.argv[2:] else live)(workload.connect(sys.argv[1]))
