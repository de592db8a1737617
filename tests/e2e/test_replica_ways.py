# SPDX-License-Identifier: MIT
"""Ways in which replicas of other tools once broke: a guardian that was away, a prune, restoring and
writing on, a directory that was itself restored, a gap in the middle; what is held stays; two that
send at once; and each byte of a replica."""

import json
import os
import random
import shutil
import sqlite3
import subprocess

import pytest

import hosts
from test_replica import (ADD, SECRETS, Machine, check, chroma_made, listed, machine, read,  # noqa: F401
                          same)
from test_replica_servers import reach, sshd  # noqa: F401

ROUNDS = int(os.environ.get("CHROMASHIM_REPLICA_FAULTS", "0"))


class Kept:
    """What the data was at each snapshot that was sent, by its name in the replica."""

    def __init__(self, m):
        self.m, self.kept = m, {}

    def keep(self, name):
        self.kept[name] = self.m.root / f"kept-{name}"
        shutil.copytree(self.m.data, self.kept[name], ignore=shutil.ignore_patterns(".chromashim"))

    def snapshot(self, number, epoch=1, send=True, verify=True):
        self.m.change()
        self.m.run("snapshot", "create", *([] if verify else ["--no-verify"]), self.m.data)
        if send:
            self.m.run("replica", "send", self.m.data)
        self.keep(f"{epoch}-{number}")

    def promised(self, status=0):
        """All that `list` promises is whole; their names."""
        found = [f"{e['epoch']}-{e['id']}" for e in listed(self.m, status=status) if e["state"] == "there"]
        for name in found:
            assert same(self.m.restore(name), self.kept[name])
        return found


def numbers(m):
    return [e["id"] for e in listed(m)]


# ---- five ways ----

def test_guardian_was_away(machine):  # noqa: F811
    """The backend writes on without one; the next one sends what is there then."""
    machine.env.update(CHROMASHIM_EVERY="0")
    machine.snapshot(send=False)
    machine.run("guard", "--once", machine.data)
    first = read(machine.data)
    done = subprocess.run([str(hosts.python("venv")), "-c", ADD, str(machine.data), "700", "60"], check=False,
                          capture_output=True, text=True, env=hosts.environment(
                              {"LD_PRELOAD": str(hosts.SHIM), "CHROMASHIM_GUARD": "off"}))
    assert done.returncode == 0, done.stderr[-1000:]
    machine.snapshot(send=False)
    machine.run("guard", "--once", machine.data)
    second = read(machine.data)
    assert len(second["tales-of-the-clerk"]) == 760
    assert {e["state"] for e in listed(machine)} == {"there"}
    assert read(machine.restore()) == second
    assert read(machine.restore(str(numbers(machine)[0]))) == first


def test_pruned_here_and_there(machine):  # noqa: F811
    """Each moment that is still promised comes back, whichever of the two was pruned."""
    kept = Kept(machine)
    for number in range(1, 6):
        kept.snapshot(number)
    machine.run("snapshot", "prune", "--keep-last=1", "-y", machine.data)
    kept.snapshot(6)
    assert kept.promised() == [f"1-{n}" for n in range(1, 7)]
    machine.run("replica", "prune", "--from", machine.replica, "--key", machine.key, "--keep=last=3", "-y")
    assert kept.promised() == ["1-4", "1-5", "1-6"]
    kept.snapshot(7)
    assert kept.promised() == ["1-4", "1-5", "1-6", "1-7"]
    assert "0 damaged, 0 missing" in check(machine)


