# SPDX-License-Identifier: MIT
"""What a host of Chroma is made to do; runs inside a virtual environment that has chromadb.

    workload.py TARGET PART...     prints what the parts saw, as one JSON object
    workload.py - forks            reads directories from stdin; for each, forks a child that
                                   upserts into it until it is killed

TARGET is a directory (PersistentClient) or host:port (HttpClient). Embeddings are made from a seed,
so every host and every run gets the same ones, and nothing is ever downloaded.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
import numpy as np  # noqa: E402
from chromadb.config import Settings  # noqa: E402

DIMENSIONS = 24
RECORDS = 420
BATCH = 60
METADATA = {"hnsw:space": "l2", "hnsw:batch_size": 50, "hnsw:sync_threshold": 100,
            "hnsw:num_threads": 1}


def connect(target: str) -> Any:
    settings = Settings(anonymized_telemetry=False)
    if os.path.isabs(target) or ":" not in target:
        return chromadb.PersistentClient(target, settings=settings)
    host, port = target.rsplit(":", 1)
    return chromadb.HttpClient(host, int(port), settings=settings)


def vectors(seed: int, count: int) -> list[list[float]]:
    return np.random.default_rng(seed).random((count, DIMENSIONS), dtype=np.float32).tolist()


def records(seed: int, first: int, count: int) -> dict[str, Any]:
    numbers = range(first, first + count)
    return {
        "ids": [f"id-{n}" for n in numbers],
        "embeddings": vectors(seed, count),
        "documents": [f"document {n} of shelf {n % 7}" for n in numbers],
        "metadatas": [{"n": n, "half": n / 2, "shelf": f"s{n % 7}", "even": n % 2 == 0}
                      for n in numbers],
    }


def plain(value: Any) -> Any:
    """Numbers rounded to what does not depend on the order of additions."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in sorted(value.items()) if v is not None}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 4)
    if isinstance(value, np.integer):
        return int(value)
    return value


def asked(collection: Any) -> dict[str, Any]:
    """What a collection answers."""
    nearest = collection.query(query_embeddings=vectors(99, 4), n_results=5,
                               include=["documents", "metadatas", "distances"])
    filtered = collection.query(query_embeddings=vectors(98, 2), n_results=5, where={"shelf": "s3"},
                                include=["distances"])
    everything = collection.get(include=["documents", "metadatas", "embeddings"])
    order = np.argsort(everything["ids"])
    return plain({
        "count": collection.count(),
        "nearest": {k: nearest[k] for k in ("ids", "documents", "metadatas", "distances")},
        "filtered": {k: filtered[k] for k in ("ids", "distances")},
        "text": sorted(collection.get(where_document={"$contains": "shelf 5"})["ids"]),
        "all": {k: [everything[k][i] for i in order]
                for k in ("ids", "documents", "metadatas", "embeddings")},
    })


def batch(first: int, count: int = BATCH) -> dict[str, Any]:
    """Records whose content follows from their number alone."""
    return records(first, first, count)


def wrong(collection: Any, firsts: list[int], count: int = BATCH) -> list[str]:
    """Ids of these batches that are not there, have another vector, or cannot be found by it."""
    out = []
    for first in firsts:
        want = batch(first, count)
        got = collection.get(ids=want["ids"], include=["embeddings", "documents"])
        have = {i: (np.asarray(e, np.float32).tobytes(), d) for i, e, d in
                zip(got["ids"], got["embeddings"], got["documents"])}
        near = collection.query(query_embeddings=want["embeddings"], n_results=1, include=[])["ids"]
        for i, e, d, n in zip(want["ids"], want["embeddings"], want["documents"], near):
            if have.get(i) != (np.asarray(e, np.float32).tobytes(), d) or n != [i]:
                out.append(i)
    return out


def names(client: Any) -> list[str]:
    return sorted(c if isinstance(c, str) else c.name for c in client.list_collections())


def life(client: Any) -> dict[str, Any]:
    """Create, upsert, query, update, delete, and delete a collection."""
    out = {}
    books = client.create_collection("books", metadata=METADATA)
    for first in range(0, RECORDS, BATCH):
        books.upsert(**records(first, first, BATCH))
    out["upserted"] = asked(books)
    books.update(**{**records(7, 40, 50), "documents": [f"updated {n}" for n in range(50)]})
    books.upsert(**records(8, RECORDS - 20, 40))
    out["updated"] = asked(books)
    books.delete(ids=[f"id-{n}" for n in range(100, 130)])
    books.delete(where={"shelf": "s6"})
    out["deleted"] = asked(books)
    scrap = client.create_collection("scrap", metadata=METADATA)
    scrap.upsert(**records(9, 0, 110))
    out["scrap"] = plain(scrap.count())
    client.delete_collection("scrap")
    out["collections"] = names(client)
    return out


def again(client: Any) -> dict[str, Any]:
    """After a restart: all is there, and can be added to."""
    books = client.get_collection("books")
    out = {"collections": names(client), "reopened": asked(books)}
    books.upsert(**records(10, 2000, 110))
    out["grown"] = asked(books)
    return out


def load(client: Any) -> None:
    books = client.get_or_create_collection("books", metadata=METADATA)
    first = 0
    while True:
        books.upsert(**records(first, first, 20))
        first += 20


def forks() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            load(connect(line.strip()))
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)


def main() -> None:
    if sys.argv[2:] == ["forks"]:
        import chromadb.api.rust  # noqa: F401, so that the children need not
        forks()
        return
    client = connect(sys.argv[1])
    parts = {"life": life, "again": again}
    json.dump({part: parts[part](client) for part in sys.argv[2:]}, sys.stdout)


if __name__ == "__main__":
    main()
