# SPDX-License-Identifier: MIT
"""Pins inside the backend: taken before what is risky, and true whatever is written afterwards."""

import contextlib
import json
import sqlite3
import time
from pathlib import Path

import pytest

import hosts
import pin_reader

DATABASE = "chroma.sqlite3"
TABLES = """
db.executescript('''
CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);
CREATE TABLE u(id INTEGER PRIMARY KEY, body BLOB);
''')
"""
FILL = "db.executemany('INSERT INTO t(body) VALUES(randomblob(3000))', [()] * {})"


def store(data: Path) -> Path:
    return data / ".chromashim"


def pins(data: Path) -> dict[int, dict]:
    return pin_reader.pins(store(data))


def pinned(data: Path, id: int, path: str = DATABASE) -> bytes | None:
    return pin_reader.read(data, store(data), id, path)


def only(data: Path, reason: str) -> int:
    """The number of the one pin there is for a reason."""
    found = [id for id, pin in pins(data).items() if pin["reason"] == reason]
    assert len(found) == 1, pins(data)
    return found[0]


@pytest.fixture
def writer(actors, data):
    """A shimmed process with a database of some rows, and no pin yet."""
    def start(env=None, rows=50, pragmas=""):
        actor = actors(env={"CHROMASHIM_BURST": "0s", **(env or {})})
        actor.sqlite(data)
        actor.do(pragmas)
        actor.do(TABLES + FILL.format(rows))
        actor.do("db.execute('DELETE FROM t WHERE id % 3 = 0')")
        return actor
    return start


def live(data: Path) -> bytes:
    return (data / DATABASE).read_bytes()


def known_pins(data: Path) -> set[int]:
    """The pins so far."""
    return set(pins(data))


def new(data: Path, before: set[int], reason: str) -> int:
    found = [id for id, pin in pins(data).items() if id not in before]
    assert [pins(data)[id]["reason"] for id in found] == [reason], pins(data)
    return found[0]


@pytest.mark.fast
def test_before_the_schema_changes(writer, data):
    actor = writer()
    before, known = live(data), known_pins(data)
    actor.do("db.execute('ALTER TABLE u ADD COLUMN more')")
    id = new(data, known, "schema")
    assert live(data) != before
    assert pinned(data, id) == before
    actor.do(FILL.format(300) + "\ndb.execute('DELETE FROM t WHERE id % 2')\ndb.execute('VACUUM')")
    assert pinned(data, id) == before


def test_nothing_is_pinned_of_an_empty_database(actors, data):
    actor = actors(env={"CHROMASHIM_BURST": "0s"})
    actor.sqlite(data)
    actor.do("db.execute('CREATE TABLE t(x)')")
    assert not pins(data)


def test_switched_off(writer, data):
    writer({"CHROMASHIM_SNAPSHOTS": "off"}).do("db.execute('DROP TABLE u')")
    assert not pins(data)


def test_before_many_pages_change(writer, data):
    actor = writer({"CHROMASHIM_BULK_PAGES": "20"}, rows=100)
    before, known = live(data), known_pins(data)
    actor.do("db.execute('DELETE FROM t WHERE id = 1')")
    assert known_pins(data) == known
    before = live(data)
    actor.do("db.execute('UPDATE t SET body = randomblob(3000)')")
    assert pinned(data, new(data, known, "bulk")) == before


def test_before_many_pages_are_freed(writer, data):
    """All rows at once: SQLite puts their pages on the freelist without a look, or a journal."""
    actor = writer({"CHROMASHIM_BULK_PAGES": "40"}, rows=100)
    actor.do("db.execute('PRAGMA secure_delete = 0')")
    before, known = live(data), known_pins(data)
    actor.do("db.execute('DELETE FROM t')")
    assert pinned(data, new(data, known, "bulk")) == before


def test_before_the_page_cache_spills(writer, data):
    actor = writer({"CHROMASHIM_BULK_PAGES": "100000"}, rows=400)
    actor.do("db.execute('PRAGMA cache_size = 10')")
    before, known = live(data), known_pins(data)
    actor.do("db.execute('BEGIN')\ndb.execute('UPDATE t SET body = randomblob(3000)')")
    id = new(data, known, "bulk")
    assert pinned(data, id) == before
    actor.do("db.execute('CREATE TABLE late(x)')\ndb.execute('ROLLBACK')")
    assert pinned(data, id) == before


