# SPDX-License-Identifier: MIT
"""Adds, then updates, upserts and deletes, with persists in between: older_load.py DIR make|change SPACE."""

import random
import sys

import chromadb

COUNT, BATCH = 400, 50


def vector(number, generation):
    rng = random.Random(number * 1000 + generation)
    return [rng.random() for _ in range(16)]


directory, what, space = sys.argv[1:]
collection = chromadb.PersistentClient(directory).get_or_create_collection(
    "older", embedding_function=None,
    metadata={"hnsw:sync_threshold": 100, "hnsw:batch_size": 50, "hnsw:space": space})
if what == "make":
    for at in range(0, COUNT, BATCH):
        numbers = range(at, at + BATCH)
        collection.add(ids=[str(n) for n in numbers], embeddings=[vector(n, 0) for n in numbers])
for generation in range(1, 9 if what == "change" else 1):
    numbers = [(generation * BATCH + 3 * n) % COUNT for n in range(BATCH)]
    ids = [str(n) for n in numbers]
    if generation % 4 == 2:
        collection.delete(ids=ids[:10])
    write = collection.update if generation % 2 else collection.upsert
    write(ids=ids, embeddings=[vector(n, generation) for n in numbers])
