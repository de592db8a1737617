# SPDX-License-Identifier: MIT
"""What Chroma does while snapshots are taken, and what a restored one has to answer.

    snapshots_load.py load TARGET [N]   upserts for ever, or N batches and ends; prints
                                        "FIRST NANOSECONDS" for each batch that was acknowledged
    snapshots_load.py check DIR=N...    prints for each directory how many records it has, and which
                                        of its first N batches are not there bit-equal, as JSON lines
"""

import json
import math
import sys
import time

import workload

SIZE = 20


def load(target: str, batches: float) -> None:
    books = workload.connect(target).get_or_create_collection("books", metadata=workload.METADATA)
    first = 0
    while first < batches * SIZE:
        books.upsert(**workload.batch(first, SIZE))
        print(first, time.time_ns(), flush=True)
        first += SIZE


def check(directory: str, batches: int) -> dict:
    books = workload.connect(directory).get_or_create_collection("books")
    wrong = workload.wrong(books, [n * SIZE for n in range(batches)], SIZE)
    return {"count": books.count(), "wrong": wrong}


def main() -> None:
    if sys.argv[1] == "load":
        load(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else math.inf)
        return
    for argument in sys.argv[2:]:
        directory, batches = argument.rsplit("=", 1)
        print(json.dumps(check(directory, int(batches))), flush=True)


if __name__ == "__main__":
    main()
