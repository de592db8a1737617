# SPDX-License-Identifier: MIT
"""The engine of snapshots against random SQL: what was pinned comes back, byte for byte.

Before every transaction the test keeps a copy of the directory, while nothing is under way. Pins
are made from outside, by the program itself, and by the shim, before bulk and schema changes: each
must give back what was copied before the transaction that it was pinned at.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import time
from pathlib import Path

import pytest

import hosts

STEPS = 60
DEATHS = 6
PINS = 12
HELD = 18  # automatic pins: from 25 on, one of them is given up
LONG = 600  # seconds: two dozen snapshots are copied and verified, on a busy machine
FAULTS = hosts.BUILD / "libchromashim-faults.so"
KEEP = {"CHROMASHIM_KEEP": "all", "CHROMASHIM_EVERY": "0"}  # and none by the clock
MAKE = "import chromadb, sys; chromadb.PersistentClient(sys.argv[1])"
SQLITE = ["apsw", "sqlite3"]
FREE_PAGES, FIRST_TRUNK, PAGE_COUNT = 36, 32, 28


def number(data, at, size=4):
    return int.from_bytes(data[at:at + size], "big")


def page_size(data):
    size = number(data, 16, 2)
    return 65536 if size == 1 else size


def live_pages(data):
    """The pages whose content counts: all but the free ones, and the one with the locks."""
    size = page_size(data)
    pages = set(range(1, len(data) // size + 1))
    pages.discard((1 << 30) // size + 1)
    trunk = number(data, FIRST_TRUNK)
    while trunk:
        at = (trunk - 1) * size
        pages -= {number(data, at + 8 + 4 * i) for i in range(number(data, at + 4))}
        trunk = number(data, at)
    return pages


def differing_pages(found, expected):
    size = page_size(expected)
    if len(found) != len(expected):
        return [f"{len(found)} bytes, not {len(expected)}"]
    return [n for n in sorted(live_pages(expected))
            if found[(n - 1) * size:n * size] != expected[(n - 1) * size:n * size]]


def content(path):
    """What SQLite reads there: everything, in order."""
    db = sqlite3.connect(path)
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
        return list(db.iterdump())
    finally:
        db.close()


def copy_logged(source, target):
    """What SQLite has of a database with a log, by the index that all who have it open share. The
    files may not tell it (goes_on()); and the first who opens them makes the index anew, but for
    the lock that says that somebody was there before."""
    files = [Path(f"{target}.live{suffix}") for suffix in ("", "-wal", "-shm")]
    for file in files:
        shutil.copyfile(str(file).replace(f"{target}.live", str(source)), file)
    with open(files[2], "r+b") as index:
        fcntl.fcntl(index, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 128, 1, 0))
        with contextlib.closing(sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True)) as db, \
                contextlib.closing(sqlite3.connect(target)) as out:
            db.backup(out)
    for file in files:
        file.unlink()


def goes_on(log):
    """Whether commits are in a log behind where its checksums end: a fault of SQLite 3.40, after a
    roll-back to a savepoint."""
    order, page, salt = "<>"[log[3] & 1], number(log, 8), log[16:24]
    sums, whole = add_up((0, 0), log[:24], order), True
    for at in range(32, len(log) - page - 23, 24 + page):
        if log[at + 8:at + 16] not in (salt, bytes(8)):
            break
        sums = add_up(add_up(sums, log[at:at + 8], order), log[at + 24:at + 24 + page], order)
        whole = whole and sums == (number(log, at + 16), number(log, at + 20))
        if not whole and number(log, at + 4):
            return True
    return False


def add_up(sums, data, order):
    a, b = sums
    words = struct.iter_unpack(order + "II", data)
    for x, y in words:
        a = (a + x + b) & 0xffffffff
        b = (b + y + a) & 0xffffffff
    return a, b


class Run:
    """random_sql.py under the shim, and what was where at which time."""

    def __init__(self, directory, start, library, seed, shim, chromashim, steps=STEPS, fault="",
                 guards=0.05):
        self.data, self.chromashim = directory / "data", chromashim
        self.guards_at = guards
        shutil.copytree(start, self.data)
        self.copies = directory / "copies"
        self.copies.mkdir()
        self.states = []  # the copies of before each transaction
        self.logged = {}  # those of a database with a log, and that
        self.rng = random.Random(seed)
        self.count = 0
        self.expected = {}  # number of the snapshot -> the copy, what was done after it
        self.guards = []
        with open(directory / "stderr.log", "ab") as errors:
            self.child = subprocess.Popen(
                [str(hosts.python("venv-sqlite")), str(hosts.WORKLOAD.with_name("random_sql.py")),
                 str(self.data), library, str(seed), str(steps)],
                env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(self.data),
                                       "CHROMASHIM_BULK_PAGES": "40", "CHROMASHIM_BURST": "0",
                                       "CHROMASHIM_BALLAST": "0", "CHROMASHIM_FAULT": fault}),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)

    def reply(self, word):
        print(word, file=self.child.stdin, flush=True)

    def listed(self):
        done = self.chromashim("snapshot", "list", "--json", self.data)
        assert done.returncode in (0, 10), done.stderr
        return {s["id"]: s for s in json.loads(done.stdout or "[]")}

    def copy(self):
        """The database as it counts now: an open transaction has only written its journal, or
        frames that are not committed."""
        self.count += 1
        target, log = self.copies / str(self.count), self.data / "chroma.sqlite3-wal"
        target.mkdir()
        if log.exists() and log.stat().st_size:
            copy_logged(self.data / "chroma.sqlite3", target / "chroma.sqlite3")
            self.logged[target] = log.read_bytes()
        else:
            shutil.copyfile(self.data / "chroma.sqlite3", target / "chroma.sqlite3")
        return target

    def note(self, before, doing):
        """Snapshots that the shim has pinned by itself since then. All of them are to be seen: they
        are copied before there are so many that the shim gives one up."""
        listed = self.listed()
        for known in listed.keys() - self.expected.keys():
            self.expected[known] = (before, doing)
        held = [s for s in listed.values() if s["state"] in ("pinned", "hydrating")
                and s["reason"] in ("schema", "bulk")]
        if len(held) >= HELD:
            self.copy_all()

    def copy_all(self):
        for guard in self.guards:
            guard.wait(LONG)
        done = self.chromashim("guard", self.data, "--once", env=hosts.environment(KEEP),
                               timeout=LONG)
        assert done.returncode in (0, 2, 3), done.stderr

    def pin(self, said):
        """Somehow, now."""
        if said["spilled"] or (said["at"] == "open" and said["journal"] == "wal"):
            self.reply("go")
            return
        copy = self.copy()
        way = self.rng.choice(["command", "program"] if said["at"] == "idle" else ["command"])
        if way == "program":
            self.reply("pin")
            made = json.loads(self.child.stdout.readline())["pinned"]
            assert made > 0, f"{said}: {os.strerror(-made)}"
        else:
            done = self.chromashim("snapshot", "create", self.data, "-q", "--no-wait")
            assert done.returncode in (0, 3), f"{said}: {done.stderr}"
            made = max(self.listed())
        self.expected[made] = (copy, f"{way}, {said}")
        if way == "command":
            self.reply("go")

    def go(self):
        last = None
        for line in self.child.stdout:
            said = json.loads(line)
            if last and said["at"] == "idle":
                self.note(*last)
            if said["at"] == "idle":
                last = (self.copy(), said["doing"])
                self.states.append(last[0])
            if self.rng.random() < 0.2:
                self.pin(said)
            else:
                self.reply("go")
            if self.rng.random() < self.guards_at:
                self.guard()
        if last:
            self.note(*last)
        return self.child.wait(LONG)

    def guard(self):
        """Hydrates while the program goes on; at times it dies in the middle."""
        self.guards = [g for g in self.guards if g.poll() is None]
        if self.guards:
            if self.rng.random() < 0.5:
                self.guards[0].kill()
            return
        self.guards.append(subprocess.Popen(
            [str(hosts.COMMAND), "guard", str(self.data), "--once"], env=hosts.environment(KEEP),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def finish(self):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        for guard in self.guards:
            guard.wait(LONG)


def cannot_be_told(run, snapshot):
    """Its log has not all that SQLite has committed."""
    log = run.logged.get(run.expected[snapshot][0])
    return log and goes_on(log)


def check(run, snapshot, tmp_path):
    """The snapshot is what was copied."""
    copy, doing = run.expected[snapshot]
    out = tmp_path / f"out-{snapshot}"
    done = run.chromashim("restore", run.data, "--to", snapshot, "-o", out, "-y")
    assert done.returncode in (0, 3), f"{snapshot}, {doing}: {done.stderr}"
    if copy not in run.logged:
        found = (out / "chroma.sqlite3").read_bytes()
        wrong = differing_pages(found, (copy / "chroma.sqlite3").read_bytes())
        assert not wrong, f"{snapshot}, {doing}: pages {wrong[:20]}"
    assert content(out / "chroma.sqlite3") == content(copy / "chroma.sqlite3"), doing
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A directory of Chroma's in which nothing is stored yet."""
    for venv in ("venv", "venv-sqlite"):
        if not hosts.python(venv).exists():
            pytest.skip(f"build/{venv} is missing; run wrappers/setup run check")
    path = tmp_path_factory.mktemp("start") / "data"
    hosts.chroma("venv", "-c", MAKE, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("library", SQLITE)
def test_random_sql(tmp_path, start, shim, chromashim, library):
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    run = Run(tmp_path, start, library, seed, shim, chromashim)
    try:
        assert run.go() == 0, f"seed {seed}"
    finally:
        run.finish()
    run.copy_all()
    assert not run.listed().keys() ^ run.expected.keys(), f"seed {seed}"
    for snapshot, listed in sorted(run.listed().items()):
        if listed["state"] == "broken" and cannot_be_told(run, snapshot):
            continue
        assert listed["state"] in ("complete", "verified"), f"seed {seed}: {listed}"
        check(run, snapshot, tmp_path)
    print(f"{len(run.expected)} snapshots")
    assert len(run.expected) > 5, f"seed {seed}"


@pytest.mark.slow
def test_death_with_pins_held(tmp_path, start, chromashim):
    """At any of its calls: what it pinned is right, or says that it is broken; the rest is whole."""
    if not FAULTS.exists():
        pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = play(tmp_path / "whole", start, seed, chromashim, "")
    states = [content(copy / "chroma.sqlite3") for copy in whole.states]
    good = broken = 0
    for number in range(DEATHS):
        fault = f"kill:{rng.randrange(300, 4000)}"
        run = play(tmp_path / f"death-{number}", start, seed, chromashim, fault)
        for snapshot, listed in sorted(run.listed().items()):
            if listed["state"] == "broken":
                broken += 1
            else:
                check(run, snapshot, tmp_path)
                good += 1
        done = len(run.states)
        found = content(run.data / "chroma.sqlite3")
        assert found in states[max(0, done - 1):done + 1], f"seed {seed}, {fault}"
        shutil.rmtree(tmp_path / f"death-{number}")
    print(f"{good} good, {broken} broken")
    assert good > DEATHS / 2


def play(directory, start, seed, chromashim, fault):
    directory.mkdir()
    run = Run(directory, start, "apsw", seed, str(FAULTS), chromashim, 25, fault, 0)
    try:
        run.go()
    finally:
        run.finish()
    done = chromashim("guard", run.data, "--once", env=hosts.environment(KEEP), timeout=LONG)
    assert done.returncode in (0, 3), f"seed {seed}, {fault}: {done.stderr}"
    return run


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
def test_segments_in_the_midst_of_persists(tmp_path, start, shim, chromashim, compiled, durability):
    """Pins at any moment of persists that follow each other: one generation, and a whole one."""
    program, data = compiled("hnsw_persist"), tmp_path / "data"
    shutil.copytree(start, data)
    env = hosts.environment({"CHROMASHIM_DIR": str(data), "CHROMASHIM_DURABILITY": durability,
                             "CHROMASHIM_BALLAST": "0", "LD_PRELOAD": shim})
    rng, pins = random.Random(), []

    def mark():
        try:
            return int.from_bytes((data / "mark").read_bytes(), "little")
        except FileNotFoundError:
            return 0

    with subprocess.Popen([str(program), str(data), "persist", "1", "1000"], env=env,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        try:
            while not mark():
                pass
            while child.poll() is None and len(pins) < PINS:
                time.sleep(rng.uniform(0, 0.03))
                before = mark()
                done = chromashim("snapshot", "create", data, "--no-wait", "-q")
                after = mark() + 1
                if child.poll() is None:
                    assert done.returncode == 0, done.stderr
                    listed = json.loads(chromashim("snapshot", "list", data, "--json").stdout)
                    pins.append((max(s["id"] for s in listed), before, after))
        finally:
            child.kill()
    chromashim("guard", data, "--once", env=hosts.environment(KEEP), timeout=LONG)
    for snapshot, least, most in pins:
        out = tmp_path / f"out-{snapshot}"
        done = chromashim("restore", data, "--to", snapshot, "-o", out, "-y", "--force")
        assert out.exists(), done.stderr
        told = subprocess.run([str(program), str(out), "check"], capture_output=True, text=True,
                              check=False).stdout
        assert told.startswith("generation "), f"{snapshot}: {told}"
        assert least <= int(told.split()[1]) <= most, f"{snapshot}: {told}, not {least} to {most}"
    assert len(pins) > 3
