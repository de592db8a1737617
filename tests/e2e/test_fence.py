# SPDX-License-Identifier: MIT
"""The fence: what a plain sqlite3 without the shim can and cannot do beside the writer."""

import subprocess
import time
from pathlib import Path

import pytest

import oplog_reader
from actor import Actor, Hangs

FENCE, WAL = 0x04, 0x40
ROWS = 300
SUM = "db.execute('SELECT sum(a) FROM t').fetchone()[0]"
TRUTH = sum(range(ROWS))


def fill(owner: Actor, data: Path) -> None:
    owner.sqlite(data)
    owner.do("db.execute('CREATE TABLE t(a, b)')")
    owner.do(f"db.executemany('INSERT INTO t VALUES(?, ?)', [(n, 'x' * 2000) for n in range({ROWS})])")


def begin_and_spill(owner: Actor, data: Path) -> None:
    """Pages of a transaction that is not committed are in the database."""
    owner.do("db.execute('PRAGMA cache_size = 5'); db.execute('BEGIN')")
    before = (data / "chroma.sqlite3").read_bytes()
    owner.do("db.execute('UPDATE t SET a = a + 1000')")
    assert (data / "chroma.sqlite3").read_bytes() != before
    assert (data / "chroma.sqlite3-journal").stat().st_size > 0


def features(data: Path, pid: int) -> int:
    # The one after it may be there, and unused.
    used = [h for h in oplog_reader.headers(data) if h["pid"] == pid and h["claimed"]]
    return used[-1]["features"]


def integrity(actor: Actor) -> str:
    return actor.ask("db.execute('PRAGMA integrity_check').fetchone()[0]")


@pytest.fixture
def outsider(data, actors):
    return actors(False).sqlite(data)


@pytest.mark.fast
def test_reads_and_cannot_write(data, actors, outsider):
    owner = actors()
    fill(owner, data)
    for n in range(5):
        assert outsider.ask(SUM) == TRUTH + n
        assert "database is locked" in outsider.fails("db.execute('DELETE FROM t')")
        assert "database is locked" in outsider.fails("db.execute('BEGIN IMMEDIATE')")
        owner.do("db.execute('INSERT INTO t VALUES(1, 1)')")
    assert features(data, owner.pid) & FENCE
    owner.do("db.execute('BEGIN'); db.execute('DELETE FROM t')")
    assert outsider.ask(SUM) == TRUTH + 5
    owner.do("db.execute('ROLLBACK')")
    assert integrity(outsider) == "ok"
    owner.stop()
    outsider.do("db.execute('INSERT INTO t VALUES(1, 1)')")


def test_beside_chroma(data, actors, outsider):
    owner = actors().chroma(data)
    refused = 0
    for first in range(0, 600, 60):
        owner.start(f"c.upsert(**batch({first}))")
        while True:
            try:
                owner.finish(0.01)
                break
            except Hangs:  # still at it
                refused += "locked" in outsider.fails("db.execute('BEGIN IMMEDIATE')")
                assert not outsider.ask("db.in_transaction")
        count = outsider.ask("db.execute('SELECT count(*) FROM embeddings').fetchone()[0]")
        assert count == first + 60
        assert "locked" in outsider.fails("db.execute('DELETE FROM embeddings')")
    assert refused and integrity(outsider) == "ok"


def test_owner_killed_in_a_transaction(data, actors, outsider):
    owner = actors()
    fill(owner, data)
    begin_and_spill(owner, data)
    assert "locked" in outsider.fails(SUM)
    owner.kill()
    assert outsider.ask(SUM) == TRUTH
    assert integrity(outsider) == "ok"
    assert not (data / "chroma.sqlite3-journal").exists()
    outsider.do("db.execute('INSERT INTO t VALUES(1, 1)')")


def test_owner_leaves_a_journal_behind(data, actors, outsider, strace):
    """Its disk fails while it rolls back: the journal is hot, and the owner lives."""
    owner = actors()
    fill(owner, data)
    begin_and_spill(owner, data)
    fault = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(owner.pid), "-P",
         str(data / "chroma.sqlite3"), "-e", "inject=pwrite64:error=EIO"])
    try:
        time.sleep(0.5)
        owner.fails("db.execute('ROLLBACK')")
        assert (data / "chroma.sqlite3-journal").stat().st_size > 0
        # With RESERVED kept it would now read 1000 more for each row that was spilled.
        assert outsider.fails(f"assert {SUM} == {TRUTH}") in ("", "OperationalError: database is locked")
        assert not features(data, owner.pid) & FENCE
    finally:
        fault.terminate()
        fault.wait()
    assert owner.ask(SUM) == TRUTH
    assert outsider.ask(SUM) == TRUTH
    assert integrity(outsider) == "ok"
    owner.do("db.execute('PRAGMA cache_size = 2000'); db.execute('INSERT INTO t VALUES(1, 1)')")
    assert features(data, owner.pid) & FENCE
    assert "locked" in outsider.fails("db.execute('DELETE FROM t')")


@pytest.mark.parametrize("env", [{"CHROMASHIM_FENCE": "off"}, {"CHROMASHIM_SINGLE_WRITER": "off"}])
def test_off(data, actors, outsider, env):
    owner = actors(env=env)
    fill(owner, data)
    outsider.do("db.execute('INSERT INTO t VALUES(1, 1)')")
    assert owner.ask(SUM) == TRUTH + 1
    assert not features(data, owner.pid) & FENCE


@pytest.mark.parametrize("mode", ["PERSIST", "TRUNCATE"])
def test_other_journal_modes(data, actors, outsider, mode):
    owner = actors().sqlite(data)
    owner.do(f"db.execute('PRAGMA journal_mode = {mode}')")
    fill(owner, data)
    owner.do(f"db.execute('PRAGMA journal_mode = {mode}')")
    owner.do("db.execute('INSERT INTO t VALUES(1, 1)')")
    assert outsider.ask(SUM) == TRUTH + 1
    assert "locked" in outsider.fails("db.execute('DELETE FROM t')")


def test_wal(data, actors, outsider):
    """There the byte is another one; no fence, and the log says so."""
    owner = actors()
    fill(owner, data)
    assert features(data, owner.pid) & (FENCE | WAL) == FENCE
    owner.do("db.execute('PRAGMA journal_mode = WAL')")
    owner.do("db.execute('INSERT INTO t VALUES(1, 1)')")
    assert features(data, owner.pid) & (FENCE | WAL) == WAL
    assert outsider.ask(SUM) == TRUTH + 1
    outsider.do("db.execute('INSERT INTO t VALUES(1, 1)')")
    assert owner.ask(SUM) == TRUTH + 2


def test_several_connections_of_the_owner(data, actors, outsider):
    owner = actors()
    fill(owner, data)
    owner.do(f"more = [sqlite3.connect({str(data / 'chroma.sqlite3')!r}, isolation_level=None) "
             "for _ in range(4)]")
    owner.do("for n in range(20): more[n % 4].execute('INSERT INTO t VALUES(1, 1)')")
    assert "locked" in outsider.fails("db.execute('DELETE FROM t')")
    owner.do("for c in more: c.close()")
    assert "locked" in outsider.fails("db.execute('DELETE FROM t')")
    assert outsider.ask(SUM) == TRUTH + 20
