# SPDX-License-Identifier: MIT
"""One writer: of all the processes that want to change a directory, one does."""

import ctypes
import json
import os
import re
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hosts
import oplog_reader
from actor import Actor, Failed, Hangs

BATCH = 60
SECONDS = 6
WRITER = 1  # OPLOG_HAS_WRITER
HOLDER = re.compile(r"process (\d+) \((\S.*)\) has been writing to this directory since 20\d\d-")


def refusals(data: Path, pid: int) -> list[dict]:
    return [r for r in oplog_reader.read_store(data)
            if r["op"] == "refuse.writer" and r["pid"] == pid]


def holders(text: str) -> set[int]:
    """Whom the refusals name."""
    return {int(pid) for pid, command in HOLDER.findall(text) if command.strip() != "?"}


def write(first: int) -> str:
    return f"c.upsert(**batch({first}))"


# ---- eight at once ----


class Contender(threading.Thread):
    """Starts a process and writes with it until the time is up; keeps what was acknowledged."""

    def __init__(self, number: int, data: Path, preload: str) -> None:
        super().__init__()
        self.first = self.next = (number + 1) * 100_000
        self.data, self.preload = data, preload
        self.acknowledged: list[int] = []
        self.errors: list[str] = []
        self.actor: Actor | None = None
        self.until = 0.0

    @property
    def pid(self) -> int:
        return self.actor.pid

    def begin(self) -> None:
        self.actor = Actor(self.preload)
        self.actor.chroma(self.data)

    def step(self) -> str:
        return write(self.next)

    def run(self) -> None:
        began = False
        while time.monotonic() < self.until:
            try:
                if not began:
                    self.clean_up()
                    self.begin()
                    began = True
                self.actor.do(self.step(), 15)
                self.acknowledged.append(self.next)
                self.next += BATCH
            except (Failed, AssertionError) as e:
                self.errors.append(str(e))
                time.sleep(0.3)
            except Hangs as e:
                self.errors.append(str(e))
                return

    def said(self) -> str:
        return self.actor.errors()

    def clean_up(self) -> None:
        if self.actor:
            self.actor.clean_up()


class OfServer(Contender):
    """A server and a client of its own."""

    host = hosts.BY_NAME["server"]
    server: hosts.Server | None = None

    @property
    def pid(self) -> int:
        return self.server.pid

    def begin(self) -> None:
        self.server = hosts.Server(self.host, self.data, self.preload,
                                   log=self.data.parent / f"{self.host.name}.log")
        self.actor = Actor()
        self.actor.chroma(self.server.address)

    def said(self) -> str:
        return (self.data.parent / f"{self.host.name}.log").read_text()

    def clean_up(self) -> None:
        super().clean_up()
        if self.server:
            self.server.clean_up()


class OfNode(OfServer):
    host = hosts.BY_NAME["node"]


class OfSQLite(Contender):
    """No Chroma; waits for its turn, like a tool that is started beside a backend."""

    def begin(self) -> None:
        while not list(self.data.glob("*/header.bin")):
            time.sleep(0.05)
        self.actor = Actor(self.preload)
        self.actor.sqlite(self.data)

    def step(self) -> str:
        return f"db.execute('UPDATE collections SET name = name || {self.next} WHERE 0 = 1')"


def contend(data: Path, preload: str) -> list[Contender]:
    kinds = [OfServer, OfNode, Contender, Contender, Contender, Contender, OfSQLite]
    everyone = [kind(n, data, preload) for n, kind in enumerate(kinds)]
    everyone.append(OfSQLite(len(kinds), data, ""))
    for one in everyone:
        one.until = time.monotonic() + SECONDS
        one.start()
    for one in everyone:
        one.join()
    return everyone


def state(data: Path, everyone: list[Contender]) -> tuple[int, list[str]]:
    """Records that were acknowledged, and what is wrong with them, asked of a Chroma alone."""
    firsts = [f for one in everyone if not isinstance(one, OfSQLite) for f in one.acknowledged]
    reader = Actor()
    try:
        reader.chroma(data)
        return len(firsts) * BATCH, reader.ask(f"wrong(c, {firsts})", 60)
    except (Failed, Hangs) as e:
        return len(firsts) * BATCH, [str(e)]
    finally:
        reader.clean_up()


