# SPDX-License-Identifier: MIT
"""Replicas: a machine is wiped, and comes back from the replica alone."""

import contextlib
import filecmp
import json
import os
import re
import shutil
import sqlite3
import subprocess
import textwrap
import time

import pytest

import hosts
from test_guardian_clock import clock  # noqa: F401

# A collection of so many records, more of them with each call.
ADD = textwrap.dedent("""
    import random, sys
    import chromadb
    from chromadb.config import Settings
    path, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))
    tales = client.get_or_create_collection("tales-of-the-clerk", metadata={"hnsw:sync_threshold": 300})
    draw = random.Random(first)
    tales.add(ids=[f"clerk-{n}" for n in range(first, first + count)],
              embeddings=[[draw.random() for _ in range(16)] for _ in range(count)],
              metadatas=[{"penned-by": f"bartleby-{n}"} for n in range(first, first + count)],
              documents=[f"i would prefer not to, {n}" for n in range(first, first + count)])
""")
READ = textwrap.dedent("""
    import json, sys
    import chromadb
    from chromadb.config import Settings
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    found = {}
    for collection in client.list_collections():
        got = collection.get(include=["embeddings", "documents", "metadatas"])
        found[collection.name] = {i: [[float(x) for x in e], d, m] for i, e, d, m in zip(
            got["ids"], got["embeddings"], got["documents"], got["metadatas"])}
        first = got["embeddings"][0]
        assert collection.query(query_embeddings=[first], n_results=1)["distances"][0][0] < 1e-6
    print(json.dumps(found))
""")
SECRETS = [b"tales-of-the-clerk", b"clerk-1", b"bartleby", b"prefer not", b"penned", b"SQLite format"]


def chroma(script, *words):
    return hosts.chroma("venv", "-c", script, *words)


def read(directory):
    """All records of a copy, as real Chroma reads them: what it writes on opening stays there."""
    copy = directory.parent / f"{directory.name}-read"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns(".chromashim"))
    return json.loads(chroma(READ, copy))


def same(restored, data):
    """Whether the files are those of a directory that nobody has open."""
    names, found = (sorted(str(p.relative_to(top)) for p in top.rglob("*")
                           if p.is_file() and ".chromashim" not in p.parts)
                    for top in (data, restored))
    assert names == found
    return filecmp.cmpfiles(restored, data, names, shallow=False) == (names, [], [])


@pytest.fixture(scope="module")
def chroma_made(tmp_path_factory):
    """A directory with 700 records, made by real Chroma once."""
    path = tmp_path_factory.mktemp("made") / "data"
    chroma(ADD, path, 0, 700)
    return path


class Machine:
    """A data directory, its replica, and the key that is kept elsewhere."""

    def __init__(self, root, chromashim, made, replica=None):
        self.root, self.call, self.changes = root, chromashim, 0
        self.data, self.key, self.place = root / "data", root / "kept/secret", root / "replica"
        self.env = {}
        for path in (self.place, self.key.parent):
            path.mkdir(parents=True)
        shutil.copytree(made, self.data, symlinks=True)
        self.replica = replica or str(self.place)

    def change(self):
        """Something that Chroma would not mind."""
        self.changes += 1
        with contextlib.closing(sqlite3.connect(self.data / "chroma.sqlite3")) as db, db:
            db.execute("UPDATE embeddings SET created_at = ? WHERE id % 50 = 0", [self.changes])

    def run(self, *words, status=0, **env):
        done = self.call(*words, env=hosts.environment(
            {"CHROMASHIM_REPLICA": self.replica, **self.env, **env}))
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done

    def keygen(self):
        return self.run("replica", "keygen", "-o", self.key, self.data)

    def snapshot(self, send=True):
        self.run("snapshot", "create", self.data)
        if send:
            self.run("replica", "send", self.data)

    def restore(self, to="latest", status=0, name="restored", key=True):
        out = self.root / name
        shutil.rmtree(out, ignore_errors=True)
        done = self.run("restore", "--from", self.replica, "--to", to, "-o", out,
                        *(["--key", self.key] if key else []), status=status)
        assert out.exists() == (status == 0)
        return out if status == 0 else done

    def files(self):
        return sorted(p for p in self.place.rglob("*") if p.is_file())


@pytest.fixture
def machine(tmp_path, chromashim, chroma_made):
    made = Machine(tmp_path, chromashim, chroma_made)
    made.keygen()
    return made


