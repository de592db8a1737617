# SPDX-License-Identifier: MIT
"""Locks that last: whatever a process closes, opens or forks, SQLite's locks are held."""

import struct
import subprocess

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
