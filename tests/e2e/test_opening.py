# SPDX-License-Identifier: MIT
"""Who has only opened the database is not the writer: a notebook, a server that reloads itself.

Each client of Chroma's from 1.0 on writes a row when it opens. After that the right to write is
free again, and the guardian keeps those out that have not got the library.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from actor import Actor
from hosts import BUILD

IN_THE_WAY = 14
GUARDED = {"CHROMASHIM_GUARD": "on", "CHROMASHIM_EVERY": "0"}
ADD = "c.upsert(ids=[{0!r}], embeddings=[[1.0] * DIMENSIONS])"
TRUTH = sum(range(300))
SUM = "db.execute('SELECT sum(a) FROM t').fetchone()[0]"


def eventually(holds, seconds=10):
    """The guardian is another process."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def made(data, actors):
    """A directory with a collection, whose index is on the disk; and who only opens it."""
    maker = actors().chroma(data)
    maker.do("c.upsert(**records(1, 0, 120))", 60)
    assert maker.ask("c.count()") == 120
    maker.stop()
    return data


@pytest.fixture
def opens(made, actors):
    def start(env=None) -> Actor:
        actor = actors(env=env or GUARDED)
        actor.do(f"from workload import *\nclient = connect({str(made)!r})", 60)
        return actor
    return start


def is_locked(outsider: Actor) -> bool:
    said = outsider.fails("db.execute('BEGIN IMMEDIATE'); db.execute('ROLLBACK')")
    assert said in ("", "OperationalError: database is locked")
    return bool(said)


def test_another_one_writes(opens, made, actors):
    opener = opens()
    writer = actors(env=GUARDED).chroma(made)
    writer.do("c.upsert(**records(2, 100, 60))", 60)  # its index is persisted
    opener.do("c = client.get_collection('books')")
    assert opener.ask("c.count()") == 160
    assert "readonly" in opener.fails(ADD.format("mine"))
    assert re.findall(r"process (\d+) \(", opener.errors()) == [str(writer.pid)]
    writer.stop()
    again = actors(env=GUARDED).chroma(made)
    again.do(ADD.format("again"))
    assert again.ask("c.count()") == 161
    again.stop()


def test_who_opened_writes_later(opens, made, actors):
    """What it loads then is what others have written meanwhile; it persists it, and is the writer."""
    opener = opens()
    writer = actors(env=GUARDED).chroma(made)
    writer.do("c.upsert(**records(2, 100, 60))", 60)
    writer.stop()
    opener.do("c = client.get_collection('books')")
    opener.do("c.upsert(**records(3, 150, 120))", 60)
    assert not opener.lines()
    second = opens()
    assert "readonly" in second.fails("client.get_collection('books').delete(['id-1'])")
    second.stop()
    opener.stop()
    reader = actors().chroma(made)
    assert reader.ask("c.count()") == 270
    assert reader.ask("all(v in c.get(ids=[i], include=['embeddings'])['embeddings'].tolist() for i, v in"
                      " [*zip(records(2, 100, 50)['ids'], vectors(2, 60)), "
                      " *zip(records(3, 150, 120)['ids'], vectors(3, 120))])")


def test_who_searches_is_the_writer(opens, made):
    """It may have to persist the index that it has loaded."""
    opener = opens()
    opener.do("c = client.get_collection('books'); c.query(query_embeddings=vectors(5, 1))")
    second = opens()
    assert "readonly" in second.fails("client.get_collection('books').delete(['id-1'])")
    opener.do("c.upsert(**records(3, 150, 120))", 60)
    assert not opener.lines()


def test_who_is_refused_beside_a_search_is_told_what_helps(opens, made):
    """A site that searches, and a worker that adds: as told, and then both do what they are for."""
    site = opens()
    site.do("client.get_collection('books').query(query_embeddings=vectors(5, 1))")
    worker = opens()
    assert "readonly" in worker.fails("client.get_collection('books').delete(['id-1'])")
    assert "If that one only searches, stop it, and start it again when this one has written" in worker.errors()
    site.stop()
    worker.do("c = client.get_collection('books'); c.delete(['id-1'])")
    site = opens()
    site.do("c = client.get_collection('books')")
    assert site.ask("len(c.query(query_embeddings=vectors(5, 1))['ids'][0])") == 10
    worker.do("c.delete(['id-2'])")
    assert site.ask("c.count()") == 118 and not site.lines()


def test_fence(opens, made, actors):
    """An outsider cannot write as long as somebody has the database open, and can at once after that."""
    outsider = actors(False).sqlite(made)
    opener = opens()
    eventually(lambda: is_locked(outsider))
    for _ in range(20):
        assert is_locked(outsider)
        assert outsider.ask("db.execute('SELECT count(*) FROM embeddings').fetchone()[0]") == 120
        time.sleep(0.01)
    writer = actors(env=GUARDED).chroma(made)
    for n in range(20):
        writer.do(ADD.format(f"n{n}"))
        assert is_locked(outsider)
    writer.kill()
    eventually(lambda: is_locked(outsider))
    opener.kill()
    eventually(lambda: not is_locked(outsider), 2)