def test_wiped(machine):
    """Only the replica and the key are left: each of its moments comes back, bit by bit."""
    machine.snapshot()
    first = read(machine.data)
    chroma(ADD, machine.data, 700, 150)
    machine.snapshot()
    second = read(machine.data)
    shutil.rmtree(machine.data)
    assert read(machine.restore()) == second
    assert read(machine.restore("1")) == first
    assert len(second["tales-of-the-clerk"]) == 850


def test_nothing_is_told(machine, chroma_made):
    """No byte of it has a name, an id or a text, and the machine cannot read it, nor who finds it."""
    machine.snapshot()
    files = machine.files()
    assert len(files) > 5
    for path in files:
        content = path.read_bytes() + str(path.relative_to(machine.place)).encode()
        assert not [word for word in SECRETS if word in content], path
    told = machine.restore(key=False, status=1).stderr
    assert "--key" in told
    public = machine.data / ".chromashim/replica/key"
    assert b"secret" not in public.read_bytes() and public.stat().st_mode & 0o777 == 0o600
    done = machine.run("restore", "--from", machine.replica, "--to", "latest", "-o",
                       machine.root / "no", "--key", public, status=1)
    assert "holds no secret key" in done.stderr
    # What two machines have in common cannot be seen either.
    other = Machine(machine.root / "other", machine.call, chroma_made)
    other.keygen()
    other.snapshot()
    mine = {p.name for p in files if "chunks" in p.parts}
    assert mine and not mine & {p.name for p in other.files()}


def test_plain(tmp_path, chromashim, chroma_made):
    """By a setting, and said in it."""
    machine = Machine(tmp_path, chromashim, chroma_made)
    machine.env["CHROMASHIM_REPLICA_SEAL"] = "plain"
    machine.snapshot()
    assert same(machine.restore(key=False), machine.data)


def test_key(tmp_path, chromashim, chroma_made):
    machine = Machine(tmp_path, chromashim, chroma_made)
    machine.run("snapshot", "create", machine.data)
    told = machine.run("replica", "send", machine.data, status=1).stderr
    assert "replica keygen" in told and not machine.files()
    for place in (machine.data / "key", machine.data / ".chromashim/key"):
        told = machine.run("replica", "keygen", "-o", place, machine.data, status=2).stderr
        assert "in the data directory" in told and not place.exists()
    machine.keygen()
    assert machine.key.stat().st_mode & 0o777 == 0o600
    told = machine.run("replica", "keygen", "-o", machine.key, "--force", machine.data, status=1)
    assert "File exists" in told.stderr
    told = machine.run("replica", "keygen", "-o", tmp_path / "two", machine.data, status=1).stderr
    assert "has a key already" in told
    # The same key on a second machine.
    second = Machine(tmp_path / "second", chromashim, chroma_made)
    second.run("replica", "keygen", "--use", machine.key, second.data)
    second.snapshot()
    second.key = machine.key
    assert same(second.restore(), second.data)


def test_only_what_is_new(machine):
    """Nothing is written over or removed while it is sent, and nothing sent twice."""
    machine.snapshot()
    before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in machine.files()}
    machine.run("replica", "send", machine.data)
    assert set(machine.files()) == set(before)
    machine.change()
    machine.snapshot()
    after = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in machine.files()}
    assert before.items() <= after.items()
    assert 0 < len(after) - len(before) < len(before)


@pytest.mark.parametrize("part", ["chunks", "snapshots"])
def test_damage_is_not_restored(machine, part):
    """A byte that has changed, wherever: it is told, and there is no directory."""
    machine.snapshot()
    for path in machine.files():
        if part not in path.parts:
            continue
        whole = path.read_bytes()
        for at in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            done = machine.run("restore", "--from", machine.replica, "--to", "latest", "-o",
                               machine.root / "out", "--key", machine.key, status=None)
            # The second copy of the manifest is not needed for this.
            if done.returncode == 0:
                assert same(machine.root / "out", machine.data)
                shutil.rmtree(machine.root / "out")
                break
            assert not (machine.root / "out").exists() and "snapshot 1" in done.stderr
        path.write_bytes(whole)
    assert same(machine.restore(), machine.data)


