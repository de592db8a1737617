# SPDX-License-Identifier: MIT
"""recover --undelete: collections that real Chroma deleted come back from the directories it left
behind, and real Chroma answers with them; from snapshots with everything they had."""

import json
import math
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import gallery
import hosts

pytestmark = pytest.mark.memory

LINES = ["python", "python-0.6"]
GONE = {"cosine": "gone-cosine", "ip": "gone-ip", "l2": "gone-l2"}

CLIENT = """
import os, sys, chromadb, numpy as np
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
SMALL = {"hnsw:sync_threshold": 100, "hnsw:batch_size": 50, "hnsw:num_threads": 1}
"""
# what is in the index after the last persist is known: 200 of 220, and nothing was deleted before
MAKE = """
import json
made, rng = {}, np.random.default_rng(3)
for space in ("cosine", "ip", "l2"):
    c = client.create_collection("gone-" + space, metadata={"hnsw:space": space, **SMALL})
    made[c.name] = {}
    for first in range(0, 220, 50):
        ids = [f"{space}-{n}" for n in range(first, min(first + 50, 220))]
        vectors = (rng.random((len(ids), 8), dtype=np.float32) * 6 - 3).tolist()
        c.add(ids=ids, embeddings=vectors, documents=[f"of {i}" for i in ids],
              metadatas=[{"n": n, "f": n / 3} for n in range(len(ids))])
        made[c.name] |= dict(zip(ids, vectors))
client.create_collection("stays").add(ids=["a", "b"], embeddings=[[1.0, 2.0], [2.0, 1.0]])
json.dump(made, open(sys.argv[2], "w"))
"""
DELETE = "[client.delete_collection(name) for name in sys.argv[2:]]"


def client(host: hosts.Host, data: Path, text: str, *words: object) -> None:
    hosts.chroma(host.driver, "-c", f"{CLIENT}{text}\nsys.stdout.flush()\nos._exit(0)", data, *words)


class Made:
    """A directory with three collections to be deleted, and all that was inserted into them."""

    def __init__(self, host: hosts.Host, work: Path) -> None:
        self.host, self.data = host, work / "data"
        self.data.mkdir()
        client(host, self.data, MAKE, work / "made.json")
        made = json.loads((work / "made.json").read_text(encoding="utf-8"))
        self.vectors: dict[str, dict[str, list[float]]] = made

    def ask(self, data: Path) -> dict[str, Any]:
        answer = gallery.ask(self.host, data)
        assert "error" not in answer, answer["error"]
        assert not answer["missed"]
        return answer["records"]


@pytest.fixture(scope="module", params=LINES)
def made(request, tmp_path_factory):
    host = hosts.BY_NAME[request.param]
    host.require()
    return Made(host, tmp_path_factory.mktemp(host.name))


@pytest.fixture
def data(made, tmp_path) -> Path:
    return Path(shutil.copytree(made.data, tmp_path / "data"))


def undelete(chromashim, data: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", *options, data)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def listed(chromashim, data: Path, *options: str) -> dict[str, dict[str, Any]]:
    answer = undelete(chromashim, data, "--undelete", *options)
    return {one["segment"]: one for one in answer["deleted"]}


def segments(data: Path) -> dict[str, str]:
    return {space: gallery.segment(data, name).name for space, name in GONE.items()}


def findings(chromashim, data: Path) -> set[str]:
    return {f["code"] for f in json.loads(chromashim("check", "--full", "--json", data).stdout)[
        "findings"]}


def same(space: str, mine: list[float], theirs: list[float]) -> bool:
    """Bit by bit; in cosine space Chroma normalises what it is given, and stretches it again."""
    if space == "cosine":
        return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine, theirs))
    return mine == theirs


