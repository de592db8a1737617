# SPDX-License-Identifier: MIT
"""SQLite's transactions in the op log: every journal mode, static and dynamic libraries, Chroma."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

import hosts
import oplog_reader

DATABASE = "chroma.sqlite3"
ENDS = ("txn.commit", "txn.rollback", "txn.recover")
PAGE = 4096
NOTHING = "nothing"  # a transaction that wrote nothing; which end it gets depends on the mode


def recorded(data: Path) -> list[dict]:
    problems: list = []
    records = list(oplog_reader.read_store(data, problems))
    assert not problems
    return records


def ends(records: list[dict]) -> list[dict]:
    return [r for r in records if r["op"] in ENDS]


def transactions(records: list[dict]) -> list[tuple[dict, dict]]:
    """Begin and end of each; every one has both, its own number, and is in one thread."""
    opened, done = {}, []
    for r in records:
        key = r["pid"], r["arg"]
        if r["op"] == "txn.begin":
            assert key not in opened
            opened[key] = r
        elif r["op"] in ("txn.commit", "txn.rollback"):
            begin = opened.pop(key)
            # clocks are anchored anew in each segment of the log
            assert abs(r["duration"] - (r["time"] - begin["time"])) < 1_000_000
            assert r["path"] == begin["path"] == DATABASE
            done.append((begin, r))
    assert not opened
    return done


def check_bytes(records: list[dict]) -> None:
    """Pages and bytes are those of the writes that were recorded between begin and end."""
    for begin, end in transactions(records):
        written, pages = 0, set()
        wal = False
        for r in records:
            if r["tid"] != begin["tid"] or r["op"] not in ("pwrite", "write") or \
                    not begin["time"] <= r["time"] <= end["time"]:
                continue
            if r["path"] == DATABASE:
                written += r["length"]
                pages |= set(range(r["offset"] // PAGE, (r["offset"] + r["length"] - 1) // PAGE + 1))
            elif r["path"] == DATABASE + "-wal" and r["offset"]:
                written += r["length"]
                wal = True
        if wal:
            assert end["length"] <= written and 0 < end["offset"] <= written // PAGE
        else:
            assert (end["length"], end["offset"]) == (written, len(pages))


def run_python(script: str, data: Path, shim: str, *args: str, env: dict | None = None,
               status: int = 0) -> str:
    """A script with `db`, a connection to the database in data, and what is in PRELUDE."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PRELUDE + textwrap.dedent(script), str(data), *args],
        env=hosts.environment({"LD_PRELOAD": shim, **(env or {})}), capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


PRELUDE = """
import json, os, signal, sqlite3, sys
path = sys.argv[1] + "/chroma.sqlite3"
db = sqlite3.connect(path, isolation_level=None)
expected = []

def run(*statements):
    for s in statements:
        db.execute(s)

def many(rows):
    run("PRAGMA cache_size = 5")
    db.executemany("INSERT INTO t(b) VALUES(?)", [("x" * 3000,)] * rows)
    run("PRAGMA cache_size = 2000")

def expect(end, least=0, schema=False):
    version = db.execute("PRAGMA schema_version").fetchone()[0] if schema else 0
    expected.append([end, least, version])
"""

MODES = """
    run(f"PRAGMA journal_mode = {sys.argv[2]}", f"PRAGMA locking_mode = {sys.argv[3]}")
    run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
    expect("txn.commit", 2, schema=True)
    run("INSERT INTO t VALUES(1, 'x')")
    expect("txn.commit", 1)
    run("BEGIN", "INSERT INTO t VALUES(2, 'x')", "UPDATE t SET b = 'y'", "COMMIT")
    expect("txn.commit", 1)
    run("BEGIN", "INSERT INTO t VALUES(3, 'x')", "ROLLBACK")
    expect("nothing" if sys.argv[2] == "MEMORY" else "txn.rollback")
    run("BEGIN")
    many(100)
    run("COMMIT")
    expect("txn.commit", 100)
    run("BEGIN", "UPDATE t SET b = 'z' || b")
    many(100)
    run("ROLLBACK")
    expect("txn.rollback", 100)
    run("BEGIN", "UPDATE t SET b = 'u' WHERE a < 3", "SAVEPOINT s")
    many(60)
    run("ROLLBACK TO s", "INSERT INTO t VALUES(1000, 'kept')", "COMMIT")
    expect("txn.commit", 1)
    run("CREATE INDEX i ON t(b)")
    expect("txn.commit", 3, schema=True)
    run("BEGIN", "DROP INDEX i")
    many(60)
    run("ROLLBACK")
    expect("txn.rollback", 10)
    run("BEGIN", "DROP INDEX i", "CREATE TABLE u(a)", "COMMIT")
    expect("txn.commit", 2, schema=True)
    run("DELETE FROM t WHERE a > 50")
    expect("txn.commit", 3)
    run("VACUUM")
    expect("txn.commit", 3, schema=True)
    run("UPDATE t SET b = 'changed' WHERE a = 2")
    expect("txn.commit", 1)
    assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 50
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()
    print(json.dumps(expected))
"""