def test_not_mounted(machine):
    """The disk is not there, or another one is: nothing is said to be sent."""
    machine.snapshot()
    machine.place.rename(machine.root / "away")
    told = machine.run("replica", "send", machine.data, status=1).stderr
    assert "cannot be opened" in told
    machine.place.mkdir()
    told = machine.run("replica", "send", machine.data, status=1).stderr
    assert "is it not mounted" in told and not machine.files()
    machine.place.rmdir()
    (machine.root / "away").rename(machine.place)
    machine.change()
    machine.snapshot()
    assert same(machine.restore(), machine.data)


def test_two_machines(machine, chroma_made):
    """The second is told, with who and since when; taking over is asked for, and ends the first."""
    machine.snapshot()
    second = Machine(machine.root / "second", machine.call, chroma_made, machine.replica)
    second.run("replica", "keygen", "--use", machine.key, second.data)
    second.run("snapshot", "create", second.data)
    told = second.run("replica", "send", second.data, status=1).stderr
    assert os.uname().nodename in told and "since 20" in told and "takeover" in told
    second.run("replica", "takeover", second.data)
    second.run("replica", "send", second.data)
    second.key = machine.key
    assert same(second.restore(), second.data)
    assert same(machine.restore("1-1"), machine.data)
    machine.change()
    machine.run("snapshot", "create", machine.data)
    told = machine.run("replica", "send", machine.data, status=1).stderr
    assert "another store sends to it" in told
    assert same(second.restore(), second.data)


def test_a_copy_of_the_machine(machine):
    """With the same store: the first that finds a snapshot it has not sent stops."""
    machine.snapshot()
    copy = Machine(machine.root / "copy", machine.call, machine.data, machine.replica)
    copy.change()
    copy.snapshot(send=False)
    copy.run("replica", "send", copy.data, status=None)
    machine.change()
    machine.snapshot(send=False)
    machine.run("replica", "send", machine.data, status=1)
    lines = {p.name.split("-")[2] for p in machine.files() if "snapshots" in p.parts}
    assert len(lines) == len([p for p in machine.files() if "snapshots" in p.parts])


def test_what_is_remembered_is_lost(machine):
    """Of the store's notes: nothing is sent twice, and nothing that is missing is taken for sent."""
    machine.snapshot()
    for name in ("sent", "state"):
        for path in machine.data.glob(f".chromashim/replica/*/{name}"):
            path.unlink()
        machine.change()
        before = set(machine.files())
        machine.snapshot()
        assert before < set(machine.files())
        assert same(machine.restore(), machine.data)


# ---- the guardian ----

@pytest.fixture
def hook(tmp_path):
    """A program that notes the events it is called with, and their messages."""
    program, notes = tmp_path / "hook", tmp_path / "events"
    program.write_text(f'#!/bin/sh\ncat >>"{notes}"\n', encoding="utf-8")
    program.chmod(0o755)
    notes.touch()

    def events(*kinds):
        found = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
        return [e for e in found if e["event"].startswith("replica.") and
                (not kinds or e["event"] in kinds)]

    return program, events


def test_guardian_sends(machine, hook):
    """What was taken while the place was away comes as well; failing is told once, coming back too."""
    program, events = hook
    machine.env.update(CHROMASHIM_HOOK=str(program), CHROMASHIM_EVERY="0")
    machine.snapshot(send=False)
    machine.run("guard", "--once", machine.data)
    assert [(e["event"], e["snapshot"]) for e in events()] == [("replica.done", 1)]
    machine.place.rename(machine.root / "away")
    for _ in range(2):
        machine.change()
        machine.snapshot(send=False)
        machine.run("guard", "--once", machine.data, status=1)
    assert "cannot be opened" in events("replica.failed")[0]["message"]
    assert not events("replica.late")
    (machine.root / "away").rename(machine.place)
    machine.run("guard", "--once", machine.data)
    assert events()[-1]["event"] == "replica.done" and events()[-1]["snapshot"] == 3
    numbers = sorted(int(p.name.split("-")[2]) for p in machine.place.glob("snapshots/*"))
    assert numbers == [1, 2, 3]
    assert same(machine.restore(), machine.data)


