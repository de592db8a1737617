# SPDX-License-Identifier: MIT
"""Directories that come and go in one process: each is protected, and each is given back."""

import shutil
from pathlib import Path

import pytest

import torn


def hidden(owner) -> list[str]:
    """What the shim has open in a process, by its numbers out of the host's sight."""
    return [str(p.readlink()) for p in Path(f"/proc/{owner.pid}/fd").iterdir() if int(p.name) >= 200]


def test_a_thousand_one_after_the_other(tmp_path, actors):
    """As a server has it with a directory for each tenant: all have a log, and little stays open."""
    owner = actors()
    owner.do(f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.chdir({str(tmp_path)!r})
for i in range(1000):
    os.mkdir(str(i))
    db = sqlite3.connect(f"{{i}}/chroma.sqlite3")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE t(x)")
    db.close()
""", 120)
    assert not [line for line in owner.lines() if "UNPROTECTED" in line]
    assert len(owner.lines()) <= 1  # that the disk is nearly full
    assert all(any((tmp_path / f"{i}/.chromashim/oplog").iterdir()) for i in range(1000))
    assert len(hidden(owner)) <= 60
    torn.make(tmp_path / "last")
    torn.overwrite(owner, tmp_path / "last")
    owner.kill()
    assert torn.first(tmp_path / "last") == "NNNN"
    actors().sqlite(tmp_path / "last").do("db.execute('SELECT * FROM t')")
    assert torn.first(tmp_path / "last") == "OOOO"


def test_closed_is_free_for_others(data, actors):
    """Who has written and closed all is the writer no more; with a file open it stays it."""
    owner, other = actors().sqlite(data), actors().sqlite(data)
    owner.do("db.execute('CREATE TABLE t(x)')")
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (1)')")
    for process in (owner, other):
        process.do("db.close()")
    for writes, reads in ((other, owner), (owner, other)):
        writes.sqlite(data).do("db.execute('INSERT INTO t VALUES (1)')")
        reads.sqlite(data)
        assert "readonly" in reads.fails("db.execute('INSERT INTO t VALUES (1)')")
        reads.do("db.close()")
        writes.do("db.close()")


@pytest.mark.parametrize("collections", [0, 1])
def test_an_index_in_memory_keeps_the_right(data, actors, collections):
    """Chroma's own files stay open as long as it has an index: nobody writes beside it."""
    owner = actors().chroma(data)
    owner.do("c.upsert(**batch(0, 400))" if collections else "pass", 60)
    other = actors().sqlite(data)
    assert "readonly" in other.fails("db.execute('CREATE TABLE more(x)')")


@pytest.mark.parametrize("left_open", [False, True])
def test_removed_and_made_anew(tmp_path, actors, left_open):
    """By others, under the same path: the new one is protected, and the old one's things are gone."""
    owner, data = actors(), tmp_path / "same"
    for _ in range(12):
        torn.make(data)
        torn.overwrite(owner, data)
        owner.do("" if left_open else "os.close(level0); os.close(database)")
        shutil.rmtree(data)
    torn.make(data)
    torn.overwrite(owner, data)
    assert len(hidden(owner)) < (160 if left_open else 60)
    owner.kill()
    assert torn.first(data) == "NNNN"
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "OOOO"


def test_two_hundred_at_once(tmp_path, actors):
    """Under the usual limit of 1024 descriptors, of which the host has one each."""
    owner = actors()
    owner.do(f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.chdir({str(tmp_path)!r})
held = []
for i in range(200):
    os.mkdir(str(i))
    held.append(sqlite3.connect(f"{{i}}/chroma.sqlite3"))
    held[-1].execute("PRAGMA synchronous = OFF")
    held[-1].execute("CREATE TABLE t(x)")
""", 120)
    assert not [line for line in owner.lines() if "UNPROTECTED" in line]
    assert all(any((tmp_path / f"{i}/.chromashim/oplog").iterdir()) for i in range(200))
    for i in (0, 100, 199):  # their locks are held
        other, without = actors().sqlite(tmp_path / f"{i}"), actors(False).sqlite(tmp_path / f"{i}")
        assert "readonly" in other.fails("db.execute('CREATE TABLE more(x)')")
        assert "locked" in without.fails("db.execute('CREATE TABLE more(x)')")
    owner.do("""
for i, db in enumerate(held):
    db.isolation_level = None
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES (?)", [(i,), (i + 1,), (i + 2,)])
    db.execute("COMMIT")
    db.execute("UPDATE t SET x = -x WHERE x = ?", (i + 1,))
    db.execute("DELETE FROM t WHERE x = ?", (i + 2,))
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE t SET x = 0")
    db.execute("INSERT INTO t SELECT zeroblob(20000)")  # goes to the file before it is committed
""", 120)
    owner.kill()
    rows = actors().do(f"""
result = []
for i in range(200):
    db = sqlite3.connect(f"{str(tmp_path)}/{{i}}/chroma.sqlite3")
    result.append([x for x, in db.execute("SELECT x FROM t ORDER BY rowid")])
    db.close()
""", 120)
    assert rows == [[i, -i - 1] for i in range(200)]


def test_what_changed_nothing_leaves_nothing(data, actors):
    """A process that only reads has no log; one that is killed has it until the next one comes."""
    torn.make(data)
    oplog = data / ".chromashim/oplog"
    reads = "db.execute('SELECT * FROM t').fetchall()"
    killed = actors().sqlite(data)
    killed.do(reads)
    assert any(oplog.iterdir())
    killed.kill()
    assert any(oplog.iterdir())
    after = actors().sqlite(data)
    after.do(reads)
    assert len(list(oplog.iterdir())) == 1
    after.stop()
    assert not list(oplog.iterdir())


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.chdir({path!r})
for i in range(4):
    os.mkdir(str(i))
    db = sqlite3.connect(f"{{i}}/chroma.sqlite3")
    db.execute("CREATE TABLE t(x)")
    db.close()
def take_all():
    taken = []
    try:
        while True:
            taken.append({call})
    except OSError:
        for one in taken:
            one.close() if hasattr(one, "close") else os.close(one)
        return len(taken)
"""


@pytest.mark.parametrize("call", ["os.open('/dev/null', os.O_RDONLY)", "os.dup(0)",
                                  "open('/dev/null')"])
def test_idle_directories_give_back_their_descriptors(tmp_path, actors, call):
    """When the host wants them; what comes back later is protected as before."""
    without = actors(False)
    without.do(FULL.format(path=str(tmp_path), call=call) + "count = take_all()")
    (tmp_path / "with").mkdir()
    owner = actors()
    owner.do(FULL.format(path=str(tmp_path / "with"), call=call) + "count = take_all()")
    assert int(without.ask("count")) - int(owner.ask("count")) <= 1  # the one that is kept
    owner.do("db = sqlite3.connect('2/chroma.sqlite3'); db.execute('INSERT INTO t VALUES (1)'); "
             "db.commit()")
    assert not owner.lines()
    other = actors().sqlite(tmp_path / "with/2")
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (2)')")