def test_fence_beside_a_journal_that_is_not_hot(opens, made, actors):
    """Of one that was killed before its first sync: SQLite leaves it to the next transaction."""
    outsider = actors(False).sqlite(made)
    actor = opens()
    (made / "chroma.sqlite3-journal").write_bytes(bytes(12) + bytes(range(1, 17)) + bytes(4588))
    eventually(lambda: is_locked(outsider))
    actor.do("client.get_collection('books').upsert(**records(2, 100, 60))", 60)
    assert not (made / "chroma.sqlite3-journal").exists()


def test_killed_in_a_transaction(opens, made, actors):
    """Its journal is hot, though somebody is there who has opened the database."""
    outsider = actors(False).sqlite(made)
    opener = opens()
    eventually(lambda: is_locked(outsider))
    outsider.sqlite(made, timeout=5)  # the guardian reads now and then
    owner = actors(env=GUARDED).sqlite(made, timeout=5)
    owner.do("db.execute('CREATE TABLE t(a, b)')")
    owner.do("db.executemany('INSERT INTO t VALUES(?, ?)', [(n, 'x' * 2000) for n in range(300)])")
    owner.do("db.execute('PRAGMA cache_size = 5'); db.execute('BEGIN')")
    owner.do("db.execute('UPDATE t SET a = a + 1000')")
    owner.kill()
    assert (made / "chroma.sqlite3-journal").stat().st_size > 0
    assert outsider.ask(SUM) == TRUTH
    assert outsider.ask("db.execute('PRAGMA integrity_check').fetchone()[0]") == "ok"
    assert opener.ask("client.get_collection('books').count()") == 120


def guardian_of(data: Path) -> int:
    return int((data / ".chromashim/guard.lock").read_text().split()[1])


def test_guardian_that_does_not_answer(opens, made, actors):
    """Whoever becomes the writer does not wait for it."""
    outsider = actors(False).sqlite(made)
    opens()
    eventually(lambda: is_locked(outsider))
    guardian = guardian_of(made)
    os.kill(guardian, signal.SIGSTOP)
    try:
        writer = actors(env=GUARDED).chroma(made)
        begun = time.monotonic()
        for n in range(20):
            writer.do(ADD.format(f"n{n}"))
        assert time.monotonic() - begun < 20
        assert writer.ask("c.count()") == 140
        writer.stop()
    finally:
        os.kill(guardian, signal.SIGCONT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another list of processes")
def test_in_another_container(opens, made):
    """Nothing is locked then, with its guardian gone, and /proc does not show it."""
    opens()
    os.kill(guardian_of(made), signal.SIGKILL)
    for words in (["recover", "-y", made], ["run", "--dir", made, "--set", "CHROMASHIM_WAIT=0", "true"]):
        done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", BUILD / "chromashim", *words],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == IN_THE_WAY, done.stderr
        assert "looked into" in done.stderr or "not to be seen from here" in done.stderr


def test_without_a_guardian(opens):
    """Nobody else would keep the fence: who opens first stays the writer."""
    opens({"CHROMASHIM_GUARD": "off"})
    second = opens({"CHROMASHIM_GUARD": "off"})
    assert "readonly" in second.fails("client.get_collection('books').delete(['id-1'])")


def test_reloader(opens, made):
    """The process that watches the files has a client, too, and starts the one that serves."""
    parent = opens()
    parent.do(f"""
import subprocess
child = subprocess.run([sys.executable, "-c", '''
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from workload import *
connect({str(made)!r}).get_collection("books").upsert(**records(7, 0, 10))
'''], stderr=subprocess.PIPE, text=True)
result = child.returncode, child.stderr
""", 60)
    assert parent.do("result = child.returncode, child.stderr") == [0, ""]


def test_opened_while_another_thread_writes(opens, made):
    """The right is given back by one thread and needed by the other: no write is without it."""
    actor = opens()
    actor.do(f"""
import threading
failed = []

def open_often():
    for n in range(1, 30):
        try:
            connect({str(made)!r} + "/." * n)  # another path, another client
        except Exception as e:
            failed.append(str(e))

thread = threading.Thread(target=open_often)
thread.start()
other = connect({str(made)!r} + "/./").get_collection("books")
for n in range(30):
    other.upsert(ids=[f"t{{n}}"], embeddings=[[float(n)] * DIMENSIONS])
thread.join()
result = failed, other.count()
""", 90)
    assert actor.ask("(failed, other.count())") == [[], 150]
    assert not actor.lines()