def many(first, count):
    return f"for i in range({first}, {first + count}):\n    db.execute(f'CREATE TABLE more{{i}}(x)')"


def test_bursts_share_one(writer, data):
    """Until something else is written; then the moment before is another one."""
    actor = writer({"CHROMASHIM_BURST": "60s"})
    for first in (0, 5):
        actor.do("db.execute('INSERT INTO t(body) VALUES (1)')")
        known, before = known_pins(data), live(data)
        actor.do(many(first, 5))
        id = new(data, known, "schema")
        assert pinned(data, id) == before
    actor.do(many(100, 150))  # nor is one shared for ever
    assert len(pins(data)) == len(known) + 3


def test_what_is_dropped_is_shared_by_nobody(writer, data, chromashim):
    actor = writer({"CHROMASHIM_BURST": "60s"})
    actor.do("db.execute('INSERT INTO t(body) VALUES (1)')")
    actor.do(many(0, 1))
    assert chromashim("guard", "--once", data,
                      env=hosts.environment({"CHROMASHIM_EVERY": "0"})).returncode == 0
    assert not known_pins(data)  # there are no tables of Chroma's
    before = live(data)
    actor.do(many(1, 1))
    id, = known_pins(data)
    assert pinned(data, id) == before


def test_of_very_many_some_are_given_up(writer, data):
    """Never the oldest, nor the newest."""
    actor = writer({"CHROMASHIM_BURST": "60s"})
    actor.do("db.execute('INSERT INTO t(body) VALUES (1)')")
    known, oldest = known_pins(data), live(data)
    for i in range(60):
        newest = live(data)
        actor.do(many(i, 1) + "\ndb.execute('INSERT INTO t(body) VALUES (1)')")
    found = sorted(known_pins(data) - known)
    assert 20 <= len(found) <= 24
    assert pinned(data, found[0]) == oldest
    assert pinned(data, found[-1]) == newest
    actor.do(API)
    token = actor.ask("api.chromashim_protect_begin('by hand'.encode(), 2)")
    assert actor.ask(f"api.chromashim_protect_snapshot({token})") > found[-1]
    assert not set(found) - known_pins(data)  # that is none of them


def test_two_in_a_chain(writer, data):
    actor = writer()
    known = known_pins(data)
    first = live(data)
    actor.do("db.execute('CREATE TABLE a(x)')")
    one = new(data, known, "schema")
    actor.do(FILL.format(40))
    second, known = live(data), known_pins(data)
    actor.do("db.execute('CREATE TABLE b(x)')")
    two = new(data, known, "schema")
    actor.do("db.execute('UPDATE t SET body = randomblob(2000)')\ndb.execute('VACUUM')")
    assert pinned(data, one) == first
    assert pinned(data, two) == second


def test_wal(writer, data, tmp_path):
    actor = writer(pragmas="db.execute('PRAGMA journal_mode=WAL')")
    known = known_pins(data)
    rows = actor.ask("db.execute('SELECT count(*), sum(length(body)) FROM t').fetchone()")
    actor.do("db.execute('CREATE TABLE a(x)')")
    id = new(data, known, "schema")
    assert pins(data)[id]["wal"]
    actor.do("db.execute('UPDATE t SET body = randomblob(2000)')\n"
             "db.execute('PRAGMA wal_checkpoint(TRUNCATE)')\n" + FILL.format(200))
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes(pinned(data, id))
    Path(f"{copy}-wal").write_bytes(pinned(data, id, DATABASE + "-wal"))
    with sqlite3.connect(copy) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'a'").fetchone()
        assert list(db.execute("SELECT count(*), sum(length(body)) FROM t").fetchone()) == rows


API = """
import ctypes
api = ctypes.CDLL(None)
api.chromashim_protect_begin.restype = ctypes.c_uint64
api.chromashim_protect_begin.argtypes = [ctypes.c_char_p, ctypes.c_uint]
api.chromashim_protect_snapshot.restype = ctypes.c_int64
api.chromashim_protect_snapshot.argtypes = [ctypes.c_uint64]
api.chromashim_protect_end.argtypes = [ctypes.c_uint64, ctypes.c_int]
api.chromashim_version.restype = ctypes.c_char_p
"""


