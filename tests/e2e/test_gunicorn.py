# SPDX-License-Identifier: MIT
"""Real gunicorn under `run`, with the client made before the fork and after it: who writes, what
the others are told, workers that are killed, recycled and reloaded, and the snapshot at the stop."""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

import hosts
from test_run_guardian import guardians, wait_until

OVERLAY = hosts.BUILD / "fastapi"
# MADE=early: the client is made when the module is imported, which --preload does in the arbiter.
APP = """
import os, threading
import chromadb
lock, made = threading.Lock(), []
def books():
    with lock:
        if not made:
            made.append(chromadb.PersistentClient("./chroma_db"))
    return made[0].get_or_create_collection("books", embedding_function=None)
if os.environ["MADE"] == "early":
    books()
def app(environ, start):
    name = environ["PATH_INFO"].strip("/")
    try:
        if name.startswith("add-"):
            books().upsert(ids=[name], embeddings=[[1.0, 2.0]], documents=[name])
        said = sorted(books().get()["ids"])
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    start("200 OK", [("Content-Type", "text/plain")])
    import json
    return [json.dumps([os.getpid(), said]).encode()]
"""


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Gunicorn:
    def __init__(self, folder, venv, made, options):
        self.folder, self.data = folder, folder / "chroma_db"
        (folder / "wsgi.py").write_text(APP)
        self.env = hosts.environment({
            "CHROMASHIM_GUARD": "on", "XDG_STATE_HOME": str(folder / "state"), "MADE": made,
            "HOME": str(folder), "PYTHONPATH": f"{OVERLAY}:{folder}"})
        with open(folder / "log", "w", encoding="utf-8") as log:
            self.child = subprocess.Popen(
                [hosts.COMMAND, "run", "--", hosts.python(venv), "-m", "gunicorn", "-b",
                 "unix:socket", "--graceful-timeout", "2", *options, "wsgi:app"], cwd=folder,
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        self.wait_until(lambda: self.ask("") and True)

    def log(self):
        return (self.folder / "log").read_text()

    def wait_until(self, true):
        end = time.monotonic() + 90
        while True:
            try:
                if true():
                    return
            except (OSError, http.client.HTTPException):
                pass  # between two workers
            assert self.child.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.05)

    def ask(self, name):
        connection = Unix(self.folder / "socket")
        try:
            connection.request("GET", f"/{name}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def add(self, name):
        """Until a worker takes it. Who that was, and what others have said."""
        refused = {}

        def is_in():
            pid, said = self.ask(f"add-{name}")
            if isinstance(said, list):
                refused["writer"] = pid
                return f"add-{name}" in said
            refused[pid] = said
            return False

        self.wait_until(is_in)
        return refused.pop("writer"), refused

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)
        wait_until(lambda: not guardians(self.data), 60)


@pytest.fixture
def gunicorn(tmp_path):
    started = []

    def start(venv, made, *options):
        if not (OVERLAY / "gunicorn").exists() or not hosts.python(venv).exists():
            pytest.skip(f"{OVERLAY}/gunicorn or {venv} is missing; run wrappers/setup check")
        started.append(Gunicorn(tmp_path, venv, made, options))
        return started[-1]

    yield start
    for made in started:
        if made.child.poll() is None:
            os.killpg(made.child.pid, signal.SIGKILL)
            made.child.wait()
        wait_until(lambda made=made: not guardians(made.data), 60)


def last_snapshot(chromashim, data):
    return json.loads(chromashim("snapshot", "list", "--json", data).stdout)[-1]


def check_end(g, chromashim, names):
    """All is there, in one directory that is whole, and the stop has its verified snapshot."""
    g.stop()
    snapshot = last_snapshot(chromashim, g.data)
    assert (snapshot["reason"], snapshot["state"]) == ("stop", "verified"), snapshot
    assert chromashim("check", g.data).returncode == 0
    lines = chromashim("export", g.data).stdout.splitlines()
    ids = {record["id"] for record in map(json.loads, lines) if "id" in record}
    assert ids == {f"add-{name}" for name in names}


