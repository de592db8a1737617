# SPDX-License-Identifier: MIT
"""The guardian beside real Chroma: what is pinned becomes snapshots, whatever happens to it."""

import contextlib
import fcntl
import json
import os
import random
import signal
import sqlite3
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hosts
from loads import Load, check_all, listed

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


def kill_at_random(guardians, data, stop, rounds, every="0", longest=0.9):
    """One guardian after the other, each killed within a second."""
    while not stop.is_set():
        guardian = guardians(data, env={"CHROMASHIM_KEEP": "all", "CHROMASHIM_EVERY": every})
        time.sleep(random.uniform(0.02, longest))
        guardian.end(signal.SIGKILL)
        rounds.append(guardian)


@pytest.mark.parametrize("verbs", [["restore"], ["guard", "restore"]], ids=" ".join)
def test_who_asks_for_the_latest_gets_that_of_the_stop(data, chromashim, tmp_path, verbs):
    """Asked at once after the last process has ended, when its guardian has not noticed it yet."""
    make_directory(data)
    out = tmp_path / "out"
    env = hosts.environment({"CHROMASHIM_GUARD": "on", "XDG_STATE_HOME": str(tmp_path / "state")})
    write = ("import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/chroma.sqlite3')\n"
             "db.execute('PRAGMA user_version = 4711')")
    subprocess.run([hosts.COMMAND, "run", "--", hosts.python("venv"), "-c", write, data], check=True,
                   env={**env, "CHROMASHIM_DIR": str(data)}, capture_output=True)
    told = {}
    for verb in verbs:
        words = ["--once"] if verb == "guard" else ["--to", "latest", "-o", out]
        told[verb] = chromashim(verb, *words, data, env=env)
        assert told[verb].returncode == 0, told[verb].stderr
    assert "takes the snapshot of the stop" in told[verbs[0]].stderr
    with sqlite3.connect(out / "chroma.sqlite3") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4711,)


def test_once_ends_although_the_next_is_due(data, actors, chromashim):
    """Where copying one takes longer than it is to the next."""
    make_directory(data)
    actor = actors()
    actor.sqlite(data)
    actor.do("db.execute('PRAGMA user_version = 1')")
    done = chromashim("guard", "--once", data, timeout=60, env=hosts.environment(
        {"CHROMASHIM_EVERY": "1s", "CHROMASHIM_RATE": "200K", "CHROMASHIM_KEEP": "all"}))
    assert done.returncode == 0, done.stderr
    assert [s["state"] for s in listed(chromashim, data)] == ["verified"], done.stderr


def test_verified_by_turns(data, chromashim, guardians):
    """Where they follow each other closely: the oldest, the newest, the next oldest."""
    make_directory(data)
    for seconds in range(5):
        touch_database(data, seconds)
        done = chromashim("snapshot", "create", "--no-verify", "-q", data)
        assert done.returncode == 0, done.stderr
    guardian = guardians(data, env={"CHROMASHIM_EVERY": "9m", "CHROMASHIM_KEEP": "all"})
    deadline, order = time.monotonic() + 60, []
    while len(order) < 5:
        assert time.monotonic() < deadline, order
        order += [s["id"] for s in listed(chromashim, data)
                  if s["state"] == "verified" and s["id"] not in order]
        time.sleep(0.05)
    guardian.end(signal.SIGTERM)
    assert order == [1, 5, 2, 4, 3]


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


def read_by(*words):
    """How many bytes a command has read, of whatever."""
    child = subprocess.Popen([str(hosts.COMMAND), *map(str, words)], env=hosts.environment(),
                             stderr=subprocess.PIPE, text=True)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    counts = dict(line.split(": ") for line in
                  Path(f"/proc/{child.pid}/io").read_text().splitlines())
    assert child.wait() == 0, child.stderr.read()
    return int(counts["rchar"])


def test_what_follows_reads_what_has_changed(data, actors, chromashim, guardians):
    """No file is read from end to end for a snapshot that follows another."""
    make_directory(data)
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as db, db:
        db.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, body BLOB)")
        db.executemany("INSERT INTO big(body) VALUES(randomblob(3000))", [()] * 4000)
    actor = actors()
    actor.sqlite(data)
    actor.do("db.execute('UPDATE big SET body = randomblob(3000) WHERE id = 1')")
    guardian = guardians(data, env={"CHROMASHIM_EVERY": "9m"})
    guardian.wait_for("is verified", 60)
    assert listed(chromashim, data)[-1]["reason"] == "schedule"
    guardian.end(signal.SIGKILL)  # what it holds on to is there all the same
    actor.do("db.execute('UPDATE big SET body = randomblob(3000) WHERE id BETWEEN 2000 AND 2030')")
    assert (data / "chroma.sqlite3").stat().st_size > 12 << 20
    assert read_by("snapshot", "create", "--no-verify", "-q", data) < 3 << 20
    assert chromashim("snapshot", "verify", "latest", data).returncode == 0
    newest = listed(chromashim, data)[-1]
    assert newest["reason"] == "manual" and newest["state"] == "verified", newest
    actor.do("db.execute(\"INSERT INTO embeddings (segment_id, embedding_id, seq_id) SELECT "
             "segment_id, embedding_id || 'x', seq_id FROM embeddings WHERE id <= 25\")")
    actor.do("db.execute('DELETE FROM embeddings WHERE id <= 3')")
    assert chromashim("snapshot", "create", "--no-verify", "-q", data).returncode == 0
    shown = json.loads(chromashim("snapshot", "show", "latest", "--json", data).stdout)
    assert [c["records"] for c in shown["collections"]] == [62]


