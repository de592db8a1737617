# SPDX-License-Identifier: MIT
"""Damage that Chroma and SQLite do not notice, or that hides what was there: rows, tables and vectors
that are gone without a trace in themselves. What else tells of them brings them back, and the account
is what a comparison record by record says."""

import json
import shutil
import sqlite3
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hosts
from gallery import check, overwrite, remove, segment, sql
from test_recover_gallery import compare, lines, recover  # noqa: F401

pytestmark = pytest.mark.memory

FIRST = "(SELECT min(id) + 3 FROM embeddings)"
BAD = "CAST(x'73ff61' AS TEXT)"
LENGTH = 12 * 4  # entries of length.bin, from 30 on: those before are of deleted records


def lengths_lost(data: Path) -> None:
    overwrite("length.bin", 40 * 4, bytes(LENGTH))(data)


def noise(data: Path) -> None:
    """In the vectors of ten records that are there; one has no number in it."""
    path = segment(data) / "data_level0.bin"
    stride = int.from_bytes((segment(data) / "header.bin").read_bytes()[28:36], "little")
    content = bytearray(path.read_bytes())
    for n in range(100, 110):
        at = n * stride + stride - 8 - 16 * 4  # the vector, and the label behind it
        content[at:at + 8] = struct.pack("<2f", float("nan") if n == 100 else 3.5, 12)
    path.write_bytes(content)


def dimension_and_header(data: Path) -> None:
    """The header, whose offsets do not belong together, tells of another dimension."""
    sql("UPDATE collections SET dimension = NULL")(data)
    overwrite("header.bin", 36, (9999 * 4).to_bytes(8, "little"))(data)


