# SPDX-License-Identifier: MIT
"""A FastAPI backend with Chroma in the process, by uvicorn, under `chromashim run`."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import hosts

OVERLAY = hosts.BUILD / "fastapi"


@pytest.fixture
def serve(data, tmp_path):
    """Starts the backend; gives a function that asks it."""
    if not OVERLAY.exists():
        pytest.skip(f"{OVERLAY} is missing; run wrappers/setup check")
    shutil.copy(hosts.ROOT / "tests/e2e/fastapi_app.py", tmp_path)
    started = []

    def start(*options, log):
        port = hosts.free_port()
        env = hosts.environment({
            "APP_DATA": str(data), "CHROMASHIM_DURABILITY": "power", "CHROMASHIM_GUARD": "on",
            "PYTHONPATH": f"{OVERLAY}:{hosts.ROOT / 'wrappers' / 'python' / 'src'}"})
        with open(log, "w", encoding="utf-8") as output:
            started.append(subprocess.Popen(
                [hosts.COMMAND, "run", "--dir", data, "--", hosts.BUILD / "venv" / "bin" / "uvicorn",
                 "fastapi_app:api", "--port", str(port), *options],
                env=env, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True))

        def ask(path, method="GET"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method=method)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())

        end = time.monotonic() + 60
        while True:
            try:
                ask("notes")
                return ask
            except OSError:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)

    start.started = started
    yield start
    for child in started:
        try:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait(30)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def test_one_worker(serve, tmp_path, data, chromashim):
    """Protected operations are recorded, with the snapshot before them; nothing is said of it."""
    log = tmp_path / "log"
    ask = serve(log=log)
    assert ask("notes")["active"] == 1
    ask("notes/a", "POST")
    ask("rebuild", "POST")
    assert ask("notes")["count"] == 2
    assert "partial" not in log.read_text() and "Traceback" not in log.read_text()
    recorded = chromashim("log", "--calls", "--protected", data).stdout
    assert recorded.count("protect.begin conversation_add") == 1
    assert recorded.count("protect.begin rebuild") == 1 and recorded.count("protect.end") == 2
    end = time.monotonic() + 30
    while True:  # a pin is in the list as soon as the guardian has copied it
        listed = json.loads(chromashim("snapshot", "list", "--json", data).stdout or "[]")
        if any(s["description"] == "rebuild" for s in listed):
            break
        assert time.monotonic() < end, listed
        time.sleep(0.3)


def test_stopped(serve, tmp_path, data, chromashim):
    """uvicorn ends its graceful stop by sending itself the signal: no crash."""
    ask = serve(log=tmp_path / "log")
    pid = ask("notes/a", "POST")["pid"]
    os.kill(pid, signal.SIGTERM)
    serve.started[-1].wait(30)
    assert serve.started[-1].returncode == -signal.SIGTERM
    told = chromashim("log", "--last-crash", data).stdout
    assert f"the last backend (pid {pid}) was stopped by SIGTERM" in told, told
    ask = serve(log=tmp_path / "again")
    assert ask("notes")["count"] == 1
    assert "did not end by itself" not in (tmp_path / "again").read_text()


def test_four_workers(serve, tmp_path, data, chromashim):
    """All of them read; the first one to write is the writer, and the others are told so."""
    log = tmp_path / "log"
    ask = serve("--workers", "4", log=log)
    writers, refused, end = [], 0, time.monotonic() + 60
    while not (refused and writers):
        assert time.monotonic() < end, log.read_text()
        try:
            writers.append(ask(f"notes/n{len(writers)}", "POST")["pid"])
        except urllib.error.HTTPError as e:
            assert e.code == 500
            refused += 1
    assert len(set(writers)) == 1, "one writer"
    assert all(ask("notes")["count"] == len(writers) for _ in range(12)), "whoever answers"
    refusals = [line for line in log.read_text().splitlines() if "writing is refused" in line]
    assert f"process {writers[0]} " in refusals[0]
    assert "only one process may write at a time" in refusals[0]
    assert chromashim("check", data).returncode == 0


def test_reload(serve, tmp_path, data):
    """The old process has let go of the directory when the new one wants it."""
    log = tmp_path / "log"
    ask = serve("--reload", log=log)
    first = ask("notes/a", "POST")["pid"]
    app = tmp_path / "fastapi_app.py"
    app.write_text(app.read_text() + "\n# changed\n", encoding="utf-8")
    end, pid = time.monotonic() + 60, first
    while pid == first:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.3)
        try:
            pid = ask("notes/b", "POST")["pid"]
        except OSError:
            pass
    assert ask("notes")["count"] == 2
    assert "writing is refused" not in log.read_text()
