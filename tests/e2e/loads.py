# SPDX-License-Identifier: MIT
"""A load on real Chroma while snapshots are taken, and what the snapshots must hold of it."""

import json
import os
import signal
import subprocess
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import hosts
from snapshots_load import SIZE

LOAD = Path(__file__).with_name("snapshots_load.py")


class Load:
    """Upserts in a process of its own; what was acknowledged, and when."""

    def __init__(self, host, target, preload="", env=None, batches=None):
        env = hosts.environment({"LD_PRELOAD": preload, **(env or {})})
        number = [] if batches is None else [str(batches)]
        self.child = subprocess.Popen(
            [str(hosts.python(host.driver)), str(LOAD), "load", target, *number],
            env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.acknowledged = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            first, moment = map(int, line.split())
            assert first == len(self.acknowledged) * SIZE
            self.acknowledged.append(moment)

    def wait_for(self, batches):
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < batches:
            assert time.monotonic() < deadline and self.child.poll() is None
            time.sleep(0.02)

    def end(self):
        """The load has a number of batches: it ends by itself, and closes what it has open."""
        assert self.child.wait(60) == 0
        self.reader.join(10)
        return len(self.acknowledged)

    def stop(self):
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.reader.join(10)

    def before(self, moment):
        return sum(1 for m in self.acknowledged if m <= moment)


def listed(chromashim, data):
    done = chromashim("snapshot", "list", "--json", data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def nanoseconds(text):
    whole, fraction = text.rstrip("Z").split(".")
    moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 10**9 + int(fraction)


def answers(host, directories):
    """directories: path -> number of batches it must have."""
    words = [f"{path}={batches}" for path, batches in directories.items()]
    said = hosts.chroma(host.driver, LOAD, "check", *words, timeout=1200)
    return dict(zip(directories, map(json.loads, said.splitlines())))


def check_all(chromashim, tmp_path, data, load, host):
    """Every one that says verified is restored, and real Chroma has in it what it must have."""
    expected = {}
    for snapshot in listed(chromashim, data):
        if snapshot["state"] != "verified":
            continue
        out = tmp_path / f"out-{snapshot['id']}"
        done = chromashim("restore", "--to", snapshot["id"], "-o", out, data)
        assert done.returncode == 0, done.stderr
        expected[str(out)] = load.before(nanoseconds(snapshot["time"]))
    for path, found in answers(host, expected).items():
        assert found["wrong"] == [], f"{path}: {found['wrong'][:10]}"
        # One batch may have been under way, done but not yet acknowledged.
        assert 0 <= found["count"] - expected[path] * SIZE <= SIZE, path
    return len(expected)
