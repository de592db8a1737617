# SPDX-License-Identifier: MIT
"""Room on the disk: what happens on a small file system that fills up."""

import contextlib
import errno
import os
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

import hosts
import oplog_reader
from actor import Actor, Failed, Hangs
from disks import MIB, Disk, disks, loop_mounts  # noqa: F401

BATCH = 60
FULL = "database or disk is full"
LOCKED = "database is locked"
UNOPENED = "unable to open database file"
# Long enough for a busy machine, short beside the 1000 s that a stuck write takes.
PATIENCE = 30


def journal(data: Path) -> bool:
    """A journal that is not finalised."""
    path = data / "chroma.sqlite3-journal"
    try:  # Chroma may be about to remove it
        return path.read_bytes()[:8] not in (b"", bytes(8))
    except FileNotFoundError:
        return False


def notes(data: Path, op: str) -> list[dict]:
    return [r for r in oplog_reader.read_store(data) if r["op"] == op]


class Load:
    """Upserts of which it is known whether they were acknowledged."""

    def __init__(self, actor: Actor, data: Path, patience: float = PATIENCE) -> None:
        self.actor, self.data, self.next, self.patience = actor, data, 0, patience
        self.acknowledged: list[int] = []
        self.errors: list[str] = []
        actor.chroma(data)

    def upsert(self, times: int = 1) -> str:
        """The last error."""
        error = ""
        for _ in range(times):
            error = self.actor.fails(f"c.upsert(**batch({self.next}))", self.patience)
            if error:
                self.errors.append(error)
            else:
                self.acknowledged.append(self.next)
            self.next += BATCH
        return error

    def until_refused(self, times: int = 200) -> str:
        for _ in range(times):
            error = self.upsert()
            if error:
                return error
        raise AssertionError("the disk did not get full")

    def wrong(self) -> list[str]:
        return self.actor.ask(f"wrong(c, {self.acknowledged})", 120)

    def reads(self) -> None:
        assert self.actor.ask("c.count()", PATIENCE) >= len(self.acknowledged) * BATCH
        some = self.acknowledged[:1] + self.acknowledged[-1:]
        assert self.actor.ask(f"wrong(c, {some})", PATIENCE) == []


def check_alone(data: Path, acknowledged: list[int], count: int = BATCH) -> None:
    """A Chroma without the shim finds all of it."""
    reader = Actor()
    try:
        reader.chroma(data)
        assert reader.ask(f"wrong(c, {acknowledged}, {count})", 120) == []
        reader.sqlite(data)
        assert reader.ask("db.execute('PRAGMA integrity_check').fetchone()[0]") == "ok"
    finally:
        reader.clean_up()


def is_refusal(error: str) -> bool:
    """Of Chroma 1: after FULL its SQL library would go on with a transaction that is no more."""
    return LOCKED in error


# ---- what it is about ----


def test_without_the_shim_it_hangs(disks, actors):
    disk = disks()
    load = Load(actors(False), disk.data, 10)
    load.upsert(3)
    with pytest.raises(Hangs):
        for blocks in range(0, 30, 2):
            disk.leave(blocks * 4096)
            load.upsert(4)
            disk.relieve()
            load.upsert()


# ---- filled from outside, and by itself ----


def test_filled_by_another(disks, actors):
    disk = disks()
    load = Load(actors(), disk.data)
    load.upsert(3)
    disk.fill()
    assert is_refusal(load.until_refused())
    load.upsert(5)
    assert all(map(is_refusal, load.errors)), load.errors
    load.reads()
    assert not journal(disk.data)
    lines = load.actor.lines()
    assert sum("writing is refused: too little room" in line for line in lines) == 1
    disk.relieve()
    assert not load.upsert(3)  # by itself
    assert load.wrong() == []
    load.actor.stop()
    check_alone(disk.data, load.acknowledged)


def test_filled_by_itself(disks, actors):
    disk = disks()
    load = Load(actors(env={"CHROMASHIM_MIN_FREE": "20%"}), disk.data)
    load.upsert(3)
    disk.leave(18 * MIB)
    assert is_refusal(load.until_refused(400))
    load.upsert(5)
    assert all(map(is_refusal, load.errors)), load.errors
    load.reads()
    assert load.wrong() == []
    assert not journal(disk.data)
    refused = notes(disk.data, "refuse.space")
    assert len(refused) >= len(load.errors) and refused[0]["result"] == -errno.EAGAIN
    disk.relieve()
    assert not load.upsert(3)
    assert load.wrong() == []


