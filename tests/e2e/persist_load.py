# SPDX-License-Identifier: MIT
"""Upserts until it is killed, and tells afterwards whether everything is there.

    persist_load.py    reads lines "TARGET LEAST [MOST [only]] [fault=FAULT] [boot=FILE]" from stdin;
                       for each it forks a child, prints its pid, waits for it and prints "ended
                       STATUS"

TARGET is a directory (PersistentClient) or host:port (HttpClient). What batch number k holds is a
function of k, so LEAST, the number acknowledged so far, says what must be there; further ones up to
MOST (by default one, that was under way) may be there, each as a whole. The child prints
"verified N" (batches found) or "broken REASON"; if Chroma hangs on what it finds, as it does on some
torn graphs without the shim, SIGALRM ends it. Then, but for "only", it upserts without end and prints
"ack N" after each batch.
"""

import os
import signal
import sys
from typing import Any, Optional

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import boots  # noqa: E402
import chromadb  # noqa: E402
import numpy as np  # noqa: E402
from chromadb.config import Settings  # noqa: E402

DIMENSIONS = 768
BATCH = 50
PATIENCE = 120  # seconds
AGAIN = 10  # records of an earlier batch that a batch upserts anew
METADATA = {"hnsw:space": "l2", "hnsw:batch_size": 100, "hnsw:sync_threshold": 200,
            "hnsw:num_threads": 1}


def batch(number: int) -> dict[str, np.ndarray]:
    """New records, and a few old ones with other vectors."""
    rng = np.random.default_rng(number)
    ids = [f"id-{n}" for n in range(number * BATCH, (number + 1) * BATCH)]
    if number:
        first = int(rng.integers(0, number * BATCH - AGAIN + 1))
        ids += [f"id-{n}" for n in range(first, first + AGAIN)]
    return dict(zip(ids, rng.random((len(ids), DIMENSIONS), dtype=np.float32)))


def connect(target: str) -> Any:
    settings = Settings(anonymized_telemetry=False)
    if os.path.isabs(target):
        return chromadb.PersistentClient(target, settings=settings)
    host, port = target.rsplit(":", 1)
    return chromadb.HttpClient(host, int(port), settings=settings)


def differs(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> Optional[str]:
    if found.keys() != expected.keys():
        missing = sorted(expected.keys() - found.keys())
        return f"{len(missing)} missing {missing[:3]}, {len(found) - len(expected) + len(missing)} extra"
    wrong = [i for i, vector in expected.items() if not np.array_equal(found[i], vector)]
    return f"{len(wrong)} with other embeddings {wrong[:3]}" if wrong else None


def recall(collection: Any, expected: dict[str, np.ndarray]) -> float:
    """Of the ten nearest to twenty random points, how many are found."""
    if len(expected) < 20:
        return 1.0
    ids = list(expected)
    matrix = np.stack([expected[i] for i in ids])
    points = np.random.default_rng(7).random((20, DIMENSIONS), dtype=np.float32)
    found = collection.query(query_embeddings=points.tolist(), n_results=10, include=["distances"])
    hits = 0
    for point, near in zip(points, found["ids"]):
        order = np.argsort(((matrix - point) ** 2).sum(axis=1))[:10]
        hits += len({ids[i] for i in order} & set(near))
    return hits / 200


def everything(collection: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    while True:
        page = collection.get(include=["embeddings"], limit=500, offset=len(found))
        if not page["ids"]:
            return found
        before = len(found)
        found |= zip(page["ids"], np.asarray(page["embeddings"], dtype=np.float32))
        if len(found) == before:
            raise ValueError(f"again, or without an embedding: {page['ids'][:3]}")


def verify(collection: Any, least: int, most: int) -> tuple[Optional[str], int]:
    expected: dict[str, np.ndarray] = {}
    found = everything(collection)
    batches = min(max(least, len(found) // BATCH), most)
    for number in range(batches):
        expected |= batch(number)
    if collection.count() != len(found):
        return f"count {collection.count()}, but {len(found)} records", 0
    problem = differs(found, expected)
    if problem:
        return f"{problem}; of {least} to {most} batches", 0
    share = recall(collection, expected)
    return (f"recall {share}" if share < 0.8 else None), batches


def tell(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def run(target: str, least: int, most: int, only: bool) -> None:
    batches = 0
    signal.alarm(PATIENCE)
    try:
        collection = connect(target).get_or_create_collection("books", metadata=METADATA)
        problem, batches = verify(collection, least, most)
    except Exception as error:  # whatever Chroma says, it is broken
        problem = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    if problem:
        tell("broken " + problem.replace("\n", " ")[:300])
        return
    tell(f"verified {batches}")
    while not only:
        records = batch(batches)
        try:
            collection.upsert(ids=list(records), embeddings=list(records.values()))
        except Exception as error:
            tell("refused " + str(error).replace("\n", " ")[:300])
            return
        batches += 1
        tell(f"ack {batches}")


def main() -> None:
    for line in sys.stdin:
        target, least, *words = line.split()
        more = [word for word in words if "=" not in word]
        settings = dict(word.split("=", 1) for word in words if "=" in word)
        child = os.fork()
        if not child:
            if "fault" in settings:  # see shim/preload/place/faults.h
                os.environ["CHROMASHIM_FAULT"] = settings["fault"]
            if "boot" in settings:
                boots.own_mounts()
                boots.enter(settings["boot"])
            run(target, int(least), int(more[0]) if more else int(least) + 1, "only" in more)
            os._exit(0)
        tell(f"pid {child}")
        _, status = os.waitpid(child, 0)
        tell(f"ended {status}")


if __name__ == "__main__":
    main()
