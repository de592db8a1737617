# SPDX-License-Identifier: MIT
"""Backends as people start them, with the directory's name in their code: what `run` cannot know.

The first start has a guardian and a verified snapshot; the second one is looked at before, and what
is broken is healed before Chroma reads it.
"""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest

import hosts
from test_run_guardian import guardians, wait_until

OVERLAY = hosts.BUILD / "fastapi"
# What each of its processes sees is in a file of its own.
STORE = """
import os
import chromadb
client = chromadb.PersistentClient("./chroma_db")
books = client.get_or_create_collection("books", configuration={"hnsw": {"sync_threshold": 100}})
if "FIRST" in os.environ:
    books.add(ids=[str(n) for n in range(250)], embeddings=[[float(n), 1.0] for n in range(250)])
try:
    got = books.get(include=["embeddings"])
    wrong = sum(e[0] != float(i) for i, e in zip(got["ids"], got["embeddings"]))
    near = books.query(query_embeddings=[[77.2, 1.0]], n_results=1)["ids"]
    said = f"{len(got['ids'])} {wrong} {near}"
except Exception as error:
    said = f"{type(error).__name__}: {error}"
with open(f"said.{os.getpid()}.new", "w") as out:
    out.write(said)
os.rename(f"said.{os.getpid()}.new", f"said.{os.getpid()}")
"""
FINE = "250 0 [['77']]"
WAITS = STORE + "import time\ntime.sleep(600)\n"
API = "import store\nfrom fastapi import FastAPI\napi = FastAPI()\n"
# A master that holds nothing, as gunicorn's; it passes on its end.
PREFORK = """
import os, signal
workers = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        import waits
    workers.append(pid)
def end(*_):
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
signal.signal(signal.SIGTERM, end)
for pid in workers:
    os.waitpid(pid, 0)
"""
NODE = """
const child = require("child_process").spawn(process.argv[2], ["waits.py"], {stdio: "inherit"});
process.on("SIGTERM", () => child.kill("SIGTERM"));
child.on("exit", () => process.exit(0));
"""
SUPERVISOR = """trap 'kill $child; wait; exit 0' TERM
while :; do "$0" waits.py & child=$!; wait $child; done"""

# The client after the fork: one of 1.x from before has no threads in the worker.
CONFIGURATION = """
import chromadb
def post_fork(server, worker):
    import store
"""
WSGI = "def app(environ, start):\n    start('204 No Content', [])\n    return []\n"
GUNICORN = ["{python}", "-m", "gunicorn", "-b", "unix:socket", "-w", "4", "-c", "forked.py"]
UVICORN = ["{venv}/uvicorn", "api:api", "--uds", "socket"]
KINDS = {
    "fastapi": (UVICORN, 1),
    "four-workers": ([*UVICORN, "--workers", "4"], 4),
    "gunicorn": ([*GUNICORN, "wsgi:app"], 4),
    "gunicorn-preload": ([*GUNICORN, "--preload", "wsgi:app"], 4),
    "prefork": (["{python}", "prefork.py"], 2),
    "node": (["node", "service.js", "{python}"], 1),
    "launcher": (["sh", "-c", "exec env A=b \"$0\" -u waits.py", "{python}"], 1),
    "supervisor": (["sh", "-c", SUPERVISOR, "{python}"], 1),
}


class Backend:
    def __init__(self, words, folder):
        self.words, self.folder, self.child = words, folder, None
        self.data = folder / "chroma_db"
        self.env = hosts.environment({
            "CHROMASHIM_GUARD": "on", "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": f"{OVERLAY}:{folder}", "CHROMASHIM_WAIT": "60s"})

    def start(self):
        with open(self.folder / "log", "w", encoding="utf-8") as log:
            self.child = subprocess.Popen(
                [hosts.COMMAND, "run", "--", *self.words], cwd=self.folder, env=self.env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def log(self):
        return (self.folder / "log").read_text()

    def said(self):
        return [f.read_text() for f in self.folder.glob("said.*") if f.suffix != ".new"]

    def wait_until_said(self, count):
        end = time.monotonic() + 90
        while len(self.said()) < count:
            assert self.child.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.05)
        return self.said()

    def stop(self):
        """As a manager does: the signal goes to the process that it knows."""
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(60)
        wait_until(lambda: not guardians(self.data), 60)
        for file in self.folder.glob("said.*"):
            file.unlink()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with a directory of 250 records whose index has been persisted."""
    hosts.BY_NAME["python"].require()
    folder = tmp_path_factory.mktemp("filled")
    subprocess.run([hosts.python("venv"), "-c", STORE], cwd=folder, check=True, timeout=120,
                   env=hosts.environment({"FIRST": "1"}))
    said, = folder.glob("said.*")
    assert said.read_text() == FINE
    said.unlink()
    return folder


@pytest.fixture
def backend(filled, tmp_path, request):
    words, count = KINDS[request.param]
    if request.param in ("fastapi", "four-workers", "gunicorn", "gunicorn-preload") and not OVERLAY.exists():
        pytest.skip(f"{OVERLAY} is missing; run wrappers/setup check")
    if request.param == "node" and not shutil.which("node"):
        pytest.skip("no node here")
    folder = tmp_path / "app"
    shutil.copytree(filled, folder)
    for name, text in (("store.py", STORE), ("waits.py", WAITS), ("api.py", API),
                       ("prefork.py", PREFORK), ("service.js", NODE), ("wsgi.py", WSGI),
                       ("forked.py", CONFIGURATION)):
        (folder / name).write_text(text)
    words = [word.replace("{python}", str(hosts.python("venv")))
             .replace("{venv}", str(hosts.python("venv").parent)) for word in words]
    made = Backend(words, folder)
    made.count = count
    yield made
    if made.child.poll() is None:
        os.killpg(made.child.pid, signal.SIGKILL)
        made.child.wait()
    wait_until(lambda: not guardians(made.data), 60)


def is_verified(chromashim, data):
    listed = json.loads(chromashim("snapshot", "list", "--json", data).stdout or "[]")
    return any(s["state"] == "verified" for s in listed)


@pytest.mark.parametrize("backend", KINDS, indirect=True)
def test_whole_protection(backend, chromashim):
    backend.start()
    assert backend.wait_until_said(backend.count) == [FINE] * backend.count, backend.log()
    wait_until(lambda: len(guardians(backend.data)) == 1)
    wait_until(lambda: is_verified(chromashim, backend.data), 60)
    status = json.loads(chromashim("status", "--json", backend.data).stdout)
    here = {int(f.suffix[1:]) for f in backend.folder.glob("said.*")}
    assert status["protected"] and not status["unprotected"], status
    assert here <= {p["pid"] for p in status["processes"]}, (here, status)
    backend.stop()
    # Of the next start, the same command, the directory is known.
    header, = backend.data.glob("*/header.bin")
    header.write_bytes(b"\xff" * 64 + header.read_bytes()[64:])
    backend.start()
    assert backend.wait_until_said(backend.count) == [FINE] * backend.count, backend.log()
    assert "healing it on a copy" in backend.log()
    backend.stop()
    assert chromashim("check", backend.data).returncode == 0