@pytest.mark.fast
def test_without_a_snapshot(made, data, chromashim):
    """Ids and vectors, as of the last persist."""
    was = segments(data)
    client(made.host, data, DELETE, *GONE.values())
    assert "leftover-directory" in findings(chromashim, data)
    assert "recover --undelete" in chromashim("check", data).stdout
    found = listed(chromashim, data)
    assert set(found) == set(was.values())
    for space, segment in was.items():
        one = found[segment]
        assert (one["ids"], one["dimension"], one["recoverable"]) == (200, 8, True)
        # 1.x: l2 and ip leave the same files behind; < 1.0 leaves its settings behind
        assert one["space"] == (space if space == "cosine" or made.host.name == "python-0.6"
                                else "l2 or ip")
        assert one["snapshot"] is None and one["collection"] is None
    account = undelete(chromashim, data, "--undelete=all")
    assert [s["step"] for s in account["steps"]] == ["undelete"] * 3
    assert "leftover-directory" not in findings(chromashim, data)
    assert listed(chromashim, data) == {}
    kept = data / ".chromashim/quarantine" / account["quarantine"]
    for segment in was.values():
        assert not (data / segment).exists() and (kept / segment / "data_level0.bin").exists()
    records = made.ask(data)
    assert set(records) == {"stays"} | {f"recovered-{s[:8]}" for s in was.values()}
    for space, segment in was.items():
        back = records[f"recovered-{segment[:8]}"]
        assert set(back) == {f"{space}-{n}" for n in range(200)}
        for i, record in back.items():
            assert same(space, made.vectors[GONE[space]][i], record["embedding"]), i
            assert record["document"] is None and record["metadata"] is None
    assert findings(chromashim, data) <= {"snapshot-none"}


def test_from_a_snapshot(made, data, chromashim, tmp_path):
    """As it was: name, id, settings, documents, metadata, and what only the queue had."""
    was, before = segments(data), made.ask(Path(shutil.copytree(data, tmp_path / "whole")))
    assert chromashim("snapshot", "create", data).returncode == 0
    ids = dict(rows(data, "SELECT name, id FROM collections"))
    settings = rows(data, "SELECT * FROM collection_metadata ORDER BY collection_id, key")
    client(made.host, data, DELETE, *GONE.values())
    found = listed(chromashim, data)
    for space, segment in was.items():
        one = found[segment]
        assert (one["snapshot"], one["collection"], one["space"]) == (1, GONE[space], space)
    # Chroma up to 0.5.5 never purges its queue
    gallery.sql("INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, encoding) "
                f"VALUES (100000, 0, 'persistent://default/default/{ids['gone-l2']}', 'ghost', "
                "zeroblob(32), 'FLOAT32')")(data)
    undelete(chromashim, data, "--undelete=all")
    assert dict(rows(data, "SELECT name, id FROM collections")) == ids
    assert rows(data, "SELECT * FROM collection_metadata ORDER BY collection_id, key") == settings
    same_records(before, made.ask(data))