@pytest.mark.parametrize("locking", ["NORMAL", "EXCLUSIVE"])
@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "WAL"])
def test_modes(data, shim, mode, locking):
    if (mode, locking) == ("MEMORY", "EXCLUSIVE"):
        pytest.skip("nothing marks the end of such a transaction")
    expected = json.loads(run_python(MODES, data, shim, mode, locking))
    records = recorded(data)
    found = [(r["op"], r["offset"], r["result"]) for r in ends(records)]
    if mode == "WAL":  # switched to by a transaction of its own
        assert found.pop(0)[0] == "txn.commit"
        if locking == "EXCLUSIVE":  # what has not spilled leaves no trace, not even a lock
            expected.remove(["txn.rollback", 0, 0])
            # and undoing all that has spilled looks the same for a savepoint
            assert found[5][0] == "txn.rollback"
            del found[5]
    assert len(found) == len(expected), found
    for (op, pages, cookie), (end, least, version) in zip(found, expected):
        if end == NOTHING:
            assert pages == 0
        else:
            assert op == end, (found, expected)
            # without page 1 in a journal, the old schema is known only if reads were told
            assert cookie == version or mode in ("MEMORY", "WAL") and cookie == 0
            assert pages >= (0 if (mode, end) == ("WAL", "txn.rollback") else least)
    if (mode, locking) != ("WAL", "EXCLUSIVE"):  # begins with the first frame, not before it
        check_bytes(records)


def test_nothing_to_change(data, shim):
    run_python("""
        run("CREATE TABLE t(a)", "UPDATE t SET a = 1", "BEGIN IMMEDIATE", "COMMIT")
    """, data, shim)
    assert [(r["op"], r["offset"]) for r in ends(recorded(data))] == \
        [("txn.commit", 2), ("txn.commit", 0), ("txn.commit", 0)]


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST"])
def test_hot_journal(data, shim, mode):
    run_python(f"""
        run("PRAGMA journal_mode = {mode}", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        many(50)
        run("BEGIN", "UPDATE t SET b = 'z' || b")
        many(100)
        os.kill(os.getpid(), signal.SIGKILL)
    """, data, shim, status=-signal.SIGKILL)
    first = recorded(data)
    assert len([r for r in first if r["op"] == "txn.begin"]) == len(ends(first)) + 1
    run_python(f"""
        run("PRAGMA journal_mode = {mode}")
        assert db.execute("SELECT count(*), max(length(b)) FROM t").fetchone() == (50, 3000)
        run("INSERT INTO t VALUES(1000, 'x')")
    """, data, shim)
    second = recorded(data)[len(first):]
    found = ends(second)
    assert [r["op"] for r in found] == ["txn.recover", "txn.commit"]
    assert found[0]["offset"] > 10 and found[0]["result"] == 0
    assert found[0]["length"] >= found[0]["offset"] * PAGE


def test_killed_in_wal_mode(data, shim):
    run_python("""
        run("PRAGMA journal_mode = WAL", "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        run("INSERT INTO t VALUES(1, 'x')", "BEGIN")
        many(100)
        os.kill(os.getpid(), signal.SIGKILL)
    """, data, shim, status=-signal.SIGKILL)
    before = len(recorded(data))
    run_python("""
        assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 1
        run("CREATE TABLE u(a)", "INSERT INTO u VALUES(1)")
    """, data, shim)
    assert [r["op"] for r in ends(recorded(data)[before:])] == ["txn.commit"] * 2


