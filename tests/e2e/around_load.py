# SPDX-License-Identifier: MIT
"""What Chroma does in the gallery of what people do around a backend; see around.py.

    around_load.py    reads jobs as JSON lines from stdin; for each it forks a child, prints its pid,
                      then what the child says (a word and JSON), and "ended STATUS"

A load is a series of steps, and what a directory holds after so many of them is a function of the
load and their number: the model. A job {"verb": "work"} does steps and prints "ack N"; {"verb":
"look"} compares every record, document and vector with models, and goes on with steps if told to.
"""

import ctypes
import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")

import boots
import numpy as np

LONGEST = 60  # seconds that a job may take
DIMENSIONS = 48
BASE = 240  # records before the first step
STEP = 20  # records of a step: two are a persist
LOADS = ("adds", "updates", "deletes", "mixed")
METADATA = {"hnsw:space": "l2", "hnsw:batch_size": 20, "hnsw:sync_threshold": 40,
            "hnsw:num_threads": 1}
CLONE_NEWPID = 0x20000000
PIN = "around"  # what a pin is called
SNAPSHOT_ALWAYS = 2  # chromashim.h

Model = dict[str, tuple[int, int]]  # id -> revision of vector and document, of metadata


def vector(name: str, revision: int) -> np.ndarray:
    seed = int(name[3:]) * 1000 + revision
    return np.random.default_rng(seed).random(DIMENSIONS, dtype=np.float32)


def document(name: str, revision: int) -> str:
    return f"document {revision} of {name}"


