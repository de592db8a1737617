# SPDX-License-Identifier: MIT
"""Whose a store is: root's commands in a user's directory, directories that share a store, and
backends in other containers."""

import json
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import hosts

NOBODY = pwd.getpwnam("nobody")
OTHER = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")

# Adds a row for each line it is told, and answers.
HOST = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
c.execute("create table if not exists embeddings(id integer primary key, x)")
print("up", flush=True)
for line in sys.stdin:
    c.execute("insert into embeddings(x) values(?)", (line,))
    print("written", flush=True)
"""
# Dies in the midst of a persist.
TORN = """
import os, signal, sys
os.open(sys.argv[1] + "/chroma.sqlite3", os.O_RDWR)
fd = os.open(sys.argv[1] + "/11111111-2222-3333-4444-555555555555/data_level0.bin", os.O_RDWR)
os.pwrite(fd, b"N" * 8192, 0)
os.ftruncate(fd, 100000)
os.kill(os.getpid(), signal.SIGKILL)
"""
LEVEL0 = "11111111-2222-3333-4444-555555555555/data_level0.bin"


def settings(extra=None):
    return hosts.environment({"CHROMASHIM_BALLAST": "1M", "CHROMASHIM_GUARD": "off", **(extra or {})})


def named(store):
    return {"CHROMASHIM_STORE": store} if store else {}


class Backend:
    source = HOST

    def __init__(self, data, words=(), env=None, **how):
        self.child = subprocess.Popen(
            [*words, str(hosts.python("venv")), "-c", self.source, str(data)], text=True,
            env=settings({"LD_PRELOAD": str(hosts.SHIM), **(env or {})}), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
        assert self.child.stdout.readline() == "up\n", self.child.stderr.read()

    def write(self, count=1):
        for _ in range(count):
            self.child.stdin.write("x\n")
            self.child.stdin.flush()
            assert self.child.stdout.readline() == "written\n", self.child.stderr.read()

    def stop(self):
        _, said = self.child.communicate(timeout=30)
        assert self.child.returncode == 0, said
        return said


def make(data, **how):
    """A directory with a segment whose level 0 is all O."""
    (data / LEVEL0).parent.mkdir(parents=True)
    (data / LEVEL0).write_bytes(b"O" * 100000)
    for name, size in ("header.bin", 100), ("length.bin", 400), ("link_lists.bin", 0):
        (data / LEVEL0).with_name(name).write_bytes(bytes(size))
    (data / LEVEL0).with_name("index_metadata.pickle").write_bytes(b"x.")
    if how:
        for path in [data, *data.rglob("*")]:
            os.chown(path, how["user"], how["group"])
    backend = Backend(data, **how)
    backend.write()
    backend.stop()


@pytest.fixture
def base():
    """Not below the tests' own directory, which others may not enter."""
    path = Path("/dev/shm") / f"chromashim-{os.getpid()}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    for file in hosts.SHIM, hosts.COMMAND:
        shutil.copy(file, path)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def tear(data, store=None, **how):
    env = settings({"LD_PRELOAD": str(hosts.SHIM), **named(store)})
    subprocess.run([str(hosts.python("venv")), "-c", TORN, str(data)], env=env, check=False, **how)


def foreign(data):
    return [str(path.relative_to(data)) for path in [data, *data.rglob("*")]
            if path.lstat().st_uid != NOBODY.pw_uid or path.lstat().st_gid != NOBODY.pw_gid]


@root_only
def test_every_verb_of_roots(base, chromashim):
    """Nothing of root's is left, and its owner goes on as before."""
    data = base / "data"
    make(data, **OTHER)
    tear(data, **OTHER)
    out = base / "out"
    verbs = [["status"], ["check"], ["check", "--repair"], ["snapshot", "create"],
             ["snapshot", "create", "--no-verify"], ["snapshot", "list"], ["snapshot", "verify"],
             ["log"], ["log", "--last-crash"], ["log", "--compress"], ["guard", "--once"],
             ["run", "--no-guard", "--dir"], ["recover", "-y"], ["export", "-o", str(out)],
             ["snapshot", "prune", "--keep-last", "3"], ["restore", "--to", "latest", "-y"],
             ["snapshot", "create"]]
    for verb in verbs:
        tail = ["--", "true"] if verb[0] == "run" else []
        done = chromashim(*verb, data, *tail, env=settings(), stdin=subprocess.DEVNULL)
        assert done.returncode in (0, 1, 2, 3), (verb, done.stderr)
        assert not foreign(data), (verb, foreign(data))
    assert out.stat().st_uid == 0  # what was asked for belongs to who asked

    tear(data, **OTHER)
    backend = Backend(data, **OTHER)
    backend.write()
    assert (data / LEVEL0).read_bytes()[:8] == b"OOOOOOOO"
    assert "UNPROTECTED" not in backend.stop()
    done = subprocess.run([str(base / "chromashim"), "snapshot", "create", "--no-verify", str(data)],
                          text=True, env=settings(), capture_output=True, check=False, cwd="/",
                          **OTHER)
    assert done.returncode == 0, done.stderr


