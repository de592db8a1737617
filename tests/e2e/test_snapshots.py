# SPDX-License-Identifier: MIT
"""Snapshots of real Chroma: taken under load, restored, and opened by it again."""

import json
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest

import hosts
from loads import Load, answers, check_all, listed
from snapshots_load import SIZE

SECONDS = 6


def take_under_load(chromashim, data, load):
    """Snapshots until the time is over. Returns how many were called for."""
    deadline = time.monotonic() + SECONDS
    taken = 0
    while time.monotonic() < deadline:
        done = chromashim("snapshot", "create", data, "--json")
        assert done.returncode in (0, 3, 11), done.stderr
        taken += 1
        time.sleep(0.5)
    assert load.child.poll() is None
    return taken


@pytest.mark.slow
@pytest.mark.parametrize("protected", [True, False], ids=["shim", "bare"])
@pytest.mark.parametrize("name", ["server", "python-0.6"])
def test_under_load(tmp_path, data, shim, chromashim, name, protected):
    host = hosts.BY_NAME[name]
    host.require()
    preload = shim if protected else ""
    server = hosts.Server(host, data, preload) if host.server else None
    load = Load(host, server.address if server else str(data), "" if server else preload)
    try:
        load.wait_for(8)
        taken = take_under_load(chromashim, data, load)
    finally:
        load.stop()
        if server:
            server.clean_up()
    verified = check_all(chromashim, tmp_path, data, load, host)
    states = [s["state"] for s in listed(chromashim, data)]
    print(f"{taken} called for, {verified} verified, {len(load.acknowledged)} batches: {states}")
    assert verified >= 3 and verified >= taken * 0.8, states


@pytest.mark.slow
def test_downgrade(tmp_path, data, chromashim):
    """An older Chroma's directory is migrated by a newer one, and the older one panics."""
    old, new = hosts.BY_NAME["node"], hosts.BY_NAME["server"]
    old.require()
    new.require()
    server = hosts.Server(old, data)
    load = Load(old, server.address)
    load.wait_for(12)
    load.stop()
    server.stop()
    count = len(load.acknowledged)
    assert chromashim("snapshot", "create", data, "-d", "before 1.5").returncode == 0

    server = hosts.Server(new, data)
    server.stop()
    log = data.parent / f"{data.name}-server.log"
    log.write_text("")
    try:
        hosts.Server(old, data).clean_up()
    except AssertionError:
        pass
    assert "range start index 10 out of range for slice of length 9" in log.read_text()

    done = chromashim("restore", "--to", "1", "-y", data)
    assert done.returncode == 0, done.stderr
    server = hosts.Server(old, data)
    try:
        found = answers(old, {server.address: count})[server.address]
    finally:
        server.clean_up()
    assert found["wrong"] == []
    assert 0 <= found["count"] - count * SIZE <= SIZE
    # And the restore can itself be undone.
    done = chromashim("restore", "--to", "2", "-y", data)
    assert done.returncode == 0, done.stderr
    shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns(".chromashim"))
    assert answers(new, {str(tmp_path / "copy"): count})[str(tmp_path / "copy")]["wrong"] == []


def make(host, data, batches=10):
    """Without the library, and so not killed: that may leave an index that is half persisted."""
    return Load(host, str(data), batches=batches).end()


def test_in_the_way(data, chromashim):
    host = hosts.BY_NAME["python"]
    host.require()
    load = Load(host, str(data))
    try:
        load.wait_for(3)
        assert chromashim("snapshot", "create", data).returncode == 0
        done = chromashim("restore", "--to", "latest", "-y", data)
        assert done.returncode == 14
        assert str(load.child.pid) in done.stderr
        assert chromashim("restore", "--to", "latest", "-n", data).returncode == 14
    finally:
        load.stop()
    done = chromashim("restore", "--to", "latest", data)
    assert done.returncode == 2 and "-y" in done.stderr
    before = sorted(p for p in data.rglob("*") if ".chromashim" not in str(p))
    assert chromashim("restore", "--to", "latest", "-n", data).returncode == 0
    assert before == sorted(p for p in data.rglob("*") if ".chromashim" not in str(p))


