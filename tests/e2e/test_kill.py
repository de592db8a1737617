# SPDX-License-Identifier: MIT
"""kill -9 at a random moment, many times: the op log tells all that strace saw."""

import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from dataclasses import replace

import pytest

import hosts
import oplog_reader
import tracer
import witness

ROUNDS = 50
LONGEST = 0.9  # seconds


@pytest.mark.slow
def test_log_after_kill(tmp_path, shim, strace, chromashim):
    """Chroma is imported once; each round forks a process that takes a new directory and upserts."""
    host = hosts.BY_NAME["python"]
    host.require()
    seed = int.from_bytes(os.urandom(4), "little")
    rng = random.Random(seed)
    directories = [tmp_path / f"data-{n:02}" for n in range(ROUNDS)]
    argv = tracer.command([hosts.python(host.driver), hosts.WORKLOAD, "-", "forks"],
                           tmp_path / "strace", shim)
    with subprocess.Popen(argv, env=hosts.environment(), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            for directory in directories:
                print(directory, file=parent.stdin, flush=True)
                pid = int(parent.stdout.readline())
                time.sleep(rng.uniform(0.02, LONGEST))
                os.kill(pid, signal.SIGKILL)
                assert parent.stdout.readline() == "dead\n"
            parent.stdin.close()
            assert parent.wait(30) == 0
        finally:
            if parent.poll() is None:
                os.killpg(parent.pid, signal.SIGKILL)

    seen = tracer.Strace(tracer.Root(tmp_path), str(hosts.ROOT)).read(tmp_path / "strace")
    logged: tracer.Threads = defaultdict(list)
    begun = flying = 0
    for directory in directories:
        if not oplog_reader.segments(directory):
            continue  # killed before it touched anything
        begun += 1
        log = witness.recorded(directory)
        assert log.problems == [], f"seed {seed}, {directory.name}: {log.problems}"
        for tid, events in log.threads.items():
            logged[tid] += [replace(e, path=os.path.normpath(f"{directory.name}/{e.path}"))
                            for e in events]
            flying += sum(e.unfinished for e in events)
        told = chromashim("log", "--calls", "--json", directory)
        assert told.returncode == 0, f"seed {seed}, {directory.name}: {told.stderr}"
        assert told.stdout.count("\n") >= len(log.threads)
    # Making the directories comes before they are known to be ones.
    for tid, events in seen.threads.items():
        seen.threads[tid] = [e for e in events if e.kind != "mkdir" or "/" in e.path]
    found = witness.differences_after_kill(seen.threads, logged)
    assert not found, f"seed {seed}: {len(found)} differences:\n" + "\n".join(found[:40])
    total = sum(map(len, seen.threads.values()))
    print(f"seed {seed}: {begun} directories, {total} calls, {flying} in flight")
    assert begun > ROUNDS / 2 and total > 10000
