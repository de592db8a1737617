# SPDX-License-Identifier: MIT
"""recover against damage done to directories of real Chroma: the finding, the account, and then real
Chroma opens what came of it, with every record that the account claims, and answers."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

import hosts
from gallery import cut, overwrite, segment, sql, work
from test_formats import as_float32, check, close, codes, exported

pytestmark = pytest.mark.memory

LINES = [host for host in hosts.HOSTS if host.name in ("python", "python-0.6")]

USE = """
import os, sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
for name, new in [("space-cosine", 150), ("space-l2", 150)]:
    c = client.get_collection(name)
    some = c.get(limit=1, include=["embeddings"])
    for _ in range(2):
        found = c.query(query_embeddings=some["embeddings"], n_results=5)
        assert found["ids"][0][0] == some["ids"][0], found
        if new:  # past the next persists
            c.add(ids=[f"late-{i}" for i in range(new)],
                  embeddings=[[float(i + n) for n in range(16)] for i in range(new)])
    print(c.count())
sys.stdout.flush()
os._exit(0)
"""


@pytest.fixture(scope="module", params=LINES, ids=lambda host: host.name)
def made(request, tmp_path_factory) -> tuple[hosts.Host, Path]:
    host = request.param
    host.require()
    data = tmp_path_factory.mktemp(host.name) / "data"
    data.mkdir()
    work(host, data, "load")
    return host, data


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "copy"))


def recover(chromashim, data: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", *options, data)
    assert done.returncode == status, (done.stderr, done.stdout)
    return json.loads(done.stdout)


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert {n: set(r) for n, r in a.items()} == {n: set(r) for n, r in b.items()}
    for name, records in a.items():
        for i, record in records.items():
            mine, theirs = dict(record), dict(b[name][i])
            own, other = as_float32(mine.pop("embedding")), as_float32(theirs.pop("embedding"))
            if name in ("space-cosine", "queue-only"):  # Chroma normalises them
                assert close(own, other), (name, i)
            else:
                assert own == other, (name, i)
            assert mine == theirs, (name, i)


def real_chroma_has(host: hosts.Host, data: Path, whole: dict[str, Any]) -> None:
    client = json.loads(work(host, data, "dump"))
    same(whole, {name: records for name, records in client.items() if records})
    said = hosts.chroma(host.driver, "-c", USE, data)
    assert [int(n) for n in said.split()] == [
        len(whole[name]) + 150 for name in ("space-cosine", "space-l2")]


def totals(account: dict[str, Any]) -> dict[str, int]:
    return {c["name"]: c["after"]["records"] for c in account["collections"] if c["after"]["records"]}


def poison(data: Path) -> None:
    """As migration metadb/00005 does when it runs twice."""
    db = sqlite3.connect(data / "chroma.sqlite3")
    for name, mark in db.execute("SELECT segment_id, seq_id FROM max_seq_id").fetchall():
        if isinstance(mark, bytes):
            mark = int.from_bytes(mark, "big")
        twice = bytes([0x11] * (8 - len(str(mark)))) + str(mark).encode()
        value = int.from_bytes(twice, "big")
        db.execute("UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?", (value, name))
    db.commit()
    db.close()


def runaway(data: Path) -> None:
    os.truncate(segment(data) / "link_lists.bin", 3 << 40)


def no_links(data: Path) -> None:
    with open(segment(data) / "link_lists.bin", "r+b") as f:
        f.write(b"\xfe" * 64)


WHOLE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "links-garbage": (no_links, "links-damaged", "hnsw"),
    "links-runaway": (runaway, "links-runaway", "hnsw"),
    "links-cut": (cut("link_lists.bin", 100), "links-short", "hnsw"),
    "links-missing": (lambda data: (segment(data) / "link_lists.bin").unlink(),
                      "segment-file-missing", "hnsw"),
    "header-zero": (overwrite("header.bin", 0, b"\0" * 100), "header-damaged", "hnsw"),
    "header-missing": (lambda data: (segment(data) / "header.bin").unlink(),
                       "segment-file-missing", "hnsw"),
    "mark-poisoned": (poison, "mark-poisoned", "marks"),
    "fts": (sql("DELETE FROM embedding_fulltext_search_data WHERE id > 10"), "fts-malformed",
            "indexes"),
}


def test_nothing_to_heal_is_said(copy, chromashim):
    for options in (["-n"], []):
        done = chromashim("recover", *options, copy)
        assert (done.returncode, done.stdout) == (0, f"nothing to heal in '{copy}'\n"), done.stderr


@pytest.mark.parametrize("damage", WHOLE)
def test_healed_whole(made, copy, chromashim, damage):
    """Nothing is lost, and Chroma is as before."""
    whole = exported(chromashim, made[1])
    do, code, step = WHOLE[damage]
    do(copy)
    assert code in codes(check(chromashim, copy, "--full"))
    broken = {p.relative_to(copy): p.stat().st_size for p in copy.rglob("*") if p.is_file()}
    planned = json.loads(chromashim("recover", "-n", "--json", copy).stdout)
    assert step in {s["step"] for s in planned["steps"]}
    assert broken == {p.relative_to(copy): p.stat().st_size for p in copy.rglob("*") if p.is_file()}
    account = recover(chromashim, copy)
    assert {s["step"] for s in account["steps"]} == {step}
    assert account["healed"] > 0 and account["damage_after"] == 0
    assert totals(account) == {name: len(records) for name, records in whole.items()}
    assert not any(c["lost"] for c in account["collections"])
    kept = copy / ".chromashim/quarantine" / account["quarantine"]
    assert {p.relative_to(kept): p.stat().st_size for p in kept.rglob("*") if p.is_file()
            and "undo" not in p.parts} == broken
    assert codes(check(chromashim, copy, "--full")) == set()
    same(whole, exported(chromashim, copy))
    if damage not in ("links-cut", "links-missing", "header-missing"):  # as their neighbours
        real_chroma_has(made[0], copy, whole)


def test_healthy_is_left_alone(made, copy, chromashim):
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    assert recover(chromashim, copy)["healed"] == 0
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("*")}


def test_elsewhere_and_only(made, copy, chromashim, tmp_path):
    whole = exported(chromashim, made[1])
    poison(copy)
    no_links(copy)
    out = tmp_path / "out"
    account = recover(chromashim, copy, "-o", str(out), "--only", "marks", status=3)
    assert {s["step"] for s in account["steps"]} == {"marks"}
    assert codes(check(chromashim, out)) >= {"links-damaged"}
    assert codes(check(chromashim, copy)) >= {"links-damaged", "mark-poisoned"}
    shutil.rmtree(out)
    recover(chromashim, copy, "-o", str(out))
    same(whole, exported(chromashim, out))
    assert chromashim("recover", "--only", "nothing", copy).returncode == 2


def test_refused_while_open(made, copy, chromashim):
    no_links(copy)
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time\nf = open(sys.argv[1])\n"
                               "print(1, flush=True)\ntime.sleep(60)", str(copy / "chroma.sqlite3")],
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout and holder.stdout.readline()
        done = chromashim("recover", "-y", copy)
        assert done.returncode == 14 and "open" in done.stderr
    finally:
        holder.kill()
        holder.communicate()


MORE = """
import os, sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
c = client.get_collection("space-cosine")
for first in range(0, 250, 50):
    c.add(ids=[f"x{n}" for n in range(first, first + 50)],
          embeddings=[[float(n * i % 97 + 1) for i in range(16)] for n in range(first, first + 50)])
