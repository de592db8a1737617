# SPDX-License-Identifier: MIT
"""Deaths and I/O errors at the calls of a workload with pins held, one after the other.

pinned.c does the same at each run: SQL, persists, pins. Here it dies at its k-th point, or its k-th
call fails, and after each: what was acknowledged is there, nothing is half there, and each pin
gives back what was copied when it was taken, or says that it is broken and why. A few k of each
kind are taken at random; all of them with CHROMASHIM_PIN_FAULTS=all (make torture).
"""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

import hosts
from loads import nanoseconds
from test_pin_engine import FAULTS, MAKE, differing_pages

pytestmark = pytest.mark.memory

ALL = os.environ.get("CHROMASHIM_PIN_FAULTS") == "all"
DEATHS, ERRORS = 6, 2  # of each kind, else
STEPS = 13
POINTS = 12  # that follow each other: a write has three
LATEST, OTHERS = 3, 2  # pins that are looked at each time: the ones in flight, and some before
SAID = re.compile(r"^step (-?\d+) segment (-?\d+) content ([0-9a-f]+)$", re.M)


@dataclass
class Outcome:
    """What a run has said."""
    status: int
    errors: str
    begun: list[tuple[int, int, int]] = field(default_factory=list)  # time, step, generation: each
    # step's begin, and each persist's end
    hashes: dict[int, str] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)  # steps; what comes before may be done twice
    generation: int = 0

    @classmethod
    def of(cls, done):
        out = cls(done.returncode, done.stderr)
        for words in map(str.split, done.stdout.splitlines()):
            if words[0] == "step":
                out.begun.append((int(words[3]), int(words[1]), out.generation))
            elif words[0] == "done":
                out.hashes[int(words[1])] = words[2]
            elif words[0] == "persisted":
                out.generation = int(words[1])
                out.begun.append((int(words[3]), out.begun[-1][1], out.generation))
            else:
                out.failed.append(int(words[1]))
        return out

    @property
    def step(self):
        return max(self.hashes, default=0)


