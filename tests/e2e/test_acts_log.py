# SPDX-License-Identifier: MIT
"""The log of acts as a log: what a kill leaves, its bound, its settings, and who leaves nothing."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import textwrap

import pytest

import hosts
import oplog_reader
import tracer
from test_acts import LOAD, acts, hashed, of, store_seed

pytestmark = pytest.mark.memory

TOPIC = "persistent://default/default/aaaaaaaa-0000-0000-0000-00000000000a"
SCHEMA = """
    CREATE TABLE embeddings_queue (seq_id INTEGER PRIMARY KEY, created_at TIMESTAMP NOT NULL DEFAULT
        CURRENT_TIMESTAMP, operation INTEGER NOT NULL, topic TEXT NOT NULL, id TEXT NOT NULL,
        vector BLOB, encoding TEXT, metadata TEXT);
"""
PUT = f"""
    import os, signal, sqlite3, sys
    db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
    def put(n, operation=2, size=1536, id_="id-%d"):
        db.executemany("INSERT INTO embeddings_queue (operation, topic, id, vector) VALUES (?, ?, ?, "
                       "zeroblob(?))", [(operation, {TOPIC!r}, id_ % i, size) for i in range(n)])
"""


@pytest.fixture
def queue(data):
    """A directory with a queue like Chroma's, made without the library."""
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        db.executescript(SCHEMA)
    return data


