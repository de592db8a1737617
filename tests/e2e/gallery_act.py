# SPDX-License-Identifier: MIT
"""What real Chroma does when a fault meets it; runs inside a virtual environment.

    gallery_act.py    reads lines "TARGET VERB OUTPUT" from stdin; for each it forks a child, which
                      prints "child PID", waits for another line, and does it; then it prints
                      "ended STATUS"

TARGET is a directory or host:port; VERB a function below. To OUTPUT goes "ack N" for what was
acknowledged, and an exception as a user would see it.
"""

import os
import shutil
import sys
import traceback
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
from chromadb.config import Settings  # noqa: E402

BATCH, BATCHES = 50, 4
COLLECTION = "space-l2"


def batch(number: int) -> dict[str, list]:
    numbers = range(BATCH * number, BATCH * (number + 1))
    return {"ids": [f"act-{n}" for n in numbers], "documents": [f"of act {n}" for n in numbers],
            "embeddings": [[float(n + i) for i in range(16)] for n in numbers]}


def add(client: Any, _target: str) -> None:
    collection = client.get_collection(COLLECTION)
    for number in range(BATCHES):
        collection.add(**batch(number))
        print("ack", number, flush=True)


def upsert_others(client: Any, _target: str) -> None:
    """As a second process does it beside the first."""
    collection = client.get_collection(COLLECTION)
    for number in range(BATCHES):
        records = batch(number)
        records["ids"] = [f"other-{i}" for i in records["ids"]]
        records["embeddings"] = [[-x for x in vector] for vector in records["embeddings"]]
        collection.upsert(**records)
        print("ack", number, flush=True)


def reset(client: Any, _target: str) -> None:
    client.reset()


def delete(client: Any, _target: str) -> None:
    client.delete_collection(COLLECTION)


def connect(client: Any, _target: str) -> None:
    client.heartbeat()


def ask(client: Any, _target: str) -> None:
    """As most do: the nearest, of every collection."""
    for listed in client.list_collections():
        collection = client.get_collection(listed if isinstance(listed, str) else listed.name)
        some = collection.peek(1)["ids"]
        dimension = 3 if collection.name == "odd-records" else 4 if len(some) and \
            collection.name == "queue-only" else 16
        collection.query(query_embeddings=[[0.5] * dimension], n_results=5)


def other_dimension(client: Any, _target: str) -> None:
    client.get_collection(COLLECTION).add(ids=["other"], embeddings=[[1.0, 2.0, 3.0]])


def deleted(client: Any, target: str) -> None:
    """Somebody removes the directory under the client, and makes it anew."""
    shutil.rmtree(target)
    os.mkdir(target)
    client.create_collection("after-it")


def other_settings(_client: Any, target: str) -> None:
    chromadb.PersistentClient(target, settings=Settings(anonymized_telemetry=False))


def version(i: int, number: int) -> list[float]:
    """The vector of a record's n-th version, which tells both."""
    return [float(i), float(number), 1.0, float(i * number % 17)]


def pairs_write(client: Any, first: int, last: int, number: int) -> None:
    for name in ("space-l2", "space-cosine"):
        collection = client.get_or_create_collection(
            name, metadata={"hnsw:space": name[6:], "hnsw:sync_threshold": 200,
                            "hnsw:batch_size": 50})
        for start in range(first, last, 50):
            numbers = range(start, start + 50)
            collection.upsert(ids=[str(i) for i in numbers],
                              embeddings=[version(i, number) for i in numbers])
            print("ack", name, start, start + 50, number, flush=True)


def pairs_base(client: Any, _target: str) -> None:
    pairs_write(client, 0, 500, 1)


def pairs_adds(client: Any, _target: str) -> None:
    pairs_write(client, 500, 900, 1)


def pairs_upserts(client: Any, _target: str) -> None:
    pairs_write(client, 0, 500, 2)


def pairs_mixed(client: Any, _target: str) -> None:
    for name in ("space-l2", "space-cosine"):
        client.get_collection(name).delete(ids=[str(i) for i in range(30, 60)])
        print("ack", name, 30, 60, 0, flush=True)
    pairs_write(client, 450, 900, 2)


def pairs_later(client: Any, _target: str) -> None:
    """Whoever goes on after the kill, as a service does that is started again."""
    collection = client.get_collection("space-l2")
    for start in range(2000, 2100, 50):
        numbers = range(start, start + 50)
        try:
            collection.upsert(ids=[str(i) for i in numbers],
                              embeddings=[version(i, 1) for i in numbers])
            print("ack space-l2", start, start + 50, 1, flush=True)
        except chromadb.errors.InternalError:
            print("maybe space-l2", start, start + 50, 1, flush=True)


def texts(i: int, number: int) -> dict[str, Any]:
    return {"ids": str(i), "embeddings": version(i, number), "documents": f"text {i} of {number}" * 9,
            "metadatas": {"number": number, "n": i}}


def texts_write(client: Any, first: int, last: int, number: int) -> None:
    collection = client.get_or_create_collection(
        "texts", metadata={"hnsw:sync_threshold": 200, "hnsw:batch_size": 50})
    for start in range(first, last, 100):
        rows = [texts(i, number) for i in range(start, start + 100)]
        collection.upsert(**{key: [row[key] for row in rows] for key in rows[0]})


def texts_base(client: Any, _target: str) -> None:
    texts_write(client, 0, 1600, 1)


def texts_after(client: Any, _target: str) -> None:
    """After the snapshot: some deleted, some changed, some new; all of it in the index."""
    collection = client.get_collection("texts")
    collection.delete(ids=[str(i) for i in range(0, 50)])
    texts_write(client, 100, 300, 2)
    texts_write(client, 1600, 1800, 2)
    texts_write(client, 300, 500, 1)


def read(client: Any, _target: str) -> None:
    """Every collection, with its vectors."""
    for listed in client.list_collections():
        collection = client.get_collection(listed if isinstance(listed, str) else listed.name)
        collection.get(include=["embeddings"])
        print("ack", collection.name, flush=True)


VERBS = {one.__name__: one for one in (
    add, upsert_others, reset, delete, connect, read, ask, other_dimension, deleted, other_settings,
    texts_base, texts_after, pairs_base, pairs_adds, pairs_upserts, pairs_mixed, pairs_later)} | {"validate": connect}


def act(target: str, verb: str) -> None:
    settings = Settings(anonymized_telemetry=False, allow_reset=True,
                        **({"migrations": "validate"} if verb == "validate" else {}))
    if os.path.isabs(target):
        client = chromadb.PersistentClient(target, settings=settings)
    else:
        host, port = target.rsplit(":", 1)
        client = chromadb.HttpClient(host, int(port), settings=settings)
    VERBS[verb](client, target)


def be_child(target: str, verb: str, output: str) -> None:
    sys.stdin.readline()  # when strace is there
    with open(output, "w", encoding="utf-8") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    try:
        act(target, verb)
    except BaseException:  # a panic of the Rust core is no Exception
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            print("child", os.getpid(), flush=True)
            be_child(*line.split())
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