def test_two_databases(data, tmp_path, shim):
    """ATTACH: one commit over a protected database and another one; also from :memory:."""
    run_python("""
        run("CREATE TABLE t(a)", f"ATTACH '{sys.argv[2]}' AS o", "CREATE TABLE o.u(a)")
        run("BEGIN", "INSERT INTO t VALUES(1)", "INSERT INTO o.u VALUES(1)", "COMMIT")
        run("BEGIN", "INSERT INTO t VALUES(1)", "INSERT INTO o.u VALUES(1)", "ROLLBACK")
        db.close()
        db = sqlite3.connect(":memory:", isolation_level=None)
        run("CREATE TABLE m(a)", "INSERT INTO m VALUES(1), (2)")
        run(f" attach '{path}' AS c", "INSERT INTO c.t SELECT a FROM m")
    """, data, shim, str(tmp_path / "other.sqlite3"))
    records = recorded(data)
    assert [r["op"] for r in ends(records)] == \
        ["txn.commit", "txn.commit", "txn.rollback", "txn.commit"]
    steps = [(r["sql"], r["offset"]) for r in records if r["op"] == "sqlite.step"]
    assert steps[-1] == ("INSERT INTO c.t SELECT a FROM m", 2)
    assert not any(sql.startswith(("CREATE TABLE m", " attach")) for sql, _ in steps)


def test_threads(data, shim):
    """Connections of several threads: each transaction is in the thread that made it."""
    run_python("""
        import threading
        run("CREATE TABLE t(a, b)")

        def work(n):
            own = sqlite3.connect(path, timeout=60)
            for i in range(30):
                own.execute("INSERT INTO t VALUES(?, ?)", (n, i))
                own.commit() if i % 3 else own.rollback()
            own.close()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
    """, data, shim)
    records = recorded(data)
    done = transactions(records)
    counts = defaultdict(int)
    for begin, end in done[1:]:
        assert begin["tid"] == end["tid"]
        counts[end["op"]] += 1
    assert counts == {"txn.commit": 80, "txn.rollback": 40}
    for (_, first), (second, _) in zip(done, done[1:]):
        assert first["time"] <= second["time"]
    check_bytes(records)
    check_steps(records)


def test_fork(data, shim):
    """Each child counts its own, and tells its SQLite anew. (A parent that has written would be the
    only writer; one that has only read leaves no log.)"""
    run_python("run('CREATE TABLE t(a)')", data, shim)
    before = len(recorded(data))
    run_python("""
        db.execute("SELECT * FROM t").fetchall()
        db.close()
        for _ in range(3):
            if not os.fork():
                db = sqlite3.connect(path)
                db.execute("INSERT INTO t VALUES(1)")
                db.commit()
                db.close()
                os._exit(0)
            assert os.wait()[1] == 0
    """, data, shim)
    records = recorded(data)[before:]
    assert [(r["op"], r["arg"]) for r in ends(records)] == [("txn.commit", 1)] * 3
    assert len({r["pid"] for r in ends(records)}) == 3
    copies_told = [r for r in records if r["op"] == "sqlite.copy"]
    assert [r["pid"] for r in copies_told] == [r["pid"] for r in ends(records)]


# ---- seen from above ----


def check_steps(records: list[dict]) -> int:
    """Every statement that changed rows did so in a transaction of its thread. How many did."""
    by_thread = defaultdict(list)
    for begin, end in transactions(records):
        by_thread[end["tid"]].append((begin["time"], end["time"]))
    changing = [r for r in records if r["op"] in ("sqlite.step", "sqlite.exec") and r["offset"] > 0]
    for r in changing:
        begin, end = r["time"], r["time"] + r["duration"]
        assert any(b <= end and e >= begin for b, e in by_thread[r["tid"]]), r
    return len(changing)


