# SPDX-License-Identifier: MIT
"""Replicas by lines and places that fail: whatever happens while it is sent, what `replica list`
and `status` call there comes back whole, and the next try completes it. CHROMASHIM_REPLICA_FAULTS is
how many rounds of each (tests/torture.py sets it)."""

import getpass
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hosts
from lines import SFTP, Line
from test_replica import (check, chroma_made, listed, machine, same, wait_for)  # noqa: F401
from test_replica_servers import answers, free_port, sshd  # noqa: F401

ROUNDS = int(os.environ.get("CHROMASHIM_REPLICA_FAULTS", "0"))
NEW_RCLONE = hosts.BUILD / "venv-replica/bin"
KEYS = ("replica-user", "replica-secret")


def some(few, many):
    """Few of them in the tests, as many as were asked for elsewhere."""
    found = list(many)
    return random.Random(ROUNDS).sample(found, min(len(found), ROUNDS)) if ROUNDS else few


# ---- ways there ----

class Direct:
    """A directory; the sender is failed at its system calls."""

    def __init__(self, m):
        m.env["PATH"] = os.environ["PATH"]

    def fail(self, **fault):
        assert not fault


class Sftp:
    """OpenSSH's server behind its own sshd, and what is between them."""

    def __init__(self, m, server):
        port, config = server
        self.faults, self.keys = m.root / "line", config.parent / "authorized"
        self.faults.mkdir()
        key = m.root / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (m.root / "line.py").write_text(SFTP, encoding="utf-8")
        self.authorized = config.parent / f"authorized.d-{m.root.name}"
        public = (m.root / "key.pub").read_text(encoding="utf-8")
        with open(self.keys, "a", encoding="utf-8") as f:
            # Gone with the file it asks for.
            f.write(f'restrict,command="test -e {self.authorized} && exec {sys.executable} -I -S '
                    f'{m.root}/line.py {self.faults}" {public}')
        (m.root / "ssh").write_text(config.read_text(encoding="utf-8").replace(
            f"{config.parent}/user", str(key)), encoding="utf-8")
        m.env["CHROMASHIM_REPLICA_SSH_CONFIG"] = str(m.root / "ssh")
        m.replica = f"sftp://{getpass.getuser()}@127.0.0.1:{port}{m.place}"
        self.fail()

    def fail(self, **fault):
        self.authorized.touch()
        for name in ("count", "sessions"):
            (self.faults / name).unlink(missing_ok=True)
        (self.faults / "fault").write_text(json.dumps({**fault, "authorized": str(self.authorized)}),
                                           encoding="utf-8")

    def count(self):
        return (self.faults / "count").stat().st_size


class Http:
    """rclone to a server of its own."""

    def __init__(self, m, server, kind):
        port, root, client = server
        self.line = Line(port)
        m.place = root / "bucket" / m.root.name
        m.place.mkdir()
        m.env.update(PATH=f"{client}:{os.environ['PATH']}", RCLONE_CONFIG="/dev/null")
        if kind == "webdav":
            m.env.update(RCLONE_CONFIG_FAR_TYPE="webdav",
                         RCLONE_CONFIG_FAR_URL=f"http://127.0.0.1:{self.line.port}")
        else:
            m.env.update(RCLONE_CONFIG_FAR_TYPE="s3", RCLONE_CONFIG_FAR_PROVIDER="Other",
                         RCLONE_CONFIG_FAR_ENDPOINT=f"http://127.0.0.1:{self.line.port}",
                         RCLONE_CONFIG_FAR_ACCESS_KEY_ID=KEYS[0],
                         RCLONE_CONFIG_FAR_SECRET_ACCESS_KEY=KEYS[1],
                         RCLONE_CONFIG_FAR_NO_CHECK_BUCKET="true")
        m.replica = f"rclone:far:bucket/{m.place.name}"
        self.fail = self.line.fail

    def count(self):
        return self.line.count


