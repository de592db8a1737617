# SPDX-License-Identifier: MIT
"""Locks that last: whatever a process closes, opens or forks, SQLite's locks are held."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import hosts
from actor import Hangs

RESERVED = 0x40000001
# What a host may do beside a transaction of its own.
DISTURBANCES = {
    "descriptor": "os.close(os.open(path, os.O_RDONLY))",
    "file": "open(path, 'rb').read(16)",
    "fork": "pid = os.fork()\nif not pid:\n    os.closerange(3, 4096)\n    os._exit(0)\n"
            "os.waitpid(pid, 0)",
    "subprocess": "import subprocess; subprocess.run(['true'], close_fds=True, check=True)",
    "close_range": "os.closerange(300, 100000)",
}
DROPS = {"descriptor", "file"}  # as POSIX has it


def getlk(fd: str) -> str:
    """Code whose result is type and pid of what is in the way of a lock on RESERVED."""
    return f"""
import fcntl, struct
asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, {RESERVED}, 1, 0)
answer = struct.unpack("hhqqi4x", fcntl.fcntl({fd}, fcntl.F_GETLK, asked))
result = [answer[0] != fcntl.F_UNLCK, answer[4]]
"""


@pytest.mark.parametrize("shimmed", [True, False])
@pytest.mark.parametrize("what", DISTURBANCES)
def test_held_in_a_transaction(data, actors, what, shimmed):
    owner = actors(shimmed).sqlite(data)
    owner.do(f"path = {str(data / 'chroma.sqlite3')!r}; db.execute('CREATE TABLE t(a)')")
    owner.do("db.execute('BEGIN IMMEDIATE'); db.execute('INSERT INTO t VALUES(1)')")
    owner.do(DISTURBANCES[what])
    outsider = actors(False).sqlite(data)
    error = outsider.fails("db.execute('BEGIN IMMEDIATE')")
    if shimmed or what not in DROPS:
        assert "locked" in error
        owner.do("db.execute('COMMIT')")
    else:
        assert not error  # two writers at once


def test_several_probe_at_once(data, shim, strace, actors):
    """What a directory's locks are worth is tried by each process for itself, in no other's way."""
    actors(False).sqlite(data).do("db.execute('CREATE TABLE t(a)')")
    code = f"import sqlite3; sqlite3.connect({str(data / 'chroma.sqlite3')!r}).execute('SELECT * FROM t')"
    words = ["strace", "-o", "/dev/null", "-e", "trace=fcntl", "-e", "inject=fcntl:delay_exit=50000",
             "-E", f"LD_PRELOAD={shim}", hosts.python("venv"), "-S", "-c", code]
    started = [subprocess.Popen([*map(str, words)], env=hosts.environment(), text=True,
                                stderr=subprocess.PIPE) for _ in range(3)]
    for child in started:
        said = child.communicate(timeout=60)[1]
        assert child.returncode == 0 and "locks that last" not in said, said


@pytest.mark.fast
def test_getlk(data, actors):
    owner = actors().sqlite(data)
    outsider = actors(False)
    path = str(data / "chroma.sqlite3")
    owner.do(f"db.execute('CREATE TABLE t(a)'); f = os.open({path!r}, os.O_RDWR)")
    outsider.do(f"f = os.open({path!r}, os.O_RDWR)")
    assert outsider.do(getlk("f")) == [True, -1]  # the fence
    assert owner.do(getlk("f")) == [False, 0]  # which is not in the way of its own process
    owner.do("db.execute('BEGIN IMMEDIATE')")
    assert owner.do(getlk("f"))[0] and outsider.do(getlk("f"))[0]  # another library's
    owner.do("db.execute('COMMIT')")
    assert struct.calcsize("hhqqi4x") == 32


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_two_sqlites_in_one_process(data, actors, mode):
    """Chroma's own writes, Python's opens, reads and closes; another process tries to write."""
    actors().chroma(data).stop()
    first = actors().sqlite(data)
    first.do(f"db.execute('PRAGMA journal_mode = {mode}')")
    first.stop()
    owner = actors().chroma(data)
    owner.do(f"""
import threading
stop, looks = threading.Event(), []
def look():
    while not stop.is_set():
        own = sqlite3.connect({str(data / 'chroma.sqlite3')!r}, timeout=20)
        looks.append(own.execute("SELECT count(*) FROM embeddings").fetchone()[0])
        own.close()
        time.sleep(0.002)