@pytest.mark.fast
def test_statements(data, shim):
    run_python("""
        run("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        db.executemany("INSERT INTO t VALUES(?, ?)", [(n, "secret") for n in range(10)])
        db.execute("SELECT * FROM t WHERE b = ?", ("secret",)).fetchall()
        db.execute("SELECT * FROM t").fetchmany(3)
        run("UPDATE t SET b = 'y' WHERE a < 4")
        for bad in ("SELECT nothing FROM nowhere", "INSERT INTO t VALUES(1, 1)"):
            try:
                run(bad)
            except sqlite3.Error:
                pass
        long = "SELECT '" + "\\u00e4" * 5000 + "'"
        run(long)
        with sqlite3.connect(":memory:") as copy:
            db.backup(copy)
        copy.close()
        db.close()
    """, data, shim)
    records = recorded(data)
    found = [(r["op"], r["sql"] or r["path"], r["length"], r["offset"], r["result"])
             for r in records if r["op"].startswith("sqlite.") and r["op"] != "sqlite.copy"]
    select = "SELECT * FROM t WHERE b = ?"
    assert ("sqlite.step", select, 10, 0, 0) in found
    assert ("sqlite.step", "SELECT * FROM t", 3, 0, 0) in found or \
        ("sqlite.step", "SELECT * FROM t", 4, 0, 0) in found
    assert found.count(("sqlite.step", "INSERT INTO t VALUES(?, ?)", 0, 1, 0)) == 10
    assert ("sqlite.step", "UPDATE t SET b = 'y' WHERE a < 4", 0, 4, 0) in found
    assert ("sqlite.prepare", "SELECT nothing FROM nowhere", 0, -1, -1) in found
    assert ("sqlite.step", "INSERT INTO t VALUES(1, 1)", 0, 0, -19) in found or \
        ("sqlite.step", "INSERT INTO t VALUES(1, 1)", 0, 0, -1555) in found
    assert [f[0] for f in found].count("sqlite.open") == 1
    assert found[-1] == ("sqlite.close", DATABASE, 0, -1, 0)
    (backup,) = [r for r in records if r["op"] == "sqlite.backup"]
    assert (backup["path"], backup["length"], backup["arg"], backup["result"]) == (DATABASE, 2, 0, 0)
    (cut,) = [r for r in records if "cut" in r["flags"]]
    assert cut["op"] == "sqlite.step" and len(cut["sql"].encode()) == 4096
    assert cut["sql"].endswith("\u00e4")
    assert not any("secret" in (r["sql"] or "") + r["texts"] for r in records
                   if r["op"] != "log.start")
    assert check_steps(records) == 11


def test_exec_and_the_rest(data, shim):
    """What Python does not use, through the names that a program finds in the process."""
    run_python("""
        import ctypes
        run("CREATE TABLE t(a)")
        c = ctypes.CDLL(None)
        handle = ctypes.c_void_p()
        row = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
                               ctypes.c_void_p)
        seen = []
        each = row(lambda *a: seen.append(a) or 0)
        assert c.sqlite3_open(path.encode(), ctypes.byref(handle)) == 0
        assert c.sqlite3_exec(handle, b"INSERT INTO t VALUES(1), (2); DELETE FROM t WHERE a = 1",
                              None, None, None) == 0
        assert c.sqlite3_exec(handle, b"SELECT 1 UNION SELECT 2", each, None, None) == 0
        assert len(seen) == 2
        assert c.sqlite3_exec(handle, b"no SQL", None, None, None) == 1
        assert c.sqlite3_exec(handle, b"PRAGMA journal_mode = WAL", None, None, None) == 0
        assert c.sqlite3_exec(handle, b"INSERT INTO t VALUES(3)", None, None, None) == 0
        assert c.sqlite3_wal_checkpoint(handle, None) == 0
        frames = ctypes.c_int(), ctypes.c_int()
        assert c.sqlite3_wal_checkpoint_v2(handle, None, 3, *map(ctypes.byref, frames)) == 0
        assert c.sqlite3_load_extension(handle, b"/nowhere.so", None, None) == 1
        statement = ctypes.c_void_p()
        assert c.sqlite3_prepare16_v2(handle, "SELECT 16".encode("utf-16-le") + bytes(2), -1,
                                      ctypes.byref(statement), None) == 0
        assert c.sqlite3_step(statement) == 100
        assert c.sqlite3_close(handle) == 5
        assert c.sqlite3_finalize(statement) == 0
        assert c.sqlite3_close(handle) == 0
        assert c.sqlite3_close(None) == 0 and c.sqlite3_finalize(None) == 0
        assert c.sqlite3_step(None) == 21
    """, data, shim)
    records = recorded(data)
    found = [(r["op"], r["sql"] or r["path"], r["length"], r["offset"], r["result"], r["texts"])
             for r in records if r["op"].startswith("sqlite.")]
    assert [f for f in found if f[0] == "sqlite.exec"] == [
        ("sqlite.exec", "INSERT INTO t VALUES(1), (2); DELETE FROM t WHERE a = 1", 0, 3, 0, ""),
        ("sqlite.exec", "SELECT 1 UNION SELECT 2", 2, 0, 0, ""),
        ("sqlite.exec", "no SQL", 0, 0, -1, ""),
        ("sqlite.exec", "PRAGMA journal_mode = WAL", 0, 0, 0, ""),
        ("sqlite.exec", "INSERT INTO t VALUES(3)", 0, 1, 0, "")]
    assert ("sqlite.load_extension", DATABASE, 0, -1, -1, "/nowhere.so") in found
    assert [f[0] for f in found].count("sqlite.checkpoint") == 2
    assert ("sqlite.step", "SELECT 16", 1, 0, 0, "") in found
    # nothing of what exec does inside, only what Python and prepare16 asked for
    assert [f[1] for f in found if f[0] == "sqlite.step"] == ["CREATE TABLE t(a)", "SELECT 16"]
    assert [f[4] for f in found if f[0] == "sqlite.close"][:2] == [-5, 0]
    check_steps(records)