c.update(ids=["space-cosine-50", "x249"], metadatas=[{"n": 1}, {"n": 2}])
c.upsert(ids=["y", "x7"], embeddings=[[2.0] * 16, [0.5] * 16])
os._exit(0)
"""


@pytest.mark.parametrize("left", [None, 0, 700])
def test_pickle_lost(made, copy, chromashim, left):
    """By the order of their making in 1.x; where that is not known, what is lost is told."""
    host = made[0]
    has_order = host.name == "python" and left != 0
    if has_order:  # else records were deleted since the last persist
        hosts.chroma(host.driver, "-c", MORE, copy)
    whole = exported(chromashim, copy)
    pickle = segment(copy) / "index_metadata.pickle"
    if left is None:
        pickle.unlink()
    else:
        os.truncate(pickle, left)
    assert codes(check(chromashim, copy)) & {"pickle-missing", "pickle-truncated"}
    if has_order:
        account = recover(chromashim, copy)
        assert totals(account) == {name: len(records) for name, records in whole.items()}
        real_chroma_has(host, copy, whole)
        return
    account = recover(chromashim, copy, status=3)
    [cosine] = [c for c in account["collections"] if c["name"] == "space-cosine"]
    assert cosine["after"]["records"] == len(whole["space-cosine"])
    bare = {lost["id"] for lost in cosine["lost"] if lost["what"] == "vector"}
    assert len(bare) == cosine["without_vector"] > 0
    after = exported(chromashim, copy, status=3)["space-cosine"]
    for i, record in whole["space-cosine"].items():
        if i in bare:
            assert after[i]["embedding"] is None
        else:
            assert close(as_float32(after[i]["embedding"]), as_float32(record["embedding"]))


def client(host: hosts.Host, data: Path, text: str) -> None:
    hosts.chroma(host.driver, "-c", MORE.split("c = ")[0] + text + "\nos._exit(0)", data)


def test_queue_started_again(made, copy, chromashim):
    """What Chroma would accept, ignore and purge, it stores again."""
    add = ("client.get_collection('space-l2').add(ids=['{0}1', '{0}2'],"
           " embeddings=[[1.0] * 16, [2.0] * 16], documents=['a', 'b'])")
    sql("DELETE FROM embeddings_queue")(copy)
    whole = exported(chromashim, copy, status=3)["space-l2"]  # without vectors of the queue
    client(made[0], copy, add.format("ignored"))
    assert set(exported(chromashim, copy, status=3)["space-l2"]) == set(whole)
    assert "mark-beyond-queue" in codes(check(chromashim, copy))
    account = recover(chromashim, copy, status=3)
    # its deletions are lost as well: their records are taken out of the index
    assert {s["step"] for s in account["steps"]} == {"marks", "hnsw"}
    assert "mark-beyond-queue" not in codes(check(chromashim, copy))
    client(made[0], copy, add.format("new"))
    now = exported(chromashim, copy, status=3)["space-l2"]
    assert set(now) - set(whole) >= {"new1", "new2"} and not set(whole) - set(now)
    assert now["new2"]["embedding"] == [2.0] * 16 and now["new2"]["document"] == "b"
    for i, record in whole.items():
        assert now[i] == record


def test_downgrade(made, copy, chromashim):
    """A release before 1.0 has written its kind of mark into a newer database. (0.6.3 itself fails at
    the configuration of 1.5.9's collections; it does so with those of the first 1.0 releases.)"""
    host, data = made
    if host.name != "python":
        pytest.skip("nothing to go down from")
    db = sqlite3.connect(copy / "chroma.sqlite3")
    for name, mark in db.execute("SELECT segment_id, seq_id FROM max_seq_id").fetchall():
        db.execute("UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?",
                   (mark.to_bytes(8, "big"), name))
    db.commit()
    db.close()
    assert "mark-blob" in codes(check(chromashim, copy))
    recover(chromashim, copy)
    assert codes(check(chromashim, copy, "--full")) == set()
    real_chroma_has(host, copy, exported(chromashim, data))


def test_hot_journal(made, copy, chromashim):
    whole = exported(chromashim, made[1])
    subprocess.run([sys.executable, "-c", "import sqlite3, sys, os\n"
                    "db = sqlite3.connect(sys.argv[1])\ndb.execute('PRAGMA cache_size = 2')\n"
                    "db.execute('BEGIN')\n"
                    "for _ in range(3):\n"
                    "    db.execute('UPDATE embeddings SET embedding_id = embedding_id || \"x\"')\n"
                    "    db.execute('DELETE FROM embedding_metadata WHERE id % 2')\n"
                    "os._exit(0)", str(copy / "chroma.sqlite3")], check=True)
    assert (copy / "chroma.sqlite3-journal").stat().st_size > 512
    account = recover(chromashim, copy)
    assert [s["step"] for s in account["steps"]] == ["journal"]
    assert not (copy / "chroma.sqlite3-journal").exists()
    same(whole, exported(chromashim, copy))


@pytest.mark.fast
def test_torn_persist(made, copy, chromashim, tmp_path):
    """Killed between the index and the pickle; nothing is there to undo it."""
    host = made[0]
    whole = exported(chromashim, made[1])
    later = shutil.copytree(made[1], tmp_path / "later")
    client(host, later, "c = " + MORE.split("c = ")[1])
    for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin"):
        shutil.copy(segment(later) / name, segment(copy) / name)
    assert "persist-torn" in codes(check(chromashim, copy, "--full"))
    account = recover(chromashim, copy)
    assert totals(account) == {name: len(records) for name, records in whole.items()}
    real_chroma_has(host, copy, whole)


def lose_rows(data: Path, table: str, where: str) -> None:
    """Rows that the indexes of their table still have, as when pages of two moments are together."""
    db = sqlite3.connect(data / "chroma.sqlite3")
    schema = db.execute("SELECT rowid, * FROM sqlite_master WHERE tbl_name = ?", (table,)).fetchall()
    columns = ", ".join(column[1] for column in db.execute(f"PRAGMA table_info({table})"))
    columns = columns.replace("id", "id INTEGER PRIMARY KEY", 1) if table == "embeddings" else columns
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM sqlite_master WHERE tbl_name = ? AND type = 'index'", (table,))
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?",
               (f"CREATE TABLE {table}({columns})", table))
    db.commit()
    db.close()
    db = sqlite3.connect(data / "chroma.sqlite3")
    assert db.execute(f"DELETE FROM {table} WHERE {where}").rowcount > 0
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM sqlite_master WHERE tbl_name = ?", (table,))
    db.executemany("INSERT INTO sqlite_master(rowid, type, name, tbl_name, rootpage, sql) "
                   "VALUES (?, ?, ?, ?, ?, ?)", schema)
    db.commit()
    db.close()


