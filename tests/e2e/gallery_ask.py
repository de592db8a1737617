# SPDX-License-Identifier: MIT
"""Tells all that Chroma's client gives.

    gallery_ask.py TARGET    a directory or host:port; prints {"records": …, "missed": …} as JSON

"missed" are records that a query by their own vector does not find.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
import numpy as np  # noqa: E402
from chromadb.config import Settings  # noqa: E402

ASKED = 12  # records of each collection


def connect(target: str) -> Any:
    settings = Settings(anonymized_telemetry=False)
    if os.path.isabs(target):
        return chromadb.PersistentClient(target, settings=settings)
    host, port = target.rsplit(":", 1)
    return chromadb.HttpClient(host, int(port), settings=settings)


def collection_of(client: Any, listed: Any) -> Any:
    return client.get_collection(listed if isinstance(listed, str) else listed.name)


def dump(collection: Any) -> dict[str, Any]:
    got = collection.get(include=["embeddings", "documents", "metadatas"])
    return {i: {"embedding": [float(x) for x in np.float32(got["embeddings"][n])],
                "document": got["documents"][n], "metadata": got["metadatas"][n] or None}
            for n, i in enumerate(got["ids"])}


def missed(collection: Any, records: dict[str, Any]) -> list[str]:
    """In the space of the inner product another one may be nearer than oneself: look further."""
    ids = list(records)[::max(1, len(records) // ASKED)]
    if not ids:
        return []
    nearest = query(collection, [records[i]["embedding"] for i in ids], min(len(records), 50))
    return [i for i, near in zip(ids, nearest) if i not in near]


def query(collection: Any, vectors: list[list[float]], most: int) -> list[list[str]]:
    """After deletions hnswlib may reach fewer than there are; 0.6 then fails, others give fewer."""
    try:
        return collection.query(query_embeddings=vectors, n_results=most,
                                include=["distances"])["ids"]
    except RuntimeError as e:
        if "contigious" not in str(e) or most == 1:
            raise
        return query(collection, vectors, most // 2)


def dimension(collection: Any, records: dict[str, Any]) -> int:
    """One that is empty may have had records."""
    if records:
        return len(next(iter(records.values()))["embedding"])
    return getattr(getattr(collection, "_model", None), "dimension", None) or 2


def ask(target: str) -> dict[str, Any]:
    client = connect(target)
    result: dict[str, Any] = {"records": {}, "missed": []}
    for listed in client.list_collections():
        collection = collection_of(client, listed)
        records = dump(collection)
        result["records"][collection.name] = records
        if collection.name != "odd-records":  # whose vectors are of all lengths
            result["missed"] += missed(collection, records)
        assert collection.count() == len(records)
        collection.upsert(ids=["written after"], documents=["new"],
                          embeddings=[[1.0] * dimension(collection, records)])
        assert collection.get(ids=["written after"])["documents"] == ["new"]
    return result


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1])), flush=True)
    os._exit(0)  # it does not matter what a damaged index does at its end
