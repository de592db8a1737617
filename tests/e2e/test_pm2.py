# SPDX-License-Identifier: MIT
"""Real pm2 with wrappers/ecosystem.config.js and wrappers/chromashim-launch."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

import hosts
import pm2 as pm2s

LAUNCH = hosts.ROOT / "wrappers" / "chromashim-launch"


@pytest.fixture
def pm2(data):
    if not pm2s.PM2.exists():
        pytest.skip(f"{pm2s.PM2} is missing; run wrappers/setup check")
    started = []

    def make(changes=""):
        started.append(pm2s.Pm2(data, changes))
        return started[-1]

    yield make
    for each in started:
        each.close()


def test_restarts_under_load(pm2, data, chromashim):
    """Stop, restart, reload and kill -9: every acknowledged record is there, one guardian, no
    orphan, no zombie, no stale lock. `make torture` does more of them."""
    manager = pm2()
    manager.start()
    load = pm2s.cycles(manager, 6)
    assert len(load.acknowledged) > 500
    assert load.wrong() == []

    # What pm2 shows is the backend's own.
    state = manager.state()
    assert state["pid"] == manager.backends()[0]
    rss = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{state['pid']}/status").read_text())[1])
    assert state["monit"]["memory"] / 1024 > rss / 2 > 20000
    assert (state["pm2_env"]["kill_timeout"], state["pm2_env"]["treekill"]) == (60000, False)
    row = next(line for line in manager("list").splitlines() if f"│ {pm2s.NAME} " in line)
    cells = [cell.strip() for cell in row.split("│")]
    assert {pm2s.NAME, str(state["pid"]), "online", str(state["pm2_env"]["restart_time"])} <= set(cells)
    megabytes = float(next(cell for cell in cells if cell.endswith("mb")).removesuffix("mb"))
    assert megabytes > rss / 1024 / 2, "pm2 list shows the backend's memory"
    assert "Saving data to" in manager("logs", pm2s.NAME, "--nostream", "--lines", "20000")
    said = manager("logs", pm2s.NAME, "--nostream", "--lines", "2000", "--err")
    assert f"chromashim: {data}: " in said, "a line is not cut in pieces"

    manager("stop", pm2s.NAME)
    # The guardian ends soon, with a snapshot of the clean stop; then nothing has the directory.
    pm2s.wait_until(lambda: not manager.guardians(), 60)
    status = json.loads(chromashim("status", "--json", data).stdout)
    assert not any(p.get("alive") for p in status.get("processes", [])), status
    assert chromashim("check", data).returncode == 0
    reasons = [s["reason"] for s in json.loads(chromashim("snapshot", "list", "--json", data).stdout)]
    assert reasons, "a clean stop leaves a snapshot"


def test_max_memory_restart(pm2, data):
    """By the backend's own memory: chromashim alone never has so much."""
    # It may be told to stop while Python still imports, which Python does not always heed.
    manager = pm2("max_memory_restart: '30M', kill_timeout: 3000")
    manager.env["PM2_WORKER_INTERVAL"] = "1000"
    manager("start", manager.config)
    log = manager.home / "pm2.log"
    pm2s.wait_until(lambda: re.search(r"exceed.*memory", log.read_text()), 60, "for the limit")
    pm2s.wait_until(lambda: manager.state()["pm2_env"]["restart_time"] >= 1, 60, "for a restart")


def test_a_child_that_ends_late(tmp_path):
    """None of the restarts is refused, and each stop has its snapshot. `make torture` has 50, of
    8 s each."""
    if not pm2s.PM2.exists():
        pytest.skip(f"{pm2s.PM2} is missing; run wrappers/setup check")
    assert "another process works on" not in pm2s.late_restarts(tmp_path, 2, 0)


def launch(*words, env=None, **how):
    settings = {"CHROMASHIM_COMMAND": str(hosts.COMMAND), **(env or {})}
    return subprocess.run([LAUNCH, *map(str, words)], env=hosts.environment(settings),
                          capture_output=True, text=True, timeout=60, check=False, **how)


def test_launch_becomes_the_command(data):
    script = "import os; print(os.getpid()); print(open('/proc/self/maps').read()); os._exit(7)"
    with subprocess.Popen([LAUNCH, hosts.python("venv"), "-c", script], stdout=subprocess.PIPE,
                          text=True, cwd=data.parent, stderr=subprocess.PIPE,
                          env=hosts.environment({"CHROMASHIM_DIR": str(data),
                                                 "CHROMASHIM_COMMAND": str(hosts.COMMAND)})) as child:
        out, _ = child.communicate(timeout=60)
    assert out.splitlines()[0] == str(child.pid)
    assert "libchromashim" in out
    assert child.returncode == 7


def test_launch_does_not_start_unprotected_unless_asked(tmp_path):
    nothing = {"CHROMASHIM_COMMAND": str(tmp_path / "chromashim"), "CHROMASHIM_DIR": str(tmp_path)}
    done = launch("echo", "started", env=nothing)
    assert (done.returncode, done.stdout) == (127, "")
    assert "'echo' is not started, since nothing would be protected" in done.stderr
    for words, env in ((["--unprotected", "echo", "started"], {}),
                       (["echo", "started"], {"CHROMASHIM_UNPROTECTED": "1"})):
        done = launch(*words, env={**nothing, **env})
        assert (done.returncode, done.stdout) == (0, "started\n")
        assert "UNPROTECTED, as asked" in done.stderr
    # The library is missing: the same.
    lost = {"CHROMASHIM_LIBRARY": str(tmp_path / "none.so"), "CHROMASHIM_DIR": str(tmp_path)}
    done = launch(hosts.python("venv"), "-c", "print('started')", env=lost)
    assert "started\n" != done.stdout and done.returncode == 1, done
    assert launch().returncode == 2