def goes_on(disk, tool):
    """With room again 12 records more, and all 24 are right, also without the library."""
    disk.relieve()
    time.sleep(0.1)
    for n in range(12, 24):
        assert not tool.fails(f"c.upsert(**batch({n}, 1))", PATIENCE)
    assert tool.ask("wrong(c, range(24), 1)", PATIENCE) == []
    tool.kill()
    check_alone(disk.data, range(24), 1)


@pytest.mark.parametrize("ballast, error", [("16M", LOCKED), ("0", UNOPENED)])
def test_a_refused_record_locks_nobody_out(disks, actors, ballast, error):
    """One record at a time, and then a transaction that is taken back: with FULL, its lock stayed
    and all waited 1000 s, with room again, too. Without a ballast there is no room for a journal."""
    disk = disks()
    tool = actors(env={"CHROMASHIM_BALLAST": ballast}).chroma(disk.data)
    for n in range(12):
        tool.do(f"c.upsert(**batch({n}, 1))")
    disk.fill()
    time.sleep(1.1)  # the room is asked for once a second while there is plenty
    for n in range(1, 4):
        for _ in range(n):
            refused = tool.fails("c.upsert(**batch(100, 1))", PATIENCE)
            assert error in refused, refused
        assert tool.ask("client.get_or_create_collection('books', metadata=METADATA).count()",
                        PATIENCE) == 12
    assert sum("writing is refused: too little room" in line for line in tool.lines()) == 1
    goes_on(disk, tool)


def test_refused_in_wal_mode(disks, actors):
    """A commit there has no error that leaves its transaction open: with FULL, a later one stayed
    open for good, and all waited 1000 s. So it is refused before it has begun, if next to nothing
    is left; reads, each of which looks whether there is something to remove, then fail as well."""
    disk = disks()
    with contextlib.closing(sqlite3.connect(disk.data / "chroma.sqlite3")) as db:
        assert db.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    tool = actors(env={"CHROMASHIM_BALLAST": "0"}).chroma(disk.data)
    for n in range(12):
        tool.do(f"c.upsert(**batch({n}, 1))")
    disk.fill()
    time.sleep(1.1)
    for n in range(1, 4):
        for _ in range(n):
            refused = tool.fails("c.upsert(**batch(100, 1))", PATIENCE)
            assert LOCKED in refused, refused
        for step in ("client.get_or_create_collection('books', metadata=METADATA)", "c.count()"):
            error = tool.fails(step, PATIENCE)
            assert not error or LOCKED in error or "Error purging logs" in error, error
    assert sum("writing is refused: too little room" in line for line in tool.lines()) == 1
    assert len(notes(disk.data, "refuse.space")) < 100
    goes_on(disk, tool)


@pytest.mark.slow
def test_room_ends_anywhere(disks, actors):
    """Another process leaves k blocks in the midst of it; then comes an upsert, then a persist."""
    disk = disks()
    # Looked at too seldom to notice: what has begun must get through by the ballast alone.
    load = Load(actors(env={"CHROMASHIM_MIN_FREE": "1%"}), disk.data)
    load.upsert(3)
    for blocks in [*range(0, 30, 2), *range(30, 200, 17)]:
        disk.leave(blocks * 4096)
        load.upsert(2)
        assert not journal(disk.data), blocks
        load.reads()
        disk.relieve()
        assert not load.upsert(), blocks
    assert load.wrong() == []
    load.actor.stop()
    check_alone(disk.data, load.acknowledged)


# ---- inodes, quotas, temporary files ----


def test_inodes(disks, actors):
    disk = disks(make=("-N", "256"))
    load = Load(actors(), disk.data)
    load.upsert(3)
    many = disk.root / "many"
    many.mkdir()
    with pytest.raises(OSError):
        for n in range(300):
            (many / str(n)).touch()
    load.until_refused()
    load.upsert(3)
    load.reads()
    assert not journal(disk.data)
    for file in many.iterdir():
        file.unlink()
    time.sleep(1.1)
    assert not load.upsert(3)
    assert load.wrong() == []
    assert any("no inodes left" in line for line in load.actor.lines())


