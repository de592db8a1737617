# SPDX-License-Identifier: MIT
"""Persists that die at each of their steps, or fail at each of their writes.

With libchromashim-faults.so, which counts the points and takes the fault from CHROMASHIM_FAULT.
"""

import errno
import os
import random
import re
import shutil
import signal
import subprocess

import pytest

import hosts
import kills

pytestmark = pytest.mark.memory

FAULTS = hosts.BUILD / "libchromashim-faults.so"
ENOUGH = 25  # batches: the disk has failed by then
LAST = 4  # generations; the first of them creates the segment


@pytest.fixture(scope="module")
def program(compiled):
    if not FAULTS.exists():
        pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
    return compiled("hnsw_persist")


@pytest.fixture(params=["process", "power"])
def segment(request, program, tmp_path):
    """Runs the program in a directory that already has generation 1."""
    return Segment(program, tmp_path, request.param)


class Segment:
    def __init__(self, program, tmp_path, durability):
        self.program, self.durability = program, durability
        self.data, self.start = tmp_path / "data", tmp_path / "start"
        self.start.mkdir()
        self.data.mkdir()
        assert self.run("persist", 1, 1).stdout == "done 1\n"
        shutil.rmtree(self.start)
        shutil.copytree(self.data, self.start)

    def reset(self, empty=False):
        shutil.rmtree(self.data)
        if empty:
            self.data.mkdir()
        else:
            shutil.copytree(self.start, self.data)

    def run(self, *args, fault="", preload=True):
        env = hosts.environment({"CHROMASHIM_DIR": str(self.data), "CHROMASHIM_BALLAST": "0",
                                 "CHROMASHIM_DURABILITY": self.durability,
                                 "CHROMASHIM_FAULT": fault})
        if preload:
            env["LD_PRELOAD"] = str(FAULTS)
        return subprocess.run([str(self.program), str(self.data), *map(str, args)], env=env,
                              capture_output=True, text=True, timeout=60, check=False)

    def count(self, *args):
        """How many points and writes a run has."""
        done = self.run(*args, fault="count")
        return tuple(map(int, re.search(r"(\d+) points, (\d+) writes", done.stderr).groups()))

    def generation(self):
        """What is there after the next start, and what that start says."""
        done = self.run("check")
        assert done.returncode == 0, done.stdout + done.stderr
        return 0 if done.stdout == "none\n" else int(done.stdout.split()[1]), done.stderr

    def mark(self):
        try:
            return int.from_bytes((self.data / "mark").read_bytes(), "little")
        except FileNotFoundError:
            return 0


@pytest.mark.slow
@pytest.mark.parametrize("empty", [False, True], ids=["grown", "created"])
def test_death_at_every_point(segment, empty):
    """Before or after each persist, never in between, and never before the mark."""
    first = 1 if empty else 2
    segment.reset(empty)
    points, _ = segment.count("persist", first, LAST)
    assert points > 100
    undone = 0
    chosen = hosts.some(range(1, points + 1), 3)
    for k in chosen:
        segment.reset(empty)
        done = segment.run("persist", first, LAST, fault=f"kill:{k}")
        assert done.returncode == -signal.SIGKILL, f"point {k}: {done}"
        found, said = segment.generation()
        mark = segment.mark()
        undone += "it was undone" in said
        assert found in (mark, mark + 1), f"point {k}: generation {found}, mark {mark}"
        if k % 4 == 0:
            again = segment.run("persist", found + 1, found + 1)
            assert again.stdout == f"done {found + 1}\n", f"point {k}: {again}"
            assert segment.generation()[0] == found + 1
    assert undone > len(chosen) / 4