# name: (line, damage, the finding; all of it comes back)
WHOLE = {
    "documents": ("python", sql("DELETE FROM embedding_metadata WHERE key = 'chroma:document'"),
                  "texts-lost"),
    "documents, 0.6": ("python-0.6", sql("DELETE FROM embedding_metadata WHERE key = 'chroma:document'"),
                       "texts-lost"),
    "a document that is no text": ("python-0.6", sql(
        f"UPDATE embedding_metadata SET string_value = {BAD} WHERE key = 'chroma:document' AND id = "
        f"{FIRST}"), "texts-lost"),
    "metadata that the queue has": ("python", sql(
        "DELETE FROM embedding_metadata WHERE id IN (SELECT e.id FROM embeddings e JOIN embeddings_queue q "
        "ON q.seq_id = e.seq_id WHERE q.operation = 0)"), "texts-lost"),
    "a dimension that is another": ("python", sql("UPDATE collections SET dimension = 5"),
                                    "dimension-lost"),
    "a dimension, and the header": ("python", dimension_and_header, "dimension-lost"),
    "dimensions": ("python-0.6", sql("UPDATE collections SET dimension = NULL"), "dimension-lost"),
    "an id that is no text": ("python", sql(
        f"UPDATE embeddings SET embedding_id = {BAD} WHERE id = {FIRST}"), "record-id-unreadable"),
    "an id that is a blob": ("python-0.6", sql(
        f"UPDATE embeddings SET embedding_id = CAST(embedding_id AS BLOB) WHERE id = {FIRST}"),
        "record-id-unreadable"),
    "an id that the queue has": ("python", sql(
        f"UPDATE embeddings SET embedding_id = {BAD} WHERE id = (SELECT max(id) FROM embeddings)"),
        "record-id-unreadable"),
    "an id of the queue": ("python", sql(
        f"UPDATE embeddings_queue SET id = {BAD} WHERE seq_id = (SELECT max(seq_id) FROM "
        "embeddings_queue)"), "queue-damaged"),
    "settings of indexes, 0.6": ("python-0.6", sql("DELETE FROM segment_metadata"),
                                 "settings-unreadable"),
    "table collection_metadata": ("python", sql("DROP TABLE collection_metadata"), "table-missing"),
    "table segments": ("python", sql("DROP TABLE segments"), "table-missing"),
    "table tenants, 0.6": ("python-0.6", sql("DROP TABLE tenants"), "table-missing"),
    "table max_seq_id": ("python", sql("DROP TABLE max_seq_id"), "table-missing"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_comes_back(name, lines, chromashim, tmp_path):  # noqa: F811
    host, damage, finding = WHOLE[name]
    line = lines(host)
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    damage(data)
    assert finding in check(chromashim, data)
    account = recover(chromashim, data, status=3 if "table" in name or "metadata" in name else 0)
    assert check(chromashim, data) == set()
    assert not any(c["lost"] for c in account["collections"])
    if "table" not in name:
        compare(line, account, data)
        return
    found = line.ask(data)["records"]
    assert {name: found[name] for name in line.records} == line.records


def told(account: dict[str, Any]) -> dict[str, set[str]]:
    return {c["name"]: {one["id"] for one in c["lost"]} for c in account["collections"]}


def differing(line, found: dict[str, Any], name: str) -> set[str]:
    return {i for i, record in line.records[name].items()
            if found[name].get(i, {}) != record and not same(record, found[name].get(i))}


def same(mine, theirs) -> bool:
    return bool(theirs) and (mine["document"], mine["metadata"]) == (
        theirs["document"], theirs["metadata"]) and all(
            abs(a - b) <= 1e-6 * abs(a) for a, b in zip(mine["embedding"], theirs["embedding"]))


@pytest.mark.parametrize("damage,finding", [
    (lengths_lost, "lengths-damaged"), (noise, "vectors-damaged"),
    (lambda data: (segment(data) / "length.bin").unlink(), "segment-file-missing"),
    (sql("DELETE FROM embedding_metadata"), "texts-lost"),
    (sql("DELETE FROM embedding_metadata; DELETE FROM embeddings"), "records-gone"),
    (sql("DROP TABLE embeddings"), "table-missing"),
], ids=["lengths", "vectors", "length.bin", "metadata", "records", "table embeddings"])
def test_loss_is_told(damage, finding, lines, chromashim, tmp_path):  # noqa: F811
    """Of each record that is not what it was, and of no other that can be told from it."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    damage(data)
    assert finding in check(chromashim, data)
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    account = recover(chromashim, data, "--set-aside", status=3)
    answer = line.ask(data)
    assert "error" not in answer, answer["error"]
    losses = told(account)
    if damage is not noise:  # ids are all there: an update that the queue still has makes no record
        assert {n: set(r) for n, r in answer["records"].items()} == {
            n: set(r) for n, r in line.records.items()}
    for name in line.records:
        differ = differing(line, answer["records"], name)
        assert differ <= losses[name], name
        bare = {i for i, r in line.records[name].items() if not r["document"] or not r["metadata"]}
        assert losses[name] <= differ | bare, name  # which may have had more, for all that is known
    if damage is noise:  # which a look before a start does not read: it costs too much
        return
    ran = chromashim("run", "--no-guard", "--dir", copy, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert "lost" in ran.stderr, ran.stderr


def test_collections_of_which_the_log_tells(chromashim, tmp_path):
    """Their rows and those of their segments are gone: the queue has them, the log their names, and it
    also says which was deleted since the snapshot, and so stays away."""
    python = str(hosts.python("venv"))
    hosts.BY_NAME["python"].require()
    data = tmp_path / "data"
    make = ("import chromadb, sys; c = chromadb.PersistentClient(sys.argv[1])\n"
            "for n in sys.argv[2:]:\n"
            "    c.create_collection(n).add(ids=[n + str(i) for i in range(20)], documents=[n] * 20, "
            "embeddings=[[float(i), 2.0, 3.0] for i in range(20)])\n")
    delete = "import chromadb, sys; chromadb.PersistentClient(sys.argv[1]).delete_collection(sys.argv[2])"
    environment = hosts.environment() | {"LD_PRELOAD": str(hosts.SHIM), "CHROMASHIM_GUARD": "off"}

    def run(code: str, *words: str) -> None:
        subprocess.run([python, "-c", code, str(data), *words], env=environment, check=True, timeout=60)

    run(make, "one", "two")
    run("import chromadb, sys; chromadb.PersistentClient(sys.argv[1]).create_collection('empty')")
    assert chromashim("snapshot", "create", data).returncode == 0
    run(delete, "two")
    run(delete, "empty")
    run(make, "three")
    sql("DELETE FROM segments; DELETE FROM collections")(data)
    assert "collection-row-missing" in chromashim("check", data).stdout
    account = recover(chromashim, data)
    assert {c["name"]: c["after"]["with_vector"] for c in account["collections"]} == {
        "one": 20, "three": 20}
    # What nothing but the snapshot tells of comes back, unless the log says that it was deleted.
    for table in "collections", "segments":
        with sqlite3.connect(data / "chroma.sqlite3") as db:
            root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        db.close()
        overwrite("chroma.sqlite3", (root - 1) * 4096, bytes(4096))(data)
    done = chromashim("recover", "-y", "--json", data)
    assert {c["name"] for c in json.loads(done.stdout)["collections"] if c["after"]["records"]} == {
        "one", "three"}
    names = sqlite3.connect(data / "chroma.sqlite3").execute("SELECT name FROM collections").fetchall()
    assert {name for name, in names} == {"one", "three"}


def of_another(name: str, theirs: str, mine: str) -> Any:
    """A file of an index put in the place of another's, which has as many elements and labels."""
    return lambda data: shutil.copy(segment(data, theirs) / name, segment(data, mine) / name) and None


# name: (damage, the findings, of which one has to be there)
WRONG = {
    "vectors of another space": (of_another("data_level0.bin", "space-l2", "space-cosine"),
                                 {"vectors-damaged", "labels-lost"}),  # 0.6 gives its labels otherwise
    "lengths": (of_another("length.bin", "space-l2", "space-cosine"), {"lengths-damaged"}),
    "pickle": (of_another("index_metadata.pickle", "space-l2", "space-cosine"),
               {"index-of-another-moment"}),
    "bytes here and there": (noise, {"vectors-damaged"}),
}


@pytest.mark.parametrize("host", ["python", "python-0.6"])
@pytest.mark.parametrize("name", WRONG)
def test_vectors_that_look_right(name, host, lines, chromashim, tmp_path):  # noqa: F811
    """Of what is wrong and looks like a vector each is told, or that there may be such."""
    damage, findings = WRONG[name]
    line = lines(host)
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    damage(data)
    found = json.loads(chromashim("check", "--full", "--json", data).stdout)
    assert findings & {f["code"] for f in found["findings"]}, found
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    assert done.returncode in (1, 3), done.stderr
    account = json.loads(done.stdout)
    if name != "pickle":
        assert account["may_have_wrong_vectors"]
        return
    losses, answer = told(account), line.ask(data)
    assert "error" not in answer, answer["error"]
    for one in line.records:  # also of a record that an `add` since, which Chroma ignores, speaks of
        assert differing(line, answer["records"], one) <= losses[one], one


def by_chroma(venv, code, data):
    """What that Chroma's Python says."""
    hosts.BY_NAME["python-0.6" if "0.6" in venv else "python"].require()
    return hosts.chroma(venv, "-c", code, data)


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_vectors_of_another_collection(venv, chromashim, tmp_path):
    """As many, and of the same space: the queue's row at the mark, an `add`, tells that they are not
    its own."""
    code = ("import chromadb, random, sys\n"
            "client = chromadb.PersistentClient(sys.argv[1])\n"
            "for name in 'one', 'two':\n"
            "    c = client.create_collection(name, metadata={'hnsw:sync_threshold': 50, 'hnsw:batch_size': 25})\n"
            "    for first in range(0, 100, 10):\n"
            "        c.add(ids=[name + str(first + i) for i in range(10)],\n"
            "              embeddings=[[random.random() for _ in range(8)] for _ in range(10)])\n")
    data = tmp_path / "data"
    by_chroma(venv, code, data)
    assert check(chromashim, data) == set()
    shutil.copy(segment(data, "one") / "data_level0.bin", segment(data, "two") / "data_level0.bin")
    assert check(chromashim, data) == {"index-older-than-queue"}
    done = chromashim("recover", "-y", data)
    assert done.returncode == 1 and "still has damage" in done.stderr


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_added_again_at_once(venv, chromashim, tmp_path):
    """Within one second: Chroma ignores the second `add`, and what it says of the record is not lost."""
    code = ("import chromadb, sys\n"
            "c = chromadb.PersistentClient(sys.argv[1]).create_collection('one')\n"
            "c.add(ids=['x'], embeddings=[[1.0, 2.0]], metadatas=[{'a': 1}])\n"
            "c.add(ids=['x'], embeddings=[[3.0, 4.0]], metadatas=[{'b': 2}])\n"
            "c.update(ids=['x'], metadatas=[{'c': 3}])\n"
            "c.add(ids=['y'], embeddings=[[1.0, 2.0]], metadatas=[{'a': 1}])\n"
            "c.delete(ids=['y'])\n"
            "c.add(ids=['y'], embeddings=[[3.0, 4.0]], metadatas=[{'b': 2}])\n")
    ask = ("import chromadb, json, sys\n"
           "print(json.dumps(chromadb.PersistentClient(sys.argv[1]).get_collection('one').get()['metadatas']))\n")
    data = tmp_path / "data"
    by_chroma(venv, code, data)
    times = ("UPDATE embeddings SET created_at = '2026-01-01 00:00:00'; UPDATE embeddings_queue SET "
             "created_at = '2026-01-01 00:00:00'")
    sql(times)(data)  # as on a quick machine
    assert check(chromashim, data) == set()
    sql("DELETE FROM embedding_metadata WHERE key IN ('a', 'b')")(data)
    assert check(chromashim, data) == {"texts-lost"}
    recover(chromashim, data, status=3)  # of what was set before the queue begins nothing tells
    assert json.loads(by_chroma(venv, ask, data)) == [{"a": 1, "c": 3}, {"b": 2}]


@pytest.mark.parametrize("name", ["python", "python-0.6"])
def test_collections_of_which_their_records_tell(name, lines, chromashim, tmp_path):  # noqa: F811
    """The same without a log or a snapshot: a deletion takes out their records, or, in 0.6, the queue."""
    line = lines(name)
    assert "collection-row-missing" not in chromashim("check", line.data).stdout  # one was deleted there
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        names = {f"lost-{i}": name for i, name in db.execute("SELECT id, name FROM collections")}
    db.close()
    sql("DELETE FROM segments; DELETE FROM collections")(data)
    older = Path(shutil.copytree(data, tmp_path / "older"))  # whose queue an older Chroma did not purge
    sql("UPDATE embeddings_queue_config SET config_json_str = '{\"automatically_purge\": false}'")(older)
    assert ("collection-row-missing" in chromashim("check", older).stdout) == (name == "python")
    assert "collection-row-missing" in chromashim("check", data).stdout
    recover(chromashim, data, status=3)  # their names are lost
    answer = line.ask(data)
    assert "error" not in answer, answer["error"]
    found = {names[name]: records for name, records in answer["records"].items()}
    assert found.keys() == {name for name, records in line.records.items() if records}
    for name in found:
        assert not differing(line, found, name), name


@pytest.mark.parametrize("damage, may_differ", [(sql("DELETE FROM embeddings_queue"), True),
                                                (remove("header.bin"), False)])
def test_changes_that_only_the_queue_had(damage, may_differ, lines, chromashim, tmp_path):  # noqa: F811
    """Vectors go back to what the index has of them, without a sign in the index."""
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    damage(data)
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    assert json.loads(done.stdout)["may_have_wrong_vectors"] == may_differ