@pytest.fixture
def python(queue, shim):
    """Runs a script on it, with put(n) in it; the acts."""
    def run(script, status=0, **env):
        settings = hosts.environment({"LD_PRELOAD": shim, **env})
        done = subprocess.run(["/usr/bin/python3", "-I", "-S", "-c",
                               textwrap.dedent(PUT) + textwrap.dedent(script), queue],
                              env=settings, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        return acts(queue)

    return run


def counts(found):
    return [(r["added"], r["updated"], r["upserted"], r["deleted"]) for r in of(found, "records")]


def folder(data):
    return data / tracer.STORE / "acts"


def test_killed_while_it_writes(data, shim):
    """What is told was committed, and what was acknowledged is told."""
    host = hosts.BY_NAME["python"]
    host.require()
    settings = hosts.environment({"LD_PRELOAD": shim})
    with subprocess.Popen([hosts.python(host.driver), LOAD, data, "until"], env=settings, text=True,
                          stdout=subprocess.PIPE) as process:
        acknowledged = 0
        for line in process.stdout:
            acknowledged += line.startswith("ack")
            if acknowledged == 25:
                process.send_signal(signal.SIGKILL)
                break
        acknowledged += process.stdout.read().count("ack")
    found = of(acts(data), "records")
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        last, = db.execute("SELECT max(seq_id) FROM embeddings_queue").fetchone()
    assert [r["upserted"] for r in found] == [20] * len(found)
    # Killed between the commit and its act, or between the act and the answer.
    assert acknowledged <= len(found) <= last // 20 <= acknowledged + 1
    assert not of(acts(data), "log.exit")


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_what_is_rolled_back_is_not_told(python, mode):
    found = python(f"""
        db.execute("PRAGMA journal_mode = {mode}")
        db.execute("PRAGMA cache_size = 5")
        db.execute("BEGIN"); put(300); db.execute("ROLLBACK")
        db.execute("BEGIN"); put(3, 0)
        db.execute("SAVEPOINT s"); put(200, 3); db.execute("ROLLBACK TO s")
        put(4, 1); db.execute("COMMIT")
        db.execute("BEGIN"); put(300); db.execute("ROLLBACK")
        db.execute("BEGIN"); put(1, 1); db.execute("COMMIT")
    """)
    assert counts(found) == [(3, 4, 0, 0), (0, 1, 0, 0)]
    assert [(r["first"], r["last"]) for r in of(found, "records")] == [(1, 7), (8, 8)]


def test_wal(queue, python, chromashim):
    """In WAL mode as well, also past the end of a block of its index and over checkpoints."""
    with contextlib.closing(sqlite3.connect(queue / "chroma.sqlite3")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    found = python("""
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA wal_autocheckpoint = 6000")
        db.execute("PRAGMA cache_size = 5")
        for i in range(300):
            db.execute("BEGIN"); put(1 + i % 40, i % 4); db.execute("COMMIT")
            if i % 7 == 0:
                db.execute("BEGIN"); put(50); db.execute("ROLLBACK")
                db.execute("BEGIN"); put(2, 0); db.execute("SAVEPOINT s"); put(60, 3)
                db.execute("ROLLBACK TO s"); put(1, 0); db.execute("COMMIT")
            if i == 200:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    """)
    expected, following = [], 1
    for i in range(300):
        n = 1 + i % 40
        expected.append(tuple(n if i % 4 == k else 0 for k in range(4)))
        if i % 7 == 0:
            expected.append((3, 0, 0, 0))
    assert counts(found) == expected
    for record in of(found, "records"):
        assert record["first"] == following
        following = record["last"] + 1


@pytest.mark.parametrize("checkpoint", [0, 40, 1000])
def test_purges_in_wal(queue, python, checkpoint):
    """Rows of one collection that go from the queue, on whole pages and on parts of them."""
    with contextlib.closing(sqlite3.connect(queue / "chroma.sqlite3")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    found = python(f"""
        import random
        db.execute("PRAGMA wal_autocheckpoint = {checkpoint}")
        rng, gone = random.Random(5), []
        for n in range(40):
            db.execute("BEGIN"); put(rng.choice([1, 2, 40, 400])); db.execute("COMMIT")
            first, last = db.execute("SELECT min(seq_id), max(seq_id) FROM embeddings_queue").fetchone()
            to = rng.choice([first, first + 1, first + 3, last - 1, last - 1])
            if n % 9 == 4:
                db.execute("BEGIN"); db.execute("DELETE FROM embeddings_queue"); db.execute("ROLLBACK")
            if n % 3 != 2:
                count = db.execute("DELETE FROM embeddings_queue WHERE seq_id <= ?", (to,)).rowcount
                gone.append((count, first, to) if count else None)
        gone.append((db.execute("DELETE FROM embeddings_queue WHERE seq_id > 0").rowcount,))
        open(sys.argv[1] + "/gone", "w").write(repr([each for each in gone if each]))
    """)
    gone = eval((queue / "gone").read_text())  # pylint: disable=eval-used
    told = [(r["count"], r["first"], r["last"]) for r in of(found, "records.purge")]
    assert told[:-1] == gone[:-1] and len(told) > 20
    assert told[-1][0] == gone[-1][0]
    assert {r["upserted"] for r in of(found, "records")} <= {1, 2, 40, 400}


def test_vacuum_in_wal(queue, python):
    with contextlib.closing(sqlite3.connect(queue / "chroma.sqlite3")) as db:
        db.execute("PRAGMA journal_mode = WAL")
    found = python("""
        db.execute("BEGIN"); put(900); db.execute("COMMIT")
        db.execute("DELETE FROM embeddings_queue WHERE seq_id < 890")
        db.execute("VACUUM")
        db.execute("BEGIN"); put(3, 0); db.execute("COMMIT")
        db.execute("CREATE INDEX i ON embeddings_queue (id)")
    """)
    vacuum, = of(found, "vacuum")
    assert vacuum["offset"] > 10 * vacuum["length"] > 0
    assert [r["count"] for r in of(found, "records.purge")] == [889]
    assert counts(found) == [(0, 0, 900, 0), (3, 0, 0, 0)]


def test_collections_in_wal(queue, python):
    with contextlib.closing(sqlite3.connect(queue / "chroma.sqlite3")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE collections (id TEXT PRIMARY KEY, name TEXT, dimension INTEGER, "
                   "database_id TEXT, config_json_str TEXT)")
    found = python("""
        for i in range(3):
            db.execute("INSERT INTO collections VALUES (?, ?, NULL, ?, '{}')",
                       (f"aaaaaaaa-0000-0000-0000-00000000000{i}", f"n{i}",
                        "00000000-0000-0000-0000-000000000000"))
        db.execute("UPDATE collections SET name = 'other' WHERE name = 'n1'")
        db.execute("DELETE FROM collections WHERE name = 'n0'")
        db.execute("DELETE FROM collections WHERE name != 'n0'")
    """)
    assert [(r["what"], r["name"]) for r in of(found, "collection")] == [
        ("created", "n0"), ("created", "n1"), ("created", "n2"), ("renamed", "other"),
        ("deleted", "n0"), ("deleted", "other"), ("deleted", "n2")]


def test_a_hot_journal_is_played_back(python):
    python("""
        db.execute("BEGIN"); put(5); db.execute("COMMIT")
        db.execute("PRAGMA cache_size = 5")
        db.execute("BEGIN"); put(400); os.kill(os.getpid(), signal.SIGKILL)
    """, status=-signal.SIGKILL)
    found = python("""
        db.execute("BEGIN"); put(2, 3); db.execute("COMMIT")
    """)
    assert counts(found) == [(0, 0, 5, 0), (0, 0, 0, 2)]
    assert of(found, "records")[1]["first"] == 6


def test_another_process_has_written(queue, python):
    """What was known of the queue is asked for anew."""
    found = python("""
        db.execute("BEGIN"); put(5); db.execute("COMMIT")
        if not os.fork():
            db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
            db.execute("BEGIN"); put(70, 0, 0); db.execute("COMMIT")
            os._exit(0)
        assert os.wait()[1] == 0
        db.execute("BEGIN"); put(3, 3); db.execute("COMMIT")
    """, CHROMASHIM_SINGLE_WRITER="off", CHROMASHIM_FENCE="off")
    assert counts(found) == [(0, 0, 5, 0), (70, 0, 0, 0), (0, 0, 0, 3)]
    assert of(found, "records")[2]["first"] == 76


def test_all_rows_are_deleted_at_once(python):
    found = python("""
        db.execute("BEGIN"); put(900); db.execute("COMMIT")
        db.execute("DELETE FROM embeddings_queue")
        db.execute("BEGIN"); put(3, 0); db.execute("COMMIT")
    """)
    assert counts(found) == [(0, 0, 900, 0), (3, 0, 0, 0)]


def test_vacuum(queue, python):
    found = python("""
        db.execute("BEGIN"); put(900); db.execute("COMMIT")
        db.execute("DELETE FROM embeddings_queue WHERE seq_id < 890")
        db.execute("VACUUM")
        db.execute("BEGIN"); put(3, 0); db.execute("COMMIT")
    """)
    vacuum, = of(found, "vacuum")
    assert vacuum["offset"] > 10 * vacuum["length"]
    assert vacuum["length"] <= (queue / "chroma.sqlite3").stat().st_size
    assert [r["count"] for r in of(found, "records.purge")] == [889]
    assert counts(found) == [(0, 0, 900, 0), (3, 0, 0, 0)]


@pytest.mark.parametrize("how", ["off", "hash", "on"])
def test_ids(queue, python, how):
    record, = of(python("put(1, 0, id_='Grüße-%d')", CHROMASHIM_LOG_IDS=how), "records")
    id_ = "Grüße-0"
    assert record["added"] == 1
    if how == "off":
        assert (record["form"], record["ids"]) == ("none", [])
    elif how == "hash":
        assert record["ids"] == [(0, each) for each in hashed([id_], store_seed(queue))]
    else:
        assert (record["form"], record["ids"]) == ("plain", [(0, id_.encode())])


def test_without(queue, python):
    python("put(1)", CHROMASHIM_ACTS_SIZE="0")
    assert not folder(queue).exists() and (queue / tracer.STORE / "oplog").exists()


def test_who_does_nothing_leaves_nothing(queue, python):
    python("db.execute('SELECT * FROM embeddings_queue').fetchall()")
    assert not folder(queue).exists()
    python("""
        put(1)
        if not os.fork():
            os._exit(0)
        os.wait()
    """)
    assert len(list(folder(queue).glob("*.oplog"))) == 1


def test_a_forked_child_has_its_own(queue, python):
    found = python("""
        put(1, 0)
        db.close()
        if not os.fork():
            db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
            put(2, 1)
            os._exit(0)
        assert os.wait()[1] == 0
    """, CHROMASHIM_SINGLE_WRITER="off")
    assert counts(found).count((1, 0, 0, 0)) == 1
    pids = {r["pid"] for r in of(found, "records")}
    assert len(pids) == 2
    for pid in pids:
        own = [r for r in found if r["pid"] == pid]
        assert [r["arg"] for r in of(own, "log.start")] == [0]
        assert "python3" in of(own, "log.start")[0]["texts"] and of(own, "log.thread")


def test_bound(queue, python):
    """The oldest goes; each segment says whose it is."""
    found = python("""
        db.execute("PRAGMA synchronous = OFF")
        for i in range(9000):
            put(1, 0, 10)
    """, CHROMASHIM_ACTS_SIZE="1M")
    files = list(folder(queue).glob("*.oplog"))
    assert sum(f.stat().st_size for f in files) <= 1 << 20 and len(files) > 4
    records = of(found, "records")
    assert 1000 < len(records) < 9000 and records[-1]["last"] == 9000
    assert [r["first"] for r in records] == list(range(records[0]["first"], 9001))
    for name in {r["segment"] for r in records}:
        own = [r for r in found if r["segment"] == name]
        start, = of(own, "log.start")
        assert start["arg"] == 1 and "python3" in start["texts"]
        names = {r["file"] for r in of(own, "log.name")}
        assert {r["file"] for r in own if r["op"] == "records"} <= names


def test_cut_while_in_use(queue, shim):
    """`: > file` must not end the backend: the log goes on in another file."""
    script = textwrap.dedent(PUT) + textwrap.dedent("""
        put(1, 0)
        print("ready", flush=True)
        sys.stdin.readline()
        for i in range(30):
            put(1, 1)
    """)
    with subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", script, queue], text=True,
                          env=hosts.environment({"LD_PRELOAD": shim}), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        for path in folder(queue).iterdir():
            path.write_bytes(b"")
        _, errors = process.communicate("\n", 30)
    assert process.returncode == 0 and "a file of acts/" in errors
    found = [r for r in oplog_reader.read_acts(queue) if r["op"] == "records"]
    assert len(found) >= 29 and {r["updated"] for r in found} == {1}


def test_compressed(queue, python, chromashim):
    before = python("""
        for i in range(40):
            put(3, i % 4)
    """)
    done = chromashim("log", "--compress", queue)
    assert done.returncode == 0, done.stderr
    assert {f.suffix for f in folder(queue).iterdir()} == {".zst"}
    strip = [{k: v for k, v in r.items() if k != "segment"} for r in before]
    assert [{k: v for k, v in r.items() if k != "segment"} for r in acts(queue)] == strip


def test_persists_tell_how_long_they_waited(data, shim):
    host = hosts.BY_NAME["python"]
    host.require()
    for durability in "power", "process":
        done = subprocess.run(
            [hosts.python(host.driver), LOAD, data],
            env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DURABILITY": durability}),
            capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        commits = of(acts(data), "persist.commit")
        assert commits and all(0 <= r["offset"] <= r["duration"] for r in commits)
        synced = [r["offset"] for r in commits]
        assert all(synced) if durability == "power" else max(synced) < 1000000
        assert max(r["result"] for r in commits) == 1301
        assert {r["path"] for r in commits} <= {s["segment_id"] for s in of(acts(data), "segment")}
        shutil.rmtree(data)
        data.mkdir()


def test_the_last_calls_and_who_was_refused(python, queue, chromashim):
    """Of a process with many acts its last calls are shown all the same; and who wanted to write beside it."""
    python("""
        import subprocess
        for n in range(40):
            put(1)
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t (a)')"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", other, sys.argv[1] + "/chroma.sqlite3"],
                              capture_output=True)
        assert done.returncode == 1
        os.kill(os.getpid(), signal.SIGKILL)
    """, status=-signal.SIGKILL)
    lines = chromashim("log", "--last-crash", queue).stdout.splitlines()
    others, = [line for line in lines if line.startswith("Others:")]
    assert "refused as a second writer: python3 -c (pid " in others
    shown = lines[lines.index("its last 10 seconds, the end of them, without locks and closes:") + 1:]
    assert len(shown) == 20 and "txn.commit" in shown[-1], shown
