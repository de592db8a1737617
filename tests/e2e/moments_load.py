# SPDX-License-Identifier: MIT
"""Random work on real Chroma, told call by call: what a model needs to know what was there when.

    moments_load.py TARGET SEED LOG    until stdin says how often (lines); TARGET is a directory, or
                                       host:port

One JSON object a line in LOG, flushed: {"begin": ns, "end": ns, "drop": [names], "make": [names],
"set": {name: {id: record}}, "unset": {name: [ids]}}. A begun call stands there without "end" before
it is made, so that what was under way at a death is known. What is there at the start is read from
LOG. Calls are some milliseconds apart, so that most moments have nothing under way.
"""

import json
import os
import random
import sys
import time
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import chromadb  # noqa: E402
import numpy as np  # noqa: E402
from chromadb.config import Settings  # noqa: E402

NAMES = ["one", "two", "three", "four"]
SETTINGS = {"hnsw:space": "l2", "hnsw:sync_threshold": 60, "hnsw:batch_size": 20,
            "hnsw:num_threads": 1}
WORDS = ["", "of", "überall", "new\nline", "plain"]


def replay(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What is there after these calls."""
    model: dict[str, dict[str, Any]] = {}
    for line in lines:
        for name in line.get("drop", []):
            del model[name]
        for name in line.get("make", []):
            model[name] = {}
        for name, records in line.get("set", {}).items():
            model[name] = {**model[name], **records}
        for name, ids in line.get("unset", {}).items():
            model[name] = {i: r for i, r in model[name].items() if i not in set(ids)}
    return model


class Work:
    """One call after the other, and the model beside it."""

    def __init__(self, client: Any, rng: random.Random, model: dict[str, Any], log: Any) -> None:
        self.client, self.rng, self.model, self.log, self.next = client, rng, model, log, 0

    def vector(self) -> list[float]:
        return [float(x) for x in np.float32([self.rng.uniform(-3, 3) for _ in range(8)])]

    def record(self) -> dict[str, Any]:
        return {"embedding": self.vector(), "document": self.rng.choice(WORDS) + "!",
                "metadata": {"n": self.rng.randrange(1000), "f": self.rng.choice([0.5, True, "x"])}}

    def made(self, what: dict[str, Any], call: Any) -> None:
        begin = time.time_ns()
        self.log.write(json.dumps({"begin": begin, **what}) + "\n")
        self.log.flush()
        call()
        self.log.write(json.dumps({"begin": begin, "end": time.time_ns(), **what}) + "\n")
        self.log.flush()
        self.model.update(replay([{"make": list(self.model)}, {"set": self.model}, what]))
        for name in what.get("drop", []):
            if name not in what.get("make", []):
                self.model.pop(name, None)

    def put(self, name: str, records: dict[str, Any], how: str) -> None:
        collection = self.client.get_collection(name)
        values = list(records.values())
        self.made({"set": {name: records}}, lambda: getattr(collection, how)(
            ids=list(records), embeddings=[v["embedding"] for v in values],
            documents=[v["document"] for v in values], metadatas=[v["metadata"] for v in values]))

    def some(self, name: str, most: int) -> list[str]:
        ids = sorted(self.model[name])
        return self.rng.sample(ids, min(len(ids), self.rng.randint(1, most)))

    def go_on(self) -> None:
        absent = [n for n in NAMES if n not in self.model]
        if absent and (not self.model or self.rng.random() < 0.2):
            name = self.rng.choice(absent)
            self.made({"make": [name]}, lambda: self.client.create_collection(
                name, metadata=SETTINGS))
            return
        name = self.rng.choice(sorted(self.model))
        way = self.rng.random()
        if way < 0.015:
            self.made({"drop": [name]}, lambda: self.client.delete_collection(name))
        elif way < 0.5 or not self.model[name]:
            self.next += 1
            new = {f"{name} {self.next} {k} {self.rng.randrange(10**6)}": self.record()
                   for k in range(self.rng.randint(1, 12))}
            self.put(name, new, self.rng.choice(["add", "upsert"]))
        elif way < 0.75:
            self.put(name, {i: self.record() for i in self.some(name, 6)},
                     self.rng.choice(["update", "upsert"]))
        else:
            ids = self.some(name, 10)
            self.made({"unset": {name: ids}},
                      lambda: self.client.get_collection(name).delete(ids=ids))
        time.sleep(self.rng.uniform(0.002, 0.012))


def connect(target: str) -> Any:
    settings = Settings(anonymized_telemetry=False)
    if os.path.isabs(target):
        return chromadb.PersistentClient(target, settings=settings)
    host, port = target.rsplit(":", 1)
    return chromadb.HttpClient(host, int(port), settings=settings)


def main() -> None:
    target, seed, path = sys.argv[1:]
    with open(path, "a+", encoding="utf-8") as log:
        log.seek(0)
        lines = [json.loads(line) for line in log]
        work = Work(connect(target), random.Random(int(seed)),
                    replay([line for line in lines if "end" in line]), log)
        work.next = len(lines)
        print("ready", flush=True)
        for line in sys.stdin:
            for _ in range(int(line)):
                work.go_on()
            print("done", flush=True)
    os._exit(0)  # as one that is killed between two calls


if __name__ == "__main__":
    main()
