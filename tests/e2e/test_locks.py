# SPDX-License-Identifier: MIT
"""Locks that last: whatever a process closes, opens or forks, SQLite's locks are held."""

import struct

import pytest

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
