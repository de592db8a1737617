# SPDX-License-Identifier: MIT
"""Reviewing the log as its user does: every option of `chromashim log`, and `chromashim status`."""

import sys
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

import hosts

pytestmark = pytest.mark.memory

SCRIPT = textwrap.dedent("""
    import os, sqlite3, sys
    root = sys.argv[1]
    db = sqlite3.connect(root + "/chroma.sqlite3")
    db.execute("CREATE TABLE fruit(name)")
    db.execute("INSERT INTO fruit VALUES('secret-value')")
    db.commit()
    db.executemany("INSERT INTO fruit VALUES(?)", [("apple",), ("pear",)])
    db.rollback()
    f = os.open(root + "/notes", os.O_RDWR | os.O_CREAT)
    os.pwrite(f, b"hello", 7)
    os.fsync(f)
    os.rename(root + "/notes", root + "/renamed")
    try:
        os.unlink(root + "/missing")
    except OSError:
        pass
    print("ready", flush=True)
    sys.stdin.readline()
""")


def start(directory: Path, shim: str, **settings) -> subprocess.Popen:
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(directory),
                             "CHROMASHIM_WARN_FULL": "0", **settings})
    script = directory.parent / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    process = subprocess.Popen(["/usr/bin/python3", "-I", "-S", script, directory], env=env,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def stop(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.stdout.close()
    process.wait(30)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, shim) -> Path:
    directory = tmp_path_factory.mktemp("log") / "chroma_data"
    directory.mkdir()
    stop(start(directory, shim))
    return directory


@pytest.fixture
def log(recorded, chromashim):
    """The objects of `log --calls --json` with some options."""
    def objects(*options):
        done = chromashim("log", "--calls", "--json", *options, recorded)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return objects


def test_every_field(log):
    records = log()
    write, = [r for r in records if r["op"] == "pwrite" and r["path"] == "notes"]
    assert {"time", "pid", "tid", "op", "path", "offset", "length", "result", "errno",
            "duration_ns"} <= set(write)
    assert (write["offset"], write["length"], write["result"], write["errno"]) == (7, 5, 5, None)
    assert write["duration_ns"] > 0 and write["tid"] == write["pid"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", write["time"])
    rename, = [r for r in records if r["op"] == "rename"]
    assert (rename["path"], rename["path2"]) == ("notes", "renamed")
    failed, = [r for r in records if r["op"] == "unlink" and r["path"] == "missing"]
    assert failed["errno"] == "ENOENT"
    assert {"open", "fsync", "lock", "txn.begin", "txn.commit", "txn.rollback", "sqlite.step",
            "sqlite.open", "close"} <= {r["op"] for r in records}
    assert [r["time"] for r in records] == sorted(r["time"] for r in records)


def test_filters(log):
    every = log()
    pid = every[0]["pid"]
    assert {r["op"] for r in log("--op", "fsync,rename")} == {"fsync", "rename"}
    assert {r["op"].split(".")[0] for r in log("--op", "sqlite.*")} == {"sqlite"}
    assert {r["path"] for r in log("--path", "chroma.sqlite3-*")} == {"chroma.sqlite3-journal"}
    assert [r["errno"] for r in log("--failed", "--op", "unlink")] == ["ENOENT"]
    assert log("--pid", pid) == every and log("--pid", 1) == []
    assert log("--since", "1h") == every and log("--until", "1h") == []
    middle = every[len(every) // 2]["time"]
    assert log("--since", middle) + log("--until", middle) != []
    assert len(log("--since", middle)) < len(every)


def test_words_that_mean_nothing(recorded, chromashim):
    for options in (["--op", "nonsense"], ["--op", "fsync,nonsens*"], ["--since", "yesterdayish"],
                    ["--pid", "0"], ["--nonsense"]):
        done = chromashim("log", *options, recorded)
        assert done.returncode == 2 and not done.stdout and done.stderr


def test_values_are_never_recorded(recorded, log):
    texts = {r["sql"] for r in log("--op", "sqlite.step") if r.get("sql")}
    assert "INSERT INTO fruit VALUES(?)" in texts
    assert not any(b"apple" in f.read_bytes() for f in (recorded / ".chromashim").rglob("*")
                   if f.is_file())


@pytest.mark.fast
def test_transactions(recorded, chromashim):
    shown = chromashim("log", "--transactions", recorded).stdout.splitlines()
    done = [line for line in shown if "fruit" in line]
    assert any("commit" in line and "schema" in line for line in done), shown
    assert any("rollback" in line for line in shown), shown


def test_stats(recorded, chromashim):
    shown = chromashim("log", "--stats", recorded).stdout
    for word in ("p50", "p99", "max", "pwrite", "fsync", "chroma.sqlite3"):
        assert word in shown
    whole = chromashim("log", "--stats", "--json", recorded)
    assert whole.returncode == 0 and json.loads(whole.stdout.splitlines()[0])


def test_sql(recorded, chromashim):
    done = chromashim("log", "--sql", "SELECT op, count(*) FROM log WHERE path = 'notes' GROUP BY op",
                      recorded)
    assert done.returncode == 0 and "pwrite" in done.stdout
    assert chromashim("log", "--sql", "SELECT nonsense", recorded).returncode != 0


def test_text_for_people_and_pipes(recorded, chromashim):
    plain = chromashim("log", "--calls", recorded)
    assert plain.returncode == 0 and "\x1b" not in plain.stdout
    assert re.search(r"pwrite +notes @7 \+5 += 5 ", plain.stdout)
    assert re.search(r"unlink +missing.*ENOENT", plain.stdout)
    script = f"set -o pipefail; '{hosts.COMMAND}' log --calls '{recorded}' | head -1"
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=False).returncode in (0, 141)


def test_follow(tmp_path, shim, chromashim):
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    process = start(directory, shim)
    follower = subprocess.Popen([str(hosts.COMMAND), "log", "--follow", "--json", "--op", "log.exit",
                                 str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        stop(process)
        assert json.loads(follower.stdout.readline())["op"] == "log.exit"
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)


def test_compressed_segments_say_the_same(recorded, tmp_path, chromashim):
    directory = tmp_path / "copy"
    shutil.copytree(recorded, directory)
    before = [chromashim("log", "--json", *which, directory).stdout for which in ([], ["--calls"])]
    assert chromashim("log", "--compress", directory).returncode == 0
    assert [f.suffix for f in (directory / ".chromashim/oplog").iterdir()] == [".zst"]
    assert [chromashim("log", "--json", *which, directory).stdout
            for which in ([], ["--calls"])] == before


def test_status(tmp_path, shim, chromashim):
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    process = start(directory, shim)
    try:
        status = json.loads(chromashim("status", "--json", directory).stdout)
        assert status["protected"] is True
        host, = status["processes"]
        assert host["pid"] == process.pid and host["proof"] == "mapped" and host["writer"] is True
        assert host["sqlite"][0]["seen"] == "above" and host["sqlite"][0]["version"]
        assert status["log"]["records"] > 0 and status["log"]["lost"] == 0
        assert chromashim("status", "--check", directory).returncode == 0
        assert f"pid {process.pid}" in chromashim("status", directory).stdout
    finally:
        process.kill()
        stop(process)
    status = json.loads(chromashim("status", "--json", directory).stdout)
    assert status["protected"] is False and status["processes"] == []


def test_status_is_not_fooled_by_the_environment(tmp_path, shim, chromashim):
    """A process that has the variable but not the library: LD_PRELOAD fails open."""
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    broken = tmp_path / "libchromashim.so"
    broken.write_bytes(b"not a library")
    process = start(directory, str(broken))
    try:
        status = json.loads(chromashim("status", "--json", directory).stdout or "{}")
        assert not status.get("protected")
        done = chromashim("status", directory)
        assert str(process.pid) in done.stdout + done.stderr
    finally:
        stop(process)


def test_the_log_is_bounded(tmp_path, shim):
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    script = ("import os, sys\nf = os.open(sys.argv[1] + '/x', os.O_RDWR | os.O_CREAT)\n"
              "for n in range(400000): os.pwrite(f, b'x', 0)\n")
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(directory),
                             "CHROMASHIM_LOG_SIZE": "8M"})
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", script, directory], env=env, check=True)
    size = sum(f.stat().st_size for f in (directory / ".chromashim/oplog").iterdir())
    assert size <= 9 << 20


def test_the_store_is_private(recorded):
    store = recorded / ".chromashim"
    assert store.stat().st_mode & 0o777 == 0o700
    for f in store.rglob("*"):
        assert f.stat().st_mode & 0o077 == 0, f
    assert os.stat(store).st_uid == os.stat(recorded).st_uid


def test_sql_without_room_for_temporary_files(data, shim, chromashim, small_disk):
    """The tool for the incident needs none."""
    subprocess.run([sys.executable, "-c", """if True:
        import sqlite3, sys
        c = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
        c.execute("create table t(x)")
        for i in range(1500):
            c.execute("insert into t values(?)", (i,))""", data],
                   env=hosts.environment({"LD_PRELOAD": shim}), check=True)
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        with contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
    done = chromashim("log", "--sql", "select count(*) from log", data,
                      env=hosts.environment({"SQLITE_TMPDIR": str(small_disk)}))
    assert done.returncode == 0 and int(done.stdout) > 4000, done.stderr


def test_failed_is_what_went_wrong(data, shim, chromashim):
    """To make sure that a directory is there is no failure when it is, nor is to insert what is
    there and has to be updated."""
    subprocess.run([sys.executable, "-c", """if True:
        import os, sqlite3, sys
        database = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3")
        database.execute("create table t(x unique)")
        for _ in range(2):
            database.execute("insert or ignore into t values (1)")
            try:
                database.execute("insert into t values (1)")
            except sqlite3.IntegrityError:
                pass
        os.makedirs(sys.argv[1], exist_ok=True)
        try:
            os.rmdir(sys.argv[1])
        except OSError:
            pass""", data], env=hosts.environment({"LD_PRELOAD": shim}), check=True)
    failed = [json.loads(line) for line in chromashim("log", "--calls", "--failed", "--json", data).stdout.splitlines()]
    assert [r["op"] for r in failed if "op" in r] == ["rmdir"], failed