@root_only
def test_a_backend_of_roots(base):
    """The library gives away what it makes in a user's store."""
    data = base / "data"
    make(data, **OTHER)
    backend = Backend(data)
    backend.write(3)
    backend.stop()
    tear(data)
    backend = Backend(data)
    backend.stop()
    assert (data / LEVEL0).read_bytes()[:8] == b"OOOOOOOO"
    assert [name for name in foreign(data) if name.startswith(".chromashim")] == []


@root_only
def test_foreign_files_are_said(base, chromashim):
    data = base / "data"
    make(data, **OTHER)
    lock = data / ".chromashim/undo/rollback.lock"
    lock.touch()
    os.chown(lock, 0, 0)
    done = chromashim("run", "--no-guard", "--check-only", "--dir", data, env=settings())
    assert "undo/rollback.lock' belongs to root, and the store to nobody" in done.stderr
    assert f"chown -R {NOBODY.pw_uid}:{NOBODY.pw_gid}" in done.stderr
    done = chromashim("check", "--json", data)
    assert "store-owner-mixed" in done.stdout
    backend = Backend(data, **OTHER)
    done = chromashim("status", "--check", data)
    assert done.returncode == 1 and "1 files in the store are not its owner's" in done.stdout
    os.chown(lock, NOBODY.pw_uid, NOBODY.pw_gid)
    assert chromashim("status", "--check", data).returncode == 0
    backend.stop()


def snapshots(chromashim, data, env):
    done = chromashim("snapshot", "list", "--json", data, env=env)
    return [each["id"] for each in json.loads(done.stdout)] if done.stdout else []


def test_one_store_for_two(tmp_path, chromashim):
    """Each has its own part of it: undo data, snapshots, log, with the variable and without."""
    a, b = tmp_path / "a", tmp_path / "b"
    env = settings({"CHROMASHIM_STORE": "../store"})
    for data in a, b:
        (data / LEVEL0).parent.mkdir(parents=True)
    for data in a, b:
        backend = Backend(data, env={"CHROMASHIM_STORE": "../store"}, cwd="/")
        backend.write(2 if data == a else 5)
        backend.stop()
        assert {path.name for path in (data / ".chromashim").iterdir()} == {"identity"}
    assert snapshots(chromashim, b, env) == []
    for data in a, b:
        assert chromashim("snapshot", "create", "-q", "--no-verify", data, env=env).returncode == 0
    assert len(snapshots(chromashim, a, env)) == 1 and len(snapshots(chromashim, b, env)) == 1
    for how in env, settings():
        for data, rows in (a, 2), (b, 5):
            done = chromashim("log", data, "--transactions", env=how)
            assert done.stdout.count("commit") == rows + 1, done.stderr
            out = tmp_path / f"out-{data.name}-{how is env}"
            chromashim("restore", "--to", "latest", "-o", out, data, "-q", "-y", "--force", env=how)
            command = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(" \
                      "'select count(*) from embeddings').fetchone())"
            count = subprocess.run([str(hosts.python("venv")), "-c", command,
                                    str(out / "chroma.sqlite3")], capture_output=True, text=True,
                                   check=True)
            assert int(count.stdout) == rows


def test_a_directory_of_something_else(tmp_path, chromashim):
    """It is not filled and keeps its mode; that there is no protection is said once."""
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    other.chmod(0o755)
    (other / "file").touch()
    backend = Backend(data, env={"CHROMASHIM_STORE": str(other)})
    backend.write()
    (line,) = backend.stop().splitlines()
    assert "it is no store" in line and "UNPROTECTED" in line
    assert os.listdir(other) == ["file"] and other.stat().st_mode & 0o777 == 0o755
    done = chromashim("snapshot", "create", data, env=settings({"CHROMASHIM_STORE": str(other)}))
    assert done.returncode == 1 and os.listdir(other) == ["file"]


@root_only
@pytest.mark.parametrize("inside", [False, True])
def test_another_container(data, chromashim, inside):
    """Seen from the host, and from a container beside it that sees no process of the other."""
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no pid namespaces here")
    backend = Backend(data, words=enter)
    backend.write()
    words = enter if inside else []

    def run(*args):
        return subprocess.run([*words, str(hosts.COMMAND), *args, str(data)], text=True,
                              capture_output=True, check=False, env=settings(), timeout=60)

    said = run("status").stdout
    assert "in another container" in said and "UNPROTECTED" not in said
    assert ", here " not in said if inside else ", here " in said
    assert run("status", "--check").returncode == 0
    assert run("log", "--compress").returncode == 0
    assert "did not end" not in run("check").stdout + run("log", "--last-crash").stdout
    other = Backend(data, words=enter)  # its pid is the same
    other.stop()
    backend.write(4)
    backend.stop()
    done = chromashim("log", "--transactions", data)
    assert done.stdout.count("commit") == 6, done.stdout