def test_restored_and_written_on(machine):  # noqa: F811
    """On another machine, twice, from the same replica, which keeps all three courses of things."""
    kept = Kept(machine)
    kept.snapshot(1)
    kept.snapshot(2)
    for epoch, back_to in ((2, "1-1"), (3, "2-1")):
        out = machine.restore(back_to, name=f"machine-{epoch}")
        assert same(out, kept.kept[back_to])
        shutil.rmtree(machine.data)
        machine.data = out
        machine.run("replica", "keygen", "--use", machine.key, machine.data)
        assert "another store sends" in machine.run(
            "snapshot", "create", machine.data).stderr + machine.run("replica", "send", machine.data,
                                                                    status=1).stderr
        machine.run("replica", "takeover", machine.data)
        machine.run("replica", "send", machine.data)
        kept.keep(f"{epoch}-1")
        kept.snapshot(2, epoch)
    assert kept.promised() == ["1-1", "1-2", "2-1", "2-2", "3-1", "3-2"]
    assert same(machine.restore(), machine.data)


def test_restored_in_place(machine):  # noqa: F811
    """By its own snapshots, or from the replica of itself: its numbers go on, and nothing is taken for
    what it was before."""
    kept = Kept(machine)
    for number in (1, 2, 3):
        kept.snapshot(number)
    machine.run("restore", "--to", "1", "-y", machine.data)
    assert same(machine.data, kept.kept["1-1"])
    before = set(numbers(machine))
    machine.run("replica", "send", machine.data)  # restoring has taken one, too
    for number in set(numbers(machine)) - before:
        kept.kept[f"1-{number}"] = kept.kept["1-3"]
    number = max(numbers(machine)) + 1
    kept.snapshot(number)
    found = kept.promised()
    assert found[:3] == ["1-1", "1-2", "1-3"] and found[-1] == f"1-{number}"
    assert same(machine.restore(), machine.data)


def test_a_gap_in_the_middle(machine):  # noqa: F811
    """Snapshots that never came, and a chunk that is gone: those around them come back."""
    kept = Kept(machine)
    kept.snapshot(1)
    machine.place.rename(machine.root / "away")
    for number in (2, 3):
        kept.snapshot(number, send=False)
    machine.run("snapshot", "delete", "2", "-y", machine.data)
    (machine.root / "away").rename(machine.place)
    kept.snapshot(4)
    assert kept.promised() == ["1-1", "1-3", "1-4"]
    before = set(machine.files())
    kept.snapshot(5)
    new = [p for p in machine.files() if p not in before and "chunks" in p.parts]
    kept.snapshot(6)
    for path in new:
        path.unlink()
    states = {e["id"]: e["state"] for e in listed(machine, status=3)}
    assert "missing" in states[5] and {states[n] for n in (1, 3, 4, 6)} == {"there"}
    machine.restore("5", status=1)
    for number in (1, 3, 4, 6):
        assert same(machine.restore(str(number)), kept.kept[f"1-{number}"])


# ---- what a prune leaves ----

def prune(m, *words, status=0):
    return m.run("replica", "prune", "--from", m.replica, "--key", m.key, "--keep=last=1", "-y", *words,
                 status=status)


def test_held_stays(machine):  # noqa: F811
    """Also what was held after it was sent; released, it goes."""
    kept = Kept(machine)
    kept.snapshot(1, send=False)
    machine.run("snapshot", "hold", "1", "audit", machine.data)
    machine.run("replica", "send", machine.data)
    for number in (2, 3, 4):
        kept.snapshot(number)
    machine.run("snapshot", "hold", "2", machine.data)
    machine.run("replica", "send", machine.data)
    prune(machine)
    assert kept.promised() == ["1-1", "1-2", "1-4"]
    machine.run("snapshot", "release", "2", machine.data)
    machine.run("replica", "send", machine.data)
    machine.run("replica", "send", machine.data)
    prune(machine)
    assert kept.promised() == ["1-1", "1-4"]
    machine.run("snapshot", "release", "1", "audit", machine.data)
    machine.run("replica", "send", machine.data)
    machine.run("snapshot", "hold", "4", machine.data)
    machine.run("replica", "send", machine.data)
    prune(machine)
    assert kept.promised() == ["1-4"]
    assert "0 damaged, 0 missing" in check(machine)
    # Of what has gone no mark stays.
    marks = [p.name for p in machine.place.glob("control/*") if ".held" in p.name or ".released" in p.name]
    assert len(marks) == 1 and "-000000000004-" in marks[0]