def step(load: str, number: int) -> tuple[str, list[str]]:
    """What a step does, and to which records."""
    old = [f"id-{(number * STEP + j * 3) % BASE}" for j in range(STEP)]
    new = [f"id-{10000 + number * STEP + j}" for j in range(STEP)]
    if load == "adds":
        return "add", new
    if load == "updates":
        return ("update", "upsert")[number % 2], old
    if load == "deletes":
        return "delete", [f"id-{number * STEP + j}" for j in range(STEP)]
    return (("upsert", new[:STEP // 2] + old[:STEP // 2]), ("update", old), ("delete", old),
            ("add", new), ("notes", old))[number % 5]


def apply(model: Model, load: str, number: int) -> None:
    verb, names = step(load, number)
    for name in names:
        was = model.get(name)
        if verb == "delete":
            model.pop(name, None)
        elif verb == "notes" and was:
            model[name] = (was[0], number + 1)
        elif verb in ("add", "upsert") or was:
            model[name] = (number + 1, number + 1)


def model_of(load: str, steps: int) -> Model:
    model = {f"id-{n}": (0, 0) for n in range(BASE)}
    for number in range(steps):
        apply(model, load, number)
    return model


def tell(word: str, what: Any = None) -> None:
    os.write(1, f"{word} {json.dumps(what)}\n".encode())


# ---- in the child


def connect(directory: str) -> Any:
    import chromadb
    from chromadb.config import Settings
    client = chromadb.PersistentClient(directory, settings=Settings(anonymized_telemetry=False))
    return client.get_or_create_collection("books", metadata=METADATA, embedding_function=None)


def whole(names: list[str], revision: int) -> dict[str, Any]:
    return {"ids": names, "embeddings": [vector(i, revision).tolist() for i in names],
            "documents": [document(i, revision) for i in names],
            "metadatas": [{"revision": revision} for _ in names]}


def make_step(books: Any, load: str, number: int) -> None:
    verb, names = step(load, number)
    if verb == "delete":
        books.delete(ids=names)
        return
    if verb == "notes":
        books.update(ids=names, metadatas=[{"revision": number + 1} for _ in names])
        return
    getattr(books, verb)(**whole(names, number + 1))


def make(job: dict[str, Any]) -> None:
    books = connect(job["directory"])
    for first in range(0, BASE, STEP):
        names = [f"id-{n}" for n in range(first, first + STEP)]
        books.add(**whole(names, 0))


def pin() -> int:
    library = ctypes.CDLL(None)
    library.chromashim_protect_begin.restype = ctypes.c_uint64
    library.chromashim_protect_snapshot.argtypes = [ctypes.c_uint64]
    library.chromashim_protect_snapshot.restype = ctypes.c_int64
    library.chromashim_protect_end.argtypes = [ctypes.c_uint64, ctypes.c_int]
    token = library.chromashim_protect_begin(PIN.encode(), SNAPSHOT_ALWAYS)
    number = library.chromashim_protect_snapshot(token)
    library.chromashim_protect_end(token, 0)
    return number


def copy_again_and_again(directory: str, target: str, stop: threading.Event) -> None:
    """As programs back themselves up."""
    copies, target = 0, os.path.abspath(target)
    while not stop.is_set() or not copies:
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(directory, target, ignore=lambda *_: [".chromashim"])
        except (OSError, shutil.Error):
            pass  # what was copied is gone already
        copies += 1
    tell("copies", copies)


def await_tracer() -> None:
    """Whoever is told to wait is traced by strace before it begins."""
    while "TracerPid:\t0\n" in open("/proc/self/status", encoding="ascii").read():
        time.sleep(0.005)


def work(job: dict[str, Any]) -> None:
    """{"directory", "load", "first", "steps", "pin": STEP, "copy": DIRECTORY}"""
    books = connect(job["directory"])
    stop = threading.Event()
    if job.get("copy"):
        copier = threading.Thread(target=copy_again_and_again, daemon=True,
                                  args=(job["directory"], job["copy"], stop))
        copier.start()
    for number in range(job["first"], job["first"] + job["steps"]):
        if job.get("pin") == number:
            tell("pin", pin())
        try:
            make_step(books, job["load"], number)
        except Exception as error:
            tell("refused", f"step {number}: {type(error).__name__}: {error}"[:300])
            return
        tell("ack", number + 1)
    stop.set()
    if job.get("copy"):
        copier.join()


def everything(books: Any) -> dict[str, tuple[np.ndarray, str, Any]]:
    got = books.get(include=["embeddings", "documents", "metadatas"])
    return {i: (np.asarray(got["embeddings"][n], dtype=np.float32), got["documents"][n],
                (got["metadatas"][n] or {}).get("revision"))
            for n, i in enumerate(got["ids"])}


def differences(found: dict[str, tuple[Any, str, Any]], model: Model) -> str:
    """found: id -> vector, document, revision; "" if it is the model to the bit."""
    missing = model.keys() - found.keys()
    extra = found.keys() - model.keys()
    both = model.keys() & found.keys()
    vectors = [i for i in both if not np.array_equal(found[i][0], vector(i, model[i][0]))]
    texts = [i for i in both if found[i][1:] != (document(i, model[i][0]), model[i][1])]
    told = [f"{len(what)} {word}" for what, word in (
        (missing, "missing"), (extra, "too many"), (vectors, "with other vectors"),
        (texts, "with other texts")) if what]
    return ", ".join(told)


def nearest(found: dict[str, tuple[Any, str, Any]], models: list[Model]) -> tuple[int, str]:
    """Which of the models it is, or -1 and the smallest of the differences."""
    told = [differences(found, model) for model in models]
    if "" in told:
        return told.index(""), ""
    return -1, min(told, key=lambda text: sum(int(w) for w in text.split() if w.isdigit()))


def unfound(books: Any, found: dict[str, tuple[Any, str, Any]]) -> int:
    """Records that a search for their own vector does not find."""
    names = list(found)
    if not names:
        return 0
    got = books.query(query_embeddings=[found[i][0].tolist() for i in names], n_results=1,
                      include=["distances"])
    return sum(1 for i, near in zip(names, got["ids"]) if near != [i])


def look(job: dict[str, Any]) -> None:
    """{"directory", "models": [[load, steps]...], "more": how many steps then}"""
    books = connect(job["directory"])
    found = everything(books)
    count, lost = books.count(), unfound(books, found)
    which, told = nearest(found, [model_of(*one) for one in job["models"]])
    if not told and count != len(found):
        told = f"count {count}, but {len(found)} records"
    if not told and lost > len(found) // 20:
        told = f"{lost} of {len(found)} not found by their own vectors"
    tell("found", [which, told])
    if told or not job.get("more"):
        return
    load, steps = job["models"][which]
    try:
        for number in range(steps, steps + job["more"]):
            make_step(books, load, number)
            tell("ack", number + 1)
    except Exception as error:
        tell("refused", f"step {number}: {type(error).__name__}: {error}"[:300])


VERBS = {"make": make, "work": work, "look": look}


# ---- as whom, and where


def be_init() -> None:
    """Returns in the third process: the first of a container cannot kill itself."""
    first = os.fork()
    if not first:
        boots.libc_must("mount", b"proc", b"/proc", b"proc", 0, None)
        first = os.fork()
        if not first:
            return
    _, status = os.waitpid(first, 0)
    if os.WIFSIGNALED(status):
        tell("killed", os.WTERMSIG(status))
    os._exit(0)


def disguise(job: dict[str, Any]) -> None:
    """{"boot": a file with another boot's id, "container": true, "uid": number}"""
    if job.get("boot") or job.get("container"):
        boots.own_mounts(CLONE_NEWPID if job.get("container") else 0)
    if job.get("boot"):
        boots.enter(job["boot"])
    if job.get("container"):
        be_init()
    if job.get("uid"):
        os.setgroups([])
        os.setresgid(job["uid"], job["uid"], job["uid"])
        os.setresuid(job["uid"], job["uid"], job["uid"])
        os.environ["HOME"] = "/tmp"


def be_child(job: dict[str, Any]) -> None:
    if job.get("fault"):  # see shim/preload/place/faults.h
        os.environ["CHROMASHIM_FAULT"] = job["fault"]
    os.chdir(job["directory"] if os.path.isdir(job["directory"]) else "/")
    disguise(job)
    if job.get("traced"):
        await_tracer()
    signal.alarm(LONGEST)
    try:
        VERBS[job["verb"]](job)
        tell("done")
    except BaseException as error:  # a panic of the Rust core is no Exception
        tell("error", f"{type(error).__name__}: {error}"[:300])
    sys.stderr.flush()
    os._exit(0)  # what threads of onnxruntime leave behind in a fork cannot be destroyed


def import_all() -> None:
    """What a client imports when it is made, of either release: once, for all children."""
    for name in ("chromadb", "posthog", "chromadb.telemetry.product.posthog", "chromadb.api.rust",
                 "chromadb_rust_bindings", "chromadb.api.segment", "chromadb.db.impl.sqlite",
                 "chromadb.segment.impl.manager.local", "chromadb.execution.executor.local",
                 "chromadb.segment.impl.metadata.sqlite", "hnswlib", "chromadb.migrations",
                 "chromadb.segment.impl.vector.local_persistent_hnsw", "numpy.random",
                 "chromadb.quota.simple_quota_enforcer", "encodings.idna",
                 "chromadb.rate_limit.simple_rate_limit"):
        try:
            importlib.import_module(name)
        except ImportError:
            pass


def main() -> None:
    if len(sys.argv) > 1:  # one job, without a fork: what `run` starts
        be_child(json.loads(sys.argv[1]))
        return
    import_all()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            be_child(json.loads(line))
        os.write(1, f"pid {child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(1, f"ended {status}\n".encode())


if __name__ == "__main__":
    main()