@pytest.mark.fast
def test_verbs(tmp_path, data, chromashim):
    """What each verb says and returns, from the first snapshot to the last."""
    host = hosts.BY_NAME["python"]
    host.require()
    assert chromashim("snapshot", "list", data).returncode == 12  # no Chroma directory yet
    make(host, data, 6)
    assert chromashim("snapshot", "list", data).returncode == 10
    for text in ("one", "two", "three"):
        assert chromashim("snapshot", "create", data, "-d", text).returncode == 0
    found = listed(chromashim, data)
    assert [(s["id"], s["state"], s["description"], s["held"]) for s in found] == [
        (1, "verified", "one", []), (2, "verified", "two", []), (3, "verified", "three", [])]
    assert set(found[0]) >= {"time", "reason", "size", "used"}
    assert chromashim("snapshot", "diff", "1..3", data).stdout == ""
    assert json.loads(chromashim("snapshot", "show", "2", data, "--json").stdout)["id"] == 2
    assert chromashim("snapshot", "show", "9", data).returncode == 12

    assert chromashim("snapshot", "hold", "1", "audit", data).returncode == 0
    assert listed(chromashim, data)[0]["held"] == ["audit"]
    assert chromashim("snapshot", "delete", "1", "-y", f"{data}/").returncode == 1
    assert chromashim("snapshot", "prune", "--keep-last=1", data).returncode == 2  # nobody to ask
    planned = chromashim("snapshot", "prune", "--keep-last=1", "-n", "-v", data)
    assert planned.returncode == 0 and "keep      1" in planned.stdout and "held" in planned.stdout
    assert len(listed(chromashim, data)) == 3
    assert chromashim("snapshot", "prune", "--keep-last=1", "-y", data).returncode == 0
    assert [s["id"] for s in listed(chromashim, data)] == [1, 3]
    assert chromashim("snapshot", "release", "1", data).returncode == 0
    assert chromashim("snapshot", "delete", "1", "-y", f"{data}/").returncode == 0
    assert chromashim("snapshot", "delete", "3", "-y", f"{data}/").returncode == 1  # the last one
    assert chromashim("snapshot", "create", data).returncode == 0
    assert [s["id"] for s in listed(chromashim, data)] == [3, 4]
    assert chromashim("snapshot", "verify", "--all", data).returncode == 0
    assert chromashim("snapshot", "prune", data).returncode == 2
    assert chromashim("restore", "--to", "before-schema", "-n", data).returncode == 12
    assert chromashim("restore", "--to", "@0s", "-o", tmp_path / "x", data).returncode == 0
    assert chromashim("restore", "--to", "4", "-o", tmp_path / "x", data).returncode == 1