thread = threading.Thread(target=look)
thread.start()
""")
    outsider = actors(False).sqlite(data)
    allowed = tries = 0
    for n in range(0, 900, 60):
        owner.start(f"c.upsert(**batch({n}))")
        while True:
            try:
                owner.finish(0.005)
                break
            except Hangs:  # still at it
                tries += 1
                allowed += not outsider.fails("db.execute('BEGIN IMMEDIATE')")
                outsider.fails("db.execute('ROLLBACK')")
    assert owner.do("stop.set(); thread.join(); result = len(looks)") > 5
    assert owner.ask("looks == sorted(looks)")
    assert tries and (mode == "WAL" or not allowed)
    assert owner.ask(f"wrong(c, {list(range(0, 900, 60))})", 60) == []
    assert outsider.ask("db.execute('PRAGMA integrity_check').fetchone()[0]") == "ok"


INDEX_IN_USE = 128  # SQLite's lock on a byte of -shm, as long as somebody has the index open


def is_locked(outsider, path, byte) -> bool:
    return outsider.do(f"""
import fcntl, struct
f = os.open({str(path)!r}, os.O_RDWR)
asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, {byte}, 1, 0)
result = struct.unpack("hhqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK
os.close(f)
""")


def leave_log(owner, data) -> None:
    """In WAL mode, and closed by a reader last: log and index are left behind."""
    name = str(data / "chroma.sqlite3")
    owner.do(f"""
db = sqlite3.connect({name!r}, isolation_level=None)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE IF NOT EXISTS t(x)")
db.execute("INSERT INTO t VALUES (1)")
early = open({name + '-shm'!r}, "rb").read()
for n in range(9):
    db.execute("INSERT INTO t VALUES (1)")
last = sqlite3.connect({'file:' + name + '?mode=ro'!r}, uri=True)
last.execute("SELECT * FROM t").fetchall()
""")


@pytest.mark.parametrize("way", ["close", "close_range", "dup2"])
def test_wal_index_is_let_go(data, actors, way):
    """The next opener finds nobody at the index, and makes it anew: one that is stale is not believed."""
    owner, outsider = actors(), actors(False)
    leave_log(owner, data)
    index = data / "chroma.sqlite3-shm"
    assert is_locked(outsider, index, INDEX_IN_USE)
    owner.do("""
links = {n: f"/proc/self/fd/{n}" for n in range(3, 100)}
mine = [n for n in links if os.path.islink(links[n]) and "sqlite3" in os.readlink(links[n])]
""")
    owner.do({"close": "db.close(); last.close()",
              "close_range": "for n in mine: os.closerange(n, n + 1)",
              "dup2": "for n in mine: os.dup2(0, n)"}[way])
    assert not is_locked(outsider, index, INDEX_IN_USE)
    if way == "close":
        index.write_bytes(bytes.fromhex(owner.ask("early.hex()")))
    outsider.sqlite(data)
    assert outsider.ask("db.execute('SELECT count(*) FROM t').fetchone()[0]") == 10


def test_wal_index_of_two_libraries(data, actors):
    """One library of a process leaves the index; the other is still at it."""
    owner, outsider = actors(), actors(False)
    leave_log(owner, data)
    index = data / "chroma.sqlite3-shm"
    owner.do(f"""
import fcntl, struct
f = os.open({str(index)!r}, os.O_RDWR)
fcntl.fcntl(f, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, {INDEX_IN_USE}, 1, 0))
second = os.dup(f)
db.close(); last.close()
""")
    assert is_locked(outsider, index, INDEX_IN_USE)
    owner.do("os.close(f)")
    assert is_locked(outsider, index, INDEX_IN_USE)
    owner.do("os.close(second)")
    assert not is_locked(outsider, index, INDEX_IN_USE)


def carriers(owner, data) -> int:
    """Descriptors on the database that the host has not opened; it has one itself."""
    links = [p.readlink() for p in Path(f"/proc/{owner.pid}/fd").iterdir()]
    return links.count(data / "chroma.sqlite3") - 1


def test_carriers_come_and_go(data, actors):
    """One for a library, however many threads open first; none when its last descriptor is closed."""
    name = str(data / "chroma.sqlite3")
    actors(False).sqlite(data).do("db.execute('CREATE TABLE t(a)')")
    owner = actors()
    owner.do(f"f = os.open({name!r}, os.O_RDWR)")
    assert carriers(owner, data) == 1
    for _ in range(3):
        owner.do(f"db = sqlite3.connect({name!r}); db.execute('SELECT * FROM t').fetchall()")
        assert carriers(owner, data) == 3  # SQLite's descriptor and its carrier
        owner.do("db.close()")
        assert carriers(owner, data) == 1


def test_first_openers_of_a_library(data, actors, compiled, tmp_path):
    """Two threads that open first know their library as one, with one carrier."""
    program = compiled("openers", "-ldl")
    for n in range(12):
        shutil.copy(compiled("opener_library", "-fPIC", "-shared"), tmp_path / f"lib{n}.so")
    for _ in range(12):
        done = subprocess.run([program, data / "chroma.sqlite3", tmp_path, "12"], text=True,
                              env=hosts.environment({"LD_PRELOAD": str(hosts.SHIM)}),
                              capture_output=True, check=False, timeout=60)
        assert done.stdout == "13\n", done.stderr  # the program's own, and one for each