def test_a_client_from_before_the_fork(gunicorn, chromashim):
    """0.6.3, since a client of 1.x from before the fork has no threads in the child."""
    g = gunicorn("venv-0.6", "early", "--preload", "-w", "1")
    worker, refused = g.add("1")
    assert not refused and worker != g.child.pid, g.log()
    os.kill(worker, signal.SIGKILL)
    again, refused = g.add("2")
    assert again != worker and not refused, g.log()
    g.child.send_signal(signal.SIGHUP)
    g.wait_until(lambda: g.ask("")[0] != again)
    g.add("3")  # refused as long as the old worker is there
    check_end(g, chromashim, "123")


def test_two_workers_with_a_client_from_before_the_fork(gunicorn, chromashim):
    g = gunicorn("venv-0.6", "early", "--preload", "-w", "2")
    writer, refused = g.add("1")
    assert not refused
    g.wait_until(lambda: any(pid != writer for pid in (g.ask("add-2")[0] for _ in range(4))))
    g.add("2")
    told = [line for line in g.log().splitlines() if "writing is refused" in line]
    assert len(told) == 1 and f"process {writer} " in told[0], g.log()
    assert "make the client after the fork" in told[0]
    check_end(g, chromashim, "12")


def test_workers_with_their_own_clients(gunicorn, chromashim):
    g = gunicorn("venv", "late", "-w", "2")
    writer, _ = g.add("1")
    seen = {}

    def all_have_read():
        pid, said = g.ask("")
        seen[pid] = said
        return len(seen) == 2

    g.wait_until(all_have_read)
    assert set(map(str, seen.values())) == {"['add-1']"}, seen
    g.wait_until(lambda: g.ask("add-2")[0] != writer)
    assert f"process {g.child.pid} has started both" in g.log(), g.log()
    # The arbiter starts another in its place; the readers read on.
    os.kill(writer, signal.SIGKILL)
    after, _ = g.add("2")
    assert after != writer
    assert g.ask("")[1] == ["add-1", "add-2"]
    g.child.send_signal(signal.SIGHUP)
    g.wait_until(lambda: g.ask("")[0] not in {*seen, after})
    g.add("3")
    check_end(g, chromashim, "123")


def test_preloaded_with_clients_of_the_workers(gunicorn, chromashim):
    """Whoever writes first has the right, and passes it on at each reload; all of it is guarded."""
    g = gunicorn("venv", "late", "--preload", "-w", "4")
    writer, _ = g.add("1")
    wait_until(lambda: len(guardians(g.data)) == 1)
    g.wait_until(lambda: any(snapshot["state"] == "verified" for snapshot in
                             json.loads(chromashim("snapshot", "list", "--json", g.data).stdout)))
    before = {writer}
    g.wait_until(lambda: before.add(g.ask("")[0]) or len(before) == 4)
    status = json.loads(chromashim("status", "--json", g.data).stdout)
    assert before <= {process["pid"] for process in status["processes"]}, (before, status)
    assert status["protected"] and not status["unprotected"], status
    for name in "23":
        g.child.send_signal(signal.SIGHUP)
        g.wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))
        before = {g.add(name)[0]}
        g.wait_until(lambda: before.add(g.ask("")[0]) or len(before) == 4)
        assert len(guardians(g.data)) == 1
    check_end(g, chromashim, "123")


def test_recycled_workers(gunicorn, chromashim):
    """Each worker ends after three requests."""
    g = gunicorn("venv", "late", "-w", "1", "--max-requests", "3")
    names = [str(n) for n in range(7)]
    writers = set()
    for name in names:
        writer, refused = g.add(name)
        writers.add(writer)
        assert not refused, (refused, g.log())
    assert len(writers) >= 2
    check_end(g, chromashim, names)