def test_project_quota(disks, actors):
    """statfs of a directory with a project quota tells what is left of the quota."""
    try:
        disk = disks(size=320 * MIB, kind="xfs", options="prjquota")
    except subprocess.CalledProcessError as e:
        pytest.skip(f"no project quota: {e.stderr}")
    for command in (f"project -s -p {disk.data} 7", "limit -p bhard=40m 7"):
        done = subprocess.run(["xfs_quota", "-x", "-c", command, str(disk.root)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no project quota: {done.stderr}")
    load = Load(actors(env={"CHROMASHIM_MIN_FREE": "8M", "CHROMASHIM_LOG_SIZE": "4M"}), disk.data)
    load.upsert(3)
    with open(disk.data / "something", "wb") as f, pytest.raises(OSError) as full:
        while True:
            os.posix_fallocate(f.fileno(), f.seek(0, os.SEEK_END), 65536)
    assert full.value.errno in (28, 122)
    assert is_refusal(load.until_refused())
    load.reads()
    assert not journal(disk.data)
    (disk.data / "something").unlink()
    time.sleep(1.1)
    assert not load.upsert(3)
    assert load.wrong() == []


@pytest.mark.fast
def test_user_quota(data, tmp_path):
    """statfs does not tell of a user's quota. Told here by the fault library, since few kernels of
    those that tests run on have quotas: 10 MiB on a disk with plenty, as the kernel would say it."""
    quota = tmp_path / "quota"
    quota.write_text(f"{10 * MIB}:{8 * MIB}")
    tool = Actor(str(hosts.BUILD / "libchromashim-faults.so"), {
        "CHROMASHIM_BALLAST": "0", "CHROMASHIM_MIN_FREE": "50%,1G",
        "CHROMASHIM_FAULT": f"quota:{quota}"})
    try:
        tool.sqlite(data).do("db.execute('CREATE TABLE embeddings_queue(topic)')")
        for left, refused in [(8, False), (4, True), (6, True), (7, False)]:  # with the hysteresis
            quota.write_text(f"{10 * MIB}:{left * MIB}")
            time.sleep(0.15)  # tight as it is, the room is asked for each 10 or 100 ms
            error = tool.fails("db.execute(\"INSERT INTO embeddings_queue VALUES('persistent://')\")")
            assert bool(error) == refused, (left, error)
        assert sum("too little is left of the disk quota" in line and
                   "have the quota raised" in line for line in tool.lines()) == 1
        assert len(notes(data, "refuse.space")) == 2
    finally:
        tool.clean_up()


def test_temporary_directory(disks, data, actors):
    disk = disks(size=8 * MIB)
    load = Load(actors(env={"SQLITE_TMPDIR": str(disk.root)}), data)
    load.upsert()
    disk.fill()
    time.sleep(1.1)
    assert is_refusal(load.upsert())
    load.reads()
    assert any(f"temporary files is full: {disk.root}" in line for line in load.actor.lines())
    disk.relieve()
    time.sleep(1.1)
    assert not load.upsert()


# ---- start, ballast, warning, settings ----


def test_start_while_the_disk_is_low(disks, actors):
    disk = disks()
    names = [f"shelf-{n}" for n in range(12)]
    first = actors().chroma(disk.data)
    for name in names:
        first.do(f"client.create_collection({name!r}, metadata=METADATA).upsert(**batch(0, 150))")
    first.kill()
    disk.fill()
    second = actors()
    second.do(f"from workload import *\nclient = connect({str(disk.data)!r})", 60)
    for name in names:
        assert second.ask(f"wrong(client.get_collection({name!r}), [0], 150)", PATIENCE) == []
    errors = [second.fails(f"client.get_collection({name!r}).upsert(**batch(1000))", PATIENCE)
              for name in names]
    assert is_refusal(errors[-1]), errors
    assert not journal(disk.data)
    disk.relieve()
    time.sleep(0.1)
    second.do(f"client.get_collection({names[-1]!r}).upsert(**batch(2000))")


@pytest.mark.parametrize("size", ["8M", "64M"])
def test_the_log_leaves_the_last_of_the_disk(disks, actors, size):
    """It is for what has begun. Where older segments make room, the log goes on."""
    disk = disks(size=96 * MIB)
    actor = actors(env={"CHROMASHIM_LOG_SIZE": size, "CHROMASHIM_BALLAST": "0",
                        "CHROMASHIM_MIN_FREE": "0"}).chroma(disk.data)
    actor.do(f"import os; fd = os.open({str(disk.data / 'notes')!r}, os.O_RDWR | os.O_CREAT)")
    disk.leave(6 * MIB)
    before = disk.free()
    actor.do("for n in range(200000): os.pwrite(fd, b'x', 0)", 60)
    assert disk.free() >= before - MIB // 2


def test_ballast(disks, actors):
    disk = disks(size=96 * MIB)
    ballast = disk.data / ".chromashim" / "ballast"
    load = Load(actors(env={"CHROMASHIM_BALLAST": "2M", "CHROMASHIM_MIN_FREE": "1M"}), disk.data)
    load.upsert(3)
    assert ballast.stat().st_blocks * 512 >= 2 * MIB
    disk.fill()
    load.upsert(100)  # noticed late: some are let in, and have nothing but the ballast
    assert not ballast.exists() and not journal(disk.data)
    assert sum("the ballast is given up" in line for line in load.actor.lines()) == 1
    load.reads()
    disk.relieve()
    time.sleep(0.1)
    assert not load.upsert(2)
    assert ballast.stat().st_blocks * 512 >= 2 * MIB
    assert load.wrong() == []


def test_ballast_of_another_directory(disks):
    """Two directories on one disk with one ballast, which is there for both."""
    disk = disks(size=96 * MIB)
    second, ballast = disk.data.parent / "second", disk.data / ".chromashim" / "ballast"
    actor = Actor(str(hosts.BUILD / "libchromashim-faults.so"), {
        "CHROMASHIM_BALLAST": "2M", "CHROMASHIM_MIN_FREE": "1M", "CHROMASHIM_BOUNDS": "ballasts=1"})
    try:
        actor.chroma(disk.data)
        load = Load(actor, second)
        load.upsert(3)
        assert ballast.exists() and not (second / ".chromashim" / "ballast").exists()
        disk.fill()
        load.upsert(100)
        assert not ballast.exists() and not journal(second)
        assert sum("the ballast is given up" in line for line in actor.lines()) == 1
        load.reads()
        disk.relieve()
        time.sleep(0.1)
        assert not load.upsert(2)
        assert load.wrong() == []
    finally:
        actor.clean_up()


@pytest.mark.fast
@pytest.mark.parametrize("setting, low", [
    ("40%", True), ("20M", True), ("20MiB,60%", True), ("20M,90%", True), ("21000K", True),
    ("20971520", True), ("1%,20M", False), ("2M", False), ("0", False), ("", False)])
def test_min_free(disks, actors, setting, low):
    disk = disks()
    tool = actors(env={"CHROMASHIM_MIN_FREE": setting, "CHROMASHIM_BALLAST": "0"})
    tool.sqlite(disk.data).do("db.execute('CREATE TABLE embeddings_queue(topic)')")
    tool.do("db.execute(\"INSERT INTO embeddings_queue VALUES('persistent://x')\")")
    disk.leave(12 * MIB)
    time.sleep(1.1)
    for _ in range(9):  # what a start may write passes
        error = tool.fails("db.execute(\"INSERT INTO embeddings_queue VALUES('persistent://y')\")")
    assert bool(error) == low and (not low or FULL.split(" or ")[1] in error)


def test_hysteresis_and_warning(disks, actors):
    disk = disks()
    tool = actors(env={"CHROMASHIM_MIN_FREE": "10M", "CHROMASHIM_BALLAST": "0",
                       "CHROMASHIM_WARN_FULL": "60%"})
    tool.sqlite(disk.data).do("db.execute('CREATE TABLE embeddings_queue(topic)')")

    def refused(left: float) -> bool:
        disk.relieve()
        disk.leave(int(left * MIB))
        time.sleep(1.05)
        return bool(tool.fails("db.execute(\"INSERT INTO embeddings_queue VALUES('persistent://')\")"))

    assert [refused(left) for left in (30, 11, 9, 11, 13, 11)] == [False, False, True, True, False,
                                                                   False]
    warned = notes(disk.data, "warn.space")
    assert len(warned) == 1 and sum(" % full" in line for line in tool.lines()) == 1
    assert not refused(30) and not refused(14)
    assert len(notes(disk.data, "warn.space")) == 2