@pytest.mark.slow
def test_failure_of_every_write(segment):
    """The segment is as before the persist that failed, and frozen: none comes after it."""
    segment.reset()
    _, writes = segment.count("persist", 2, LAST)
    assert writes > 20
    frozen = 0
    for k in range(1, writes + 1):
        segment.reset()
        error = errno.ENOSPC if k % 2 else errno.EIO
        done = segment.run("persist", 2, LAST, fault=f"error:{k}:{error}")
        assert done.returncode == 0, f"write {k}: {done}"
        good = [int(line.split()[1]) for line in done.stdout.splitlines() if "done" in line]
        bad = [line.split()[1:] for line in done.stdout.splitlines() if "failed" in line]
        assert good == list(range(2, 2 + len(good))), f"write {k}: {done.stdout}"
        assert bad == [[str(g), str(error)] for g in range(2 + len(good), LAST + 1)], \
            f"write {k}: {done.stdout}"
        # The open of a pickle fails for all to see; there the group only stays open.
        frozen += done.stderr.count("frozen")
        assert bad and done.stderr.count("frozen") <= 1, f"write {k}: {done.stderr}"
        assert segment.generation()[0] == 1 + len(good), f"write {k}"
        assert not list((segment.data / ".chromashim" / "undo").glob("*.undo")), f"write {k}"
    assert frozen == writes - (LAST - 1)


# ---- the same with real Chroma, at some of the points: there are thousands


class Chroma:
    """A directory that real Chroma writes until the fault comes, and then looks at again."""

    def __init__(self, name, tmp_path, durability):
        host = hosts.BY_NAME[name]
        host.require()
        if not FAULTS.exists():
            pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
        self.data, self.log = tmp_path / "data", tmp_path / "stderr.log"
        self.start = tmp_path / "start"
        self.loader = kills.Loader(host.driver, str(FAULTS),
                                   {"CHROMASHIM_DURABILITY": durability,
                                    "CHROMASHIM_BALLAST": "0",
                                    # It writes while the directory is copied and removed.
                                    "CHROMASHIM_GUARD": "off"}, self.log)
        # Migrations are done: those of Chroma before 1.0 are not made to survive a death.
        self.start.mkdir()
        self.loader.send(self.start, 0, 1, "only")
        assert self.loader.finish()[0] == "verified 0"

    def meet(self, fault):
        """Returns what the faulty run said, and what the next start finds."""
        if self.data.exists():
            shutil.rmtree(self.data)
        shutil.copytree(self.start, self.data)
        pid = self.loader.send(self.data, 0, 1, f"fault={fault}")
        said = [""]
        while not said[-1].startswith("ended"):
            said.append(self.loader.line())
            if said[-1] == f"ack {ENOUGH}":
                os.kill(pid, signal.SIGKILL)
        known = [int(line.split()[1]) for line in said if line.startswith("ack")]
        least = max(known, default=0)
        self.loader.send(self.data, least, least + 1, "only")
        return said, self.loader.finish()[0]


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("name", ["python", "python-0.6"])
def test_chroma_dies(tmp_path, name, durability):
    seed = int.from_bytes(os.urandom(4), "little")
    rng = random.Random(seed)
    chroma = Chroma(name, tmp_path, durability)
    try:
        for _ in hosts.some(range(15), 2):
            fault = f"kill:{rng.randrange(1, 2500)}"
            said, found = chroma.meet(fault)
            assert said[-1] == f"ended {signal.SIGKILL:d}", f"seed {seed}, {fault}: {said}"
            assert found.startswith("verified"), f"seed {seed}, {fault}: {said} {found}"
    finally:
        chroma.loader.stop()


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("name", ["python", "python-0.6"])
def test_disk_fails_under_chroma(tmp_path, name, durability):
    """Chroma is told, or goes on with its queue; after a restart everything is there."""
    seed = int.from_bytes(os.urandom(4), "little")
    rng = random.Random(seed)
    chroma = Chroma(name, tmp_path, durability)
    try:
        for number in range(8):
            fault = f"error:{rng.randrange(5, 600)}:{errno.ENOSPC if number % 2 else errno.EIO}"
            said, found = chroma.meet(fault)
            assert found.startswith("verified"), f"seed {seed}, {fault}: {said} {found}"
        assert chroma.log.read_text(errors="replace").count("frozen"), f"seed {seed}"
    finally:
        chroma.loader.stop()