def up(metrics):
    return "".join(line for line in metrics.read_text().splitlines(True)
                   if line.startswith("chromashim_up"))


def test_a_guardian_that_was_killed(data, chromashim):
    backend = Backend(data)
    backend.write()
    guardian = subprocess.Popen([str(hosts.COMMAND), "guard", "--follow", str(backend.child.pid),
                                 str(data)], env=settings(), stderr=subprocess.DEVNULL)
    metrics = data / ".chromashim/metrics.prom"
    for _ in range(100):
        if metrics.exists() and "} 1\n" in up(metrics):
            break
        time.sleep(0.1)
    assert chromashim("status", "--check", data).returncode == 0
    guardian.kill()
    guardian.wait()
    done = chromashim("status", "--check", data)
    assert done.returncode == 1 and "the guardian was killed" in done.stdout
    assert "} 0\n" in up(metrics)
    assert "the last one was killed" in chromashim("status", data).stdout
    backend.stop()


def test_a_small_log(data, chromashim):
    backend = Backend(data, env={"CHROMASHIM_LOG_SIZE": "1M"})
    said = chromashim("status", data).stdout
    assert "no record of the log since then is lost" in said and "older records" not in said
    backend.write(600)
    backend.stop()
    done = chromashim("log", "--transactions", data)
    assert 50 < done.stdout.count("commit") < 600
    assert "older records are gone" in chromashim("status", data).stdout
    assert json.loads(chromashim("status", "--json", data).stdout)["log"]["older_gone"] is True
    backend = Backend(data, env={"CHROMASHIM_LOG_SIZE": "100K"})
    assert "not a size such as 256M, from 1M on" in backend.stop()


@pytest.mark.parametrize("rows", [1, 400])
def test_a_log_that_is_emptied(data, chromashim, rows):
    """What it had is gone; the backend goes on, and is recorded again."""
    backend = Backend(data, env={"CHROMASHIM_LOG_SIZE": "1M"})
    backend.write(rows)
    for path in (data / ".chromashim/oplog").iterdir():
        os.truncate(path, 0)
    backend.write(20)
    backend.stop()
    done = chromashim("log", "--transactions", data)
    assert done.stdout.count("commit") >= 19, done.stdout + done.stderr


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_life_that_is_removed(data, how):
    """Who lives says so again when it next writes, also that it has the database open."""
    backend = Backend(data)
    backend.write()
    life = data / ".chromashim/alive.lock"
    before = hosts.locks(life)
    assert len(before) == 2
    if how == "replaced":
        life.rename(data / "away")
        life.touch()
    else:
        life.unlink()
    time.sleep(1.1)
    backend.write()
    assert hosts.locks(life) == before
    said = backend.stop()
    assert said.count("alive.lock was removed") == 1, said


PLACES = {None: "data/.chromashim", ".chromashim": "data/.chromashim", "../a": "a", "../b": "b"}
MOVES = [("../a", "../b"), ("../a", ".chromashim"), ("../a", None), (None, "../b")]


def torn_in(tmp_path, store):
    """A directory that died in a persist with this store."""
    data = tmp_path / "data"
    make(data)
    if store:
        Backend(data, env=named(store)).stop()
    tear(data, store)
    assert (data / LEVEL0).read_bytes()[:8] == b"NNNNNNNN"
    assert list((tmp_path / PLACES[store] / "undo").glob("*.undo"))
    return data


@pytest.mark.parametrize("first, then", MOVES)
def test_another_store_after_a_crash(tmp_path, chromashim, first, then):
    """It is undone from the store that the directory had; only the start after it has the new one."""
    data = torn_in(tmp_path, first)
    done = chromashim("check", "--json", data, env=settings(named(then)))
    assert "persist-undo-waits" in done.stdout
    if then:
        assert f"is '{first or '.chromashim'}', not '{then}'" in done.stderr
    said = Backend(data, env=named(then)).stop()
    assert (data / LEVEL0).read_bytes()[:8] == b"OOOOOOOO"
    assert (data / LEVEL0).stat().st_size == 100000
    if then:
        assert f"its store is {first or '.chromashim'}, not {then}" in said
        assert f"and is {then} from now on" in Backend(data, env=named(then)).stop()
    else:
        assert "its store" not in said
    backend = Backend(data, env=named(then))
    backend.write()  # what changes nothing leaves no log
    assert "its store" not in backend.stop()
    assert list((tmp_path / PLACES[then or first] / "oplog").iterdir())