def test_protected_operation(writer, data, chromashim):
    actor = writer()
    actor.do(API)
    before = live(data)
    assert actor.ask("api.chromashim_active()") == 1
    assert actor.ask("api.chromashim_version().decode()")
    token = actor.ask("api.chromashim_protect_begin('rebuild everything'.encode(), 2)")
    assert token > 0
    id = actor.ask(f"api.chromashim_protect_snapshot({token})")
    assert pins(data)[id]["reason"] == "protected"
    assert pins(data)[id]["description"] == "rebuild everything"
    actor.do("db.execute('UPDATE t SET body = randomblob(2000)')")
    assert actor.ask(f"api.chromashim_protect_end({token}, 0)") == 0
    assert actor.ask("api.chromashim_protect_end(12345, 0)") == -22
    assert pinned(data, id) == before
    log = chromashim("log", data, "--calls", "--op", "protect.begin,protect.end").stdout
    assert "rebuild everything" in log and "protect.end" in log


def test_protected_operation_waits_for_a_transaction(writer, data):
    """Another thread is in the midst of a large one: the pin is taken when it has ended."""
    actor = writer(rows=400)
    actor.do(API + f"""
import threading
def large():
    other = sqlite3.connect({str(data / DATABASE)!r}, isolation_level=None)
    other.execute('PRAGMA cache_size = 5')
    other.execute('BEGIN')
    other.execute('UPDATE t SET body = randomblob(2500)')
    spilled.set()
    time.sleep(0.3)
    other.execute('COMMIT')
    other.close()
spilled = threading.Event()
thread = threading.Thread(target=large)
thread.start()
spilled.wait()
""")
    known = known_pins(data)
    token = actor.ask("api.chromashim_protect_begin(b'now', 2)")
    id = actor.ask(f"api.chromashim_protect_snapshot({token})")
    actor.do("thread.join()")
    before = live(data)
    assert set(pins(data)) - known == {id}
    actor.do("db.execute('DELETE FROM t')")
    assert pinned(data, id) == before


@pytest.mark.fast
def test_true_after_kill(writer, data):
    actor = writer()
    before, known = live(data), known_pins(data)
    actor.do("db.execute('CREATE TABLE a(x)')")
    id = new(data, known, "schema")
    actor.start("while True:\n    db.execute('UPDATE t SET body = randomblob(3000)')")
    time.sleep(0.5)
    actor.kill()
    assert pinned(data, id) == before


def test_another_process_goes_on(writer, actors, data):
    actor = writer()
    before, known = live(data), known_pins(data)
    actor.do("db.execute('CREATE TABLE a(x)')")
    id = new(data, known, "schema")
    actor.stop()
    other = actors(env={"CHROMASHIM_SNAPSHOTS": "off"})
    other.sqlite(data)
    other.do("db.execute('UPDATE t SET body = randomblob(3000)')\ndb.execute('VACUUM')")
    assert pinned(data, id) == before


def test_file_size_limit_breaks_the_pin_alone(writer, data):
    """`ulimit -f`: the write itself fits, what is saved for the pin does not; and that is said."""
    actor = writer(rows=200)
    known = known_pins(data)
    actor.do("db.execute('CREATE TABLE a(x)')")
    id = new(data, known, "schema")
    size = (data / "chroma.sqlite3").stat().st_size
    actor.do(f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size},) * 2)")
    actor.do("db.execute('UPDATE t SET body = zeroblob(length(body)) WHERE rowid > 195')")
    found = pins(data)[id]
    assert found["state"] == "broken" and "ulimit -f" in found["detail"], found
    assert any("ulimit -f" in line for line in actor.lines()), actor.lines()


def test_no_room_breaks_the_pin_alone(writer, data):
    """More is saved than may be: the pin breaks, the backend does not notice."""
    actor = writer({"CHROMASHIM_UNDO_SIZE": "64K"}, rows=200)
    known = known_pins(data)
    actor.do("db.execute('CREATE TABLE a(x)')")
    id = new(data, known, "schema")
    actor.do("db.execute('UPDATE t SET body = randomblob(3000)')")
    assert pins(data)[id]["state"] == "broken"
    assert "CHROMASHIM_UNDO_SIZE" in pins(data)[id]["detail"]
    assert pin_reader.state(store(data))["epoch"] == 0
    assert any("pinned is broken" in line for line in actor.lines())
    actor.do("db.execute('UPDATE t SET body = randomblob(3000)')")
    assert actor.ask("db.execute('PRAGMA integrity_check').fetchone()[0]") == "ok"


