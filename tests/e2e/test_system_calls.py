# SPDX-License-Identifier: MIT
"""How many system calls more a fixed piece of work makes under the library: upper bounds, so that a
regression shows at once, whatever else the machine is doing."""

import re
import subprocess
from collections import Counter

import pytest

import hosts

UPSERTS = 40
WORK = f"""
import chromadb, os, sys
books = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("books")
def upsert(n):
    books.upsert(ids=[str(n)], embeddings=[[float(n)] * 384])
for n in range(10):
    upsert(n)
os.access("/the work begins", os.F_OK)
for n in range({UPSERTS}):
    upsert(n)
os.access("/the work has ended", os.F_OK)
"""
# For each upsert of one record, in which Chroma asks for some 75 locks; about a third above what
# was counted (write: threads of the engine wake each other, too). statx: the snapshot of the start
# is still pinned, for want of a guardian.
MOST = {"close": 3, "fcntl": 20, "fstat": 6, "getpid": 9, "newfstatat": 14, "openat": 3,
        "pread64": 8, "readlinkat": 3, "rt_sigprocmask": 14, "statx": 25, "write": 12}
# The engine's own threads waiting for each other, and its memory.
ITS_OWN = {"epoll_wait", "futex", "sched_yield", "madvise", "mprotect", "brk", "clock_nanosleep"}


def count(data, shim):
    """The calls of one upsert, by their names."""
    out = data.parent / f"calls-{bool(shim)}"
    subprocess.run(["strace", "-f", "-o", out, "-E", f"LD_PRELOAD={shim}",
                    hosts.python("venv"), "-c", WORK, data], check=True, timeout=120,
                   env=hosts.environment({"CHROMASHIM_GUARD": "off"}), capture_output=True)
    work = out.read_text(errors="replace").split("/the work begins")[1].split("/the work has")[0]
    calls = Counter(re.findall(r"^\d+ +(\w+)\(", work, re.MULTILINE))
    return {name: n / UPSERTS for name, n in calls.items()}


def test_one_upsert(data, shim, strace, tmp_path):
    hosts.BY_NAME["python"].require()
    plain, under = count(tmp_path / "plain", ""), count(data, shim)
    more = {name: n - plain.get(name, 0) for name, n in under.items()}
    assert plain["fcntl"] > 20, plain  # the work was counted
    assert {name: n for name, n in more.items()
            if name not in ITS_OWN and n > MOST.get(name, 0.5)} == {}
