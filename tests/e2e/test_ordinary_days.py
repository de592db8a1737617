# SPDX-License-Identifier: MIT
"""Ordinary days with small loads: nothing that is said afterwards needs an answer."""

import shutil
import signal
import subprocess
import time

import pytest

import hosts
from test_run_guardian import guardians, wait_until

# A backend that answers to SIGINT as most do; 0.6 and 1.x.
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
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(float(sys.argv[3]))
"""


# What is a fact of such days, by where it is said; a record of a log is one as well.
FACTS = {
    "stderr": (": fine, ", "no Chroma data in it yet", "is still in use: pid",
               "was ended between two calls, and what it had begun is put right"),
    "check": (),
    "failed": (),
    "crash": ("ended by itself at", "was stopped by", "last heard of at",
              "killed by a signal", "nothing was cut off", "its last 10 seconds",
              "the last that did not end", "  = ", "no backend has ended yet"),
    "status": ("protected     pid", "the writer, ", "SQLite 3.", "records, ", " to 20",
               "no record of the log", " verified", "guardian      pid",
               "guardian      one is about to take over", "none is running\n",
               "no process works on this directory now"),
}


def needs_an_answer(source, line):
    return not any(fact in line + "\n" for fact in FACTS[source])


@pytest.fixture
def days(tmp_path, data, chromashim):
    """Each call is a day's backend, started under `run` with a library of its own."""
    library, lines, started = tmp_path / "libchromashim.so", [], []
    env = hosts.environment({"CHROMASHIM_GUARD": "on", "CHROMASHIM_BALLAST": "1M",
                             "CHROMASHIM_LOG_SIZE": "4M"})

    class Days:
        day = 0

        def install(self):
            """Another file in the library's place, as a package manager does."""
            new = library.with_suffix(".new")
            shutil.copy(hosts.SHIM, new)
            new.rename(library)

        def start(self, *more):
            child = subprocess.Popen(
                [hosts.COMMAND, "run", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={library}",
                 "--", self.python, "-c", BACKEND, data, str(self.day), *map(str, more)],
                env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.day += 1
            started.append(child)
            return child

        def up(self, child):
            line = child.stdout.readline()
            assert line == "up\n", child.stderr.read()
            return child

        def end(self, child, number=None):
            """As pm2 does: SIGINT, and SIGKILL when 1.6 s were not enough."""
            if number:
                child.send_signal(number)
            try:
                child.wait(1.6 if number else 60)
            except subprocess.TimeoutExpired:
                child.kill()
            self.keep("stderr", child.communicate()[1])

        def keep(self, source, text):
            lines.extend((source, line) for line in text.splitlines() if line.strip())

        def look(self, works):
            """What is seen on any such day; status --check is fine while a backend works."""
            done = chromashim("check", data)
            assert done.returncode == 0, done.stdout + done.stderr
            self.keep("check", done.stderr)
            crash = chromashim("log", "--last-crash", data)
            self.keep("crash", crash.stdout + crash.stderr)
            failed = chromashim("log", "--failed", data)
            self.keep("failed", failed.stdout + failed.stderr)
            self.keep("status", chromashim("status", data).stdout)
            if works:
                verdict = chromashim("status", "--check", data)
                assert verdict.returncode == 0, verdict.stdout

    found = Days()
    found.install()
    found.lines = lines
    yield found
    for child in started:
        child.kill()
        child.communicate()
    wait_until(lambda: not guardians(data))


@pytest.mark.parametrize("python", ["venv", "venv-0.6"])
def test_nothing_needs_an_answer(days, data, python):
    days.python = hosts.python(python)
    if not days.python.exists():
        pytest.skip("no such Chroma here")
    days.end(days.start("ends"))
    days.look(works=False)
    first = days.up(days.start("0.8"))
    wait_until(lambda: list((data / ".chromashim/snapshots").glob("*.manifest")))
    days.look(works=True)
    days.install()
    # The next one begins while this one ends.
    first.send_signal(signal.SIGINT)
    second = days.start("30")
    days.end(first)
    days.up(second)
    days.look(works=True)
    days.end(second, signal.SIGINT)
    days.look(works=False)
    third = days.up(days.start("0"))
    days.look(works=True)
    days.end(third, signal.SIGINT)
    wait_until(lambda: not guardians(data))
    days.look(works=False)
    alarms = [line for line in days.lines if needs_an_answer(*line)]
    assert alarms == []