@pytest.mark.parametrize("verb", [["check", "--repair"], ["recover", "-y"],
                                  ["run", "--no-guard", "--dir"]])
def test_another_store_of_a_command(tmp_path, chromashim, verb):
    data = torn_in(tmp_path, "../a")
    tail = ["--", "true"] if verb[0] == "run" else []
    done = chromashim(*verb, data, *tail, env=settings(named("../b")), stdin=subprocess.DEVNULL)
    assert "is '../a', not '../b'" in done.stderr
    assert (data / LEVEL0).read_bytes()[:8] == b"OOOOOOOO", done.stderr + done.stdout


def test_another_store_while_one_is_in_use(tmp_path):
    """Two stores would be two writers."""
    data = tmp_path / "data"
    data.mkdir()
    one = Backend(data, env=named("../a"))
    other = subprocess.run([str(hosts.python("venv")), "-c", HOST, str(data)], text=True, input="x\n",
                           env=settings({"LD_PRELOAD": str(hosts.SHIM), **named("../b")}),
                           capture_output=True, check=False)
    assert other.returncode and "another process uses it" in other.stderr
    one.stop()
    assert "and is ../b from now on" in Backend(data, env=named("../b")).stop()


def test_another_store_that_is_gone(tmp_path):
    data = torn_in(tmp_path, "../a")
    (tmp_path / "a").rename(tmp_path / "away")
    assert "CANNOT BE UNDONE" in Backend(data, env=named("../b")).stop()
    (tmp_path / "away").rename(tmp_path / "a")
    Backend(data, env=named("../a")).stop()
    assert (data / LEVEL0).read_bytes()[:8] == b"OOOOOOOO"


@root_only
@pytest.mark.parametrize("failure", ["open", "closed"])
def test_another_store_that_is_not_ours_to_write(base, failure):
    data = base / "data"
    base.chmod(0o777)
    make(data, **OTHER)
    Backend(data, env=named("../a"), **OTHER).stop()
    tear(data, "../a", **OTHER)
    for path in [base / "a", *(base / "a").rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    env = settings({"LD_PRELOAD": str(hosts.SHIM), "CHROMASHIM_ON_FAILURE": failure,
                    **named("../b")})
    done = subprocess.run([str(hosts.python("venv")), "-c", HOST, str(data)], text=True, input="",
                          env=env, capture_output=True, check=False, **OTHER)
    assert ("UNPROTECTED" if failure == "open" else "not opened for writing") in done.stderr
    assert "its store is ../a, not ../b" in done.stderr and "cannot be left yet" in done.stderr
    assert list((base / "a/undo").glob("*.undo")) and not (base / "b").exists()


def torn_by_older(tmp_path, identity):
    """A version that took a relative store from where the backend was started."""
    data, started_in = tmp_path / "srv/data", tmp_path / "cwd"
    started_in.mkdir()
    make(data)
    tear(data, str(started_in / "store"))
    assert (data / LEVEL0).read_bytes()[:4] == b"NNNN"
    shutil.rmtree(data / ".chromashim")
    if not identity:
        (started_in / "store/identity").unlink()
    return data, started_in


@pytest.mark.parametrize("identity", [True, False])
def test_store_where_it_was_started(tmp_path, chromashim, identity):
    """What waits there is told, and undone at the start."""
    data, started_in = torn_by_older(tmp_path, identity)
    undo = started_in / "store/undo"
    env = settings(named("store"))
    done = chromashim("check", "--json", data, env=env, cwd=started_in)
    assert "persist-undo-waits" in {f["code"] for f in json.loads(done.stdout)["findings"]}
    assert list(undo.glob("*.undo"))
    said = Backend(data, env=named("store"), cwd=started_in).stop()
    assert "it was undone" in said and (data / LEVEL0).read_bytes() == b"O" * 100000
    assert not list(undo.glob("*.undo")) and (data / "store").is_dir()


def test_store_where_it_was_started_and_a_command(tmp_path, chromashim):
    data, started_in = torn_by_older(tmp_path, True)
    chromashim("check", "--repair", data, env=settings(named("store")), cwd=started_in)
    assert (data / LEVEL0).read_bytes() == b"O" * 100000


def test_store_of_others_where_it_was_started(tmp_path):
    """Another directory's, by its identity or its segments, is left alone."""
    data, started_in = torn_by_older(tmp_path, True)
    copy = Path(shutil.copytree(data, tmp_path / "copy"))
    said = Backend(copy, env=named("store"), cwd=started_in).stop()
    assert "undone" not in said and (copy / LEVEL0).read_bytes()[:4] == b"NNNN"
    (started_in / "store/identity").unlink()
    (copy / LEVEL0).parent.rename(copy / "21111111-2222-3333-4444-555555555555")
    assert "undo" not in Backend(copy, env=named("store"), cwd=started_in).stop()
    assert list((started_in / "store/undo").glob("*.undo"))