def test_damaged_chunk(tmp_path, data, chromashim):
    """Said in words, never called verified, and written again by the next snapshot."""
    host = hosts.BY_NAME["python"]
    host.require()
    make(host, data)
    assert chromashim("snapshot", "create", data).returncode == 0
    chunk = max((data / ".chromashim/snapshots/chunks").rglob("*/*"), key=lambda p: p.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    done = chromashim("restore", "--to", "1", "-o", tmp_path / "out", data)
    assert done.returncode == 1 and "is damaged" in done.stderr
    assert not (tmp_path / "out").exists()
    assert chromashim("snapshot", "verify", "1", data).returncode == 1
    assert listed(chromashim, data)[0]["state"] == "broken"
    assert chromashim("snapshot", "create", data).returncode == 0
    assert chromashim("snapshot", "verify", "--all", data).returncode == 0
    assert [s["state"] for s in listed(chromashim, data)] == ["verified", "verified"]


def test_verified_without_a_copy(data, chromashim):
    """From the chunks: no file of more than 64 KiB is written."""
    make(hosts.BY_NAME["python"], data)
    assert chromashim("snapshot", "create", "--no-verify", data).returncode == 0
    largest = max(p.stat().st_size for p in data.rglob("*") if ".chromashim" not in p.parts)
    assert largest > 128 << 10
    done = subprocess.run(["prlimit", f"--fsize={64 << 10}", str(hosts.COMMAND), "snapshot",
                           "verify", "latest", str(data)], env=hosts.environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "is verified" in done.stdout, done


def kill_in_a_persist(load, data):
    """At the moment when a segment that had been persisted before is being persisted again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if list(data.glob("*-*/*.pickle")) and list((data / ".chromashim/undo").glob("*.undo")):
            break
    load.stop()


@pytest.mark.slow
def test_after_kill(tmp_path, data, shim, chromashim):
    """kill -9 under load, then a snapshot and a restore: what a dead persist left harms neither."""
    host = hosts.BY_NAME["python"]
    host.require()
    pending = 0
    for _ in range(5):
        load = Load(host, str(data), shim)
        load.wait_for(6)
        kill_in_a_persist(load, data)
        pending += len(list((data / ".chromashim/undo").glob("*.undo")))
        done = chromashim("snapshot", "create", data)
        assert done.returncode == 0, done.stderr
    verified = [s["id"] for s in listed(chromashim, data) if s["state"] == "verified"]
    print(f"{pending} groups were open, {len(verified)} of 5 verified")
    assert len(verified) == 5
    load = Load(host, str(data), shim)
    load.wait_for(6)
    kill_in_a_persist(load, data)
    done = chromashim("restore", "--to", verified[0], "-y", data)
    assert done.returncode == 0, done.stderr
    assert not list((data / ".chromashim/undo").glob("*.undo"))
    load = Load(host, str(data), shim)
    load.wait_for(10)
    load.stop()
    shutil.copytree(data, tmp_path / "copy", ignore=shutil.ignore_patterns(".chromashim"))
    chromashim("snapshot", "create", data)
    out = tmp_path / "out"
    assert chromashim("restore", "--to", verified[-1], "-o", out, data).returncode == 0
    assert answers(host, {str(out): 6})[str(out)]["wrong"] == []


def test_killed_while_taking(data, chromashim):
    """Nothing but scratch is left, and the next one removes it."""
    host = hosts.BY_NAME["python"]
    host.require()
    make(host, data, 30)
    for wait in (0.001, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08):
        child = subprocess.Popen([str(hosts.COMMAND), "snapshot", "create", str(data)],
                                 env=hosts.environment(), stdout=subprocess.DEVNULL)
        time.sleep(wait)
        child.kill()
        child.wait()
    assert chromashim("snapshot", "create", data).returncode == 0
    store = data / ".chromashim"
    assert not (store / "scratch").exists()
    assert chromashim("snapshot", "verify", "--all", data).returncode == 0
    assert all(s["state"] == "verified" for s in listed(chromashim, data))
    chromashim("snapshot", "prune", "--keep-last=1", "-y", data)
    assert not [p for p in (store / "snapshots").rglob("*") if p.name.startswith(".")]


def test_full_disk(tmp_path, data, small_disk, chromashim):
    """The store is elsewhere, and full: said so, nothing half is left, what is there stays good."""
    host = hosts.BY_NAME["python"]
    host.require()
    make(host, data)
    env = hosts.environment({"CHROMASHIM_STORE": str(small_disk / "store")})
    assert chromashim("snapshot", "create", data, env=env).returncode == 0
    filler = small_disk / "filler"
    filler.write_bytes(os.urandom(10 << 20))
    make(host, data, 20)
    done = chromashim("snapshot", "create", data, env=env)
    assert done.returncode == 13 and "room" in done.stderr, done.stderr
    assert not (small_disk / "store/scratch").exists()
    # A restore beside it would not fit either, and in place it cannot be exchanged.
    out = tmp_path / "out"
    assert chromashim("restore", "--to", "1", "-o", small_disk / "x", data,
                      env=env).returncode == 13
    assert not (small_disk / "x").exists()
    done = chromashim("restore", "--to", "1", "-y", data, env=env)
    assert done.returncode == 1 and "-o" in done.stderr
    assert chromashim("restore", "--to", "1", "-o", out, data, env=env).returncode == 0
    filler.unlink()
    assert chromashim("snapshot", "create", data, env=env).returncode == 0


def test_restore_undone(tmp_path, data, chromashim):
    """A restore, and a restore of what it kept; `latest` is not what a restore kept."""
    host = hosts.BY_NAME["python"]
    host.require()
    early = make(host, data, 8)
    assert chromashim("snapshot", "create", data).returncode == 0
    (data / "notes.txt").write_text("not Chroma's")
    late = make(host, data, 20)
    assert late > early
    done = chromashim("restore", "--to", "latest", "-y", data)
    assert done.returncode == 0, done.stderr
    assert "restore --to 2" in done.stdout
    found = answers(host, {str(data): early})[str(data)]
    assert found["wrong"] == [] and found["count"] < late * SIZE
    assert (data / "notes.txt").exists()
    assert "would restore: snapshot 1 " in chromashim("restore", "--to", "latest", "-n", data).stdout
    assert chromashim("restore", "--to", "2", "-y", data).returncode == 0
    assert answers(host, {str(data): late})[str(data)]["wrong"] == []


def may_write(data):
    try:
        with closing(sqlite3.connect(data / "chroma.sqlite3", timeout=0, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        return True
    except sqlite3.OperationalError:
        return False


def start_restore(data, *what):
    """Stopped once it knows what is there, and makes what comes; None: it was over too soon, or is at
    the exchange already, which nobody gets between."""
    coming = data / ".chromashim/restore/new"
    child = subprocess.Popen([hosts.COMMAND, "restore", "-y", *what, data], text=True,
                             env=hosts.environment({}), stderr=subprocess.PIPE,
                             stdout=subprocess.DEVNULL)
    while child.poll() is None and not coming.exists():
        pass
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if child.poll() is None and may_write(data):
        return child
    child.send_signal(signal.SIGCONT)
    child.communicate(timeout=60)
    return None


SQL = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", timeout=0)
db.execute("CREATE TABLE IF NOT EXISTS acknowledged (x)")
db.execute("INSERT INTO acknowledged VALUES (1)")
db.commit()
"""


@pytest.mark.parametrize("protected", [True, False], ids=["shim", "bare"])
@pytest.mark.parametrize("what", ["--to=1", "--from=copy"])
def test_who_was_there_meanwhile_is_seen(data, shim, chromashim, what, protected):
    """A backend that starts and ends while a restore takes its time loses nothing."""
    make(hosts.BY_NAME["python"], data, 2)
    assert chromashim("snapshot", "create", data).returncode == 0
    copy = data.parent / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns(".chromashim"))
    for attempt in range(5):
        child = start_restore(data, what.replace("copy", str(copy)))
        if child:
            break
    assert child, "it was over too soon each time"
    subprocess.run([hosts.python("venv"), "-c", SQL, data], check=True,
                   env=hosts.environment({"LD_PRELOAD": shim} if protected else {}))
    child.send_signal(signal.SIGCONT)
    errors = child.communicate(timeout=60)[1]
    assert child.returncode == 11 and "was changed while" in errors, errors
    assert "restore" not in [s["reason"] for s in listed(chromashim, data)], "nothing is left of it"
    with closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM acknowledged").fetchall() == [(1,)]


def test_a_copy_in_place(data, chromashim):
    """In place of a directory in WAL mode, too; never of what is not sound."""
    host = hosts.BY_NAME["python"]
    early = make(host, data, 4)
    copy = data.parent / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns(".chromashim"))
    with closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE later (x)")
        db.commit()
    done = chromashim("restore", "--from", copy, "-y", data)
    assert done.returncode == 0 and "restore --to 1" in done.stdout, done.stderr
    assert answers(host, {str(data): early})[str(data)]["wrong"] == []
    assert chromashim("restore", "--to", "1", "-y", data).returncode == 0
    with closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM later").fetchall() == [(0,)]
    (copy / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
    kept = sorted((data / ".chromashim/snapshots").rglob("*"))
    done = chromashim("restore", "--from", copy, "-y", data)
    assert done.returncode == 1 and "is not sound" in done.stderr, done.stderr
    assert sorted((data / ".chromashim/snapshots").rglob("*")) == kept
    for wrong in (["--from", data], ["--from", copy / "chroma.sqlite3"], ["--from", copy, "--to=1"]):
        assert chromashim("restore", *wrong, "-y", data).returncode != 0


@pytest.mark.parametrize("place", ["missing", "empty", "in use before"])
def test_a_copy_belongs_to_the_directory(data, chromashim, place):
    """Root's copy, and one that is read-only, can be written by whoever the directory is of."""
    if os.geteuid() != 0:
        pytest.skip("not root")
    nobody = pwd.getpwnam("nobody")
    host = hosts.BY_NAME["python"]
    count = make(host, data, 2)
    copy = data.parent / "copy"
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns(".chromashim"))
    if place != "in use before":
        shutil.rmtree(data)
    if place == "empty":
        data.mkdir()
    for path in [data, *data.rglob("*"), *([copy] if place == "missing" else [])]:
        if path.exists():
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    subprocess.run(["chmod", "-R", "a-w", copy], check=True)
    if place == "missing":
        copy.chmod(0o750)
    told = chromashim("restore", "--from", copy, "--dry-run", data)
    done = chromashim("restore", "--from", copy, "-y", data)
    assert (told.returncode, done.returncode) == (0, 0), told.stderr + done.stderr
    assert ("quarantine" in done.stdout) == (place == "in use before")
    for path in [data, *data.rglob("*")]:
        assert path.stat().st_uid == nobody.pw_uid, path
        assert path.stat().st_mode & 0o200 or ".chromashim" in path.parts, path
    assert answers(host, {str(data): count})[str(data)]["wrong"] == []