LOST_ROWS = {
    "a document": ("embedding_metadata", "id IN (SELECT id FROM embeddings WHERE embedding_id = "
                   "'space-l2-100') AND key = 'chroma:document'"),
    "all that a record has": ("embedding_metadata", "id IN (SELECT id FROM embeddings WHERE "
                              "embedding_id = 'space-l2-100')"),
    "records": ("embeddings", "embedding_id IN ('space-l2-100', 'space-l2-101')"),
}


@pytest.mark.parametrize("lost", LOST_ROWS)
def test_rows_that_only_an_index_has(lost, made, copy, chromashim):
    """What is lost is seen only when the index is built again, and given back all the same."""
    whole = exported(chromashim, made[1])
    lose_rows(copy, *LOST_ROWS[lost])
    assert "index-malformed" in codes(check(chromashim, copy, "--full"))
    done = chromashim("recover", "-y", "--json", copy)
    assert done.returncode in (0, 3), done.stderr
    account = json.loads(done.stdout)
    assert account["steps"][0]["step"] == "indexes" and len(account["steps"]) > 1
    assert codes(check(chromashim, copy, "--full")) == set()
    found = exported(chromashim, copy)
    lacks = {one["id"] for c in account["collections"] for one in c["lost"]}
    for name, records in whole.items():
        assert found[name].keys() == records.keys()
        for one, record in records.items():
            if lost == "a document" or one not in lacks:
                assert found[name][one] == record
            else:
                assert found[name][one]["embedding"] == record["embedding"]


def test_index_without_rows(made, copy, chromashim):
    name = "embedding_metadata_int_value"
    db = sqlite3.connect(copy / "chroma.sqlite3")
    row = db.execute("SELECT * FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    db.execute("PRAGMA writable_schema = ON")
    db.execute("DELETE FROM sqlite_master WHERE name = ?", (name,))
    db.commit()
    db.close()
    db = sqlite3.connect(copy / "chroma.sqlite3")
    db.execute("INSERT INTO embedding_metadata(id, key, int_value) SELECT id, 'more', 7 FROM embeddings"
               " WHERE embedding_id = 'space-l2-100'")
    db.execute("PRAGMA writable_schema = ON")
    db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    whole = exported(chromashim, copy)
    assert whole["space-l2"]["space-l2-100"]["metadata"]["more"] == 7
    assert "index-malformed" in codes(check(chromashim, copy, "--full"))
    account = recover(chromashim, copy)
    assert [s["step"] for s in account["steps"]] == ["indexes"]
    assert codes(check(chromashim, copy, "--full")) == set()
    same(whole, exported(chromashim, copy))
