# SPDX-License-Identifier: MIT
"""The guardian beside real Chroma: what is pinned becomes snapshots, whatever happens to it."""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hosts
from loads import Load, answers, check_all, listed, nanoseconds
from snapshots_load import SIZE

SECONDS = int(os.environ.get("CHROMASHIM_GUARDIAN_SECONDS", "8"))


class Guardian:
    """`chromashim guard`, started and ended."""

    def __init__(self, data, *options, env=None):
        self.errors = data.parent / f"guard-{time.monotonic_ns()}.log"
        with open(self.errors, "w", encoding="utf-8") as errors:
            self.child = subprocess.Popen([str(hosts.COMMAND), "guard", *options, str(data)],
                                          env=hosts.environment(env or {}), stderr=errors)

    def said(self):
        return self.errors.read_text(encoding="utf-8")

    def wait_for(self, words, seconds=30):
        deadline = time.monotonic() + seconds
        while words not in self.said():
            assert time.monotonic() < deadline and self.child.poll() is None, self.said()
            time.sleep(0.05)

    def end(self, number=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(number)
        return self.child.wait(30)


@pytest.fixture
def guardians():
    started = []

    def start(data, *options, env=None):
        started.append(Guardian(data, *options, env=env))
        return started[-1]

    yield start
    for guardian in started:
        guardian.end(signal.SIGKILL)


def finish(chromashim, data, **env):
    """All that is left to be copied and verified."""
    done = chromashim("guard", "--once", data, timeout=600,
                      env=hosts.environment({"CHROMASHIM_KEEP": "all", "CHROMASHIM_EVERY": "0",
                                             **env}))
    assert done.returncode == 0, done.stderr
    return done.stderr


def kill_at_random(guardians, data, stop, rounds):
    """One guardian after the other, each killed within a second."""
    while not stop.is_set():
        guardian = guardians(data, env={"CHROMASHIM_KEEP": "all", "CHROMASHIM_EVERY": "0"})
        time.sleep(random.uniform(0.02, 0.9))
        guardian.end(signal.SIGKILL)
        rounds.append(guardian)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["server", "python-0.6"])
def test_killed_under_load(tmp_path, data, shim, chromashim, guardians, name):
    """A snapshot a second while the guardian is killed: each verified one has all of its moment."""
    host = hosts.BY_NAME[name]
    host.require()
    server = hosts.Server(host, data, shim) if host.server else None
    load = Load(host, server.address if server else str(data), "" if server else shim)
    stop, rounds, pinned = threading.Event(), [], 0
    killer = threading.Thread(target=kill_at_random, args=(guardians, data, stop, rounds))
    try:
        load.wait_for(8)
        killer.start()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            done = chromashim("snapshot", "create", "--no-wait", "--json", data)
            assert done.returncode == 0, done.stderr
            pinned += 1
            time.sleep(1)
        assert load.child.poll() is None
    finally:
        stop.set()
        killer.join(30)
        load.stop()
        if server:
            server.clean_up()
    finish(chromashim, data)
    found = listed(chromashim, data)
    print(f"{pinned} pinned, {len(rounds)} guardians killed, {len(load.acknowledged)} batches: "
          f"{[(s['id'], s['state'], s['reason'], s['trouble']) for s in found]}")
    assert [s for s in found if s["state"] == "broken"] == []
    verified = check_all(chromashim, tmp_path, data, load, host)
    assert verified == len(found) and verified >= pinned
    assert list((data / ".chromashim" / "pins").glob("[0-9]*")) == []


@pytest.mark.fast
def test_one_for_a_directory(data, chromashim, guardians):
    (data / "chroma.sqlite3").write_bytes(b"")
    first = guardians(data)
    first.wait_for("guarding")
    done = chromashim("guard", data)
    assert done.returncode == 11
    assert f"pid {first.child.pid}" in done.stderr and "stop it first" in done.stderr
    assert first.end() == 0
    assert "told to stop" in first.said()
    status = json.loads((data / ".chromashim" / "status.json").read_text())
    assert status["running"] is False and status["pid"] == first.child.pid