def test_restore_of_a_ruin(data, chromashim):
    """The database overwritten, a segment's file gone: what is there is kept, and comes back."""
    host = hosts.BY_NAME["python"]
    host.require()
    count = make(host, data, 12)
    assert chromashim("snapshot", "create", data).returncode == 0
    database = data / "chroma.sqlite3"
    database.write_bytes(b"\0" * 5000)
    next(data.glob("*-*/data_level0.bin")).unlink()
    assert chromashim("check", data).returncode == 2
    assert chromashim("snapshot", "create", data).returncode != 0
    done = chromashim("restore", "--to", "latest", "-y", data)
    assert done.returncode == 0, done.stderr
    assert answers(host, {str(data): count})[str(data)]["wrong"] == []
    assert [s["state"] for s in listed(chromashim, data)] == ["verified", "broken"]
    # Also where the database is gone altogether.
    database.unlink()
    assert chromashim("restore", "--to", "latest", "-y", data).returncode == 0
    assert answers(host, {str(data): count})[str(data)]["wrong"] == []


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_a_copy_is_as_private_as_what_it_is_of(tmp_path, data, chromashim, there):
    make(hosts.BY_NAME["python"], data, batches=1)
    assert chromashim("snapshot", "create", data).returncode == 0
    data.chmod(0o700)
    out = tmp_path / "out"
    if there:
        out.mkdir(mode=0o777)
        out.chmod(0o777)
    mask = os.umask(0)
    try:
        done = chromashim("restore", data, "--to", "latest", "-o", out, "-y")
    finally:
        os.umask(mask)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_mode & 0o7777 == 0o700