# ---- real Chroma ----

SEGMENT_FILES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin",
                 "index_metadata.pickle"]


def segment_files(data: Path) -> dict[str, bytes]:
    return {str(p.relative_to(data)): p.read_bytes()
            for p in sorted(data.glob("*-*-*-*-*/*")) if p.name in SEGMENT_FILES}


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
@pytest.mark.parametrize("durability", ["power", "process"])
def test_segments(actors, data, venv, durability):
    """Every file of every segment, through persists, growth and the deletion of a collection."""
    hosts.BY_NAME["python" if venv == "venv" else "python-0.6"].require()
    actor = actors(env={"CHROMASHIM_DURABILITY": durability, "CHROMASHIM_BURST": "0s"}, venv=venv)
    actor.chroma(data)
    actor.do("""
import numpy as np
def put(c, first, n):
    for at in range(first, first + n, 20):
        c.upsert(ids=[f"r{i}" for i in range(at, at + 20)],
                 embeddings=np.random.default_rng(at).random((20, 16), dtype=np.float32).tolist())
""")
    actor.do("d = client.get_or_create_collection('pinned', metadata=METADATA)\n"
             "e = client.get_or_create_collection('gone', metadata=METADATA)\n"
             "put(d, 0, 200)\nput(e, 0, 200)", 60)
    actor.do(API)
    known = known_pins(data)
    token = actor.ask("api.chromashim_protect_begin(b'all', 2)")
    id = actor.ask(f"api.chromashim_protect_snapshot({token})")
    assert set(pins(data)) - known == {id}
    files, database = segment_files(data), live(data)
    assert len(files) >= 10
    actor.do("put(d, 100, 900)", 120)
    actor.do("client.delete_collection('gone')", 60)
    actor.do("f = client.get_or_create_collection('new', metadata=METADATA)\nput(f, 0, 100)", 60)
    assert segment_files(data) != files
    assert pins(data)[id]["state"] == "held"
    for path, content in files.items():
        assert pinned(data, id, path) == content, path
    for path in segment_files(data):
        if path not in files:
            assert pinned(data, id, path) is None, path
    assert pinned(data, id) == database


def test_before_a_segment_is_removed(actors, data):
    """By whoever does it, with the database closed: Chroma itself leaves the files of a deleted
    collection, and under an open one nobody may."""
    actor = actors(env={"CHROMASHIM_BURST": "0s"})
    actor.chroma(data)
    actor.do("""
import numpy as np, shutil
for at in range(0, 200, 20):
    c.upsert(ids=[f"r{i}" for i in range(at, at + 20)],
             embeddings=np.random.default_rng(at).random((20, 16), dtype=np.float32).tolist())
""")
    files, known = segment_files(data), known_pins(data)
    assert files
    removal = f"import shutil; shutil.rmtree({str(data / next(iter(files))).rpartition('/')[0]!r})"
    assert actor.fails(removal)
    assert segment_files(data) == files and set(pins(data)) == known
    actor.stop()
    files, known = segment_files(data), known_pins(data)
    actors(env={"CHROMASHIM_BURST": "0s"}).do(removal)
    id = min(set(pins(data)) - known)
    assert pins(data)[id]["reason"] == "bulk"
    for path, content in files.items():
        assert not (data / path).exists()
        assert pinned(data, id, path) == content, path


RECORDS = 5000
LARGE = f"""
import numpy as np
def records(first, n):
    return dict(ids=[f"r{{i}}" for i in range(first, first + n)],
                embeddings=np.random.default_rng(first).random((n, 32), dtype=np.float32).tolist(),
                documents=[f"document {{i}} " * 12 for i in range(first, first + n)],
                metadatas=[{{"number": i}} for i in range(first, first + n)])
large = client.get_or_create_collection('large', metadata=METADATA)
"""