@pytest.mark.slow
def test_eight_at_once(data, shim):
    everyone = contend(data, shim)
    try:
        writers = [one for one in everyone if one.acknowledged]
        assert len(writers) == 1, [(type(o).__name__, o.acknowledged, o.errors) for o in everyone]
        writer = writers[0]
        assert not isinstance(writer, OfSQLite)
        for one in everyone:
            assert one is writer or one.errors, type(one).__name__
            if one is writer or not one.preload:
                continue
            assert holders(one.said()) == {writer.pid}, one.said()
        told = {r["pid"] for r in oplog_reader.read_store(data) if r["op"] == "refuse.writer"}
        assert len(told) >= 6 and writer.pid not in told
        assert all("database is locked" in e for e in everyone[-1].errors)
        assert not everyone[-1].said()
    finally:
        for one in everyone:
            one.clean_up()
    acknowledged, wrong = state(data, everyone)
    assert acknowledged and not wrong


@pytest.mark.slow
def test_eight_at_once_without(data, tmp_path):
    """What the other test is about. Whether it happens in one run is chance; it mostly does."""
    damaged = []
    for run in range(2):
        directory = data / str(run)
        directory.mkdir()
        everyone = contend(directory, "")
        for one in everyone:
            one.clean_up()
        acknowledged, wrong = state(directory, everyone)
        damaged.append(f"{acknowledged} acknowledged, wrong: {len(wrong)} {wrong[:1]}")
        if wrong:
            return
    pytest.skip(f"no damage this time: {damaged}")


def test_who_comes_while_the_tables_are_made(data, actors):
    """Chroma looks which are missing before it has SQLite's lock: the others look when all are there."""
    maker = actors().sqlite(data)
    maker.do("db.execute('CREATE TABLE migrations (dir TEXT, version INTEGER, PRIMARY KEY (dir, version))')")
    maker.do("db.execute(\"INSERT INTO migrations VALUES ('embeddings_queue', 2), ('sysdb', 9)\")")
    other = actors()
    other.start(f"import sqlite3\ndb = sqlite3.connect({str(data / 'chroma.sqlite3')!r})\n"
                "result = db.execute('SELECT max(version) FROM migrations WHERE dir = \"metadb\"').fetchone()")
    with pytest.raises(Hangs):
        other.finish(0.7)
    maker.do("db.execute(\"INSERT INTO migrations VALUES ('metadb', 4)\")")
    assert other.finish() == [4]
    late = actors().sqlite(data)  # nobody waits where all is there
    assert late.ask("len(db.execute('SELECT * FROM migrations').fetchall())", timeout=3) == 3


def test_nobody_waits_for_a_maker_that_has_died(data, actors):
    maker = actors().sqlite(data)
    maker.do("db.execute('CREATE TABLE migrations (dir TEXT, version INTEGER, PRIMARY KEY (dir, version))')")
    maker.stop()
    assert actors().sqlite(data).ask("db.execute('SELECT count(*) FROM migrations').fetchone()",
                                     timeout=3) == [0]


# ---- who is the writer ----


def test_reading_is_not_writing(data, actors):
    """A tool that opens read-write, and only reads, leaves the place free."""
    actors().chroma(data).stop()
    tool = actors().sqlite(data)
    tool.do("db.execute('PRAGMA integrity_check').fetchall()")
    tool.do("db.execute('BEGIN'); db.execute('SELECT * FROM collections').fetchall()")
    tool.do("db.execute('COMMIT')")
    writer = actors().chroma(data)
    writer.do(write(0))
    tool.do("db.execute('SELECT * FROM collections').fetchall()")
    assert not tool.lines() and not writer.lines()


@pytest.mark.fast
def test_second_is_told(data, actors):
    writer = actors().chroma(data)
    writer.do(write(0))
    lock = (data / ".chromashim" / "writer.lock").read_text()
    assert lock.startswith(f"pid {writer.pid}\nsince 20") and "puppet.py" in lock

    tool = actors().sqlite(data)
    assert tool.ask("db.execute('SELECT count(*) FROM embeddings').fetchone()[0]") == BATCH
    assert "readonly" in tool.fails("db.execute('CREATE TABLE t(a)')")
    assert holders(tool.errors()) == {writer.pid}
    (refusal,) = refusals(data, tool.pid)
    assert refusal["path"] == "chroma.sqlite3" and refusal["result"] == -16
    assert str(writer.pid) in "".join(refusal["texts"])

    # Another Chroma writes before it reads: that is let go by (test_readers.py), and no more.
    other = actors()
    other.do(f"from workload import *\nc = connect({str(data)!r}).get_collection('books')")
    assert other.ask("c.count()") == BATCH
    assert "readonly" in other.fails(write(BATCH))
    assert writer.ask("c.count()") == BATCH


