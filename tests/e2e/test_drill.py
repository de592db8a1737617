# SPDX-License-Identifier: MIT
"""Drills: a snapshot is restored, checked and opened by real Chroma, and every chunk is read."""

import json
import signal
import subprocess
import sys
import time

import pytest

import hosts
from loads import Load, listed
from test_guardian import Events, guardians, make_directory, touch_database  # noqa: F401
from test_guardian_clock import Days, clock  # noqa: F401

@pytest.fixture(autouse=True)
def any_disk(monkeypatch):
    """However full this machine's is."""
    monkeypatch.setenv("CHROMASHIM_WARN_FULL", "0")


FAKE = """
import json, os, sys, time
__version__ = "9.9.9"
out = os.environ["FAKE_OUT"]
with open(out, "w") as f:
    f.write(sys.argv[1])
class Collection:
    def __init__(self, one): self.one = one
    def count(self): return COUNT
    def get(self, ids, include):
        return {"ids": ids, "embeddings": [VECTOR for _ in ids], "documents": [None for _ in ids]}
    def query(self, **how): return {"ids": [[]], "distances": [[0.0]]}
class PersistentClient:
    def __init__(self, path, settings):
        time.sleep(PAUSE)
    def get_collection(self, name): return Collection(name)
"""


@pytest.fixture
def fake(tmp_path):
    """A Chroma that answers as it is told: fake(COUNT=…) gives the environment."""
    def make(**answers):
        package = tmp_path / "fake/chromadb"
        package.mkdir(parents=True, exist_ok=True)
        text = FAKE
        for name, value in {"COUNT": 40, "VECTOR": [0.0], "PAUSE": 0, **answers}.items():
            text = text.replace(name, repr(value))
        (package / "__init__.py").write_text(text)
        (package / "config.py").write_text("def Settings(**how): return how\n")
        return hosts.environment({"PYTHONPATH": str(package.parent),
                                  "FAKE_OUT": str(tmp_path / "opened")})
    return make


def drill(chromashim, data, *options, code=0, **how):
    done = chromashim("drill", "--json", *options, data, **how)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def scratch(data):
    return list((data / ".chromashim").glob("*scratch*"))


def test_by_the_backends_own_chroma(tmp_path, data, shim, chromashim, guardians):  # noqa: F811
    """The guardian learns which it is from the running backend; afterwards it is still known."""
    host = hosts.BY_NAME["python"]
    host.require()
    make_directory(data)
    load = Load(host, str(data), shim)
    load.wait_for(2)
    guardian = guardians(data, "--follow", str(load.child.pid))
    deadline = time.monotonic() + 30
    while not (data / ".chromashim/engine").exists():
        assert time.monotonic() < deadline, guardian.said()
        time.sleep(0.1)
    load.stop()
    guardian.child.wait(30)
    assert chromashim("snapshot", "create", data).returncode == 0
    found = drill(chromashim, data)
    assert found["outcome"] == "good" and found["chroma"] == "1.5.9" and not found["trouble"]
    assert found["compared"] >= 5 and found["restore_ns"] and found["open_ns"] and found["chunks"]
    assert not scratch(data)
    said = chromashim("status", data).stdout
    assert "drill         good, " in said and "a restore takes " in said
    assert "Chroma 1.5.9 gave" in said
    assert json.loads(chromashim("status", "--json", data).stdout)["drill"]["outcome"] == "good"
    assert " restore=0." in chromashim("status", "--check", data).stdout