@pytest.mark.slow
@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_deleting_a_large_collection(actors, data, tmp_path, chromashim, venv):
    """It is pinned before, and all of it comes back.

    Chroma before 1.0 removes six pages' worth of rows and leaves the records where they are: there
    is nothing to tell it by, and the snapshot is one that was asked for.
    """
    hosts.BY_NAME["python" if venv == "venv" else "python-0.6"].require()
    actor = actors(env={"CHROMASHIM_BURST": "0s"}, venv=venv)
    actor.chroma(data)
    actor.do(LARGE + f"for at in range(0, {RECORDS}, 500):\n    large.add(**records(at, 500))", 300)
    known = known_pins(data)
    if venv == "venv-0.6":
        assert chromashim("snapshot", "create", "--no-wait", data).returncode == 0
    actor.do("client.delete_collection('large')", 120)
    first = min(set(pins(data)) - known)
    assert pins(data)[first]["reason"] == ("bulk" if venv == "venv" else "manual")
    done = chromashim("guard", "--once", data, timeout=600,
                      env=hosts.environment({"CHROMASHIM_KEEP": "all", "CHROMASHIM_EVERY": "0"}))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    done = chromashim("restore", data, "--to", first, "-o", out, "-y", timeout=300)
    assert done.returncode == 0 and "(verified)" in done.stdout, done
    other = actors(shimmed=False, venv=venv)
    other.chroma(out)
    other.do(LARGE + f"""
wrong = []
for at in range(0, {RECORDS}, 500):
    wanted = records(at, 500)
    got = large.get(ids=wanted["ids"], include=["embeddings", "documents", "metadatas"])
    place = {{id: i for i, id in enumerate(got["ids"])}}
    for i, id in enumerate(wanted["ids"]):
        k = place.get(id)
        if (k is None or got["documents"][k] != wanted["documents"][i]
                or got["metadatas"][k] != wanted["metadatas"][i]
                or not np.allclose(got["embeddings"][k], wanted["embeddings"][i], atol=1e-6)):
            wrong.append(id)
""", 300)
    assert other.ask("large.count()", 60) == RECORDS
    assert other.ask("wrong", 60) == []


# Older releases of SQLite (3.40, not 3.54) write wrong checksums from here on.
SPOIL = """
db.execute('PRAGMA cache_size = 10')
db.execute('BEGIN')
db.execute('SAVEPOINT s')
db.executemany('INSERT INTO t(id, body) VALUES(?, zeroblob(3000))', [(i,) for i in range(1000, 1100)])
db.execute('UPDATE t SET body = randomblob(3000) WHERE id > 1060')
db.execute('ROLLBACK TO s')
db.execute('RELEASE s')
db.execute("UPDATE t SET body = 'new' WHERE id = 1")
db.execute('COMMIT')
"""


def test_a_log_that_sqlite_has_spoiled(writer, data, tmp_path, chromashim):
    """Its last transactions are in no file as SQLite would read it: never a wrong snapshot."""
    def taken():
        return copied(actor.ask("api.chromashim_protect_snapshot("
                                "api.chromashim_protect_begin('by hand'.encode(), 2))"))

    def copied(id):
        assert chromashim("guard", data, "--once").returncode in (0, 2, 3)
        listed = json.loads(chromashim("snapshot", "list", data, "--json").stdout)
        return {s["id"]: s for s in listed}[id]

    def content(snapshot):
        out = tmp_path / str(snapshot["id"])
        done = chromashim("restore", data, "--to", snapshot["id"], "-o", out, "-y", "--force")
        assert out.exists(), done.stderr
        with contextlib.closing(sqlite3.connect(out / DATABASE)) as db:
            return db.execute("SELECT body FROM t WHERE id = 1").fetchall()

    actor = writer(pragmas="db.execute('PRAGMA journal_mode=WAL')\n"
                           "db.execute('CREATE TABLE collections(id)')")
    actor.do(API + SPOIL)
    snapshot = taken()
    if snapshot["state"] == "broken":
        assert "wal_checkpoint(TRUNCATE)" in snapshot["trouble"]
    else:
        assert content(snapshot) == [("new",)]
    actor.do("db.execute('PRAGMA wal_checkpoint(TRUNCATE)')")
    assert content(taken()) == [("new",)]
    actor.do(FILL.format(20) + "\ndb.execute('PRAGMA wal_checkpoint(RESTART)')")
    known = known_pins(data)
    actor.do("db.execute('ALTER TABLE u ADD COLUMN more')")  # one frame: its header, then the pin
    assert content(copied(new(data, known, "schema"))) == [("new",)]