def test_who_had_opened_before_is_told_at_once(data, actors):
    """With the connection's busy timeout at 1000 s, as Chroma has it."""
    actors().chroma(data).stop()
    tool = actors().sqlite(data, timeout=1000)
    assert tool.ask("db.execute('SELECT count(*) FROM collections').fetchone()[0]") == 1
    writer = actors().chroma(data)
    writer.do(write(0))
    assert tool.ask("db.execute('SELECT count(*) FROM embeddings').fetchone()[0]") == BATCH
    started = time.monotonic()
    assert "access permission denied" in tool.fails("db.execute('CREATE TABLE t(a)')")
    assert time.monotonic() - started < 2
    assert holders(tool.errors()) == {writer.pid}
    writer.do(write(BATCH))
    assert tool.ask("db.execute('SELECT count(*) FROM embeddings').fetchone()[0]") == 2 * BATCH


def test_next_one_writes_at_once(data, actors):
    """The kernel lets go of the lock with the process; a reader need not even open anew."""
    actors().chroma(data).stop()
    tool = actors().sqlite(data)
    tool.do("db.execute('SELECT * FROM collections').fetchall()")
    writer = actors().chroma(data)
    writer.do(write(0))
    assert tool.fails("db.execute('CREATE TABLE t(a)')")
    writer.kill()
    started = time.monotonic()
    tool.do("db.execute('CREATE TABLE t(a)')")
    assert time.monotonic() - started < 2
    assert tool.ask("db.execute('PRAGMA integrity_check').fetchone()[0]") == "ok"
    tool.stop()
    after = actors().chroma(data)
    after.do(write(BATCH))
    assert after.ask(f"wrong(c, [0, {BATCH}])") == []


def test_wait(data, actors):
    """A new one started while the old one still runs, as at a restart without a gap."""
    old = actors().chroma(data)
    old.do(write(0))
    new = actors(env={"CHROMASHIM_SINGLE_WRITER": "wait", "CHROMASHIM_WAIT": "20s"})
    new.start(f"from workload import *\nc = connect({str(data)!r}).get_collection('books')")
    deadline = time.monotonic() + 20
    while "waiting for process" not in new.errors() and time.monotonic() < deadline:
        time.sleep(0.05)
    old.do(write(BATCH))  # is not held up
    old.stop()
    new.finish(20)
    new.do(write(2 * BATCH))
    assert new.ask(f"wrong(c, [0, {BATCH}, {2 * BATCH}])") == []
    (line,) = new.lines()
    assert f"waiting for process {old.pid} (" in line


def test_wait_has_an_end(data, actors):
    actors().chroma(data)
    tool = actors(env={"CHROMASHIM_SINGLE_WRITER": "wait", "CHROMASHIM_WAIT": "1500ms"})
    started = time.monotonic()
    tool.sqlite(data)
    error = tool.fails("db.execute('CREATE TABLE t(a)')")
    assert "readonly" in error and 1.4 < time.monotonic() - started < 5


def test_off(data, actors):
    """Then it is as without the shim, and nothing is said."""
    one, two = (actors(env={"CHROMASHIM_SINGLE_WRITER": "off"}).sqlite(data, 5) for _ in range(2))
    one.do("db.execute('CREATE TABLE t(a)')")
    two.do("db.execute('INSERT INTO t VALUES(1)')")
    one.do("db.execute('INSERT INTO t VALUES(2)')")
    assert not one.lines() and not two.lines()
    assert not (data / ".chromashim" / "writer.lock").exists()


@pytest.mark.parametrize("setting", ["CHROMASHIM_SINGLE_WRITER=perhaps", "CHROMASHIM_WAIT=soon"])
def test_settings_that_cannot_be_read(data, actors, setting):
    name, value = setting.split("=")
    one = actors(env={name: value}).sqlite(data)
    one.do("db.execute('CREATE TABLE t(a)')")
    two = actors().sqlite(data)
    assert "readonly" in two.fails("db.execute('CREATE TABLE u(a)')")
    assert any(line.startswith(f"chromashim: {setting}: not ") for line in one.lines())


# ---- fork ----


CHILD = """
def child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
        except sqlite3.Error as e:
            os._exit(7 if "readonly" in str(e) or "permission" in str(e) else 8)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def own(sql="INSERT INTO t VALUES(1)"):
    sqlite3.connect(path, timeout=1).executescript(sql)
path = PATH
"""


def forking(data, actors):
    """A writer that has a client, and functions to fork from it."""
    parent = actors().sqlite(data)
    parent.do("db.execute('CREATE TABLE t(a)')")
    parent.do(CHILD.replace("PATH", repr(str(data / "chroma.sqlite3"))))
    return parent