def test_guardian_goes_on(machine, hook):
    """One that lives tries again by itself, tells a failure once, and says what is late."""
    program, events = hook
    machine.env.update(CHROMASHIM_HOOK=str(program), CHROMASHIM_EVERY="0",
                       CHROMASHIM_REPLICA_LATE="1s")
    machine.snapshot(send=False)
    machine.place.rename(machine.root / "away")
    guardian = subprocess.Popen(
        [str(hosts.COMMAND), "guard", str(machine.data)], stderr=subprocess.PIPE, text=True,
        env=hosts.environment({"CHROMASHIM_REPLICA": machine.replica, **machine.env}))
    try:
        wait_for(lambda: events("replica.failed") and events("replica.late"), 40)
        (machine.root / "away").rename(machine.place)
        wait_for(lambda: events("replica.done"), 40)
    finally:
        guardian.terminate()
        guardian.communicate(timeout=30)
    assert [e["event"] for e in events()].count("replica.failed") == 1
    assert [e["event"] for e in events()].count("replica.late") == 1
    assert same(machine.restore(), machine.data)


def wait_for(what, seconds):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# ---- list, check, prune, rebuild ----

def listed(machine, key=True, status=0):
    done = machine.run("replica", "list", "--json", "--from", machine.replica,
                       *(["--key", machine.key] if key else []), status=status)
    return json.loads(done.stdout)


def check(machine, status=0, *words):
    return machine.run("replica", "check", "--from", machine.replica, "--key", machine.key, *words,
                       status=status).stdout


def test_list(machine):
    machine.snapshot()
    machine.change()
    machine.snapshot()
    with_key, without = listed(machine), listed(machine, key=False)
    assert [e["snapshot"] for e in with_key] == ["1", "2"] == [e["snapshot"] for e in without]
    assert {e["state"] for e in with_key} == {"there"} and with_key[0]["records"] == 700
    assert {e["state"] for e in without} == {"sealed"} and without[0]["records"] is None
    lost = max((p for p in machine.files() if "chunks" in p.parts), key=lambda p: p.stat().st_size)
    lost.unlink()
    assert "missing" in listed(machine, status=3)[0]["state"]