def test_newest_verified_stays(machine):  # noqa: F811
    """Found good after it was sent; what is not whole takes the place of none."""
    kept = Kept(machine)
    kept.snapshot(1, verify=False)
    kept.snapshot(2, verify=False)
    machine.run("snapshot", "verify", "2", machine.data)
    kept.snapshot(3, verify=False)
    kept.snapshot(4, verify=False)
    assert "would remove 2 of 4" in prune(machine, "-n").stdout
    assert "removed 2 of 4" in prune(machine).stdout
    assert kept.promised() == ["1-2", "1-4"]
    # The newest lacks something: it stays, as the newest, and so does the last that is whole.
    before = set(machine.files())
    kept.snapshot(5)
    for path in [p for p in machine.files() if p not in before and "chunks" in p.parts]:
        path.unlink()
    prune(machine)
    assert kept.promised(status=3) == ["1-2", "1-4"] and numbers_there(machine) == [2, 4, 5]


def numbers_there(m):
    return sorted(int(p.name.split("-")[2]) for p in m.place.glob("snapshots/*"))


# ---- two at once ----

def test_two_begin_at_once(machine, chroma_made):  # noqa: F811
    """Whichever it is, one of them goes on; what is listed is whole, whoever sent it."""
    for number in range(ROUNDS or 2):
        place = machine.root / f"shared-{number}"
        place.mkdir()
        both = []
        for name in ("one", "two"):
            one = Machine(machine.root / f"{name}-{number}", machine.call, chroma_made, str(place))
            one.run("replica", "keygen", "--use", machine.key, one.data)
            one.key, one.place = machine.key, place
            one.changes = 100 if name == "one" else 200
            one.change()
            one.run("snapshot", "create", one.data)
            both.append(one)
        for again in range(2):
            sending = [subprocess.Popen([str(hosts.COMMAND), "replica", "send", str(one.data)],
                                        env=hosts.environment({"CHROMASHIM_REPLICA": str(place)}),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for one in both]
            ended = [child.wait(60) for child in sending]
            assert 0 in ended or not again
        assert sorted(ended) == [0, 1]
        found = listed(both[0])
        assert found and {e["state"] for e in found} == {"there"}
        for one in found:
            out = both[0].restore(f"{one['epoch']}-{one['id']}") if len(found) == 1 else both[0].restore()
            assert same(out, both[ended.index(0)].data)


# ---- each byte ----

def test_nothing_is_there_to_read(machine):  # noqa: F811
    """No name and no id of a collection, a segment, a database or a record, as text or as bytes."""
    machine.snapshot()
    machine.run("snapshot", "hold", "1", "tales-of-the-clerk", machine.data)
    machine.change()
    machine.snapshot()
    words = list(SECRETS)
    with sqlite3.connect(machine.data / "chroma.sqlite3") as db:
        for query in ("SELECT id FROM collections", "SELECT id FROM segments", "SELECT id FROM databases",
                      "SELECT embedding_id FROM embeddings LIMIT 50"):
            words += [row[0].encode() for row in db.execute(query) if len(row[0]) > 5]
        vector = db.execute("SELECT vector FROM embeddings_queue WHERE vector IS NOT NULL").fetchone()
    db.close()
    words += [bytes.fromhex(w.decode().replace("-", "")) for w in words if len(w) == 36]
    words += [vector[0][:16]] if vector else []
    words = [word for word in words if word.strip(b"\0-0")]
    assert len(words) > 20
    for path in machine.files():
        content = path.read_bytes() + str(path.relative_to(machine.place)).encode()
        assert not [word for word in words if word in content], path


def test_each_byte_counts(machine):  # noqa: F811
    """One that has changed, at any place of any object, is found, and never restored."""
    machine.snapshot()
    files = {p: p.read_bytes() for p in machine.files()}
    rng = random.Random(ROUNDS)
    # The header, the sealed key, the stream's header, the first and the last piece; from the end, too.
    ats = [0, 8, 12, 16, 95, 96, 119, 120, 1000, 70000, -1, -16, -17, -18]
    for at in ats + [rng.randrange(200000) for _ in range(ROUNDS or 2)]:
        hit = {p: whole for p, whole in files.items() if -len(whole) <= at < len(whole)}
        for path, whole in hit.items():
            changed = bytearray(whole)
            changed[at] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
        told = check(machine, 1 if hit else 0) if hit else ""
        for path in hit:
            assert f"damaged: {path.relative_to(machine.place)}: " in told, (path, at)
        for path, whole in hit.items():
            if "chunks" not in path.parts:
                path.write_bytes(whole)
        done = machine.run("restore", "--from", machine.replica, "--to", "latest", "-o", machine.root / "out",
                           "--key", machine.key, status=None)
        assert done.returncode == 1 or not hit
        if done.returncode == 0:
            shutil.rmtree(machine.root / "out")
        assert not (machine.root / "out").exists()
        for path, whole in hit.items():
            path.write_bytes(whole)
    assert same(machine.restore(), machine.data)


def test_machine_can_remove_nothing(machine, sshd):  # noqa: F811
    """With what it has: its account there may write, and its key may seal."""
    for _ in range(2):
        machine.change()
        machine.snapshot(send=False)
    place = machine.replica
    machine.replica = reach(machine, "sftp", sshd[0], sshd)
    machine.run("replica", "send", machine.data)
    before = {p: p.read_bytes() for p in machine.files()}
    # Not with the secret key either.
    done = prune_with(machine, machine.key)
    assert done.returncode == 1 and "may not remove" in done.stderr
    machine.change()
    machine.snapshot()  # and it goes on
    machine.replica = place
    assert {p: p.read_bytes() for p in before} == before
    done = prune_with(machine, machine.data / ".chromashim/replica/key")
    assert done.returncode == 1 and "holds no secret key" in done.stderr
    done = machine.run("replica", "prune", "--keep=last=1", "-y", machine.data, status=1,
                       CHROMASHIM_REPLICA=place)
    assert "nothing is removed" in done.stderr
    assert {p: p.read_bytes() for p in before} == before
    assert len(listed(machine)) == 3 and "0 damaged, 0 missing" in check(machine)


def prune_with(m, key):
    return m.run("replica", "prune", "--from", m.replica, "--key", key, "--keep=last=1", "-y", status=None)


def test_restore_if_missing_with_a_mounted_key(machine):  # noqa: F811
    """Sealed: without the key it says what is missing and starts nothing; with it the new store has the
    public half only."""
    machine.snapshot()
    shutil.copytree(machine.data, machine.root / "was", ignore=shutil.ignore_patterns(".chromashim"))
    shutil.rmtree(machine.data)
    run = ["run", "--restore-if-missing", "--no-guard", "--dir", machine.data, "--", "touch",
           machine.root / "started"]
    done = machine.run(*run, status=1)
    assert "sealed" in done.stderr and "--key" in done.stderr and not (machine.root / "started").exists()
    assert not machine.data.exists()
    machine.env["CHROMASHIM_REPLICA_KEY"] = str(machine.key)
    machine.run(*run)
    assert (machine.root / "started").exists() and same(machine.data, machine.root / "was")
    secret = [line for line in machine.key.read_text().splitlines() if line.startswith("secret ")][0].split()[1]
    for path in machine.data.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    status = json.loads(machine.run("status", "--json", machine.data, status=None).stdout)
    assert status["replicas"][0]["target"] == machine.replica


@pytest.fixture(autouse=True)
def any_zone(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
