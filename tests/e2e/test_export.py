# SPDX-License-Identifier: MIT
"""export beyond a healthy directory's lines: from a snapshot, into folders, past damaged pages, and
in constant memory."""

import json
import shutil
import sqlite3
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import hosts
from gallery import same_vector, segment
from test_formats import NO_SERVERS, check, copy, exported, made  # noqa: F401

pytestmark = pytest.mark.memory

BIG = Path(hosts.ROOT) / "tests/bench/big_directory.py"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_snapshot_gives_what_was_there(copy, chromashim):
    before = chromashim("export", copy)
    assert chromashim("snapshot", "create", copy, "-d", "before").returncode == 0
    db = sqlite3.connect(copy / "chroma.sqlite3")
    db.execute("DELETE FROM collections")
    db.execute("DELETE FROM segments")
    db.commit()
    db.close()
    for index in copy.glob("*/index_metadata.pickle"):
        index.unlink()
    now = chromashim("export", copy)
    assert now.stdout == ""
    then = chromashim("export", copy, "--snapshot", "latest")
    assert (then.returncode, then.stderr, then.stdout) == (0, "", before.stdout)
    one = chromashim("export", copy, "--snapshot", "1", "--collection", "space-ip", "--no-embeddings")
    assert {r["collection"] for r in lines(one.stdout)} == {"space-ip"}
    assert chromashim("export", copy, "--snapshot", "7").returncode == 12
    assert not (copy / ".chromashim" / "scratch").exists()


