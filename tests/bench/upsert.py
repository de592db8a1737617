# SPDX-License-Identifier: MIT
"""upsert.py DIRECTORY RECORDS DIMENSIONS BATCH: prints how many seconds Chroma takes to store them.

Start-up, imports and making the vectors are not counted.
"""

import os
import sys
import time

os.environ["ANONYMIZED_TELEMETRY"] = "False"

import chromadb
import numpy as np


def main():
    directory = sys.argv[1]
    records, dimensions, batch = map(int, sys.argv[2:5])
    vectors = np.random.default_rng(1).random((records, dimensions), dtype=np.float32)
    names = [f"record-{n}" for n in range(records)]
    documents = [f"document number {n}, with a few words in it" for n in range(records)]
    collection = chromadb.PersistentClient(directory).create_collection("bench")
    begin = time.perf_counter()
    for at in range(0, records, batch):
        end = at + batch
        collection.upsert(ids=names[at:end], embeddings=vectors[at:end],
                          documents=documents[at:end])
    print(f"{time.perf_counter() - begin:.6f}")


main()