def test_check_finds_each_byte(machine):
    """Whatever object a byte has changed in, check names it."""
    machine.snapshot()
    assert "0 damaged, 0 missing" in check(machine)
    assert " 0 damaged" in check(machine, 0, "--read-data-subset=20%")
    files = machine.files()
    assert {p.relative_to(machine.place).parts[0] for p in files} == {"chunks", "control", "snapshots"}
    for number, path in enumerate(files):
        whole = path.read_bytes()
        at = [0, 13, len(whole) // 2, len(whole) - 1][number % 4]
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
        assert f"damaged: {path.relative_to(machine.place)}: " in check(machine, 1), (path, at)
        path.write_bytes(whole)
    assert "0 damaged, 0 missing" in check(machine)


def test_prune(machine):
    """What the rules leave comes back; the machine that sends sees what has gone, and sends it anew."""
    machine.snapshot()
    shutil.copytree(machine.data, machine.root / "first", ignore=shutil.ignore_patterns(".chromashim"))
    for _ in range(3):
        machine.change()
        machine.snapshot()
    prune = ["replica", "prune", "--from", machine.replica, "--key", machine.key, "--keep=last=1", "-y"]
    before = set(machine.files())
    assert "would remove 3 of 4" in machine.run(*prune, "-n").stdout
    assert set(machine.files()) == before
    assert "removed 3 of 4" in machine.run(*prune).stdout
    assert [e["snapshot"] for e in listed(machine)] == ["4"]
    assert len([p for p in machine.files() if "chunks" in p.parts]) < len(before) - 3
    check(machine)
    # Pages that are as they were in the first one are needed again, and are not there.
    shutil.copy(machine.root / "first/chroma.sqlite3", machine.data / "chroma.sqlite3")
    machine.snapshot()
    assert same(machine.restore("latest"), machine.data)
    check(machine)


def test_prune_that_was_killed(machine):
    """Who sends waits for it; the next one ends it."""
    machine.snapshot()
    machine.change()
    machine.run("snapshot", "create", machine.data)
    mark = machine.place / "control/000001-0000abcd.prune"
    mark.touch()
    assert "prune is under way" in machine.run("replica", "send", machine.data, status=1).stderr
    machine.run("replica", "prune", "--from", machine.replica, "--key", machine.key,
                "--keep=last=1", "-y")
    machine.run("replica", "send", machine.data)
    assert same(machine.restore(), machine.data)


def test_rebuild(machine):
    """The list of snapshots is lost; and what the machine remembers is wrong."""
    machine.snapshot()
    machine.change()
    machine.snapshot()
    names = [p.name for p in machine.place.glob("snapshots/*")]
    shutil.rmtree(machine.place / "snapshots")
    assert not listed(machine)
    machine.run("replica", "rebuild", "--from", machine.replica, "--key", machine.key)
    assert sorted(p.name for p in machine.place.glob("snapshots/*")) == sorted(names)
    assert same(machine.restore(), machine.data)
    damaged = machine.place / "snapshots" / names[0]
    damaged.write_bytes(damaged.read_bytes()[:-3])
    machine.run("replica", "rebuild", "--from", machine.replica, "--key", machine.key)
    check(machine)
    for path in [p for p in machine.files() if "chunks" in p.parts][::2]:
        path.unlink()
    check(machine, 1)
    machine.run("replica", "rebuild", machine.data)
    assert "missing" not in str(listed(machine))
    shutil.rmtree(machine.place)
    machine.place.mkdir()
    machine.run("replica", "rebuild", machine.data)
    assert len(listed(machine)) == 2
    assert same(machine.restore(), machine.data)


# ---- a new volume ----

def test_restore_if_missing(machine):
    """Missing or empty: from the replica. Anything else, damaged or half there: left alone."""
    run = ["run", "--restore-if-missing", "--no-guard", "--dir", machine.data]
    machine.env.update(CHROMASHIM_REPLICA_KEY=str(machine.key))
    assert "so is its replica" in machine.run("run", "--restore-if-missing", "--no-guard", "--dir",
                                              machine.root / "new", "--", "true").stderr
    machine.snapshot()
    whole = machine.root / "whole"
    machine.data.rename(whole)
    for make in (lambda: None, machine.data.mkdir):
        make()
        told = machine.run(*run, "--", "test", "-s", machine.data / "chroma.sqlite3").stderr
        assert "was missing: restored snapshot 1, 700 records" in told
        assert same(machine.data, whole)
        machine.run(*run, "--", "true")
        shutil.rmtree(machine.data)
    # One that is damaged is not missing.
    machine.data.mkdir()
    (machine.data / "chroma.sqlite3").write_bytes(b"no database" * 1000)
    machine.run(*run, "--on-damage=refuse", "--", "true", status=1)
    assert (machine.data / "chroma.sqlite3").read_bytes() == b"no database" * 1000
    shutil.rmtree(machine.data)
    # One that was killed on the way.
    (machine.data / ".chromashim-replica/snapshots").mkdir(parents=True)
    (machine.data / "half").write_bytes(b"x")
    assert "was missing" in machine.run(*run, "--", "true").stderr
    assert same(machine.data, whole)
    shutil.rmtree(machine.data)
    # A replica that cannot be read: nothing starts on top of it.
    machine.place.rename(machine.root / "away")
    done = machine.run(*run, "--", "touch", machine.root / "started", status=None)
    assert done.returncode not in (0, 3) and "cannot be opened" in done.stderr
    assert not (machine.root / "started").exists()
    (machine.root / "away").rename(machine.place)
    # And it goes on from there.
    machine.run(*run, "--takeover", "--", "true")
    machine.change()
    machine.snapshot()
    assert same(machine.restore(), machine.data)


DAY = 86400


def test_clocks_that_are_wrong(machine, clock):
    """The newest is what was made last, whatever the machine's clock said then."""
    made = []
    for offset in (0, 700 * DAY, -900 * DAY, 0):
        machine.env.update(LD_PRELOAD=str(clock), CLOCK_OFFSET=str(offset))
        machine.change()
        machine.snapshot()
        made.append(shutil.copytree(machine.data, machine.root / f"made-{len(made)}",
                                    ignore=shutil.ignore_patterns(".chromashim")))
        for number, one in enumerate(made):
            assert same(machine.restore(str(number + 1)), one)
        assert same(machine.restore(), machine.data)
        assert [e["snapshot"] for e in listed(machine)] == [str(n + 1) for n in range(len(made))]
    assert "0 damaged, 0 missing" in check(machine)
    assert re.search(r"newest verified one is \d+\.\d+ m?s old", machine.run("status", machine.data).stdout)
    machine.run("replica", "prune", "--from", machine.replica, "--key", machine.key, "--keep=last=1",
                "-y")
    assert "4" in [e["snapshot"] for e in listed(machine)]
    assert same(machine.restore(), machine.data)
