# SPDX-License-Identifier: MIT
"""Fills a collection past several persists, with documents that need overflow pages, and deletes,
updates and adds after the last one: pages_load.py DIRECTORY COUNT. For test_recover_pages.py."""

import os
import random
import sys

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
from chromadb.config import Settings  # noqa: E402

WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()
RANDOM = random.Random(5)


def document(n: int) -> str:
    return f"doc {n} " + " ".join(RANDOM.choices(WORDS, k=1800 if n % 97 == 0 else 4 + n % 20))


def vector() -> list[float]:
    return [RANDOM.random() for _ in range(24)]


def main() -> None:
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    count = int(sys.argv[2])
    big = client.create_collection("big", metadata={"hnsw:space": "l2"})
    for first in range(0, count, 100):
        numbers = range(first, first + 100)
        big.add(ids=[f"id-{n}" for n in numbers], embeddings=[vector() for n in numbers],
                documents=[document(n) for n in numbers],
                metadatas=[{"n": n, "s": f"s{n % 7}", "f": n / 3, "b": bool(n % 2)}
                           for n in numbers])
    big.delete(ids=[f"id-{n}" for n in range(300, 500)])
    big.update(ids=[f"id-{n}" for n in range(50)], embeddings=[vector() for n in range(50)],
               documents=[f"new {n}" for n in range(50)], metadatas=[{"n": -n} for n in range(50)])
    # last, so that their rows still stand on free pages
    big.delete(ids=[f"id-{n}" for n in range(1200, 1600)])
    os._exit(0)


main()
