# SPDX-License-Identifier: MIT
"""The guardian and a store in which things are damaged, a database in WAL mode, what is only pinned."""

import random
import shutil
import sqlite3
import subprocess
import time

import pytest

import hosts
from loads import Load, answers, listed, nanoseconds
from snapshots_load import SIZE
from test_guardian import finish, make_directory, Events


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
