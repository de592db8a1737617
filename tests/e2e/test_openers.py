# SPDX-License-Identifier: MIT
"""Opens at a bad moment: while another thread undoes a persist, and in a forked child."""

import shutil
import struct
import subprocess

import hosts
import torn

WRITERS_AT, WRITERS = 2048, 64  # chromashim_pin.h: who, writes, unprotected of each


def test_waits_for_a_long_roll_back(data, shim, strace, actors):
    """A second thread's open is protected, too, however long the first one's roll-back takes."""
    torn.make(data)
    torn.tear(actors(), data)
    code = f"""
import os, signal, threading, time
database, level0 = {str(data / 'chroma.sqlite3')!r}, {str(data / torn.SEGMENT / 'data_level0.bin')!r}
first = threading.Thread(target=lambda: os.open(database, os.O_RDWR))
first.start()
time.sleep(0.3)
os.open(database, os.O_RDWR)
fd = os.open(level0, os.O_RDWR)
os.pwrite(fd, b"N" * 8192, 0)
os.ftruncate(fd, {torn.SIZE})
os.kill(os.getpid(), signal.SIGKILL)
"""
    words = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fsync",
             "-e", "inject=fsync:delay_enter=11000000:when=1", "-E", f"LD_PRELOAD={shim}",
             hosts.python("venv"), "-S", "-c", code]
    done = subprocess.run([*map(str, words)], env=hosts.environment(), text=True,
                          capture_output=True, check=False, timeout=60)
    assert "its opening waits for another thread" in done.stderr
    assert torn.first(data) == "NNNN"
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "OOOO"


def unprotected(data) -> list[int]:
    """What each process has counted of persists that nothing can undo."""
    state = (data / ".chromashim/pins/state").read_bytes()
    writers = struct.iter_unpack("<QQQ", state[WRITERS_AT:WRITERS_AT + WRITERS * 24])
    return [w[2] for w in writers if w[0]]


def test_a_child_has_no_persist_of_its_parent(data, actors):
    torn.make(data)
    owner = actors(env={"CHROMASHIM_SINGLE_WRITER": "off"})
    owner.do(f"os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR)")
    shutil.rmtree(data / ".chromashim/undo")
    torn.overwrite(owner, data)
    assert any("UNPROTECTED" in line for line in owner.lines())
    assert unprotected(data) == [1]
    owner.do("""
ready, told = os.pipe()
if not os.fork():
    os.pwrite(database, b"S", 0)
    os.write(told, b"x")
    time.sleep(1)
    os._exit(0)
os.read(ready, 1)
""")
    assert unprotected(data) == [1, 0]
