# SPDX-License-Identifier: MIT
"""Fixed pieces of work by real Chroma, and the system calls that each of them makes.

counted.py DIRECTORY HUNDREDS SINGLE COLLECTIONS does them, with a mark between (a call that fails).
"""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

DIMENSIONS = 384
MARK = "/counted: "
# The engine's own threads waiting for each other, and its memory: they differ from run to run.
ITS_OWN = {"epoll_wait", "futex", "sched_yield", "madvise", "mprotect", "brk", "clock_nanosleep"}
# What a look at the room makes, once a second however long the work takes: within LOOK seconds.
OF_LOOKS = {"fstatfs", "statfs", "quotactl_fd", "getegid", "geteuid"}
LOOK = 0.1
CALL = re.compile(r"^\d+ +([\d.]+) (\w+)\((?:0x63, (0x\w+)\d{3},)?", re.MULTILINE)


def counted(part):
    """Numbers of calls. What the library asks about a page of memory (base/readable.c), by a call with
    an operation that there is not, it knows for a second, and so it does the room: only what it asks
    sooner counts, or a slow machine would."""
    calls, asked, looked = Counter(), {}, {}
    for time, name, page in CALL.findall(part):
        at = float(time)
        before, asked[page] = asked.get(page, 0), at
        counts = not page or at - before <= 1
        if name in OF_LOOKS:
            if at - looked.get(name, 0) > 1:
                looked[name] = at
            counts = at - looked[name] > LOOK
        if counts and name not in ITS_OWN:
            calls[name] += 1
    return calls


def count(python, data, shim, sizes, env):
    """Counters by the names of works; without the library if shim is empty."""
    out = Path(f"{data}.calls")
    subprocess.run(["strace", "-f", "-ttt", "-e", "raw=rt_sigprocmask", "-o", out, "-E", f"LD_PRELOAD={shim}", python, __file__, data,
                    *map(str, sizes)], check=True, timeout=600, capture_output=True, env=env)
    works = {}
    for part in out.read_text(errors="replace").split(MARK)[1:]:
        name = part.split('"')[0]
        works[name] = counted(part)
    out.unlink()
    del works["end"]
    return works


def main():
    import chromadb  # only where the work is done
    import numpy as np

    hundreds, single, collections = map(int, sys.argv[2:5])
    client = chromadb.PersistentClient(sys.argv[1])
    vectors = np.random.default_rng(1).random((max(hundreds, single, 3) + 10, DIMENSIONS),
                                              dtype=np.float32)
    books, letters = (client.get_or_create_collection(n) for n in ("books", "letters"))

    def upsert(collection, at, n):
        collection.upsert(ids=[f"r{i}" for i in range(at, at + n)], embeddings=vectors[at:at + n],
                          documents=[f"document number {i}" for i in range(at, at + n)])

    for at in range(10):
        upsert(letters, single + at, 1)
    os.access(f"{MARK}hundreds", os.F_OK)
    for at in range(0, hundreds, 100):
        upsert(books, at, 100)
    os.access(f"{MARK}single", os.F_OK)
    for at in range(single):
        upsert(letters, at, 1)
    os.access(f"{MARK}collections", os.F_OK)
    for n in range(collections):
        client.create_collection(f"agent-{n}").add(
            ids=["a", "b", "c"], embeddings=vectors[:3], documents=["x", "y", "z"])
    os.access(f"{MARK}end", os.F_OK)


if __name__ == "__main__":
    main()