# ---- what most of them begin with ----

def make_directory(data, records=40):
    """By real Chroma, which then leaves."""
    hosts.BY_NAME["python"].require()
    script = ("import sys, chromadb; sys.path.insert(0, sys.argv[2]); import workload;"
              "c = workload.connect(sys.argv[1]).get_or_create_collection('books');"
              "c.upsert(**workload.batch(0, int(sys.argv[3])))")
    subprocess.run([str(hosts.python("venv")), "-c", script, str(data),
                    str(hosts.ROOT / "tests/e2e"), str(records)], check=True,
                   env=hosts.environment(), capture_output=True)


def touch_database(data, number):
    """Another page 1, and a chunk that no other snapshot has."""
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute(f"PRAGMA user_version = {number}")


# ---- beside a backend ----

HOOK = """#!/bin/sh
printf '%s %s %s\n' "$CHROMASHIM_EVENT" "$1" "$(cat)" >>"$HOOK_OUT"
"""


class Events:
    """A hook that keeps what it is told: (event, JSON)."""

    def __init__(self, directory, more=""):
        self.program, self.out = directory / "hook", directory / "events"
        self.program.write_text(HOOK + more)
        self.program.chmod(0o755)
        self.env = {"CHROMASHIM_HOOK": str(self.program), "HOOK_OUT": str(self.out)}

    def told(self, event):
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [json.loads(line.split(" ", 2)[2]) for line in lines
                if line.startswith(event + " ") and line.endswith("}")]

    def wait_for(self, event, seconds=30):
        deadline = time.monotonic() + seconds
        while not self.told(event):
            assert time.monotonic() < deadline, self.out.read_text()
            time.sleep(0.05)
        return self.told(event)


def test_one_that_waits_is_no_lapse(data, guardians, chromashim):
    """The last one has ended, and the next one has yet to see it."""
    make_directory(data)
    guardians(data, "--once").child.wait(60)
    assert "none is running" in chromashim("status", data).stdout
    assert json.loads(chromashim("status", "--json", data).stdout)["guardian"] is None
    with open(data / ".chromashim/guard.lock", "r+b") as waiting:
        fcntl.lockf(waiting, fcntl.LOCK_EX, 1, 1)
        assert "one is about to take over" in chromashim("status", data).stdout
        assert json.loads(chromashim("status", "--json", data).stdout)["guardian"] == 0


def test_follows_and_tells(tmp_path, data, shim, guardians, chromashim):
    """It ends with the process, after a last snapshot; the hook is told, and may not hold it up."""
    make_directory(data)
    slow = tmp_path / "slow"
    events = Events(tmp_path, f'[ "$1" != snapshot.taken ] || {{ sleep 60 & echo $! >{slow}; wait; }}')
    host = hosts.BY_NAME["python"]
    load = Load(host, str(data), shim)
    guardian = guardians(data, "--follow", str(load.child.pid),
                         env={"CHROMASHIM_EVERY": "1h", **events.env})
    load.wait_for(4)
    guardian.wait_for("is verified")
    status = json.loads(chromashim("status", "--json", data).stdout)
    assert status["guardian"] == guardian.child.pid and status["snapshots"]["verified"] >= 1
    load.child.terminate()
    load.child.wait()
    assert guardian.child.wait(30) == 0
    said = guardian.said()
    assert "nobody has the directory open any more" in said
    newest = listed(chromashim, data)[-1]
    died = "died in the middle" in said
    assert died or (newest["reason"], newest["state"]) == ("stop", "verified"), (newest, said)
    told = [line.split(" ", 2) for line in events.out.read_text().splitlines()]
    names = [event[0] for event in told]
    assert names[0] == "guard.start" and "snapshot.verified" in names and "guard.stop" in names
    for name, argument, text in told:
        told = json.loads(text)
        assert name == argument == told["event"] and told["message"] in said
    if slow.exists():
        state = Path("/proc") / slow.read_text().strip() / "stat"
        assert not state.exists() or ") Z " in state.read_text(), "what the hook had started"
    metrics = (data / ".chromashim" / "metrics.prom").read_text()
    # Collected together with those of other directories, each series says whose it is.
    of = f'directory="{data}"'
    series = [line for line in metrics.splitlines() if not line.startswith("#")]
    assert all(f"{{{of}" in line for line in series)
    assert f"chromashim_up{{{of}}} 0" in series
    assert any(line.startswith(f'chromashim_snapshots{{{of},state="verified"}}') for line in series)


