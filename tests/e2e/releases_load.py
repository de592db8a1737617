# SPDX-License-Identifier: MIT
"""Fills a directory with whatever release of Chroma runs this, and tells what its client gives.

    releases_load.py DIRECTORY load [alone]     alone: one collection, none deleted
    releases_load.py DIRECTORY dump     prints {collection: {id: record}} as JSON
"""

import json
import os
import random
import sys

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
from chromadb.config import Settings  # noqa: E402

SMALL = {"hnsw:sync_threshold": 100, "hnsw:batch_size": 50}


def load(client, alone):
    rng = random.Random(9)
    for space in ("cosine",) if alone else ("l2", "cosine"):
        one = client.create_collection(f"space-{space}", metadata={"hnsw:space": space, **SMALL})
        for first in range(0, 250, 50):
            ids = [f"ключ {n}" for n in range(first, first + 50)]
            one.add(ids=ids, embeddings=[[rng.uniform(-2, 2) for _ in range(16)] for _ in ids],
                    documents=[f"Dokument über {i}" for i in ids],
                    metadatas=[{"n": n, "x": n / 3, "s": i} for n, i in enumerate(ids)])
        one.delete(ids=[f"ключ {n}" for n in range(20)])
        one.update(ids=["ключ 30"], metadatas=[{"n": -1}])
    if alone:
        return
    few = client.create_collection("queue-only")
    few.add(ids=["a", "b"], embeddings=[[1, 2, 3], [4, 5, 6]], documents=["one", "two"])
    client.create_collection("nothing-in-it")
    gone = client.create_collection("gone-one", metadata=SMALL)
    gone.add(ids=[str(n) for n in range(120)], embeddings=[[n, 1.0] for n in range(120)])
    client.delete_collection("gone-one")


def dump(client):
    result = {}
    for listed in client.list_collections():
        name = listed if isinstance(listed, str) else listed.name
        got = client.get_collection(name).get(include=["embeddings", "documents", "metadatas"])
        result[name] = {i: {"embedding": [float(x) for x in got["embeddings"][n]],
                            "document": got["documents"][n],
                            "metadata": got["metadatas"][n] or None}
                        for n, i in enumerate(got["ids"])}
    return result


def main():
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    if sys.argv[2] == "load":
        load(client, "alone" in sys.argv)
    else:
        json.dump(dump(client), sys.stdout)
    sys.stdout.flush()
    os._exit(0)


main()