def test_texts_left_out(data, shim):
    run_python("""
        run("CREATE TABLE hidden(a)")
        try:
            run("SELECT hidden FROM nowhere")
        except sqlite3.Error:
            pass
    """, data, shim, env={"CHROMASHIM_LOG_SQL": "off"})
    records = recorded(data)
    assert {"sqlite.step", "sqlite.prepare", "txn.commit"} <= {r["op"] for r in records}
    assert not any("hidden" in (r["sql"] or "") + r["texts"] for r in records if r["op"] != "log.start")
    assert {r["path"] for r in records if r["op"].startswith("sqlite.s")} == {DATABASE}


def test_texts_without_number(data, shim):
    """A host that writes values into its texts does not use up all names."""
    run_python("""
        run("CREATE TABLE t(a)", "BEGIN")
        for n in range(6000):
            run(f"INSERT INTO t VALUES({n})")
        run("COMMIT")
    """, data, shim)
    records = recorded(data)
    inserts = [r["sql"] or r["texts"] for r in records
               if r["op"] == "sqlite.step" and r["offset"] == 1]
    assert inserts == [f"INSERT INTO t VALUES({n})" for n in range(6000)]
    assert len([r for r in records if r["op"] == "log.name" and r["texts"].startswith("INSERT")]) <= 4200


def test_other_databases(tmp_path, data, shim):
    """What is done to a database elsewhere is nobody's business."""
    run_python("""
        run("CREATE TABLE t(a)")
        other = sqlite3.connect(sys.argv[2], isolation_level=None)
        other.execute("CREATE TABLE elsewhere(a)")
        other.execute("INSERT INTO elsewhere VALUES(1)")
        sqlite3.connect(":memory:").execute("CREATE TABLE elsewhere(a)")
    """, data, shim, str(tmp_path / "other.sqlite3"))
    records = recorded(data)
    assert not any("elsewhere" in (r["sql"] or "") for r in records)
    assert len(ends(records)) == 1


# ---- several SQLites, static and dynamic ----

SQL = ["CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "PRAGMA cache_size = 5",
       "BEGIN", "INSERT INTO t VALUES(1, zeroblob(300000))", "INSERT INTO t VALUES(2, 1)", "COMMIT",
       "BEGIN", "UPDATE t SET b = randomblob(200000)", "CREATE INDEX i ON t(b)", "ROLLBACK",
       "UPDATE t SET b = 1 WHERE a = 77", "CREATE TABLE u(a)", "DELETE FROM t", "VACUUM"]


@pytest.fixture(scope="module")
def build_sqlite(tmp_path_factory):
    """Builds sqlite.c, with the libsqlite3 that the flags say."""
    directory = tmp_path_factory.mktemp("sqlite")

    def build(name: str, *flags: str) -> Path:
        program = directory / name
        done = subprocess.run([os.environ.get("CC", "gcc"), "-O1", "-fPIC", "-o", str(program),
                               str(hosts.ROOT / "tests/e2e/sqlite.c"), *flags],
                              capture_output=True, text=True, check=False)
        if done.returncode and "cannot find" in done.stderr:
            pytest.skip(f"no static libsqlite3: {done.stderr}")
        assert done.returncode == 0, done.stderr
        return program

    return build


STATIC = ["-l:libsqlite3.a", "-lm", "-lz", "-pthread"]


@pytest.fixture(scope="module")
def renamed_sqlite(tmp_path_factory):
    """The machine's libsqlite3 under another name, so that a process can have it twice."""
    name = b"libsqlite3.so.0"
    known = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False,
                           env={**os.environ, "PATH": os.environ["PATH"] + ":/sbin:/usr/sbin"})
    paths = [line.split(" => ")[1] for line in known.stdout.splitlines() if name.decode() in line]
    if not paths:
        pytest.skip("no libsqlite3")
    content = Path(paths[0]).read_bytes()
    assert content.count(name + b"\0") == 1
    library = tmp_path_factory.mktemp("renamed") / "libsqlite9.so.0"
    library.write_bytes(content.replace(name, library.name.encode()))
    return library


