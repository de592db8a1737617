# SPDX-License-Identifier: MIT
"""`chromashim top`: what it counts while real Chroma works is what the log has afterwards; and the
terminal is given back whatever ends it."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

import hosts
from loads import Load
from test_report import WRITES, records_of

pytestmark = pytest.mark.memory

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


@pytest.fixture(scope="module")
def used(tmp_path_factory, shim):
    """A directory with a log, in which nobody works."""
    hosts.BY_NAME["python"].require()
    data = tmp_path_factory.mktemp("top") / "chroma_data"
    data.mkdir()
    Load(hosts.BY_NAME["python"], str(data), shim, batches=2).end()
    return data


def lines_until(top, wanted):
    """Lines of `top --json` up to the first that is so."""
    out = []
    for line in top.stdout:
        out.append(json.loads(line))
        if wanted(out):
            return out
    raise AssertionError(out)


def test_what_is_counted_live(used, shim):
    before = len(records_of(used))
    top = subprocess.Popen([hosts.COMMAND, "top", "--json", "--interval", "200ms", used],
                           env=hosts.environment(), stdout=subprocess.PIPE, text=True)
    try:
        seen = lines_until(top, lambda out: True)
        assert seen[0]["entries"] == 0 and seen[0]["writer"] == 0
        load = Load(hosts.BY_NAME["python"], str(used), shim, batches=12)
        seen += lines_until(top, lambda out: out[-1]["writer"] == load.child.pid)
        assert seen[-1]["writer_memory"] > 10_000_000
        load.end()
        new = records_of(used)[before:]
        seen += lines_until(top, lambda out: sum(o["entries"] for o in seen + out) >= len(new))
    finally:
        top.send_signal(signal.SIGINT)
    assert top.wait(30) == 0
    commits = [r["duration"] for r in new if r["op"] == "txn.commit"]
    assert sum(o["transactions"] for o in seen) == len(commits) > 10
    assert max(o["slowest_transaction_ns"] for o in seen) == max(commits)
    assert sum(o["bytes_written"] for o in seen) == sum(
        r["result"] for r in new if r["op"] in WRITES and r["result"] > 0)
    assert seen[-1]["database_bytes"] == (used / "chroma.sqlite3").stat().st_size


def test_lines_where_there_is_no_terminal(used, chromashim):
    done = chromashim("top", "--count", "2", "--interval", "100ms", used)
    assert done.returncode == 0 and not done.stderr and "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d  0 acts/s .* 0 B/s  0 transactions/s  0 syncs/s .*  "
                        r"no writer .* free$", line), line
    for wrong in (["--interval", "1ms"], ["--count", "0"], ["--nonsense"], [used]):
        assert chromashim("top", *wrong, used).returncode == 2


def read_until(fd, word):
    out, deadline = b"", time.monotonic() + 30
    while word not in out:
        assert time.monotonic() < deadline, out
        if select.select([fd], [], [], 0.2)[0]:
            try:
                out += os.read(fd, 65536)
            except OSError:  # the other side is closed
                break
    return out


@pytest.mark.parametrize("end", ["q", signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV,
                                 signal.SIGQUIT, signal.SIGTSTP])
def test_the_terminal_is_given_back(used, end):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
    before = termios.tcgetattr(slave)
    top = subprocess.Popen([hosts.COMMAND, "top", "--interval", "100ms", used], stdin=slave,
                           stdout=slave, stderr=slave, env=hosts.environment(),
                           preexec_fn=lambda: os.setpgid(0, 0))
    screen = read_until(master, b"\x1b[J")
    assert ENTER in screen and LEAVE not in screen
    assert termios.tcgetattr(slave) != before
    assert screen.split(b"\x1b[H")[1].count(b"\n") < 12
    if end == "q":
        os.write(master, b"q")
    else:
        top.send_signal(end)
    rest = read_until(master, LEAVE)
    if end == signal.SIGTSTP:
        os.waitpid(top.pid, os.WUNTRACED)
        assert termios.tcgetattr(slave) == before
        top.send_signal(signal.SIGCONT)
        read_until(master, ENTER)
        os.write(master, b"q")
        rest = read_until(master, LEAVE)
    status = top.wait(30)
    assert status == (-end if end in (signal.SIGSEGV, signal.SIGQUIT) else 0)
    assert rest.endswith(LEAVE) and termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


MANY = """
import os, sys
f = os.open(sys.argv[1] + "/chroma.sqlite3", os.O_RDWR | os.O_CREAT)
for n in range(400000):
    os.pwrite(f, b"x", n % 4096)
"""


def test_of_a_long_log_the_end_is_read(data, shim, strace, tmp_path):
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", MANY, data], check=True,
                   env=hosts.environment({"LD_PRELOAD": shim}))
    time.sleep(2.1)  # the log's slack
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-y", "-e", "trace=read,pread64", "-o", trace, hosts.COMMAND, "top", "--plain",
                    "--count", "1", "--interval", "100ms", data], check=True, env=hosts.environment(),
                   stdout=subprocess.DEVNULL)
    got = sum(map(int, re.findall(r"chromashim/oplog/[^>]*>.*= (\d+)$", trace.read_text(), re.M)))
    size = sum(f.stat().st_size for f in (data / ".chromashim/oplog").iterdir())
    assert size > 20_000_000 and 0 < got < size / 2
