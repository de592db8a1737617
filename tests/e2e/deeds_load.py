# SPDX-License-Identifier: MIT
"""Does to a Chroma what is known beforehand, one deed after the other, until it is killed.

    deeds_load.py DIR FROM TO    does deeds FROM to TO - 1 and prints "did N" after each
    deeds_load.py DIR bulk       adds records enough to outgrow SQLite's page cache, in one go

state_after(N) is what a directory then holds. Small settings: a persist every 100 operations.
"""

import os
import random
import sys
from typing import Any, Iterator

NAME = "deeds"
DIMENSIONS = 32
BULK = range(1_000_000, 1_003_000)
Deed = tuple[str, list[int], int]  # what, with which records, their version


def deeds() -> Iterator[Deed]:
    for first in range(0, 200, 50):
        yield "add", list(range(first, first + 50)), 0
    number = 0
    while True:
        number += 1
        oldest = 4 * (number - 1)
        yield "add", list(range(190 + 10 * number, 200 + 10 * number)), number
        yield "delete", list(range(oldest, oldest + 4)), number
        yield "upsert", [oldest, 100 + number], number  # one that was deleted, one that was not


def vector(record: int, version: int) -> list[float]:
    """Numbers that a float32 holds exactly."""
    rng = random.Random(record * 1000 + version)
    return [rng.randrange(-2048, 2048) / 1024 for _ in range(DIMENSIONS)]


def document(record: int, version: int) -> str:
    return f"what {record} says in version {version}" * (40 if record in BULK else 1)


def state_after(count: int) -> dict[str, dict[str, Any]]:
    state = {}
    for (what, records, version), _ in zip(deeds(), range(count)):
        for record in records:
            if what == "delete":
                del state[str(record)]
            else:
                state[str(record)] = {"embedding": vector(record, version),
                                      "document": document(record, version)}
    return state


def do(collection: Any, what: str, records: list[int], version: int) -> None:
    ids = [str(record) for record in records]
    if what == "delete":
        collection.delete(ids=ids)
    else:
        getattr(collection, what)(ids=ids, embeddings=[vector(r, version) for r in records],
                                  documents=[document(r, version) for r in records])


def main() -> None:
    os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
    import chromadb  # pylint: disable=import-outside-toplevel
    from chromadb.config import Settings  # pylint: disable=import-outside-toplevel
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    collection = client.get_or_create_collection(NAME, metadata={
        "hnsw:space": "l2", "hnsw:sync_threshold": 100, "hnsw:batch_size": 50,
        "hnsw:num_threads": 1})
    if sys.argv[2] == "bulk":
        do(collection, "add", list(BULK), 0)
    else:
        first, last = map(int, sys.argv[2:])
        for number, deed in zip(range(last), deeds()):
            if number >= first:
                do(collection, *deed)
                print("did", number + 1, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