def outline(records: list[dict]) -> list[tuple]:
    return [(r["op"], r["arg"], r["offset"], r["length"], r["result"]) for r in records
            if r["op"].startswith("txn.")]


def copies(records: list[dict]) -> list[tuple[str, int]]:
    return [(os.path.basename(r["path"]), r["arg"]) for r in records if r["op"] == "sqlite.copy"]


def test_static_and_dynamic(tmp_path, shim, build_sqlite):
    """The same statements by either make the same transactions."""
    found = {}
    for name, flags in (("dynamic", ["-lsqlite3"]), ("static", STATIC)):
        data = tmp_path / name
        data.mkdir()
        program = build_sqlite(name, *flags)
        subprocess.run([str(program), str(data / DATABASE), *SQL], check=True, timeout=60,
                       env=hosts.environment({"LD_PRELOAD": shim}))
        found[name] = recorded(data)
    assert len(outline(found["static"])) == 14
    assert outline(found["static"]) == outline(found["dynamic"])
    assert copies(found["static"]) == [("static", 0)]
    ((library, above),) = copies(found["dynamic"])
    assert library.startswith("libsqlite3") and above == 1
    assert not any(r["op"] in ("sqlite.open", "sqlite.step") for r in found["static"])
    assert check_steps(found["dynamic"]) == 4
    for records in found.values():
        check_bytes(records)


TWO = """
    import ctypes
    run("CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
    other = ctypes.CDLL(sys.argv[2])
    other.memory.restype = ctypes.c_longlong
    assert other.memory() == 0
    statements = [b"INSERT INTO t VALUES(2), (3)", b"SELECT * FROM t"]
    list_ = (ctypes.c_char_p * 2)(*statements)
    assert other.run(path.encode(), 2, list_) == 0
    assert other.memory() > 0
    run("INSERT INTO t VALUES(4)")
    assert other.run(path.encode(), 2, list_) == 0
    assert db.execute("SELECT sum(a) FROM t").fetchone()[0] == 15
    db.close()
"""


def test_two_copies(data, shim, build_sqlite, renamed_sqlite):
    """A module that needs another libsqlite3 than Python's, in one process."""
    module = build_sqlite("module.so", "-shared", f"-Wl,-rpath,{renamed_sqlite.parent}",
                          str(renamed_sqlite))
    run_python(TWO, data, shim, str(module))
    records = recorded(data)
    steps = [(r["sql"], r["length"], r["offset"]) for r in records if r["op"] == "sqlite.step"]
    assert steps == [
        ("CREATE TABLE t(a)", 0, 0), ("INSERT INTO t VALUES(1)", 0, 1),
        ("INSERT INTO t VALUES(2), (3)", 0, 2), ("SELECT * FROM t", 3, 0),
        ("INSERT INTO t VALUES(4)", 0, 1),
        ("INSERT INTO t VALUES(2), (3)", 0, 2), ("SELECT * FROM t", 6, 0),
        ("SELECT sum(a) FROM t", 1, 0)]
    assert [(r["op"], r["arg"]) for r in ends(records)] == [("txn.commit", n) for n in range(1, 6)]
    found = copies(records)
    assert len(found) == 2 and (renamed_sqlite.name, 1) in found
    assert all(above for _, above in found)
    check_steps(records)


# ---- Chroma ----


@pytest.mark.parametrize("name", ["python", "python-0.6"])
def test_chroma(data, shim, name):
    host = hosts.BY_NAME[name]
    host.require()
    hosts.live(host, data, shim)
    records = recorded(data)
    done = transactions(records)
    assert len(done) > 50
    assert {end["op"] for _, end in done} <= {"txn.commit", "txn.rollback"}
    check_bytes(records)
    # Each commit adds one to the change counter; the last new schema is the one that is there.
    header = (data / DATABASE).read_bytes()[:100]
    committed = [end for _, end in done if end["op"] == "txn.commit" and end["offset"]]
    assert len(committed) == int.from_bytes(header[24:28], "big")
    schemas = [end["result"] for end in committed if end["result"]]
    assert schemas[-1] == int.from_bytes(header[40:44], "big")
    assert schemas == sorted(set(schemas)) and len(schemas) >= 3
    assert not any(r["op"] == "txn.recover" for r in records)
    kinds = {above for _, above in copies(records)}
    if name == "python":
        assert kinds == {0} and not any(r["op"] == "sqlite.step" for r in records)
    else:
        assert kinds == {1}
        assert check_steps(records) > 50