class Workload:
    def __init__(self, program, start, shim, command, durability, journal):
        self.program, self.start, self.shim, self.command = program, start, shim, command
        self.durability, self.journal = durability, journal

    def environment(self, data, preload, fault=""):
        return hosts.environment({
            "CHROMASHIM_DIR": str(data), "CHROMASHIM_DURABILITY": self.durability,
            "CHROMASHIM_BURST": "0", "CHROMASHIM_BULK_PAGES": "12", "CHROMASHIM_BALLAST": "0",
            "CHROMASHIM_LOG_SIZE": "1M", "CHROMASHIM_FAULT": fault, "LD_PRELOAD": str(preload)})

    def fresh(self, directory):
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "copies").mkdir(parents=True)
        shutil.copytree(self.start, directory / "data")

    def arguments(self, directory):
        return [str(self.program), str(directory / "data"), "work", str(directory / "copies"),
                self.journal]

    def run(self, directory, fault="", preload=FAULTS):
        return Outcome.of(subprocess.run(
            self.arguments(directory), env=self.environment(directory / "data", preload, fault),
            capture_output=True, text=True, timeout=120, check=False))

    def count(self, directory):
        """How many points, and calls of each kind, a run has; and what the steps leave."""
        self.fresh(directory)
        whole = self.run(directory, "count")
        assert whole.status == 0 and whole.step == STEPS and not whole.failed, whole
        found = re.search(r"(\d+) points, (\d+) writes, (\d+) of SQLite, (\d+) own", whole.errors)
        kinds = ("kill", "segments", "sqlite", "own")
        return dict(zip(kinds, map(int, found.groups()))), whole

    def look(self, data, preload):
        """step, generation, content."""
        done = subprocess.run([str(self.program), str(data), "check"], capture_output=True,
                              text=True, timeout=60, check=False,
                              env=self.environment(data, preload))
        assert done.returncode == 0, done.stdout + done.stderr
        step, generation, content = SAID.search(done.stdout).groups()
        return int(step), int(generation), content

    # ---- what must be so afterwards

    def check_live(self, directory, run, whole, undone):
        """undone: more generations may be there than were acknowledged."""
        step, generation, content = self.look(directory / "data", self.shim)
        assert step in (run.step, run.step + 1) or (step == -1 and not run.begun), (step, run)
        assert content == whole.hashes.get(step, content), (step, run)
        assert run.generation <= generation <= run.generation + undone, (generation, run)

    def check_pins(self, directory, run, rng):
        """How many were right, and how many broken."""
        done = self.command("snapshot", "list", "--json", directory / "data")
        assert done.returncode in (0, 10), done.stderr
        found = json.loads(done.stdout or "[]")
        others = rng.sample(found[:-LATEST], min(OTHERS, len(found[:-LATEST])))
        good = broken = 0
        for snapshot in [*others, *found[-LATEST:]]:
            if self.check_pin(directory, run, snapshot["id"]):
                good += 1
            else:
                broken += 1
        return good, broken

    def check_pin(self, directory, run, number):
        """False: it says that it is broken."""
        out = directory / f"out-{number}"
        done = self.command("restore", directory / "data", "--to", number, "-o", out, "-y")
        found, = (s for s in json.loads(
            self.command("snapshot", "list", "--json", directory / "data").stdout)
            if s["id"] == number)
        if found["state"] == "broken":
            assert found["trouble"] and done.returncode, (found, done)
            return False
        assert done.returncode in (0, 3), (found, done.stderr)
        taken = nanoseconds(found["time"])
        step, generation = max(((s, g) for time, s, g in run.begun if time <= taken),
                               default=(0, 0))
        copies = directory / "copies" / str(step)
        if not step:  # while the table of steps is made: any state that is one
            self.look(out, "")
            shutil.rmtree(out)
            return True
        assert self.look(out, "")[:2] == (step - 1, generation), (number, step, run)
        same = step not in run.failed and not (copies / "log").exists()
        if self.journal == "delete" and same:
            wrong = differing_pages((out / "chroma.sqlite3").read_bytes(),
                                    (copies / "database").read_bytes())
            assert not wrong, f"snapshot {number}, step {step}: {wrong[:20]}"
        elif step > 1:
            assert self.look(out, "")[2] == run.hashes[step - 1], (number, step, run)
        shutil.rmtree(out)
        return True

    def check(self, directory, run, whole, number, undone):
        """Pins before or after the next start, whose roll-backs must not change them."""
        rng = random.Random(number)
        if number % 2:
            good, broken = self.check_pins(directory, run, rng)
            self.check_live(directory, run, whole, undone)
        else:
            self.check_live(directory, run, whole, undone)
            good, broken = self.check_pins(directory, run, rng)
        if number % 8 == 0:
            again = self.run(directory, preload=self.shim)
            assert again.status == 0 and not again.failed, again
            assert self.look(directory / "data", "")[::2] == (STEPS, whole.hashes[STEPS]), again
        return good, broken


@pytest.fixture(scope="module")
def program(compiled):
    if not FAULTS.exists():
        pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
    return compiled("pinned", "-lsqlite3", "-ldl")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A directory of Chroma's in which nothing is stored yet."""
    path = tmp_path_factory.mktemp("start") / "data"
    hosts.chroma("venv", "-c", MAKE, path)
    return path


@pytest.fixture
def workload(program, start, shim, chromashim):
    return lambda durability, journal: Workload(program, start, shim, chromashim, durability,
                                                journal)


def wait_until_stopped(child):
    """At a fault, and not at the one before."""
    while child.poll() is None:
        state = open(f"/proc/{child.pid}/stat", encoding="ascii").read().rpartition(")")[2].split()[0]
        if state == "T":
            return
        time.sleep(0.01)
    raise AssertionError(f"ended with {child.returncode}")