def test_refused_writers_are_told(tmp_path, data, shim, actors, guardians):
    """The hook is called for each once, whatever it tries, and whichever guardian there is."""
    events = Events(tmp_path)
    actors().chroma(data).do("c.upsert(**batch(0))")
    guardian = guardians(data, env=events.env)
    guardian.wait_for("guarding")
    tool = actors().sqlite(data)
    tool.fails("db.execute('CREATE TABLE t(a)')")
    tool.sqlite(data)
    tool.fails("db.execute('CREATE TABLE t(a)')")
    (event,) = events.wait_for("writer.refused")
    assert f"process {tool.pid} (" in event["message"] and "python" in event["message"]
    metrics = data / ".chromashim" / "metrics.prom"
    deadline = time.monotonic() + 30
    refused = f'chromashim_writers_refused_total{{directory="{data}"}} 1\n'
    while refused not in metrics.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(events.told("writer.refused")) == 1
    events.wait_for("snapshot.pinned")
    guardian.end(signal.SIGKILL)
    second = actors().sqlite(data)
    guardians(data, env=events.env)
    while not any(f"process {second.pid} (" in e["message"] for e in events.told("writer.refused")):
        assert time.monotonic() < deadline, events.out.read_text()
        time.sleep(0.05)


def test_what_cannot_be_done_is_told(tmp_path, data, chromashim):
    make_directory(data)
    events = Events(tmp_path)

    def guard():
        return chromashim("guard", "--once", data, env=hosts.environment(events.env)).returncode

    assert guard() == 0
    assert events.told("snapshot.taken") and events.told("snapshot.verified")
    snapshots = data / ".chromashim" / "snapshots"
    (snapshots / "00000001.manifest").unlink()
    (data / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    assert guard() == 1
    assert "not a database" in events.told("snapshot.failed")[0]["message"]
    snapshots.rename(data / "elsewhere")
    snapshots.write_text("")
    assert guard() == 1
    assert "open the snapshots" in events.told("guard.failed")[0]["message"]


def test_a_backend_started_again(data, shim, guardians):
    """Its guardian takes over from the one of the backend before."""
    make_directory(data)
    host = hosts.BY_NAME["python"]
    first = Load(host, str(data), shim)
    one = guardians(data, "--follow", str(first.child.pid), env={"CHROMASHIM_EVERY": "0"})
    one.wait_for("guarding")
    os.kill(one.child.pid, signal.SIGSTOP)
    first.stop()
    second = Load(host, str(data), shim)
    two = guardians(data, "--follow", str(second.child.pid), env={"CHROMASHIM_EVERY": "0"})
    time.sleep(0.5)
    assert two.child.poll() is None
    os.kill(one.child.pid, signal.SIGCONT)
    assert one.child.wait(30) == 0
    two.wait_for("guarding")
    second.wait_for(2)
    second.stop()
    assert two.child.wait(30) == 0


def starve(data, limit):
    """A guardian with little memory; what it says."""
    done = subprocess.run(["prlimit", f"--as={limit}", str(hosts.COMMAND), "guard", "--once",
                           str(data)], env=hosts.environment({"CHROMASHIM_EVERY": "0"}),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 1, 127), (limit, done.returncode, done.stderr)
    assert ("Cannot allocate memory" in done.stderr) <= (done.returncode != 0), done.stderr
    return done.stderr


@pytest.mark.slow
def test_stopped_starved_and_out_of_memory(tmp_path, data, shim, guardians, chromashim):
    """Whatever happens to the guardian, the backend goes on; what was pinned is good afterwards."""
    host = hosts.BY_NAME["python"]
    load = Load(host, str(data), shim)
    load.wait_for(4)
    guardian = guardians(data, env={"CHROMASHIM_EVERY": "0", "CHROMASHIM_RATE": "200K"})
    guardian.wait_for("guarding")

    def pin():
        done = chromashim("snapshot", "create", "--no-wait", data)
        assert done.returncode == 0, done.stderr

    def goes_on():
        load.wait_for(len(load.acknowledged) + 4)

    pin()
    time.sleep(0.5)
    os.kill(guardian.child.pid, signal.SIGSTOP)
    goes_on()
    pin()
    goes_on()
    os.kill(guardian.child.pid, signal.SIGKILL)
    guardian.child.wait()
    pin()
    said = [starve(data, limit) for limit in range(6_600_000, 8_600_000, 100_000)]
    assert any("Cannot allocate memory" in words for words in said), said
    assert not any("broken" in words for words in said), said
    goes_on()
    load.stop()
    print(finish(chromashim, data))
    found = listed(chromashim, data)
    told = [(s["state"], s["trouble"]) for s in found if s["reason"] == "manual"]
    assert told == [("verified", None)] * 3, told
    assert check_all(chromashim, tmp_path, data, load, host) >= 3


def test_no_room_to_copy(tmp_path, data, shim, small_disk, guardians, chromashim):
    """It says so, tries again, and nothing is lost; the pin lies in the store, whose disk it is."""
    make_directory(data, 400)
    env = {"CHROMASHIM_STORE": str(small_disk / "store"), "CHROMASHIM_EVERY": "0",
           "CHROMASHIM_BALLAST": "0", "CHROMASHIM_MIN_FREE": "0", "CHROMASHIM_LOG_SIZE": "1M"}
    host = hosts.BY_NAME["python"]
    load = Load(host, str(data), shim, env=env)
    load.wait_for(3)
    done = chromashim("snapshot", "create", "--no-wait", data, env=hosts.environment(env))
    assert done.returncode == 0, done.stderr
    load.stop()
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    events = Events(tmp_path)
    guardian = guardians(data, env={**env, **events.env})
    guardian.wait_for("No space left")
    assert events.wait_for("disk.full") and events.wait_for("disk.low")
    assert guardian.child.poll() is None
    filler.unlink()
    guardian.wait_for("is verified", 40)
    deadline = time.monotonic() + 40
    states = set()
    while states != {"verified"}:
        assert time.monotonic() < deadline and guardian.child.poll() is None, states
        found = json.loads(chromashim("snapshot", "list", "--json", data,
                                      env=hosts.environment(env)).stdout)
        states = {s["state"] for s in found}
    assert guardian.end() == 0


# ---- damage ----

def test_damaged_pins(tmp_path, data, shim, chromashim):
    """What was saved for a pin is damaged: that one is broken and says why, and so
    may be the older ones, which rest on it."""
    make_directory(data, 400)
    host = hosts.BY_NAME["python"]
    load = Load(host, str(data), shim)
    load.wait_for(3)
    pins = data / ".chromashim" / "pins"
    for _ in range(3):
        done = chromashim("snapshot", "create", "--no-wait", data)
        assert done.returncode == 0, done.stderr
        load.wait_for(len(load.acknowledged) + 3)
    ids = [s["id"] for s in listed(chromashim, data) if s["reason"] == "manual"]
    load.stop()
    name = f"{ids[-1]:08}-chroma.sqlite3.pre"
    image = bytearray((pins / name).read_bytes())
    image[-100] ^= 1
    image[4096 + 16384:] = bytes(len(image) - 4096 - 16384)
    (pins / name).write_bytes(image)
    events = Events(tmp_path)
    said = finish(chromashim, data, **events.env)
    assert ids[-1] in [e["snapshot"] for e in events.told("snapshot.broken")]
    assert f"snapshot {ids[-1]} is broken: pins/{name}" in said or f"{name}" in said, said
    states = {s["id"]: s["state"] for s in listed(chromashim, data)}
    assert states[ids[-1]] == "broken"
    done = chromashim("restore", "--to", ids[-1], "-o", tmp_path / "x", data)
    assert done.returncode == 1 and not (tmp_path / "x").exists()


def test_damaged_store(data, shim, chromashim):
    """Manifests that are cut or of a newer version, and one that was being copied: told, each for
    itself; the others are good, and nothing of those that cannot be read is thrown away."""
    make_directory(data)
    for _ in range(3):
        assert chromashim("snapshot", "create", data).returncode == 0
    snapshots = data / ".chromashim" / "snapshots"
    cut, newer = snapshots / "00000001.manifest", snapshots / "00000002.manifest"
    cut.write_bytes(cut.read_bytes()[:200])
    newer.write_bytes(newer.read_bytes()[:8] + b"\x02" + newer.read_bytes()[9:])
    load = Load(hosts.BY_NAME["python"], str(data), shim)
    load.wait_for(4)
    assert chromashim("snapshot", "create", "--no-wait", data).returncode == 0
    pinned = [s["id"] for s in listed(chromashim, data) if s["reason"] == "manual"][-1]
    load.stop()
    (snapshots / f"{pinned:08}.manifest").write_bytes(newer.read_bytes()[:300])
    said = finish(chromashim, data)
    assert f"snapshot {pinned} (manual) is copied" in said, said
    found = {s["id"]: (s["state"], s["trouble"]) for s in listed(chromashim, data)}
    assert found[1] == ("broken", "its manifest is cut short")
    assert found[2] == ("broken", "written by a newer chromashim")
    assert found[3][0] == found[pinned][0] == "verified"
    assert len(newer.read_bytes()) > 300


@pytest.mark.parametrize("at", [8, 40], ids=["newer", "damaged"])
def test_pins_that_cannot_be_read(data, shim, chromashim, at):
    """The backend and the command do without; snapshots are copied as before there were pins."""
    make_directory(data)
    pins = data / ".chromashim" / "pins"
    pins.mkdir(parents=True, mode=0o700)
    pins.parent.chmod(0o700)
    load = Load(hosts.BY_NAME["python"], str(data), shim)
    load.wait_for(2)
    load.stop()
    state = bytearray((pins / "state").read_bytes())
    state[at] += 1
    (pins / "state").write_bytes(state)
    load = Load(hosts.BY_NAME["python"], str(data), shim)
    load.wait_for(4)
    done = chromashim("snapshot", "create", data)
    load.stop()
    assert done.returncode == 0, done.stderr
    assert listed(chromashim, data)[-1]["state"] == "verified"
    assert (pins / "state").read_bytes() == state


# ---- WAL mode ----

COUNT_IN_WAL = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
db.execute("CREATE TABLE counted(n INTEGER PRIMARY KEY, filler BLOB)")
db.execute("CREATE TABLE ballast(filler BLOB)")
for _ in range(int(sys.argv[2])):
    db.execute("INSERT INTO ballast VALUES(randomblob(1000000))")
db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
n = 0
while True:
    db.execute("BEGIN IMMEDIATE")
    n += 1
    db.execute("INSERT INTO counted VALUES(?, randomblob(3000))", (n,))
    db.execute("DELETE FROM counted WHERE n = ?", (n - 40,))
    db.execute("COMMIT")
    print(n, time.time_ns(), flush=True)
    if n % 37 == 0:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    time.sleep(0.01)  # SQLite has no queue for its write lock: without pauses nobody else gets it
"""


@pytest.mark.parametrize("how", ["pinned", "copied"])
def test_wal_mode(how, tmp_path, data, shim, chromashim):
    """The log belongs to what is pinned, whatever a checkpoint does to it afterwards; and to what is
    copied beside a writer without the library, which no reader holds up, up to that moment."""
    make_directory(data)
    out = tmp_path / "counted"
    preload, megabytes = ({"LD_PRELOAD": shim}, 0) if how == "pinned" else ({}, 40)
    with open(out, "wb") as file:
        child = subprocess.Popen([str(hosts.python("venv")), "-c", COUNT_IN_WAL, str(data),
                                  str(megabytes)],
                                 env=hosts.environment(preload), stdout=file)
    try:
        while not out.stat().st_size:
            assert child.poll() is None
            time.sleep(0.05)
        for _ in range(8):
            time.sleep(random.uniform(0.2, 0.6))
            done = chromashim("snapshot", "create", "--no-wait", data)
            assert done.returncode == 0, done.stderr
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
    print(finish(chromashim, data))
    counted = [tuple(map(int, line.split())) for line in out.read_text().splitlines()[:-1]]
    found = [s for s in listed(chromashim, data) if s["reason"] == "manual"]
    assert len(found) == 8 and {s["state"] for s in found} == {"verified"}, found
    for snapshot in found:
        target = tmp_path / f"out-{snapshot['id']}"
        assert chromashim("restore", "--to", snapshot["id"], "-o", target, data).returncode == 0
        with sqlite3.connect(target / "chroma.sqlite3") as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            first, last, rows = db.execute("SELECT min(n), max(n), count(*) FROM counted").fetchone()
        moment = nanoseconds(snapshot["time"])
        acknowledged = max(n for n, at in counted if at <= moment)
        assert acknowledged <= last <= acknowledged + 1 and rows == last - first + 1


# ---- what is only pinned ----

def test_restore_of_what_is_pinned(tmp_path, data, shim, chromashim):
    """It is copied first; in place, so is everything else that rests on the files there."""
    host = hosts.BY_NAME["python"]
    host.require()
    load = Load(host, str(data), shim)
    for _ in range(3):
        load.wait_for(len(load.acknowledged) + 4)
        assert chromashim("snapshot", "create", "--no-wait", data).returncode == 0
    found = [s for s in listed(chromashim, data) if s["reason"] == "manual"]
    assert [s["state"] for s in found] == ["pinned"] * 3
    moments = [nanoseconds(s["time"]) for s in found]
    out = tmp_path / "out"
    done = chromashim("restore", "--to", found[0]["id"], "-o", out, data)
    assert done.returncode == 0, done.stderr
    load.wait_for(len(load.acknowledged) + 2)
    load.stop()
    assert chromashim("snapshot", "delete", "-y", found[2]["id"], data).returncode == 0
    done = chromashim("restore", "--to", found[1]["id"], "-y", data)
    assert done.returncode == 0, done.stderr
    states = {s["id"]: s["state"] for s in listed(chromashim, data)}
    assert "pinned" not in states.values() and found[2]["id"] not in states, states
    for path, moment in ((out, moments[0]), (data, moments[1])):
        answer = answers(host, {str(path): load.before(moment)})[str(path)]
        assert answer["wrong"] == [] and 0 <= answer["count"] - load.before(moment) * SIZE <= SIZE
    assert list((data / ".chromashim" / "pins").glob("[0-9]*")) == []


# ---- a database that is not Chroma's yet ----

def test_tables_that_are_not_made_yet(data, actors, chromashim):
    """What held nothing is not pinned again at once; and with no news nothing is synced."""
    actor = actors()
    actor.sqlite(data)
    actor.do("db.execute('CREATE TABLE t(x)')")
    done = chromashim("guard", "--once", data)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is pinned") == 1 and done.stderr.count("held nothing yet") == 1
    assert listed(chromashim, data) == []


def test_reports_cost_no_syncs(data, chromashim, tmp_path):
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    (data / "chroma.sqlite3").write_bytes(b"")
    chromashim("guard", "--once", data)
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-o", trace, "-e", "trace=fsync,fdatasync,rename,renameat,renameat2",
         hosts.COMMAND, "guard", "--once", data], env=hosts.environment({}), capture_output=True,
        check=False)
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    reports = [line for line in lines if "status.json" in line]
    assert reports and not [line for line in lines if "sync(" in line], lines
