# SPDX-License-Identifier: MIT
"""Known destroyers: what has destroyed people's data is refused, ordinary life is not."""

import hashlib
import json
from pathlib import Path

import pytest

import hosts
import oplog_reader

CHROMAS = ["venv", "venv-0.6"]
EBUSY = "[Errno 16]"


def refusals(data: Path) -> list[dict]:
    return [r for r in oplog_reader.read_store(data) if r["op"].startswith("refuse.")]


def segment(data: Path) -> Path:
    (header,) = data.glob("*/header.bin")
    return header.parent


def contents(directory: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest()
            for f in sorted(directory.iterdir()) if f.is_file()}


@pytest.fixture(params=CHROMAS)
def venv(request) -> str:
    if not hosts.python(request.param).exists():
        pytest.skip(f"{request.param} is missing; run wrappers/setup run check")
    return request.param


# ---- the pickle lost ----

FIRSTS = [0, 60, 120, 180, 240]


def persisted(data: Path, actors, venv: str) -> Path:
    """A collection whose vectors are in the segment and no longer in the queue; its pickle."""
    first = actors(venv=venv).chroma(data)
    for n in FIRSTS:
        first.do(f"c.upsert(**batch({n}))")
    assert not first.lines()
    first.stop()
    return segment(data) / "index_metadata.pickle"


def explained(chromashim, data: Path, name: str) -> None:
    """explain leads from Chroma's words to the line of the log, and is honest where there is none."""
    told = json.loads(chromashim("explain", "--json", "--dir", data, "readonly database").stdout)
    assert told["means"] and {r["op"] for r in told["refused"]} == {"refuse.destroyer"}
    assert all(name in r["path"] for r in told["refused"]), told["refused"]
    done = chromashim("explain", data)
    assert done.returncode == 0 and "emptying is refused" in done.stdout and name in done.stdout
    done = chromashim("explain", "--dir", data.parent, "what nobody knows")
    assert done.returncode == 12 and "refused nothing" in done.stdout


def test_pickle_missing(data, actors, venv, chromashim):
    pickle = persisted(data, actors, venv)
    kept = pickle.read_bytes()
    before = contents(pickle.parent)
    pickle.unlink()
    second = actors(venv=venv)
    second.chroma(data)
    for n in (1000, 1060, 1120):
        second.fails(f"c.upsert(**batch({n}))")
    second.fails("c.query(query_embeddings=vectors(1, 1), n_results=3)")
    second.stop()
    after = contents(pickle.parent)
    after.pop("index_metadata.pickle", None)
    before.pop("index_metadata.pickle")
    assert after == before and not pickle.exists()
    said = [line for line in second.lines() if "emptying is refused" in line]
    assert said and "chromashim check" in said[0] and pickle.parent.name in said[0]
    assert {r["op"] for r in refusals(data)} == {"refuse.destroyer"}
    explained(chromashim, data, pickle.parent.name)

    pickle.write_bytes(kept)
    third = actors(venv=venv).chroma(data)
    assert third.ask(f"wrong(c, {FIRSTS})") == []
    third.do("c.upsert(**batch(2000))")


def test_pickle_missing_without_the_shim(data, actors, venv):
    pickle = persisted(data, actors, venv)
    kept = pickle.read_bytes()
    before = contents(pickle.parent)
    pickle.unlink()
    second = actors(False, venv=venv).chroma(data)
    for n in (1000, 1060, 1120):
        second.do(f"c.upsert(**batch({n}))")
    second.stop()
    assert contents(pickle.parent)["data_level0.bin"] != before["data_level0.bin"]
    third = actors(False, venv=venv).chroma(data)
    assert third.fails(f"assert not wrong(c, {FIRSTS})")
    assert kept


# ---- writes far beyond the end ----


@pytest.mark.parametrize("name", ["link_lists.bin", "data_level0.bin", "length.bin"])
def test_runaway_write(data, actors, name):
    path = persisted(data, actors, "venv").parent / name
    before = path.read_bytes()
    actor = actors().sqlite(data)
    actor.do("db.execute('SELECT * FROM collections').fetchall()")
    actor.do(f"f = os.open({str(path)!r}, os.O_RDWR)")
    assert "[Errno 27]" in actor.fails(f"os.pwrite(f, b'x', {1 << 40})")
    # Then the segment is left as it is: hnswlib looks at no error, and would go on.
    assert "[Errno 1]" in actor.fails("os.pwrite(f, b'x', 0)")
    assert path.read_bytes() == before
    assert any("far beyond its end is refused" in line for line in actor.lines())