ODD = ["chroma.sqlite3-journal", "chroma.sqlite3-wal", "*-*-*-*-*/data_level0.bin",
       ".chromashim/snapshots/next", ".chromashim/snapshots/lock", ".chromashim/pins/state",
       ".chromashim/snapshots/00000001.manifest", ".chromashim/snapshots/chunks",
       ".chromashim/pins/00000001-files", ".chromashim/guard.lock"]


@pytest.fixture(name="plain", scope="module")
def plain_directory(tmp_path_factory):
    """Of real Chroma, with a segment and a snapshot."""
    data = tmp_path_factory.mktemp("plain") / "chroma_data"
    make(hosts.BY_NAME["python"], data, 3)
    (data / "0a1b2c3d-0000-4000-8000-00000000abcd").mkdir()
    (data / "0a1b2c3d-0000-4000-8000-00000000abcd" / "data_level0.bin").write_bytes(b"x")
    subprocess.run([hosts.COMMAND, "snapshot", "create", data], env=hosts.environment({}),
                   check=False, capture_output=True)
    return data


@pytest.mark.parametrize("name", ODD)
def test_a_fifo_hangs_nobody(tmp_path, plain, chromashim, name):
    data = tmp_path / "chroma_data"
    shutil.copytree(plain, data)
    path = next(data.glob(name), data / name)
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for verb in (["snapshot", "create"], ["guard", "--once"], ["check"], ["snapshot", "list"],
                 ["restore", "--to=1", "-o", tmp_path / "out", "-y"]):
        done = chromashim(*verb, data, timeout=20)
        assert done.returncode >= 0 and "Sanitizer" not in done.stderr, done