def same_records(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert {n: set(r) for n, r in after.items()} == {n: set(r) for n, r in before.items()}
    for name, records in before.items():
        for i, record in records.items():
            back = after[name][i]
            assert same(name.removeprefix("gone-"), record["embedding"], back["embedding"])
            assert (record["document"], record["metadata"]) == (back["document"], back["metadata"])


@pytest.mark.parametrize("name", [*LINES, "node"])
def test_records_of_all_kinds(name, chromashim, tmp_path):
    """Arrays, URIs, odd ids, long documents, none at all: whatever a snapshot has."""
    host, data = hosts.BY_NAME[name], tmp_path / "data"
    host.require()
    data.mkdir()
    gallery.work(host, data, "load", *(["arrays"] if name == "python" else []))
    before = json.loads(gallery.work(host, data, "dump"))
    assert chromashim("snapshot", "create", data).returncode == 0
    gallery.work(host, data, "delete")
    assert rows(data, "SELECT name FROM collections") == []
    account = undelete(chromashim, data, "--undelete=all")
    after = json.loads(gallery.work(host, data, "dump"))
    [alone] = set(after) - set(before)  # was deleted before there was a snapshot
    assert alone.startswith("recovered-") and len(after.pop(alone)) == 100
    assert len(account["steps"]) == len(after) + 1
    del before["empty-one"]  # and its directory was never made
    assert {n: set(r) for n, r in after.items()} == {n: set(r) for n, r in before.items()}
    for collection, records in before.items():
        for i, record in records.items():
            space = "cosine" if collection in ("space-cosine", "queue-only") else "l2"
            back = after[collection][i]
            assert same(space, record.pop("embedding"), back.pop("embedding")), i
            assert record == back, i


def rows(data: Path, text: str) -> list[tuple]:
    db = sqlite3.connect(data / "chroma.sqlite3")
    try:
        return db.execute(text).fetchall()
    finally:
        db.close()


LATER = """
c = client.get_collection("gone-l2")
c.delete(ids=[f"l2-{n}" for n in range(10, 20)])
c.upsert(ids=["l2-0"], embeddings=[[9.0] * 8], documents=["another"])
c.add(ids=[f"late-{n}" for n in range(150)], embeddings=[[float(n)] * 8 for n in range(150)])
client.delete_collection("gone-l2")
"""


def test_persisted_after_the_snapshot(made, data, chromashim, tmp_path):
    """Deleted since: stays away; new: comes without documents; changed: comes as it was."""
    before = made.ask(Path(shutil.copytree(data, tmp_path / "whole")))["gone-l2"]
    assert chromashim("snapshot", "create", data).returncode == 0
    client(made.host, data, LATER)
    account = undelete(chromashim, data, "--undelete=all")
    [step] = account["steps"]
    assert "1 have got another vector since" in step["done"]
    back = made.ask(data)["gone-l2"]
    old = {f"l2-{n}" for n in range(220)} - {f"l2-{n}" for n in range(10, 20)}
    late = set(back) - old
    assert late == {f"late-{n}" for n in range(len(late))} and len(late) >= 60
    for i in old:
        assert back[i] == before[i]
    for i in late:
        assert back[i] == {"embedding": [float(i[5:])] * 8, "document": None, "metadata": None}


def test_choice(made, data, chromashim, tmp_path):
    was = segments(data)
    client(made.host, data, DELETE, *GONE.values())
    for words in (["--name", "new"], ["--undelete=all", "--name", "new"], ["--space", "ip"],
                  ["--undelete=x", "--name", "a b"], ["--undelete", "--space", "other"],
                  ["--only", "undelete"]):
        assert chromashim("recover", *words, data).returncode == 2, words
    assert chromashim("recover", "-y", "--undelete=00000000", data).returncode == 12
    one = f"--undelete={was['ip'][:13]}"
    dry = undelete(chromashim, data, "-n", one)
    assert [d["segment"] for d in dry["deleted"]] == [was["ip"]]
    taken = chromashim("recover", "-y", one, "--name", "stays", data)
    assert taken.returncode == 1 and "give another with --name" in taken.stderr
    out = tmp_path / "out"
    undelete(chromashim, data, one, "-o", str(out))
    assert set(segments_left(data)) == set(was.values())
    assert set(segments_left(out)) == set(was.values()) - {was["ip"]}
    gallery.sql("DELETE FROM embeddings_queue")(data)  # whose numbers start again then
    undelete(chromashim, data, one, "--name", "mine", "--space", "ip", status=3)
    assert "mark-beyond-queue" not in findings(chromashim, data)
    assert set(listed(chromashim, data)) == {was["cosine"], was["l2"]}
    query = ("c = client.get_collection('mine')\n"
             "d = c.query(query_embeddings=[[1.0] * 8], n_results=1, include=['distances'])\n"
             "e = c.get(ids=d['ids'][0], include=['embeddings'])['embeddings'][0]\n"
             "assert abs(1 - sum(e) - d['distances'][0][0]) < 1e-4, (d, e)")
    client(made.host, data, query)


def segments_left(data: Path) -> list[str]:
    return [p.name for p in data.iterdir() if p.is_dir() and len(p.name) == 36
            and not rows(data, f"SELECT 1 FROM segments WHERE id = '{p.name}'")]


def test_damaged(made, data, chromashim):
    """A graph is not needed; what does not tell which id has which vector is not believed."""
    was = segments(data)
    client(made.host, data, DELETE, *GONE.values())
    os.truncate(data / was["l2"] / "index_metadata.pickle", 700)
    os.truncate(data / was["ip"] / "link_lists.bin", 100)
    found = listed(chromashim, data)
    assert {s: one["recoverable"] for s, one in found.items()} == {
        was["l2"]: False, was["ip"]: True, was["cosine"]: True}
    assert found[was["l2"]]["damage"] == "pickle-truncated"
    done = chromashim("recover", "-y", f"--undelete={was['l2']}", data)
    assert done.returncode == 1 and "pickle-truncated" in done.stderr
    undelete(chromashim, data, "--undelete=all")
    assert set(listed(chromashim, data)) == {was["l2"]}
    assert len(made.ask(data)[f"recovered-{was['ip'][:8]}"]) == 200
    assert chromashim("recover", "-y", "--undelete=all", data).returncode == 12
