# SPDX-License-Identifier: MIT
"""Faults in the shim's own calls: the backend goes on, loudly. And who else is there."""

import os
import shutil
import subprocess
import time

import pytest

import hosts
import oplog_reader
from disks import disks, loop_mounts  # noqa: F401

WRITE = "c.upsert(**batch({}))"


def goes_on(actor, first: int = 0) -> None:
    for n in range(3):
        actor.do(WRITE.format(first + 60 * n))
    assert actor.ask(f"wrong(c, {[first + 60 * n for n in range(3)]})") == []


@pytest.fixture
def unusable(data):
    """A store that is no directory."""
    (data / ".chromashim").write_text("in the way")
    return data


def test_no_store(unusable, actors):
    actor = actors().chroma(unusable)
    goes_on(actor)
    said = actor.lines()
    assert len(said) == 1, said
    assert "cannot use the store .chromashim" in said[0] and "UNPROTECTED" in said[0]


def test_no_store_and_closed(unusable, actors):
    actors(False).chroma(unusable).stop()
    actor = actors(env={"CHROMASHIM_ON_FAILURE": "closed"})
    assert "readonly" in actor.fails(f"from workload import *\nconnect({str(unusable)!r})")
    said = actor.lines()
    assert len(said) == 2 and "not opened for writing (CHROMASHIM_ON_FAILURE=closed)" in said[0]
    assert "opening for writing is refused" in said[1]
    tool = actors(env={"CHROMASHIM_ON_FAILURE": "closed"}).sqlite(unusable)
    assert tool.ask("db.execute('SELECT count(*) FROM collections').fetchone()[0]") == 1
    assert "readonly" in tool.fails("db.execute('CREATE TABLE t(a)')")


def test_no_store_and_closed_and_new(unusable, actors):
    actor = actors(env={"CHROMASHIM_ON_FAILURE": "closed"})
    assert actor.fails(f"from workload import *\nconnect({str(unusable)!r})")
    assert not (unusable / "chroma.sqlite3").exists()


def test_closed_and_all_is_well(data, actors):
    actor = actors(env={"CHROMASHIM_ON_FAILURE": "closed"}).chroma(data)
    goes_on(actor)
    assert not actor.lines()


def test_store_removed(data, actors):
    actor = actors().chroma(data)
    goes_on(actor)
    shutil.rmtree(data / ".chromashim")
    time.sleep(1.1)
    goes_on(actor, 1000)
    assert any("writer.lock" in line for line in actor.lines())
    actor.stop()
    reader = actors(False).chroma(data)
    assert reader.ask("wrong(c, [0, 60, 120, 1000, 1060, 1120])") == []


def test_store_on_a_read_only_mount(disks, data, actors):
    """Read-only from the start, and made so under a running backend."""
    disk = disks(size=32 << 20)
    store = disk.root / "store"
    actor = actors(env={"CHROMASHIM_STORE": str(store)}).chroma(data)
    goes_on(actor)
    subprocess.run(["mount", "-o", "remount,ro", disk.root], check=False)
    subprocess.run(["umount", "-l", disk.root], check=True)
    goes_on(actor, 1000)
    actor.stop()
    subprocess.run(["mount", "-o", "loop,ro", disk.image, disk.root], check=True)
    actor = actors(env={"CHROMASHIM_STORE": str(store)}).chroma(data)
    goes_on(actor, 2000)
    assert any("read-only file system" in line and "UNPROTECTED" in line for line in actor.lines())


def test_store_of_another_user(data_in_memory, actors):
    """A backend that may write the directory and not the store."""
    if os.geteuid():
        pytest.skip("needs root to become another user")
    data = data_in_memory
    actors().chroma(data).stop()
    for path in (data, *data.glob("chroma.sqlite3*")):
        os.chown(path, 65534, 65534)
    tool = actors()
    tool.do("os.setgid(65534); os.setuid(65534)")
    tool.sqlite(data).do("db.execute('CREATE TABLE t(a)')")
    (line,) = tool.lines()
    assert "permission denied" in line and "UNPROTECTED" in line


def test_statfs_fails(data, shim, strace, tmp_path):
    done = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", "inject=fstatfs:error=EIO", "-E",
         f"LD_PRELOAD={shim}", str(hosts.python("venv")), "-c",
         "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
         "for n in range(5): db.execute(f'CREATE TABLE t{n}(a)')", str(data / "chroma.sqlite3")],
        env=hosts.environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot tell how much room is left") == 1


# ---- processes that are there already ----


def reported(actor) -> list[str]:
    return [line for line in actor.lines() if "open without the shim: process" in line]


def test_others_are_reported(data, actors):
    actors(False).chroma(data).stop()
    outsider = actors(False).sqlite(data)
    outsider.do("db.execute('SELECT * FROM collections').fetchall()")
    started = time.monotonic()
    actor = actors().chroma(data)
    (line,) = reported(actor)
    assert f"process {outsider.pid} (" in line and "puppet.py)" in line
    assert time.monotonic() - started < 20
    notes = [r for r in oplog_reader.read_store(data) if r["op"] == "log.note"]
    assert any(f"process {outsider.pid} (" in "".join(r["texts"]) for r in notes)


def test_shimmed_ones_are_not(data, actors):
    actors().chroma(data).stop()
    first = actors().sqlite(data)
    first.do("db.execute('SELECT * FROM collections').fetchall()")
    assert not actors().chroma(data).lines()


def test_a_library_of_another_name(data, shim, tmp_path):
    """It is not known by it, but a process is not another one than itself."""
    library = shutil.copy(shim, tmp_path / "shim.so")
    done = subprocess.run(
        [str(hosts.python("venv")), "-S", "-c",
         "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('CREATE TABLE t(a)')",
         str(data / "chroma.sqlite3")], env=hosts.environment({"LD_PRELOAD": str(library)}),
        capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (data / ".chromashim" / "oplog").exists()


def test_nobody_there(data, actors):
    actors(False).chroma(data).stop()
    actor = actors().chroma(data)
    goes_on(actor)
    assert not actor.lines()