def test_a_backend_that_is_soon_gone(data, chromashim, actors):
    """Its Chroma is known even so: it is looked for at the first open, however long that took."""
    make_directory(data)
    assert chromashim("snapshot", "create", data).returncode == 0
    host = actors(env={"CHROMASHIM_GUARD": "off"})
    host.do("import chromadb, pathlib")
    guardian = subprocess.Popen([hosts.COMMAND, "guard", "--follow", str(host.pid), "--while-open", data],
                                stderr=subprocess.DEVNULL)
    try:
        time.sleep(3.3)  # without the open it would be looked for 7 s after the start next
        host.do(f"""
c = chromadb.PersistentClient({str(data)!r})
until = time.monotonic() + 3.3
while not pathlib.Path({str(data)!r}, ".chromashim/engine").exists() and time.monotonic() < until:
    time.sleep(0.05)
""")
    finally:
        host.stop()
        guardian.wait(30)
    assert "release 1.5.9" in (data / ".chromashim/engine").read_text()


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_spaces_and_an_empty_collection(data, chromashim, venv):
    if not hosts.python(venv).exists():
        pytest.skip(f"{venv} is missing; run wrappers/setup run check")
    script = ("import sys, random, chromadb; c = chromadb.PersistentClient(sys.argv[1])\n"
              "c.get_or_create_collection('empty')\n"
              "for s in ('one-l2', 'one-cosine', 'one-ip'):\n"
              "  k = c.get_or_create_collection(s, metadata={'hnsw:space': s[4:], 'hnsw:sync_threshold': 100})\n"
              "  k.add(ids=[str(i) for i in range(300)], documents=['ü%d' % i for i in range(300)],\n"
              "        embeddings=[[random.gauss(0, 3) for _ in range(8)] for _ in range(300)])\n"
              "  k.delete(ids=['7'])\n")
    hosts.chroma(venv, "-c", script, data)
    assert chromashim("snapshot", "create", data).returncode == 0
    found = drill(chromashim, data, "--chroma", hosts.python(venv))
    assert found["compared"] == 15 and found["outcome"] == "good"


def flip(data):
    """A byte of a chunk that only one older snapshot has: what is shared is found sooner."""
    chunks = sorted((p for p in (data / ".chromashim/snapshots/chunks").rglob("*") if p.is_file()),
                    key=lambda p: p.stat().st_mtime_ns)
    chunk = chunks[-5]
    bits = bytearray(chunk.read_bytes())
    bits[len(bits) // 2] ^= 1
    chunk.write_bytes(bits)


def test_a_flipped_byte_is_told_within_a_period(tmp_path, data, chromashim, clock):  # noqa: F811
    """In an old chunk of one of many snapshots, whichever the drill restores; those that need it
    are good no longer, and the next snapshot writes it again."""
    events = Events(tmp_path)
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", KEEP="all", DRILL="2d", HOOK=events.program)
    days.settings = {**{k: str(v) for k, v in days.settings.items()}, "HOOK_OUT": str(events.out)}
    for _ in range(10):
        days.go_on(6)
    note = data / ".chromashim/drill"
    assert note.exists() and not events.told("drill.failed")
    assert "good" in chromashim("status", data).stdout
    flip(data)
    for hours in range(0, 49, 6):
        if events.told("drill.failed"):
            break
        days.go_on(6)
    (failed,) = events.told("drill.failed")
    assert " 1 are damaged; chunk " in failed["message"] or "cannot be restored" in failed["message"]
    assert hours <= 48
    states = [s["state"] for s in listed(chromashim, data)]
    assert "broken" in states and "verified" in states
    done = days.command("status", "--check", data)
    assert done.returncode == 2 and "the drill with snapshot" in done.stdout
    for _ in range(9):
        days.go_on(6)
    assert len(events.told("drill.failed")) == 1
    assert days.command("status", "--check", data).returncode in (0, 1)


def test_what_chroma_says_counts(data, chromashim, fake):
    make_directory(data)
    assert chromashim("snapshot", "create", data).returncode == 0
    for answers, words in (({"COUNT": 39}, "has 39 records, and 40 in the files"),
                           ({"VECTOR": [1.0]}, "has another vector")):
        found = drill(chromashim, data, "--chroma", sys.executable, code=1, env=fake(**answers))
        assert found["outcome"] == "failed" and words in found["trouble"], found
    line = chromashim("status", "--check", data)
    assert line.returncode == 2 and "another vector" in line.stdout
    assert [s["state"] for s in listed(chromashim, data)] == ["verified"]
    # No Chroma: that says nothing of the snapshot.
    found = drill(chromashim, data, "--chroma", "/bin/false", code=3)
    assert found["outcome"] == "good" and "has no Chroma" in found["trouble"]
    assert drill(chromashim, data, code=3)["trouble"].startswith("no Python with Chroma")


def test_age_of_the_last_good_one(data, chromashim, clock):  # noqa: F811
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", KEEP="all", DRILL="off")
    days.go_on(6)
    assert "drill" not in days.command("status", "--check", data).stdout.split("|")[0]
    days.settings["CHROMASHIM_DRILL"] = "7d"
    days.seconds += 16 * 86400
    done = days.command("status", "--check", data)
    assert done.returncode == 1 and "no snapshot was ever tried by a drill" in done.stdout
    assert days.command("drill", data).returncode == 3
    assert "drill" not in days.command("status", "--check", data).stdout.split("|")[0]
    days.seconds += 3 * 86400
    done = days.command("status", "--check", "--drill-age", "2d", data)
    assert "the last good drill is 3.00 d old" in done.stdout or "good drill is" in done.stdout


def test_never_fills_the_disk_of_the_data(tmp_path, small_disk, chromashim, fake):
    data = small_disk / "data"
    make_directory(data)
    assert chromashim("snapshot", "create", data).returncode == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**fake(VECTOR=[1.0]), "TMPDIR": str(elsewhere)}
    drill(chromashim, data, "--chroma", sys.executable, code=1, env=env)
    opened = (tmp_path / "opened").read_text()
    assert not opened.startswith(str(small_disk))
    assert not list(elsewhere.iterdir())
    here = tmp_path / "here"
    here.mkdir()
    drill(chromashim, data, "--chroma", sys.executable, "--scratch", here, code=1, env=env)
    assert (tmp_path / "opened").read_text().startswith(str(here)) and not list(here.iterdir())
    assert drill(chromashim, data, "--scratch", here / "none", code=3)["outcome"] == "skipped"