def test_a_reader_keeps_nobody_from_adding(data, chromashim):
    """As an export or a replica does, who needs that nothing is removed."""
    make_directory(data)
    assert chromashim("snapshot", "create", "--no-verify", data).returncode == 0
    with open(data / ".chromashim/snapshots/lock", "rb") as reader:
        fcntl.fcntl(reader, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 1, 0))
        assert chromashim("snapshot", "create", data).returncode == 0
        done = chromashim("guard", "--once", data)
        assert done.returncode == 0, done.stderr
        assert [s["state"] for s in listed(chromashim, data)] == ["verified"] * 2
        done = chromashim("snapshot", "delete", "-y", "1", data, timeout=60)
        assert done.returncode == 11, done.stderr
    assert chromashim("snapshot", "delete", "-y", "1", data).returncode == 0


def test_what_is_read_is_removed_when_the_reader_has_ended(data, chromashim):
    """With --once there is no next look: its own drill, or who else reads, is waited for."""
    make_directory(data)
    env = hosts.environment({"CHROMASHIM_KEEP": "last=1", "CHROMASHIM_EVERY": "1s"})
    assert chromashim("guard", "--once", data, env=env).returncode == 0
    time.sleep(1)
    with open(data / ".chromashim/snapshots/lock", "rb") as reader:
        fcntl.fcntl(reader, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, 0, 0, 1, 0))
        ended = threading.Timer(0.6, reader.close)
        ended.start()
        done = chromashim("guard", "--once", data, env=env)
        ended.join()
    assert done.returncode == 0, done.stderr
    assert [s["id"] for s in listed(chromashim, data)] == [2], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["python", "python-0.6"])
def test_one_each_second(tmp_path, data, shim, chromashim, guardians, name):
    """Each is made of the one before it and what was written since; each has all of its moment,
    also where the guardian was killed between."""
    host = hosts.BY_NAME[name]
    host.require()
    load = Load(host, str(data), shim)
    stop, rounds = threading.Event(), []
    killer = threading.Thread(target=kill_at_random,
                              args=(guardians, data, stop, rounds, "1s", 5))
    try:
        load.wait_for(4)
        killer.start()
        time.sleep(SECONDS)
        assert load.child.poll() is None
    finally:
        stop.set()
        killer.join(30)
        load.stop()
    finish(chromashim, data)
    assert chromashim("snapshot", "verify", "--all", data, timeout=300).returncode == 0
    found = listed(chromashim, data)
    assert [s for s in found if s["state"] != "verified"] == []
    print(len(found), len(rounds))
    assert check_all(chromashim, tmp_path, data, load, host) == len(found) >= 3
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
    hosts.chroma("venv", "-c", script, data, hosts.ROOT / "tests/e2e", records)


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


def test_a_moment_between_two_steps_of_a_migration(tmp_path, data, actors, chromashim):
    """Chroma before 1.0 migrates in transactions of their own, each of which is pinned: such a
    snapshot is no broken one."""
    events = Events(tmp_path)
    backend = actors(shimmed=False).chroma(data)
    backend.do("c.upsert(**batch(0))")
    backend.stop()
    tool = actors().sqlite(data)
    tool.do("""
step = db.execute("SELECT * FROM migrations WHERE dir = 'sysdb' AND version = 1").fetchone()
db.execute("DELETE FROM migrations WHERE dir = 'sysdb' AND version = 1")
db.execute("CREATE TABLE t(a)")
db.execute(f"INSERT INTO migrations VALUES ({', '.join('?' * len(step))})", step)
""")
    tool.stop()
    done = chromashim("guard", "--once", data, env=hosts.environment(events.env))
    assert done.returncode == 0, done.stderr
    assert "was pinned between two steps of a migration, and is dropped" in done.stderr
    assert not events.told("snapshot.broken")
    listed = json.loads(chromashim("snapshot", "list", "--json", data).stdout)
    assert listed and {snapshot["state"] for snapshot in listed} == {"verified"}, listed


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


def test_the_clock_goes_on(data, shim, chromashim, guardians):
    """While a snapshot takes long to be copied, the next moments are pinned all the same."""
    load = Load(hosts.BY_NAME["python"], str(data), shim)
    try:
        load.wait_for(12)
        guardians(data, env={"CHROMASHIM_EVERY": "1s", "CHROMASHIM_RATE": "200K"})
        deadline, found = time.monotonic() + 60, []
        while len([s for s in found if s["reason"] == "schedule"]) < 3:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)
            if (data / ".chromashim/pins/state").exists():
                done = chromashim("snapshot", "list", "--json", data)
                found = json.loads(done.stdout) if done.returncode == 0 else []
        first = next(s for s in found if s["reason"] == "schedule")
        assert first["state"] in ("pinned", "hydrating"), found
    finally:
        load.stop()


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