def serve(tmp_path_factory, kind, *words):
    client = NEW_RCLONE if (NEW_RCLONE / "rclone").exists() else None
    if not client and (kind == "s3" or not shutil.which("rclone")):
        pytest.skip(f"{NEW_RCLONE}/rclone is missing; run wrappers/setup check")
    root, port = tmp_path_factory.mktemp(kind), free_port()
    (root / "bucket").mkdir()
    program = str(client / "rclone") if client else shutil.which("rclone")
    child = subprocess.Popen([program, "serve", kind, "--config", "/dev/null", "--addr", f"127.0.0.1:{port}",
                              "--dir-cache-time", "1s", *words, str(root)], stderr=(root.parent / f"{kind}.log").open("wb"))
    wait_for(lambda: answers(port), 20)
    yield port, root, client or Path(program).parent
    child.terminate()
    child.wait(10)


@pytest.fixture(scope="module")
def dav(tmp_path_factory):
    yield from serve(tmp_path_factory, "webdav")


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    yield from serve(tmp_path_factory, "s3", "--auth-key", ",".join(KEYS))


class Far:
    """A machine, the way to its replica, and what was there at each of its snapshots."""

    def __init__(self, m, way):
        self.m, self.way, self.moments = m, way, {}
        self.snapshot()

    def snapshot(self):
        self.m.change()
        self.m.snapshot(send=False)
        number = len(self.moments) + 1
        self.moments[number] = self.m.root / f"moment-{number}"
        shutil.copytree(self.m.data, self.moments[number],
                        ignore=shutil.ignore_patterns(".chromashim"))

    def send(self, status=None):
        done = self.m.call("replica", "send", self.m.data, timeout=300, env=hosts.environment(
            {"CHROMASHIM_REPLICA": self.m.replica, **self.m.env}))
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done

    def there(self):
        """What is told to be there: each is whole, without the way that fails."""
        here, self.m.replica = self.m.replica, str(self.m.place)
        try:
            found = {e["id"]: e["state"] for e in listed(self.m, status=None)}
            assert set(found.values()) <= {"there"}, found
            for number in sorted(found)[-2:]:
                assert same(self.m.restore(str(number)), self.moments[number])
        finally:
            self.m.replica = here
        status = json.loads(self.m.run("status", "--json", self.m.data, status=None).stdout)
        assert (status["replicas"][0]["snapshot"] or 0) in (0, *found)
        return set(found)

    def completes(self):
        self.way.fail()
        done = self.send()
        assert done.returncode == 0, done.stderr
        assert self.there() == set(self.moments)

    def child(self):
        return subprocess.Popen([str(hosts.COMMAND), "replica", "send", str(self.m.data)],
                                env=hosts.environment({"CHROMASHIM_REPLICA": self.m.replica, **self.m.env}),
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def far(request, machine):  # noqa: F811
    kind = request.param
    if kind == "directory":
        way = Direct(machine)
    elif kind == "sftp":
        way = Sftp(machine, request.getfixturevalue("sshd"))
    else:
        way = Http(machine, request.getfixturevalue("dav" if kind == "webdav" else kind), kind)
    return Far(machine, way)


def ways(*kinds):
    return pytest.mark.parametrize("far", kinds, indirect=True)


# ---- the faults ----

@pytest.mark.parametrize("far, done", [(kind, done) for kind in ("sftp", "s3", "webdav")
                                       for done in (False, True)
                                       if ROUNDS or (kind, done) in (("sftp", False), ("s3", True))],
                         indirect=["far"])
def test_cut_after_requests(far, done):
    """Each K-th request ends the line, before it is made, or when it was and the answer is lost."""
    for every in some([5], range(1, 60)):
        far.way.fail(every=every * (4 if isinstance(far.way, Sftp) else 1), done=done)
        far.send()
        far.there()
        far.completes()
        if ROUNDS:
            far.snapshot()
    assert "0 damaged, 0 missing" in check(far.m)


@ways(*(["sftp", "s3"] if ROUNDS else []), "webdav")
def test_cut_at_bytes(far):
    rng = random.Random(7)
    for _ in range(ROUNDS or 2):
        far.way.fail(bytes=rng.randrange(1000, 200000))
        far.send()
        far.there()
        if rng.random() < 0.5:
            far.snapshot()
    far.completes()
    assert "0 damaged, 0 missing" in check(far.m)


@ways("sftp", "webdav", *(["s3"] if ROUNDS else []))
def test_killed_at_requests(far):
    """The sender is killed with a request under way."""
    far.way.fail()
    far.send(0)
    requests = far.way.count()
    for at in some([requests * 2 // 3], range(1, requests + 20)):
        far.snapshot()
        child = far.child() if isinstance(far.way, Http) else None
        if child:
            far.way.fail(kill=(at, child.kill))
        else:
            child = subprocess.Popen(["/bin/sh", "-c", 'read go; exec "$@"', "sh", str(hosts.COMMAND),
                                      "replica", "send", str(far.m.data)], stdin=subprocess.PIPE,
                                     env=hosts.environment({"CHROMASHIM_REPLICA": far.m.replica, **far.m.env}),
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            far.way.fail(kill=at, pid=child.pid)
            child.communicate(b"go\n")
        child.wait(60)
        far.there()
        far.completes()
    assert "0 damaged, 0 missing" in check(far.m)


CALLS = "openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,linkat,mkdirat,unlinkat,ftruncate"


@pytest.mark.parametrize("what", ["signal=KILL", "error=EIO", *(["error=ENOSPC"] if ROUNDS else [])])
@ways("directory")
def test_failed_at_calls(far, strace, what):
    """Each call of a sender to a directory is its last, or fails."""
    trace = far.m.root / "trace"

    def send(*words):
        return subprocess.run(
            ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS}", *words, str(hosts.COMMAND),
             "replica", "send", str(far.m.data)], check=False, capture_output=True,
            env=hosts.environment({"CHROMASHIM_REPLICA": far.m.replica}))

    far.snapshot()
    assert send().returncode == 0
    calls = len(trace.read_text(encoding="utf-8").splitlines())
    assert calls > 50
    first = calls // 4  # the loader's, and the settings
    for at in some([first + (calls - first) * n // 5 for n in range(1, 5)], range(5, calls + 10)):
        far.snapshot()
        send("-e", f"inject={CALLS}:{what}:when={at}")
        far.there()
        far.completes()
    assert "0 damaged, 0 missing" in check(far.m)
    assert what == "signal=KILL" or not list(far.m.place.rglob(".*"))


@ways(*(["webdav"] if ROUNDS else []), "s3")
def test_unavailable(far):
    """503, to each other request and to all; then 403 from some request on, as after a revocation."""
    for fault in some([{"every": 1, "status": 503}, {"every": 3, "status": 503}, {"after": 6, "status": 403}],
                      [{"every": n, "status": 503} for n in range(1, 40)]
                      + [{"after": n, "status": s} for n in range(30) for s in (401, 403)]):
        far.way.fail(**fault)
        done = far.send()
        assert far.there() == set(far.moments) or done.returncode == 1
        far.completes()
        if ROUNDS:
            far.snapshot()


@ways("sftp")
def test_revoked(far):
    """The key is taken back with a session under way: that is the last one, and the reason is told."""
    for session in some([4], range(1, 9)):
        far.way.fail(revoke=session)
        done = far.send()
        assert done.returncode == 1 and "cannot send" in done.stderr
        far.there()
        far.completes()
        if ROUNDS:
            far.snapshot()


@ways(*(["sftp"] if ROUNDS else []), "webdav")
def test_slow(far):
    """A slow line delays it; the setting keeps it slow where the line would be fast."""
    if isinstance(far.way, Http):
        far.way.fail(rate=400000)
    else:
        far.m.env["CHROMASHIM_REPLICA_RATE"] = "1M"
    assert far.send().returncode == 0
    assert far.there() == set(far.moments)


@ways("directory", *(["sftp"] if ROUNDS else []))
def test_full(far, small_disk):
    """The place is full in the middle, and later it is not."""
    full = small_disk / "replica"
    full.mkdir()
    far.m.replica, far.m.place = far.m.replica.replace(str(far.m.place), str(full)), full
    far.send(0)
    for room in some([0, 150000], range(0, 600000, 7000)):
        far.snapshot()
        filler = small_disk / "filler"
        free = os.statvfs(small_disk)
        filler.write_bytes(b"x" * max(0, free.f_bavail * free.f_frsize - room))
        done = far.send()
        assert far.there() == set(far.moments) or done.returncode == 1
        filler.unlink()
        far.completes()
    assert "0 damaged, 0 missing" in check(far.m)


@ways("directory")
def test_no_links_there(far, strace):
    """A share that can make a file without a name, and not give it one."""
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=linkat:error=EOPNOTSUPP", str(hosts.COMMAND),
         "replica", "send", str(far.m.data)], capture_output=True, text=True, check=False,
        env=hosts.environment({"CHROMASHIM_REPLICA": far.m.replica}))
    assert done.returncode == 0, done.stderr
    assert far.there() == set(far.moments) and not list(far.m.place.rglob(".*"))


# ---- places that keep what they have ----

def test_write_once_directory(machine):  # noqa: F811
    """What is there can be neither changed nor removed, nor renamed, by nobody."""
    tried = machine.root / "tried"
    tried.mkdir()
    if subprocess.run(["chattr", "+a", str(tried)], capture_output=True, check=False).returncode:
        pytest.skip("chattr +a needs root and a file system that knows it")
    subprocess.run(["chattr", "-a", str(tried)], check=True)
    far = Far(machine, Direct(machine))

    def lock(sign):
        paths = [machine.place, *machine.place.rglob("*")]
        for flag, some_ in (("a", [p for p in paths if p.is_dir()]), ("i", [p for p in paths if p.is_file()])):
            if some_:
                subprocess.run(["chattr", sign + flag, *map(str, some_)], check=True)

    try:
        for _ in range(3):
            lock("+")
            far.send(0)
            lock("+")
            assert far.there() == set(far.moments)
            far.snapshot()
        far.completes()
        assert "0 damaged, 0 missing" in check(machine)
        done = machine.run("replica", "prune", "--from", machine.replica, "--key", machine.key,
                           "--keep=last=1", "-y", status=1)
        assert "cannot remove" in done.stderr
        assert far.there() == set(far.moments)
        far.snapshot()
        far.completes()  # also after a prune that could not
    finally:
        lock("-")


@ways(*(["webdav"] if ROUNDS else []), "s3")
def test_write_once_rclone(far):
    """rclone is told to write nothing over."""
    far.m.env["RCLONE_IMMUTABLE"] = "true"
    for _ in range(2):
        far.send(0)
        far.snapshot()
    far.way.fail(every=5)
    far.send()
    far.there()
    far.completes()


@ways("webdav")
def test_what_was_cut_is_sent_again(far):
    """A server that keeps the beginning of what was cut off, under its name: it is not taken for whole."""
    far.way.fail()
    far.send(0)
    before = set(far.m.files())
    far.snapshot()
    far.send(0)
    new = [p for p in far.m.files() if p not in before and "chunks" in p.parts]
    manifest, = [p for p in far.m.files() if p not in before and "snapshots" in p.parts]
    # As if it had been killed when all of that was on the way.
    manifest.unlink()
    for path in new:
        path.write_bytes(path.read_bytes()[:-100])
    for path in far.m.data.glob(".chromashim/replica/*/state"):
        path.unlink()
    for path in far.m.data.glob(".chromashim/replica/*/lock"):
        (path.parent / "sending").touch()
    time.sleep(1.5)  # so long the server tells of files that were removed behind its back
    far.completes()
    assert "0 damaged, 0 missing" in check(far.m)


@ways("directory")
def test_prune_beside_a_manifest(far, strace):
    """A prune that began just before a manifest came, and has not seen it: the chunks come again."""
    far.send(0)
    assert len(far.moments) == 1
    before = set(far.m.files())
    far.snapshot()
    # Killed when the directory of manifests is synced: it is named, and nobody has noted that.
    subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(far.m.place / "snapshots"), "-e",
                    "inject=fsync:signal=KILL", str(hosts.COMMAND), "replica", "send", str(far.m.data)],
                   check=False, capture_output=True,
                   env=hosts.environment({"CHROMASHIM_REPLICA": far.m.replica}))
    new = [p for p in far.m.files() if p not in before]
    assert any("snapshots" in p.parts for p in new)
    for path in new:
        if "chunks" in path.parts:
            path.unlink()
    for mark in ("prune", "pruned"):
        (far.m.place / f"control/000001-0000abcd.{mark}").touch()
    far.completes()