@pytest.mark.fast
def test_right_passes_to_a_child(data, actors):
    """As gunicorn --preload does it: the client is made before the fork, and the child writes."""
    parent = forking(data, actors)
    assert parent.do("result = child(own)") == 0
    assert "permission" in parent.fails("db.execute('INSERT INTO t VALUES(2)')")
    assert "has left the writing to one that was forked" in parent.errors()
    # All is closed: what is made anew may write.
    parent.do("db.close(); db = sqlite3.connect(path); db.execute('INSERT INTO t VALUES(3)')\n"
              "db.commit()")
    assert parent.do("result = [a for (a,) in db.execute('SELECT a FROM t')]") == [1, 3]


def test_child_writes_by_the_connection_it_was_forked_with(data, actors):
    parent = forking(data, actors)
    assert parent.do("result = child(lambda: db.execute('INSERT INTO t VALUES(1)'))") == 0
    assert parent.do("result = db.execute('SELECT count(*) FROM t').fetchall()") == [[1]]
    assert parent.do("result = db.execute('PRAGMA integrity_check').fetchall()") == [["ok"]]


def test_right_goes_to_the_next_child(data, actors, chromashim):
    """A worker that has ended is followed by another; two at once are one too many."""
    parent = forking(data, actors)
    assert parent.do("result = [child(own), child(own)]") == [0, 0]
    parent.do("""
back, to = os.pipe()
first = os.fork()
if not first:
    own()
    os.write(to, b"x")
    time.sleep(60)
    os._exit(0)
os.read(back, 1)
""")
    try:
        assert parent.do("result = child(own)") == 7
        assert "make the client after the fork" in parent.errors()
        # Who had the right before is not called the writer, too.
        said = json.loads(chromashim("status", "--json", data).stdout)["processes"]
        assert sorted(p["writer"] for p in said) == [False, True], said
        assert next(p["pid"] for p in said if p["writer"]) == parent.ask("first")
        assert (f"passed the right to write on to process {parent.ask('first')}" in
                chromashim("status", data).stdout)
        # To a stranger the family is one writer.
        assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES(2)')")
    finally:
        parent.do("os.kill(first, 9); os.waitpid(first, 0)")
    assert parent.do("result = child(own)") == 0


@pytest.mark.fast
def test_right_passes_on_from_a_child(data, actors):
    """A worker that has written starts one that does: they are a family of their own."""
    parent = forking(data, actors)
    assert parent.do("""
def worker():
    k = sqlite3.connect(path, timeout=1)
    k.execute("INSERT INTO t VALUES(1)")
    k.commit()
    codes = [child(own), child(own), child(lambda: os._exit(child(own)))]
    try:
        k.execute("INSERT INTO t VALUES(2)")
        os._exit(9)
    except sqlite3.Error:
        os._exit(0 if codes == [0, 0, 0] else 8)
result = child(worker)
""") == 0
    assert parent.do("result = child(own)") == 0  # the family is no more
    assert parent.do("result = db.execute('SELECT count(*) FROM t').fetchall()") == [[5]]


def test_forked_without_handlers(data, actors):
    """By _Fork(), which no atfork handler of libc's is called for."""
    if not hasattr(ctypes.CDLL(None), "_Fork"):
        pytest.skip("this libc has no _Fork()")
    parent = forking(data, actors)
    parent.do("import ctypes; os.fork = ctypes.CDLL(None)._Fork")
    assert parent.do("result = child(own)") == 0


def test_started_by_the_writer(data, actors):
    """As a server that reloads itself: the one that serves is told who has the right, and why."""
    parent = actors().sqlite(data)
    parent.do("db.execute('CREATE TABLE t(a)')")
    parent.do(f"""
import subprocess
result = subprocess.run([sys.executable, "-c", "import sqlite3\\n"
    "sqlite3.connect({str(data / 'chroma.sqlite3')!r}).execute('INSERT INTO t VALUES(1)')"]).returncode
""")
    assert "make the client only in the process that serves" in parent.errors()


def test_parent_that_goes_on_writing(data, actors):
    """It writes first after the fork: the child is told, and nothing outlives the parent."""
    parent = forking(data, actors)
    status = parent.do("""
def later():
    os.read(back, 1)
    own()
back, to = os.pipe()
pid = os.fork()
if not pid:
    try:
        later()
    except sqlite3.Error as e:
        os._exit(7 if "readonly" in str(e) or "permission" in str(e) else 8)
    os._exit(0)
db.execute("INSERT INTO t VALUES(2)")
os.write(to, b"x")
result = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
""")
    assert status == 7 and holders(parent.errors()) == {parent.pid}
    assert "make the client after the fork" in parent.errors()
    parent.do("db.execute('INSERT INTO t VALUES(2)')")
    # What was forked away must not keep the parent's lock after its end.
    parent.do("child = os.fork()\nif not child:\n    time.sleep(60)\n    os._exit(0)")
    parent.child.kill()
    parent.child.wait()
    actors().sqlite(data).do("db.execute('INSERT INTO t VALUES(3)')")


