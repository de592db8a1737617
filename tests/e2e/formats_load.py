# SPDX-License-Identifier: MIT
"""Fills a Chroma and tells what its client gives back; runs inside a virtual environment.

    formats_load.py TARGET load [arrays]    makes collections of every shape
    formats_load.py TARGET delete           deletes all of them
    formats_load.py TARGET dump             prints {collection: {id: record}} as JSON

TARGET is a directory (PersistentClient) or host:port (HttpClient).
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
import numpy as np  # noqa: E402
from chromadb.config import Settings  # noqa: E402

SMALL = {"hnsw:sync_threshold": 100, "hnsw:batch_size": 50, "hnsw:num_threads": 1}
RANDOM = np.random.default_rng(5)


def connect(target: str) -> Any:
    settings = Settings(anonymized_telemetry=False)
    if os.path.isabs(target):
        return chromadb.PersistentClient(target, settings=settings)
    host, port = target.rsplit(":", 1)
    return chromadb.HttpClient(host, int(port), settings=settings)


def vectors(count: int, dimension: int) -> list[list[float]]:
    return (RANDOM.random((count, dimension), dtype=np.float32) * 4 - 2).tolist()


def fill(collection: Any, name: str, count: int, dimension: int, **more: Any) -> None:
    for first in range(0, count, 50):
        ids = [f"{name}-{n}" for n in range(first, min(count, first + 50))]
        collection.add(
            ids=ids, embeddings=vectors(len(ids), dimension),
            documents=[f"das Öl von {i}\n\t\"zitiert\" \\ 🜁" for i in ids],
            metadatas=[{"n": n, "third": n / 3, "whole": float(n), "even": n % 2 == 0,
                        "s": f"é{i}", **more} for n, i in enumerate(ids)])


def load(client: Any, arrays: bool) -> None:
    # every space; persisted with a rest in the queue; deletes and updates before and after
    for space in ("cosine", "ip", "l2"):
        name = f"space-{space}"
        one = client.create_collection(name, metadata={"hnsw:space": space, **SMALL})
        fill(one, name, 230, 16)
        one.delete(ids=[f"{name}-{n}" for n in range(0, 30)])
        fill(one, f"{name}-more", 150, 16)
        one.delete(ids=[f"{name}-{n}" for n in range(40, 45)])
        one.update(ids=[f"{name}-50", f"{name}-more-149"], metadatas=[{"n": -1}, {"added": "x"}])
        one.upsert(ids=[f"{name}-60", f"{name}-new"], embeddings=vectors(2, 16),
                   documents=["changed", "new"], metadatas=[{"y": 2.5}, {"y": 1e300}])
        one.add(ids=[f"{name}-61"], embeddings=vectors(1, 16), documents=["ignored: it is there"])
        one.update(ids=["nobody"], embeddings=vectors(1, 16))
    # never persisted
    fill(client.create_collection("queue-only", metadata={"hnsw:space": "cosine"}), "q", 7, 4)
    client.create_collection("empty-one")
    # ids of all kinds, long documents, no documents, no metadata, URIs
    odd = client.create_collection("odd-records", metadata=SMALL)
    odd.add(ids=["ключ", "a/b\\c", " ", "x" * 3000, "'; --"], embeddings=vectors(5, 3),
            documents=["d" * 1_000_000, "", "two", "three", "four"])
    odd.add(ids=["no-document"], embeddings=vectors(1, 3))
    odd.add(ids=["extreme"], embeddings=[[1e-30, -3.4e38, 123456.789]], metadatas=[{"k": "v"}])
    odd.add(ids=["uri"], embeddings=vectors(1, 3), uris=["file:///tmp/a b"])
    if arrays:
        fill(client.create_collection("arrays", metadata=SMALL), "r", 130, 4,
             tags=["b", "a", "b"], numbers=[3, 1, 2], floats=[0.1, 2.0], flags=[True, False])
    # deleted: leaves a directory behind, and in 0.6 rows
    fill(client.create_collection("gone-one", metadata=SMALL), "g", 120, 4)
    client.delete_collection("gone-one")


def dump(client: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for listed in client.list_collections():
        name = listed if isinstance(listed, str) else listed.name
        got = client.get_collection(name).get(
            include=["embeddings", "documents", "metadatas", "uris"])
        result[name] = {
            i: {"embedding": [float(x) for x in np.float32(got["embeddings"][n])],
                "document": got["documents"][n], "metadata": got["metadatas"][n] or None,
                "uri": got["uris"][n]}
            for n, i in enumerate(got["ids"])}
    return result


def main() -> None:
    client = connect(sys.argv[1])
    if sys.argv[2] == "load":
        load(client, "arrays" in sys.argv)
    elif sys.argv[2] == "delete":
        for listed in client.list_collections():
            client.delete_collection(listed if isinstance(listed, str) else listed.name)
    else:
        json.dump(dump(client), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # no farewell from threads of telemetry


main()
