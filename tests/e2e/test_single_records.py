# SPDX-License-Identifier: MIT
"""snapshot diff --records and restore --collection: what was deleted and changed since a snapshot is
told as real Chroma tells it, and comes back alone; all that is newer stays as it is."""

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import gallery
import hosts
from loads import listed

pytestmark = pytest.mark.memory

LINES = ["python", "python-0.6"]
COLLECTIONS = {"in-l2": "l2", "in-cosine": "cosine", "in-ip": "ip", "made-anew": "l2",
               "deleted": "cosine"}

CLIENT = """
import os, sys, random, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
rng = random.Random(int(sys.argv[2]))
SMALL = {"hnsw:sync_threshold": 60, "hnsw:batch_size": 30, "hnsw:num_threads": 1}

def vectors(n):
    return [[rng.uniform(-3, 3) for _ in range(6)] for _ in range(n)]

def records(ids):
    return {"ids": ids, "embeddings": vectors(len(ids)),
            "documents": [rng.choice(["", "of", "überall", "new\\nline"]) + i for i in ids],
            "metadatas": [{rng.choice("abc"): rng.choice([1, 2.5, True, "x"]), "n": n}
                          for n in range(len(ids))]}

def make(name, space, count):
    c = client.create_collection(name, metadata={"hnsw:space": space, **SMALL})
    for first in range(0, count, 40):
        c.add(**records([f"{name} {n}" for n in range(first, min(first + 40, count))]))
    return c
"""
MAKE = """
for name, space in %r.items():
    make(name, space, 200 if name.startswith("in-") else 50)
make("never-touched", "l2", 30)
""" % COLLECTIONS
CHANGE = """
for name in ("in-l2", "in-cosine", "in-ip"):
    c = client.get_collection(name)
    ids = c.get(include=[])["ids"]
    rng.shuffle(ids)
    c.delete(ids=ids[:40])
    c.update(ids=ids[40:50], embeddings=vectors(10))
    c.update(ids=ids[50:60], metadatas=[{"a": "changed", "only now": n} for n in range(10)])
    c.update(ids=ids[60:65], documents=["another"] * 5, embeddings=vectors(5))
    c.upsert(**records(ids[65:75]))
    c.upsert(**records(ids[:10]))   # deleted, and there again
    c.add(**records([f"{name} newer {n}" for n in range(70)]))
client.delete_collection("deleted")
client.delete_collection("made-anew")
make("made-anew", "l2", 20)
make("newer", "l2", 10)
"""


def client(host: hosts.Host, data: Path, seed: int, text: str) -> None:
    hosts.chroma(host.driver, "-c", f"{CLIENT}{text}\nsys.stdout.flush()\nos._exit(0)", data, seed)


class Made:
    """A directory with a snapshot and what came after it; what Chroma says of both."""

    def __init__(self, host: hosts.Host, work: Path, chromashim) -> None:
        self.host, self.data, self.work, self.count = host, work / "data", work, 0
        self.data.mkdir()
        client(host, self.data, 1, MAKE)
        assert chromashim("snapshot", "create", self.data).returncode == 0
        self.then = self.ask(self.data)
        client(host, self.data, 2, CHANGE)
        self.now = self.ask(self.data)

    def ask(self, data: Path) -> dict[str, Any]:
        """Of a copy, for asking writes."""
        self.count += 1
        answer = gallery.ask(self.host, shutil.copytree(data, self.work / f"asked-{self.count}"))
        assert "error" not in answer, answer["error"]
        assert not answer["missed"]
        return answer["records"]


@pytest.fixture(scope="module", params=LINES)
def made(request, tmp_path_factory, chromashim):
    host = hosts.BY_NAME[request.param]
    host.require()
    return Made(host, tmp_path_factory.mktemp(host.name), chromashim)


@pytest.fixture
def data(made, tmp_path) -> Path:
    return Path(shutil.copytree(made.data, tmp_path / "data"))