def test_nothing_passes_in_a_transaction(data, actors):
    parent = forking(data, actors)
    parent.do("db.execute('BEGIN IMMEDIATE'); db.execute('INSERT INTO t VALUES(2)')")
    assert parent.do("result = child(own)") == 7
    parent.do("db.execute('COMMIT'); db.execute('INSERT INTO t VALUES(4)')")
    assert parent.do("result = db.execute('SELECT count(*) FROM t').fetchall()") == [[2]]


def test_daemon(data, actors, tmp_path):
    """A process that forks and ends leaves the writing to its child."""
    done = tmp_path / "done"
    parent = actors().sqlite(data)
    parent.do("db.execute('CREATE TABLE t(a)')")
    parent.do(f"""
first = os.getpid()
db.close()
if not os.fork():
    os.setsid()
    while os.getppid() == first:
        time.sleep(0.02)
    db = sqlite3.connect({str(data / "chroma.sqlite3")!r}, isolation_level=None)
    db.execute("INSERT INTO t VALUES(1)")
    Path({str(done)!r}).write_text(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
""")
    parent.stop()
    deadline = time.monotonic() + 20
    while not done.exists() or not done.read_text():
        assert time.monotonic() < deadline, parent.errors()
        time.sleep(0.05)
    daemon = int(done.read_text())
    try:
        assert (data / ".chromashim" / "writer.lock").read_text().startswith(f"pid {daemon}\n")
        assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES(2)')")
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("line", ["cat '{0}' >'{1}'; true", "exec 5>'{1}'; cat '{0}' >&5; true"])
def test_put_back_by_a_shell(data, shim, tmp_path, shell, line):
    """It opens the file itself, and what it starts writes: that is no second writer."""
    database = data / "chroma.sqlite3"
    data.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE t(a)")
    db.commit()
    db.close()
    backup = tmp_path / "backup"
    backup.write_bytes(database.read_bytes())
    done = subprocess.run([shell, "-c", line.format(backup, database)], check=False,
                          capture_output=True, text=True, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim}))
    assert "refused" not in done.stderr
    assert database.read_bytes() == backup.read_bytes()


def test_workers(data, actors):
    """As uvicorn and gunicorn fork them: each has a client of its own."""
    actors().chroma(data).stop()
    server = actors()
    answers = server.do(f"""
import chromadb, workload
def work(number):
    try:
        c = workload.connect({str(data)!r}).get_collection("books")
        c.upsert(**workload.batch(number * 1000))
        time.sleep(2)
        return "wrote"
    except Exception as e:
        return str(e)
pipes = []
for number in range(4):
    back, to = os.pipe()
    if not os.fork():
        os.write(to, work(number).encode())
        os._exit(0)
    os.close(to)
    pipes.append(back)
result = [os.read(pipe, 10000).decode() for pipe in pipes]
""", 60)
    assert answers.count("wrote") == 1
    # read-only, if it opened after the writer had written; else its RESERVED is not permitted
    told = [a for a in answers if "readonly" in a or "permission denied" in a]
    assert len(told) == 3, answers
    writer = answers.index("wrote")
    (pid,) = holders(server.errors())
    assert pid != server.pid
    reader = actors(False).chroma(data)
    assert reader.ask(f"wrong(c, [{writer * 1000}])") == []


# ---- the lock file ----


def test_lock_file_removed(data, actors):
    writer = actors().sqlite(data)
    writer.do("db.execute('CREATE TABLE t(a)')")
    (data / ".chromashim" / "writer.lock").unlink()
    time.sleep(1.1)  # it is looked at once a second
    writer.do("db.execute('INSERT INTO t VALUES(1)')")
    (line,) = writer.lines()
    assert "writer.lock was removed" in line
    assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES(2)')")
    writer.do("db.execute('INSERT INTO t VALUES(3)')")


def test_lock_file_removed_and_taken(data, actors):
    """In the second before it is noticed another may get the place: the fence still holds."""
    writer = actors().sqlite(data)
    writer.do("db.execute('CREATE TABLE t(a)')")
    (data / ".chromashim" / "writer.lock").unlink()
    assert "locked" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES(2)')")