def test_told_to_stop(tmp_path, data, chromashim, fake):
    """What was restored goes, so does the Python, and nothing is kept; meanwhile there is one only."""
    make_directory(data)
    assert chromashim("snapshot", "create", data).returncode == 0
    child = subprocess.Popen([str(hosts.COMMAND), "drill", "--chroma", sys.executable, str(data)],
                             env=fake(PAUSE=60), stdout=subprocess.DEVNULL)
    opened = tmp_path / "opened"
    deadline = time.monotonic() + 30
    while not (opened.exists() and opened.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(scratch(data)) == 1
    done = chromashim("drill", data)
    assert done.returncode == 11 and "another drill is under way" in done.stderr
    # Others are not in its way.
    assert chromashim("snapshot", "create", data).returncode == 0
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 1
    assert not scratch(data) and not (data / ".chromashim/drill").exists()
    pythons = subprocess.run(["pgrep", "-f", opened.read_text()], capture_output=True, check=False)
    assert not pythons.stdout


def test_nothing_to_try(data, chromashim):
    make_directory(data)
    assert chromashim("drill", data).returncode == 10
    done = chromashim("drill", "--wrong", data)
    assert done.returncode == 2
    assert chromashim("snapshot", "create", data).returncode == 0
    assert chromashim("drill", "--snapshot", "77", data).returncode == 12


@pytest.mark.parametrize("seal", ["plain", "sealed"])
def test_from_a_replica(tmp_path, data, chromashim, seal):
    """Where it can be read: a plain one, or with the key; what is damaged there is told."""
    make_directory(data)
    replica, key = tmp_path / "replica", tmp_path / "key"
    replica.mkdir()
    env = hosts.environment({"CHROMASHIM_REPLICA": str(replica), "CHROMASHIM_REPLICA_SEAL": seal})
    assert chromashim("snapshot", "create", data).returncode == 0
    if seal == "sealed":
        done = chromashim("replica", "keygen", "-o", key, data, env=env)
        assert done.returncode == 0, done.stderr
    done = chromashim("replica", "send", data, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    with_key = {**env, "CHROMASHIM_REPLICA_KEY": str(key)} if seal == "sealed" else env
    python = ("--chroma", hosts.python("venv"))
    done = chromashim("drill", "--json", "--replicas", *python, data, env=with_key)
    assert done.returncode == 0, done.stdout + done.stderr
    local, there = map(json.loads, done.stdout.splitlines())
    assert local["outcome"] == there["outcome"] == "good" and there["compared"] == 5
    assert local["chunks"] and not there["chunks"]
    assert "from replica  good, " in chromashim("status", data, env=env).stdout
    if seal == "sealed":  # without the key it is left out, or said
        done = chromashim("drill", "--json", "--replicas", *python, data, env=env)
        assert len(done.stdout.splitlines()) == 1
        assert drill(chromashim, data, "--from", replica, code=3)["outcome"] == "skipped"
    big = max((p for p in replica.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    bits = bytearray(big.read_bytes())
    bits[len(bits) // 2] ^= 1
    big.write_bytes(bits)
    found = drill(chromashim, data, "--from", replica, *python, code=1, env=with_key)
    assert found["outcome"] == "failed" and str(replica) in found["trouble"]
    done = chromashim("status", "--check", data, env=env)
    assert done.returncode == 2 and "the drill with snapshot 1 failed" in done.stdout