def differs(collection: str, mine: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """In cosine space Chroma normalises what it is given, and stretches it again."""
    a, b = mine["embedding"], theirs["embedding"]
    same = (all(math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-6) for x, y in zip(a, b))
            if "cosine" in collection or collection in ("deleted", "copy") else a == b)
    return [*([] if same else ["embedding"]),
            *(k for k in ("document", "metadata") if mine[k] != theirs[k])]


def changes(then: dict[str, Any], now: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    found = set()
    for name in then.keys() | now.keys():
        before, after = then.get(name, {}), now.get(name, {})
        found |= {(name, i, "deleted", "") for i in before.keys() - after.keys()}
        found |= {(name, i, "added", "") for i in after.keys() - before.keys()}
        for i in before.keys() & after.keys():
            what = differs(name, before[i], after[i])
            if what:
                found.add((name, i, "changed", " ".join(what)))
    return found


def told(chromashim, data: Path, span: str, *options: str) -> set[tuple[str, str, str, str]]:
    done = chromashim("snapshot", "diff", span, "--records", "--json", *options, data)
    assert done.returncode == 0, done.stderr
    return {(one["collection"], one["id"], one["change"], " ".join(one.get("what", [])))
            for one in json.loads(done.stdout) if one["kind"] == "record"}


def same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert mine.keys() == theirs.keys()
    assert changes(mine, theirs) == set()


def bring_back(chromashim, data: Path, *options: object, status: int = 0, **how: Any) -> Any:
    done = chromashim("restore", "--to", "1", "-y", *options, data, **how)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.fast
def test_what_has_changed(made, data, chromashim):
    """By record, collections that were made anew by their name; also between two snapshots."""
    right = changes(made.then, made.now)
    assert len(right) > 400 and {c[3] for c in right} >= {"", "embedding", "metadata",
                                                          "embedding document metadata"}
    assert told(chromashim, data, "1..now") == right
    assert chromashim("snapshot", "create", data).returncode == 0
    assert told(chromashim, data, "1..2") == right
    assert told(chromashim, data, "2..now") == set()
    one = {c for c in right if c[0] == "in-cosine"}
    assert told(chromashim, data, "1..now", "--collection", "in-cosine") == one
    lines = chromashim("snapshot", "diff", "1..now", "--records", data).stdout.splitlines()
    assert sum(line.startswith("- record ") for line in lines) == sum(c[2] == "deleted"
                                                                     for c in right)
    assert "- collection deleted: 50 -> 0 records: 50 deleted, 0 added, 0 changed" in lines
    assert "M collection made-anew: 50 -> 20 records: 30 deleted, 0 added, 20 changed" in lines


@pytest.mark.parametrize("which", ["deleted", "changed", "ids"])
def test_only_these_come_back(made, data, chromashim, tmp_path, which):
    """Each as it was, vector, document and metadata; all others as they are."""
    right = json.loads(json.dumps(made.now))
    for name in ("in-l2", "in-cosine", "in-ip", "made-anew"):
        mine = {(i, how) for collection, i, how, _ in changes(made.then, made.now)
                if collection == name and how != "added"}
        if which == "ids":
            mine = set(sorted(mine)[::3])
            (tmp_path / "ids").write_text("".join(f"{i}\n" for i, _ in mine), encoding="utf-8")
        wanted = [i for i, how in mine if which in ("ids", how)]
        assert wanted
        options = ["--ids", tmp_path / "ids"] if which == "ids" else [f"--where-{which}"]
        dry = chromashim("restore", "--to", "1", "-n", "--collection", name, *options, data)
        assert dry.stdout.startswith(f"would bring back {len(wanted)} records"), dry.stderr
        bring_back(chromashim, data, "--collection", name, *options)
        right[name] |= {i: made.then[name][i] for i in wanted}
    same(made.ask(data), right)
    again = bring_back(chromashim, data, "--collection", name, *options)
    assert again.stdout.startswith("nothing to bring back")


def test_a_deleted_collection(made, data, chromashim):
    """Comes back with its settings, under its own name, or another beside the one that is there."""
    right = made.now | {"deleted": made.then["deleted"], "copy": made.then["in-cosine"]}
    bring_back(chromashim, data, "--collection", "deleted")
    bring_back(chromashim, data, "--collection", "in-cosine", "--as", "copy")
    same(made.ask(data), right)
    refused = bring_back(chromashim, data, "--collection", "in-l2", "--as", "copy", status=1)
    assert "there is a collection 'copy' already" in refused.stderr
    assert [s["reason"] for s in listed(chromashim, data)] == ["manual", "restore", "restore"]
    same(made.ask(data), right)


def test_it_can_be_undone(made, data, chromashim):
    bring_back(chromashim, data, "--collection", "in-l2", "--where-deleted", "--where-changed")
    same(made.ask(data), made.now | {"in-l2": made.now["in-l2"] | made.then["in-l2"]})
    done = chromashim("restore", "--to", "2", "-y", data)
    assert done.returncode == 0, done.stderr
    same(made.ask(data), made.now)


@pytest.mark.parametrize("options, status, says", [
    (["--collection", "none"], 12, "snapshot 1 has no collection 'none'"),
    (["--where-deleted"], 2, "go with --collection"),
    (["--collection", "in-l2", "-o", "out"], 2, "in place"),
    (["--collection", "in-l2", "--as", "x", "--where-changed"], 2, "--as takes all"),
    (["--collection", "in-l2", "--ids", "/nowhere/ids"], 12, "cannot read the ids"),
    (["--collection", "in-l2", "--ids", "/dev/null"], 1, "there are no ids in '/dev/null'"),
    (["--collection", "in-l2", "--ids", "/tmp"], 1, "cannot read the ids in '/tmp'"),
    (["--collection", "in-l2", "--as", ""], 2, "--as takes a name that Chroma would take"),
    (["--collection", "in-l2", "--as", "x?y"], 2, "--as takes a name that Chroma would take"),
    (["--collection", "in-l2", "--as", "in-l2-"], 2, "--as takes a name that Chroma would take"),
    (["--collection", "in-l2", "--as", "in-ip"], 1, "there is a collection 'in-ip' already"),
])
def test_bad_input(made, data, chromashim, options, status, says):
    before = sorted((p, p.read_bytes()) for p in data.glob("[!.]*") if p.is_file())
    done = bring_back(chromashim, data, *options, status=status)
    assert says in done.stderr
    assert sorted((p, p.read_bytes()) for p in data.glob("[!.]*") if p.is_file()) == before


def test_unknown_ids_are_said(made, data, chromashim):
    back = sorted(i for name, i, how, _ in changes(made.then, made.now)
                  if name == "in-l2" and how == "deleted")[0]
    done = bring_back(chromashim, data, "--collection", "in-l2", "--ids", "-", status=3,
                      input=f"\ufeff{back}\r\nnobody\r\n\n")
    assert "1 of the ids are not in collection 'in-l2' of snapshot 1" in done.stderr
    right = made.now | {"in-l2": made.now["in-l2"] | {back: made.then["in-l2"][back]}}
    same(made.ask(data), right)


def test_not_beside_a_backend(made, data, chromashim):
    """A process that has the database open keeps its own idea of the queue."""
    holder = subprocess.Popen(
        [str(hosts.python("venv")), "-c",
         "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT count(*) FROM "
         "collections').fetchall(); print('open', flush=True); sys.stdin.read()",
         str(data / "chroma.sqlite3")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "open\n"
        done = bring_back(chromashim, data, "--collection", "in-l2", status=14)
        assert "has" in done.stderr and "open" in done.stderr
        assert told(chromashim, data, "1..now") == changes(made.then, made.now)
    finally:
        holder.communicate("")
