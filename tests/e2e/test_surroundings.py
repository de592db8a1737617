# SPDX-License-Identifier: MIT
"""What the environment of a process must not make the shim do to it."""

import subprocess

import pytest

import hosts
import torn


def run(shim, code, *words):
    return subprocess.run([*words, hosts.python("venv"), "-S", "-c", code], text=True, check=False,
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          timeout=120)


REFUSED = """
import fcntl, os, struct
fd = os.open(%r, os.O_RDWR)
%s
# SQLite's SHARED lock: the database is in use, and its removal is refused and said
fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0x40000002, 510, 0))
try:
    os.unlink(%r)
except OSError:
    pass
os._exit(0)
"""


@pytest.mark.parametrize("how", ["opened", "dup2"])
def test_standard_error_closed(data, shim, how):
    """The database has its number: nothing is written there."""
    torn.make(data)
    name = str(data / "chroma.sqlite3")
    change = ("os.close(fd); os.close(2); fd = os.open(%r, os.O_RDWR); assert fd == 2" % name
              if how == "opened" else "os.dup2(fd, 2); fd = 2")
    done = run(shim, REFUSED % (name, change, name))
    assert done.returncode == 0 and (data / "chroma.sqlite3").exists(), done.stderr
    with open(name, "rb") as f:
        assert f.read(15) == b"SQLite format 3"


def test_standard_error_put_elsewhere(data, shim, tmp_path):
    """As a daemon does: the lines go where its standard error goes."""
    torn.make(data)
    name = str(data / "chroma.sqlite3")
    change = f"os.dup2(os.open({str(tmp_path / 'log')!r}, os.O_WRONLY | os.O_CREAT), 2)"
    run(shim, REFUSED % (name, change, name))
    assert "chromashim: " in (tmp_path / "log").read_text()


@pytest.mark.parametrize("limit", [256, 1024, 32768])
def test_file_size_limit(data, shim, compiled, limit):
    """A program in C, which the signal would end."""
    program = compiled("sqlite", "-lsqlite3")
    words = ["CREATE TABLE t(x)", *["INSERT INTO t VALUES (1)"] * 30]
    done = subprocess.run(["bash", "-c", f"ulimit -f {limit}; exec \"$0\" \"$@\"", program,
                           data / "chroma.sqlite3", *words], check=False, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True)
    assert done.returncode == 0, done.stderr


def test_names_of_neighbours(data, actors):
    """More names than can be kept, of files that are none of Chroma's: segments stay protected."""
    torn.make(data)
    owner = actors(env={"CHROMASHIM_LOG_SIZE": "16M"}).sqlite(data)
    owner.do(f"""
os.chdir({str(data)!r})
db.execute("SELECT * FROM t")
for n in range(530000):
    try:
        os.unlink(f"upload-{{n:030}}")
    except FileNotFoundError:
        pass
""", 120)
    torn.make(data, "99999999-2222-3333-4444-555555555555")
    level0 = data / "99999999-2222-3333-4444-555555555555/data_level0.bin"
    torn.overwrite(owner, data, level0)
    owner.kill()
    assert torn.first(data, level0.parent.name) == "NNNN"
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data, level0.parent.name) == "OOOO"


def test_bad_pointers(data, shim):
    """A path that is no address is answered by the kernel."""
    torn.make(data)
    code = f"""
import ctypes, errno, os
os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
for bad in (1, 0xfff, -1, 1 << 63):
    for call in ("open", "creat", "unlink", "rmdir", "mkdir", "chmod", "truncate"):
        path, more = ctypes.c_void_p(bad & (1 << 64) - 1), ctypes.c_void_p(0)
        assert getattr(libc, call)(path, more, more) == -1, call
        assert ctypes.get_errno() == errno.EFAULT, (call, ctypes.get_errno())
"""
    done = run(shim, code)
    assert done.returncode == 0, done.stderr