def some(count, few):
    """All numbers from 1 to count, or a few of them."""
    stride = 1 if ALL else max(1, count // few)
    return range(1 + random.randrange(stride), count + 1, stride)


def each(workload, directory, kind, faults, undone, judge):
    """For each fault a run, and what must be so after it. Pins that were right, and broken."""
    counts, whole = workload.count(directory / "whole")

    def one(number):
        fault = faults(number)
        place = directory / str(number)
        workload.fresh(place)
        run = workload.run(place, fault)
        try:
            judge(run)
            found = workload.check(place, run, whole, number, undone)
        except AssertionError as e:
            raise AssertionError(f"{fault}: {e}") from e
        shutil.rmtree(place)
        return found

    numbers = some(counts[kind], DEATHS if kind == "kill" else ERRORS)
    with ThreadPoolExecutor(2 if ALL else 1) as pool:
        good, broken = (sum(column) for column in zip(*pool.map(one, numbers)))
    print(f"{kind}: {len(numbers)} runs, pins: {good} right, {broken} broken")
    return good, broken


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["power", "process"])
def test_stopped_for_seconds(tmp_path, workload, durability):
    """Between saving and writing, and before the write is told: it is not somebody else's."""
    w = workload(durability, "delete")
    counts, _ = w.count(tmp_path / "whole")
    first = random.randrange(counts["kill"] // 2, counts["kill"] - POINTS)
    children = {}
    try:
        for point in range(first, first + POINTS):
            place = tmp_path / str(point)
            w.fresh(place)
            children[place] = subprocess.Popen(
                w.arguments(place), env=w.environment(place / "data", FAULTS, f"stop:{point}"),
                stdout=subprocess.PIPE, text=True)
        for child in children.values():
            wait_until_stopped(child)
        time.sleep(2.3)  # more than the clocks of files are given
        for child in children.values():
            child.send_signal(signal.SIGCONT)
            time.sleep(0.05)
            wait_until_stopped(child)
        for place in children:
            done = w.command("snapshot", "list", "--json", place / "data")
            newest = json.loads(done.stdout)[-1]["id"]
            done = w.command("restore", place / "data", "--to", newest, "-o", place / "out", "-y")
            assert done.returncode in (0, 3), f"{place.name}: {done.stderr}"
    finally:
        for child in children.values():
            child.kill()
            child.communicate()


CASES = [("power", "delete"), ("process", "delete"), ("power", "wal")]


@pytest.mark.slow
@pytest.mark.parametrize("durability, journal", CASES)
def test_death(tmp_path, workload, durability, journal):
    def judge(run):
        assert run.status == -signal.SIGKILL, run

    good, broken = each(workload(durability, journal), tmp_path, "kill", "kill:{}".format, 1, judge)
    assert good > broken


@pytest.mark.slow
@pytest.mark.parametrize("how", ["once", "error"])
@pytest.mark.parametrize("what", ["sqlite", "own", "segments"])
@pytest.mark.parametrize("durability, journal", CASES)
def test_error(tmp_path, workload, durability, journal, what, how):
    """The shim's own errors are not the backend's; those of the backend's disk are told to it."""
    def fault(number):
        return f"{how}:{number}:{errno.ENOSPC if number % 3 else errno.EIO}:{what}"

    def judge(run):
        assert run.status in (0, 3), run
        assert what != "own" or (run.status == 0 and not run.failed), run

    each(workload(durability, journal), tmp_path, what, fault, 0, judge)


@pytest.mark.parametrize("durability, journal", CASES)
def test_first_pickle_cannot_be_opened(tmp_path, workload, durability, journal):
    """What a first persist has made is undone all the same: vectors without a pickle are a loss."""
    w = workload(durability, journal)
    w.fresh(tmp_path)
    run = w.run(tmp_path, f"error:1:{errno.EIO}:pickles")
    assert run.step and not run.generation, run
    w.check_live(tmp_path, run, run, 0)
    assert not any((tmp_path / "data").glob("*-*/*"))
