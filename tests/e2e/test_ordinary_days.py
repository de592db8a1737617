# SPDX-License-Identifier: MIT
"""Ordinary days with small loads: nothing that is said afterwards needs an answer.

A day's backend ends by itself, is asked to end or is killed, while the next one begins already or
later; it has readers beside it, lives in a container, and meets another library or another Chroma.
CHROMASHIM_TEST_DAYS=200 has that many of them instead of five; tests/torture.py sets it.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import hosts
from test_run_guardian import guardians, wait_until

# Of 0.6 and of 1.x: a backend that answers to SIGINT and SIGTERM as most do, and a reader.
BACKEND = """
import signal, sys, time
import chromadb
day = int(sys.argv[2])
c = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("days")
def vectors(n, of): return [[float(of + i), 1.0, float(i % 7)] for i in range(n)]
ids = [f"{day}-{i}" for i in range(20)]
c.add(ids=ids, embeddings=vectors(20, day), documents=["a day"] * 20)
c.update(ids=ids[:5], embeddings=vectors(5, day + 100))
c.delete(ids=ids[-3:])
assert len(c.get(ids=ids)["ids"]) == 17
c.query(query_embeddings=[[1.0, 1.0, 1.0]], n_results=3)
assert c.count() == 17 * (day + 1)
print("up", flush=True)
if "ends" not in sys.argv:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(float(sys.argv[3]))
"""
READER = """
import sys
import chromadb
c = chromadb.PersistentClient(sys.argv[1]).get_collection("days")
day = int(sys.argv[2])
assert c.count() == 17 * (day + 1), c.count()
assert len(c.get(ids=[f"{day}-{i}" for i in range(20)])["ids"]) == 17
assert len(c.query(query_embeddings=[[1.0, 1.0, 1.0]], n_results=3)["ids"][0]) == 3
"""
# The first process of a container, as dumb-init; the directory is a volume of another name.
CONTAINER = """
mount --bind "$0" "$1" || exit
shift
trap 'kill -TERM $child' TERM
"$@" & child=$!
wait $child; wait $child
"""
ENTER = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
         "--mount-proc"]

DAYS = int(os.environ.get("CHROMASHIM_TEST_DAYS", "5"))
# Which Chroma a day has: each of its releases as long as the others.
LIVES = {"1.5.9": ["venv"], "0.6.3": ["venv-0.6"], "upgrades": ["venv-0.6", "venv-1.0", "venv"]}

# What is a fact of such days, by where it is said; a record of a log is one as well.
FACTS = {
    "stderr": (": fine, ", " will migrate the database; snapshot ", "no Chroma data in it yet",
               "is still in use: pid",
               "was ended between two calls, and what it had begun is put right"),
    "check": (),
    "failed": (),
    "crash": ("ended by itself at", "was stopped by", "last heard of at",
              "killed by a signal", "nothing was cut off", "its last 10 seconds",
              "the last that did not end", "  = ", "  txn.", "  persist.", "  log.",
              "  snapshot.", "no backend has ended yet",
              "Last:      the last write", "Last:      its last transaction was committed",
              "In flight: nothing", "had the directory open", " would be lost", " older ones",
              "Snapshots: there are none"),
    "status": ("protected     pid", "the writer, ", "SQLite 3.", "records, ", " to 20",
               "no record of the log", " verified", "guardian      pid",
               "guardian      one is about to take over", "none is running\n", "engine.changed: ",
               "no process works on this directory now"),
}


def needs_an_answer(source, line):
    return not any(fact in line + "\n" for fact in FACTS[source])


def has_containers():
    return os.geteuid() == 0 and not subprocess.run(
        [*ENTER, "true"], capture_output=True, check=False).returncode


class Days:
    """Each start is a day's backend under `run`, with a library of its own."""

    def __init__(self, tmp_path, data, chromashim):
        self.data, self.chromashim = data, chromashim
        installed, self.volume = tmp_path / "installed", tmp_path / "volume"
        self.library = installed / "libchromashim.so"
        for made in (installed, self.volume):
            made.mkdir()
        (installed / "chromashim").symlink_to(hosts.COMMAND)
        self.lines, self.started, self.kills, self.day, self.python = [], [], [], 0, None
        self.env = hosts.environment({"CHROMASHIM_GUARD": "on", "CHROMASHIM_BALLAST": "1M",
                                      "CHROMASHIM_LOG_SIZE": "4M"})

    def install(self):
        """Another file in the library's place, as a package manager does."""
        new = self.library.with_suffix(".new")
        shutil.copy(hosts.SHIM, new)
        new.rename(self.library)

    def start(self, *more, container=False):
        data = self.volume if container else self.data
        words = [hosts.COMMAND, "run", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={self.library}",
                 "--", self.python, "-c", BACKEND, data, str(self.day), *map(str, more)]
        if container:
            words = [*ENTER, "sh", "-uc", CONTAINER, self.data, self.volume, *words]
        child = subprocess.Popen(words, env=self.env, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        self.day += 1
        self.started.append(child)
        return child

    def up(self, child):
        line = child.stdout.readline()
        assert line == "up\n", child.stderr.read()
        return child

    def end(self, child, number=None):
        """As pm2 does: a signal, and SIGKILL when 1.6 s were not enough."""
        if number:
            child.send_signal(number)
        try:
            child.wait(1.6 if number else 60)
        except subprocess.TimeoutExpired:
            child.kill()
            self.kills.append(time.monotonic())
        self.keep("stderr", child.communicate()[1])

    def end_container(self, child):
        """SIGTERM to its first process; what is left then dies with it."""
        first = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text())
        os.kill(first, signal.SIGTERM)
        self.end(child)

    def read(self):
        """Another process with the library, beside the backend of the day. One of Chroma before
        1.0 is told at its open that it is for reading only."""
        if self.python == hosts.python("venv-0.6"):
            return
        done = subprocess.run([self.python, "-c", READER, self.data, str(self.day - 1)],
                              env={**self.env, "LD_PRELOAD": str(self.library)}, timeout=60,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.keep("stderr", done.stderr)

    def keep(self, source, text):
        self.lines.extend((source, f"day {self.day}: {line}") for line in text.splitlines()
                          if line.strip())

    def look(self, works):
        """What is seen on any such day; status --check is fine while a backend works."""
        done = self.chromashim("check", self.data)
        assert done.returncode == 0, done.stdout + done.stderr
        self.keep("check", done.stderr)
        crash = self.chromashim("log", "--last-crash", self.data)
        self.keep("crash", crash.stdout + crash.stderr)
        for what in ("--acts", "--calls"):
            failed = self.chromashim("log", "--failed", what, self.data)
            self.keep("failed", failed.stdout + failed.stderr)
        # The guardian takes the first one when it gets to it, which may be after the end.
        wait_until(lambda: any((self.data / ".chromashim/snapshots").glob("*.manifest")))
        status = self.chromashim("status", self.data).stdout.splitlines(True)
        self.keep("status", "".join(line for line in status if not self.is_loop(line)))
        if works:
            told = json.loads(self.chromashim("status", "--json", self.data).stdout)["alarms"]
            alarms = [alarm["what"] for alarm in told]
            assert [what for what in alarms if not self.is_loop(what)] == [], f"day {self.day}"
            verdict = self.chromashim("status", "--check", self.data)
            assert alarms or verdict.returncode == 0, verdict.stdout

    def is_loop(self, what):
        """These days take seconds: three that end by SIGKILL are a loop of crashes, for a day."""
        return ("crash loops in the last" in what or "crash.loop: " in what) and any(
            later - first < 700 for first, later in zip(self.kills, self.kills[2:]))


@pytest.fixture
def days(tmp_path, data, chromashim):
    found = Days(tmp_path, data, chromashim)
    found.install()
    yield found
    for child in found.started:
        child.kill()
        child.communicate()
    wait_until(lambda: not guardians(data))


def first_days(days, data):
    days.end(days.start("ends"))
    days.look(works=False)
    first = days.up(days.start("0.8"))
    wait_until(lambda: list((data / ".chromashim/snapshots").glob("*.manifest")))
    days.look(works=True)
    days.install()
    reload(days, first)
    days.look(works=False)


def reload(days, first):
    """The next one begins while this one ends."""
    first.send_signal(signal.SIGINT)
    second = days.start("30")
    days.end(first)
    days.up(second)
    days.look(works=True)
    days.end(second, signal.SIGINT)


def ordinary_day(days, data, last):
    """Of stops each third takes too long, of libraries each fourth is another one afterwards, of
    starts each fifth is a container's, and each fifth does not wait for the guardian's work."""
    today = days.day
    reloads = today % 11 == 10
    if today % 5 == 3 and has_containers():
        backend = days.up(days.start("0", container=True))
        days.look(works=True)
        days.end_container(backend)
        days.look(works=False)
        return
    backend = days.up(days.start("30" if today % 3 == 0 and not reloads else "0"))
    if today % 5 == 4:
        days.read()
    days.look(works=True)
    if reloads:
        reload(days, backend)
    else:
        days.end(backend, signal.SIGTERM if today % 2 else signal.SIGINT)
    if today % 4 == 3:
        days.install()
    if today % 5 != 1 or last:
        wait_until(lambda: not guardians(data))
        days.look(works=False)


@pytest.mark.parametrize("life", LIVES)
def test_nothing_needs_an_answer(days, data, life):
    pythons = [python for python in map(hosts.python, LIVES[life]) if python.exists()]
    if hosts.python(LIVES[life][-1]) not in pythons or len(pythons) < min(2, len(LIVES[life])):
        pytest.skip("no such Chroma here")
    days.python = pythons[0]
    count = DAYS if len(pythons) == 1 else DAYS * 3 // 5
    if len(pythons) == 1:
        first_days(days, data)
    while days.day < count:
        days.python = pythons[days.day * len(pythons) // count]
        ordinary_day(days, data, days.day == count - 1)
    alarms = [line for line in days.lines if needs_an_answer(*line)]
    assert alarms == []