@pytest.mark.fast
def test_growing_is_no_runaway(data, actors):
    """Many records at once: the files are enlarged first, and written within."""
    actor = actors().chroma(data)
    actor.do("c.upsert(**batch(0, 5000))", 120)
    assert actor.ask("wrong(c, [0], 200)") == []
    assert not refusals(data) and not actor.lines()


# ---- the database taken away ----

TAKE_AWAY = {
    "unlink": "os.unlink(path)",
    "rmtree": "import shutil; shutil.rmtree(Path(path).parent)",
    "rename": "os.rename(path, path + '.old')",
    "replace": "Path(path + '.new').write_text('x'); os.replace(path + '.new', path)",
    "empty": "open(path, 'wb').close()",
    "truncate": "os.truncate(path, 0)",
    "ftruncate": "f = os.open(path, os.O_RDWR); os.ftruncate(f, 0)",
}


@pytest.mark.parametrize("how", TAKE_AWAY)
def test_database_taken_away(data, actors, how):
    path = data / "chroma.sqlite3"
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    actor.do(f"path = {str(path)!r}")
    before = path.read_bytes()
    error = actor.fails(TAKE_AWAY[how])
    assert EBUSY in error, error
    assert path.read_bytes() == before
    assert any("refused while SQLite has it open" in line for line in actor.lines())
    actor.do("db.execute('INSERT INTO t VALUES(1)')")
    actor.do("db.close()")
    actor.do(TAKE_AWAY[how])
    assert not path.exists() or path.read_bytes() != before


@pytest.mark.parametrize("suffix, mode", [("-journal", "PERSIST"), ("-wal", "WAL")])
def test_journal_taken_away(data, actors, suffix, mode):
    actor = actors().sqlite(data)
    actor.do(f"db.execute('PRAGMA journal_mode = {mode}'); db.execute('CREATE TABLE t(a)')")
    path = str(data / "chroma.sqlite3") + suffix
    for how in ("os.unlink(path)", "open(path, 'wb')", "os.rename(path, path + '.old')"):
        assert EBUSY in actor.fails(f"path = {path!r}; {how}"), how
    actor.do("db.execute('PRAGMA journal_mode = DELETE')")  # SQLite itself may
    assert not Path(path).exists()
    actor.do("db.execute('INSERT INTO t VALUES(1)')")


def test_under_chroma(data, actors):
    actor = actors().chroma(data)
    actor.do("c.upsert(**batch(0))")
    assert EBUSY in actor.fails(f"os.unlink({str(data / 'chroma.sqlite3')!r})")
    actor.do("c.upsert(**batch(60))")
    assert actor.ask("wrong(c, [0, 60])") == []


# ---- ordinary life ----

LIFE = """
import chromadb, gc
from workload import *
def client():
    return chromadb.PersistentClient(TARGET, settings=Settings(anonymized_telemetry=False, allow_reset=True))
one = client()
for round in range(2):
    for name in ("first", "second"):
        c = one.create_collection(name, metadata=METADATA)
        for n in range(0, 300, 60):
            c.upsert(**batch(n))
        c.delete(ids=batch(0)["ids"])
        c.query(query_embeddings=vectors(1, 1), n_results=3)
    one.delete_collection("second")
    one.reset()
c = one.create_collection("first", metadata=METADATA)
c.upsert(**batch(0, 150))
own = sqlite3.connect(TARGET + "/chroma.sqlite3", isolation_level=None)
own.execute("VACUUM")
own.close()
"""


def test_ordinary_life(data, actors, venv):
    actor = actors(venv=venv)
    actor.do(LIFE.replace("TARGET", repr(str(data))), 120)
    assert refusals(data) == [] and actor.lines() == []


def test_killed_before_the_first_persist_ends(data, actors):
    """Elements and no pickle, but all of it is still in the queue: Chroma makes it again."""
    actor = actors().chroma(data)
    actor.do("c.upsert(**batch(0, 90))")
    actor.start("while True: c.upsert(**batch(0, 90)); c.upsert(**batch(90, 90))")
    while not list(data.glob("*/header.bin")):
        pass
    actor.kill()
    after = actors().chroma(data)
    for n in range(1000, 1300, 60):
        after.do(f"c.upsert(**batch({n}))")
    assert after.ask("wrong(c, [0], 90)") == [] and not refusals(data)