def test_snapshot_whose_chunk_is_gone(copy, chromashim):
    """What the other chunks hold still comes out, and that is said."""
    whole = exported(chromashim, copy)
    assert chromashim("snapshot", "create", copy).returncode == 0
    chunks = [p for p in (copy / ".chromashim/snapshots/chunks").rglob("*") if p.is_file()]
    for chunk in sorted(chunks)[::max(1, len(chunks) // 12)]:
        content = chunk.read_bytes()
        chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = chromashim("export", copy, "--snapshot", "latest")
        assert done.returncode in (0, 1, 3), done.stderr  # 0: of link_lists.bin
        for record in lines(done.stdout):
            before = whole.get(record["collection"], {}).get(record["id"])
            # Without the queue, the index has an older vector of what was written last.
            if (before and record["embedding"] and "the queue" not in done.stderr
                    and "the lengths" not in done.stderr):
                assert same_vector(record["collection"], record["embedding"],
                                   before["embedding"])
        chunk.write_bytes(content)


def test_folders(copy, chromashim, tmp_path):
    whole = exported(chromashim, copy)
    out = tmp_path / "out"
    assert chromashim("export", copy, "--folders", "-o", out).returncode == 0
    found = {}
    for folder in out.iterdir():
        told = json.loads((folder / "collection.json").read_text(encoding="utf-8"))
        assert told["name"] == folder.name and told["tenant"] == "default_tenant"
        if folder.name.startswith("space-"):
            assert (told["space"], told["dimension"]) == (folder.name[6:], 16)
        found[folder.name] = {r["id"] for r in lines(
            (folder / "records.jsonl").read_text(encoding="utf-8"))}
    assert found.pop("empty-one") == set()
    assert found == {name: set(records) for name, records in whole.items()}
    again = chromashim("export", copy, "--folders", "-o", out)
    assert again.returncode != 0 and "exists" in again.stderr
    assert sorted(p.name for p in tmp_path.iterdir() if "partial" in p.name) == []
    assert chromashim("export", copy, "--folders").returncode == 2


def test_folders_of_names_that_lead_elsewhere(copy, chromashim, tmp_path):
    db = sqlite3.connect(copy / "chroma.sqlite3")
    db.execute("UPDATE collections SET name = '../../etc' WHERE name = 'space-l2'")
    db.execute("UPDATE collections SET name = '.' WHERE name = 'space-ip'")
    db.commit()
    db.close()
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    assert chromashim("export", copy, "--folders", "--no-embeddings", "-o", out).returncode == 0
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert len([p for p in out.iterdir() if len(p.name) == 36]) == 2


def pages_of(data: Path, name: str) -> list[int]:
    """Leaf pages of a table or index, by SQLite's own account."""
    db = sqlite3.connect(data / "chroma.sqlite3")
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    content = (data / "chroma.sqlite3").read_bytes()
    found, todo = [], [root]
    while todo:
        page = todo.pop()
        at = (page - 1) * size + (100 if page == 1 else 0)
        kind, cells = content[at], struct.unpack_from(">H", content, at + 3)[0]
        if kind in (2, 5):
            for n in range(cells):
                cell = struct.unpack_from(">H", content, at + 12 + 2 * n)[0]
                todo.append(struct.unpack_from(">I", content, (page - 1) * size + cell)[0])
            todo.append(struct.unpack_from(">I", content, at + 8)[0])
        else:
            found.append(page)
    return found


def spoil(data: Path, page: int) -> None:
    with open(data / "chroma.sqlite3", "r+b") as f:
        f.seek((page - 1) * 4096)
        f.write(b"\xab" * 4096)


@pytest.mark.parametrize("names", [["embeddings"], ["sqlite_autoindex_embeddings_1"],
                                   ["embedding_metadata"],
                                   ["embeddings", "sqlite_autoindex_embeddings_1"]], ids="+".join)
def test_past_damaged_pages(copy, chromashim, names):
    """Whatever page is lost, every vector still comes out, and everything in other pages."""
    whole = exported(chromashim, copy)
    lost = [pages_of(copy, name) for name in names]
    assert all(len(leaves) > 2 for leaves in lost)
    for leaves in lost:
        spoil(copy, leaves[len(leaves) // 2])
    done = chromashim("export", copy)
    if names == ["embeddings"]:  # its index has all that is needed
        assert exported(chromashim, copy, status=3) == whole
        return
    assert done.returncode == 3 and "cannot read" in done.stderr, done.stderr
    found: dict[str, dict[str, Any]] = {}
    for record in lines(done.stdout):
        of = found.setdefault(record["collection"], {})
        assert record["id"] not in of
        of[record["id"]] = record
    for collection, records in whole.items():
        if not collection.startswith("space-"):
            continue
        assert set(records) == set(found[collection])
        for i, record in records.items():
            assert found[collection][i]["embedding"] == record["embedding"]
    same = sum(found.get(c, {}).get(i, {}).get("document") == r["document"]
               for c, records in whole.items() for i, r in records.items())
    assert same > sum(map(len, whole.values())) * 0.7


def test_past_each_page_of_the_index(copy, chromashim):
    """Which collection's records a page has is chance, as segments have random ids: none loses one, and
    none gets one back that was deleted."""
    whole, database = exported(chromashim, copy), copy / "chroma.sqlite3"
    content, leaves = database.read_bytes(), pages_of(copy, "sqlite_autoindex_embeddings_1")
    for leaf in leaves:
        spoil(copy, leaf)
        done = chromashim("export", copy)
        told = done.returncode == 3 and "cannot read" in done.stderr
        assert told or exported(chromashim, copy) == whole, done.stderr  # one that was not needed
        found = sorted((r["collection"], r["id"]) for r in lines(done.stdout) if r["collection"][:6] == "space-")
        assert found == sorted((c, i) for c in whole if c[:6] == "space-" for i in whole[c]), leaf
        database.write_bytes(content)


def test_queue_that_is_no_json(copy, chromashim):
    """As Python writes NaN: the record comes out, and so do the others."""
    db = sqlite3.connect(copy / "chroma.sqlite3")
    marks = db.execute("SELECT count(*) FROM max_seq_id").fetchone()[0]
    db.execute("DELETE FROM max_seq_id WHERE segment_id IN (SELECT s.id FROM segments s JOIN "
               "collections c ON c.id = s.collection WHERE c.name = 'queue-only')")
    assert db.execute("SELECT count(*) FROM max_seq_id").fetchone()[0] < marks
    db.execute("UPDATE embeddings_queue SET operation = 2, metadata = '{\"x\": NaN' WHERE id = 'q-3'")
    db.commit()
    db.close()
    done = chromashim("export", copy, "--collection", "queue-only")
    assert done.returncode == 3 and "queue" in done.stderr
    assert len(lines(done.stdout)) == 7


@pytest.mark.slow
def test_memory_is_bounded(chromashim, tmp_path):
    """40 MB and 120 MB take the same: 10 GB would stay far below 300 MB."""
    hosts.BY_NAME["python"].require()
    peaks = []
    for megabytes in (40, 120):
        data = tmp_path / str(megabytes)
        hosts.chroma("venv", BIG, data, megabytes)
        done = subprocess.run(
            [hosts.python("venv"), "-I", "-S", "-c",
             "import os, resource, subprocess, sys\n"
             "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)\n"
             "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
             hosts.COMMAND, "export", data], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] < 60_000 and peaks[1] - peaks[0] < 15_000, peaks


CHANGED = """
import os, sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
c = client.get_collection(sys.argv[2])
c.add(ids=["made", "changed"], embeddings=[[1.0] * 16, [2.0] * 16])
c.update(ids=["made", sys.argv[3]], metadatas=[{"k": 1}, {"k": 2}])
c.add(ids=["changed", "made", sys.argv[3]], embeddings=[[9.0] * 16] * 3)
c.delete(ids=["changed"])
c.add(ids=["changed"], embeddings=[[3.0] * 16])
c.update(ids=["changed"], metadatas=[{"k": 3}])
os._exit(0)
"""


@pytest.mark.parametrize("made", NO_SERVERS, indirect=True, ids=lambda host: host.name)
@pytest.mark.parametrize("lost", ["index_metadata.pickle", ""], ids=["pickle", "segment"])
def test_whose_add_was_ignored(made, copy, chromashim, lost):
    """An update gives a record another number: whether an `add` made it is told all the same, and
    no record gets the vector of an `add` that Chroma ignored."""
    host = made[0]
    where = segment(copy, "space-l2")
    older = "space-l2-100"  # in the index alone
    hosts.chroma(host.driver, "-c", CHANGED, copy, "space-l2", older)
    before = exported(chromashim, copy)["space-l2"]
    assert before["made"]["embedding"] == [1.0] * 16 and before["made"]["metadata"] == {"k": 1}
    shutil.rmtree(where) if not lost else (where / lost).unlink()
    after = exported(chromashim, copy, status=3)["space-l2"]
    assert set(after) == set(before)
    for name in ("made", "changed"):
        assert after[name] == before[name], name
    assert after[older]["embedding"] is None and before[older]["embedding"] != [9.0] * 16


def test_what_the_queue_still_has(data, chromashim):
    """A queue that is not purged has the vectors of an index that is lost: to the bit, and of what
    Chroma ignored or deleted nothing."""
    hosts.BY_NAME["python"].require()
    script = CHANGED.replace('get_collection(sys.argv[2])', 'create_collection("new", metadata={'
                             '"hnsw:sync_threshold": 3, "hnsw:batch_size": 2})')
    script = script.replace('c.add', """import sqlite3
db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3")
db.execute("UPDATE embeddings_queue_config SET config_json_str = json_set(config_json_str, "
           "'$.automatically_purge', json('false'))")
db.commit()
c.add(ids=["old", "gone"], embeddings=[[4.0] * 16] * 2)
c.add""", 1).replace('os._exit', 'c.delete(ids=["gone"])\nc.upsert(ids=["changed", "last"], '
                     'embeddings=[[5.0] * 16, [6.0] * 16])\nos._exit')
    hosts.chroma("venv", "-c", script, data, "new", "old")
    before = exported(chromashim, data)["new"]
    assert {i: r["embedding"][0] for i, r in before.items()} == {"made": 1, "old": 4, "changed": 5,
                                                                 "last": 6}
    for lost, status in (("header.bin", 0), ("data_level0.bin", 0)):
        [file] = data.glob(f"*/{lost}")
        content = file.read_bytes()
        assert content
        file.write_bytes(b"")
        assert exported(chromashim, data, status=status)["new"] == before
        file.write_bytes(content)


def test_changed_before_the_first_persist(data, chromashim):
    hosts.BY_NAME["python"].require()
    script = CHANGED.replace('get_collection(sys.argv[2])', 'create_collection("new")')
    script = script.replace('c.update', 'c.add(ids=["old"], embeddings=[[4.0] * 16])\nc.update', 1)
    hosts.chroma("venv", "-c", script, data, "new", "old")
    told = exported(chromashim, data)["new"]
    assert {i: r["embedding"][0] for i, r in told.items()} == {"made": 1, "changed": 3, "old": 4}


def test_linked_segment(copy, chromashim, tmp_path):
    """Healthy and whole wherever it lies; a link that leads nowhere is called that; no copy takes
    its place."""
    before = chromashim("export", copy)
    where = segment(copy)
    shutil.move(where, tmp_path / "elsewhere")
    where.symlink_to(tmp_path / "elsewhere")
    result = check(chromashim, copy)
    assert result["verdict"] == "fine", result["findings"]
    after = chromashim("export", copy)
    assert (after.returncode, after.stderr, after.stdout) == (0, "", before.stdout)
    done = chromashim("recover", "-o", tmp_path / "healed", copy)
    assert done.returncode == 1 and "symbolic link" in done.stderr, done.stderr
    assert not (tmp_path / "healed").exists()
    shutil.move(tmp_path / "elsewhere", tmp_path / "further")
    finding = next(f for f in check(chromashim, copy)["findings"] if f["segment"] == where.name)
    assert finding["code"] == "symbolic-link" and "is that disk mounted" in finding["detail"]
    assert "leads nowhere" in chromashim("export", copy).stderr
    chromashim("recover", "-y", copy)
    assert where.is_symlink()


def test_linked_database(copy, chromashim, tmp_path):
    database = copy / "chroma.sqlite3"
    shutil.move(database, tmp_path / "base")
    database.symlink_to(tmp_path / "base")
    finding, = check(chromashim, copy)["findings"]
    assert finding["code"] == "symbolic-link" and str(tmp_path / "base") in finding["detail"]
    assert "symbolic link" in chromashim("export", copy).stderr
    assert database.is_symlink()
