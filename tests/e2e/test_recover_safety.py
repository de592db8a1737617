# SPDX-License-Identifier: MIT
"""Whatever comes in between, recover leaves the directory as it was, or healed: kills, a full disk,
another recover, a backend, somebody who writes. And what it says of it."""

import hashlib
import json
import os
import pty
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gallery
import hosts
from disks import MIB, disks, loop_mounts  # noqa: F401
from gallery import check
from loads import listed
from test_formats import exported

pytestmark = pytest.mark.memory

BIG = Path(__file__).parents[1] / "bench" / "big_directory.py"


@pytest.fixture(scope="module")
def torn(tmp_path_factory, chromashim) -> gallery.Killed:
    """Real Chroma, killed in a persist, without what would undo it."""
    hosts.BY_NAME["python"].require()
    return gallery.killed_in_a_persist(chromashim, tmp_path_factory.mktemp("torn"), 9300, False)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    hosts.BY_NAME["python"].require()
    return gallery.Line(hosts.BY_NAME["python"], tmp_path_factory.mktemp("line"))


@pytest.fixture
def data(torn, tmp_path) -> Path:
    return Path(shutil.copytree(torn.data, tmp_path / "data"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def state(data: Path) -> dict[str, str]:
    """Every file of Chroma's, byte for byte."""
    return {str(p.relative_to(data)): digest(p)
            for p in data.rglob("*") if p.is_file() and ".chromashim" not in p.parts}


def is_clean(data: Path) -> bool:
    """Nothing of a recovery is left but what it keeps."""
    return not (data / ".chromashim/restore").exists()


def in_quarantine(data: Path) -> list[dict[str, str]]:
    """What it keeps; a death may leave a place that is still empty."""
    where = data / ".chromashim/quarantine"
    kept = [{str(p.relative_to(one)): digest(p) for p in one.rglob("*")
             if p.is_file() and "undo" not in p.parts}
            for one in sorted(where.iterdir())] if where.exists() else []
    return [one for one in kept if one]


# ---- kills ----


def after_a_death(chromashim, data: Path, broken: dict[str, str], records, run=False) -> bool:
    """Old or new; the next command ends what had been begun, the next recover heals it."""
    if run:
        done = chromashim("run", "--dir", data, "--set", "CHROMASHIM_GUARD=off", "--on-damage=refuse",
                          "--", sys.executable, "-c", "0")
    else:
        done = chromashim("status", data)
    found = check(chromashim, data)
    assert done.returncode in ((1 if found else 0,) if run else (0, 3, 10)), done.stderr
    assert not found or state(data) == broken
    assert exported(chromashim, data) == records
    kept = in_quarantine(data)
    assert kept == ([] if found else [broken])
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode == 0, done.stderr
    assert check(chromashim, data) == set() and is_clean(data)
    assert exported(chromashim, data) == records
    assert in_quarantine(data) == [broken]
    return bool(found)


@pytest.mark.slow
def test_killed_at_any_moment(torn, data, chromashim):
    broken, records = state(data), exported(chromashim, data)
    begin = time.monotonic()
    assert chromashim("recover", "-y", shutil.copytree(data, data.with_name("timed"))).returncode == 0
    took = time.monotonic() - begin
    for n in range(12):
        one = Path(shutil.copytree(data, data.with_name(f"kill{n}")))
        run = subprocess.Popen([str(hosts.COMMAND), "recover", "-q", "-y", str(one)],
                               env=hosts.environment(), stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 1.1) * took)
        run.kill()
        run.wait()
        after_a_death(chromashim, one, broken, records)
        shutil.rmtree(one)
    # And as real Chroma sees the last one.
    shutil.copytree(data, torn.work / "healed")
    torn.data, before = torn.work / "healed", torn.data
    try:
        assert chromashim("recover", "-y", torn.data).returncode == 0
        assert torn.verify().startswith("verified")
    finally:
        torn.data = before


@pytest.mark.slow
@pytest.mark.parametrize("call", ["renameat", "linkat", "unlinkat"])
def test_killed_at_every_name(call, data, chromashim, strace):
    """The exchange itself is over too fast to be hit by chance."""
    broken, records = state(data), exported(chromashim, data)
    outcomes = []
    for n in range(1, 60):
        one = Path(shutil.copytree(data, data.with_name(f"kill{n}")))
        done = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                               f"inject={call}:signal=KILL:when={n}", str(hosts.COMMAND), "recover",
                               "-q", "-y", str(one)],
                              env=hosts.environment(), capture_output=True, check=False, timeout=120)
        outcomes.append(after_a_death(chromashim, one, broken, records, run=n % 2 == 1))
        shutil.rmtree(one)
        if done.returncode == 0:
            break
    assert len(outcomes) >= 2 and False in outcomes and (call == "linkat" or True in outcomes)


# ---- no room ----


def big_and_torn(root: Path, megabytes: int) -> Path:
    sys.path.insert(0, str(BIG.parent))
    from formats import tear  # what the bench does to it
    made = root / "chroma_data"
    hosts.chroma("venv", BIG, made, megabytes)
    tear(made)
    return made


@pytest.mark.slow
def test_no_room(disks, chromashim):
    """For the copy; and for what is healed in it: the vectors go back to the queue."""
    hosts.BY_NAME["python"].require()
    disk = disks(size=220 * MIB)
    data = big_and_torn(disk.root, 60)
    before, size = state(data), sum(p.stat().st_blocks * 512 for p in data.rglob("*"))
    disk.leave(20 * MIB)
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode == 13
    assert "the copy needs" in done.stderr and "are free" in done.stderr
    assert json.loads(done.stdout)["error"] == "no room for the copy"
    assert state(data) == before and is_clean(data)
    disk.relieve()
    disk.leave(size + 17 * MIB)
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode == 13, done.stderr
    assert "healing the copy failed: No space left on device" in done.stderr
    assert "healing" in json.loads(done.stdout)["error"]
    assert state(data) == before and is_clean(data)
    done = chromashim("recover", "-y", "-o", disk.root / "out", data)
    assert done.returncode == 13 and not (disk.root / "out").exists()
    assert not list(disk.root.glob(".out*"))
    disk.relieve()
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode == 0 and not check(chromashim, data)


def test_room_ends_anywhere(data, chromashim, strace):
    """Every write that fails for want of it, of some: to the copy, its journal, temporary files."""
    broken = state(data)
    ended = 0
    for call, when in [("write", 1), ("write", 3), ("pwrite64", 1), ("pwrite64", 3), ("pwrite64", 20),
                       ("ftruncate", 1), ("openat", 60), ("mkdirat", 1), ("renameat", 1)]:
        one = Path(shutil.copytree(data, data.with_name("one")))
        done = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                               f"inject={call}:error=ENOSPC:when={when}", str(hosts.COMMAND),
                               "recover", "-y", "--json", str(one)],
                              env=hosts.environment(), capture_output=True, text=True, check=False,
                              timeout=120)
        if done.returncode == 0:
            assert check(chromashim, one) == set()
        else:
            assert done.returncode in (1, 13), (call, when, done.stderr)
            chromashim("status", one)
            assert state(one) == broken or check(chromashim, one) == set(), (call, when)
            assert is_clean(one)
            ended += done.returncode == 13
        shutil.rmtree(one)
    assert ended >= 4


# ---- somebody else ----


class Asking:
    """A recover that is at its question: heal it?"""

    def __init__(self, data: Path) -> None:
        self.leader, follower = pty.openpty()
        self.child = subprocess.Popen([str(hosts.COMMAND), "recover", str(data)], stdin=follower,
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      env=hosts.environment())
        os.close(follower)
        said = ""
        while "[y/N]" not in said:
            said += self.child.stderr.read(1)
            assert self.child.poll() is None or "[y/N]" in said, said

    def answer(self, word: str) -> tuple[int, str]:
        os.write(self.leader, word.encode() + b"\n")
        _, errors = self.child.communicate(timeout=60)
        os.close(self.leader)
        return self.child.returncode, errors


@pytest.mark.slow
def test_two_at_once(data, chromashim):
    chromashim("snapshot", "create", data)
    first = Asking(data)
    second = chromashim("recover", "-y", data)
    assert second.returncode == 11 and "another chromashim is at work" in second.stderr
    assert first.answer("y")[0] == 0
    assert check(chromashim, data) == set() and len(in_quarantine(data)) == 1


def test_two_at_once_where_there_is_no_store_yet(data, chromashim):
    """Nothing is made before the answer, so there is no lock: what was asked about is not there any more."""
    first = Asking(data)
    assert chromashim("recover", "-y", data).returncode == 0
    healed = state(data)
    status, errors = first.answer("y")
    assert status == 11 and "changed while it was being recovered" in errors
    assert state(data) == healed and is_clean(data) and len(in_quarantine(data)) == 1


def test_two_to_the_same_place(data, chromashim, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    held = os.open(out, os.O_RDONLY)
    subprocess.run([sys.executable, "-c", "import fcntl, sys; fcntl.flock(int(sys.argv[1]), fcntl."
                    "LOCK_EX)", str(held)], check=True, pass_fds=(held,))
    done = chromashim("recover", "-y", "-o", out, data)
    assert done.returncode == 11 and not list(out.iterdir())
    os.close(held)
    assert chromashim("recover", "-y", "-o", out, data).returncode == 0
    assert check(chromashim, out) == set()


def test_changed_meanwhile(data, chromashim):
    first = Asking(data)
    with open(data / "chroma.sqlite3", "r+b") as f:
        f.write(f.read(1))
    broken = state(data)
    status, errors = first.answer("y")
    assert status == 11 and "changed while it was being recovered" in errors
    assert state(data) == broken and is_clean(data) and not in_quarantine(data)


def test_no_is_no(data, chromashim):
    broken = state(data)
    assert Asking(data).answer("n")[0] == 1
    assert state(data) == broken and is_clean(data) and not in_quarantine(data)


@pytest.mark.parametrize("said, status", [("y\n", 0), ("YES\n", 0), ("yes", 0), ("yet/another/line\n", 1),
                                          ("\n", 1), ("", 2)])
def test_answer_without_a_terminal(line, chromashim, tmp_path, said, status):
    """What asks takes a line of standard input, as `yes |` gives; where there is none it says what helps."""
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    gallery.cut("link_lists.bin", 100)(data)
    done = chromashim("recover", data, input=said)
    assert done.returncode == status, done.stderr
    assert "[y/N] \n" in done.stderr and ("Add -y" in done.stderr) == (status == 2)
    assert (data / ".chromashim").exists() == (status == 0)


@pytest.mark.parametrize("words", ["recover", "recover -y", "recover -y --only marks", "recover -y --undelete=none",
                                   "restore --from COPY", "restore -y --from DIR", "restore -y --to latest",
                                   "restore --from COPY DIR/new", "recover -y --rebuild nobody"])
def test_what_does_nothing_leaves_nothing(line, chromashim, tmp_path, words):
    """On a directory without a store, to whose question the answer is no, or that has not what is asked for."""
    data, copy = (Path(shutil.copytree(line.data, tmp_path / name)) for name in ("data", "copy"))
    if words == "recover":
        gallery.cut("link_lists.bin", 100)(data)
    before = {p: p.stat().st_mtime_ns for p in [data, *data.rglob("*")]}
    words = words.replace("COPY", str(copy)).replace("DIR", str(data))
    done = chromashim(*words.split(), *([] if "/new" in words else [data]), input="n\n")
    assert done.returncode in (0, 1, 10, 12), done.stderr
    assert before == {p: p.stat().st_mtime_ns for p in [data, *data.rglob("*")]}, done.stderr


@pytest.mark.parametrize("words", ["restore -y --from COPY DIR", "restore -y --from COPY DIR/new",
                                   "snapshot create COPY"])
def test_what_fails_on_the_way_leaves_nothing(line, chromashim, tmp_path, words):
    """Of a copy that is not sound, for which a store, or a directory, had been made."""
    data, copy = (Path(shutil.copytree(line.data, tmp_path / name)) for name in ("data", "copy"))
    os.truncate(copy / "chroma.sqlite3", 100000)
    before = {*data.rglob("*"), *copy.rglob("*")}
    done = chromashim(*words.replace("COPY", str(copy)).replace("DIR", str(data)).split())
    assert done.returncode == 1, done.stderr
    assert before == {*data.rglob("*"), *copy.rglob("*")}, done.stderr


def test_backend_comes(line, chromashim, tmp_path, actors):
    """At the beginning, and while it asks."""
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    gallery.cut("link_lists.bin", 100)(data)
    first = Asking(data)
    backend = actors(False).sqlite(data)
    backend.do("db.execute('SELECT count(*) FROM embeddings').fetchall()")
    broken = state(data)
    status, errors = first.answer("y")
    assert status == 14 and "has" in errors and "open" in errors
    assert chromashim("recover", "-y", data).returncode == 14
    assert state(data) == broken and is_clean(data)


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives the directory to another user")
def test_unreadable(line, chromashim, data_in_memory):
    """What cannot be read is not called whole."""
    data = Path(shutil.copytree(line.data, data_in_memory / "data"))
    data_in_memory.chmod(0o755)
    for path in [data, *data.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.chown(gallery.segment(data) / "data_level0.bin", 0, 0)
    (gallery.segment(data) / "data_level0.bin").chmod(0o600)
    done = chromashim("recover", "-y", data, user=65534)
    assert done.returncode == 1 and "it cannot be copied: Permission denied" in done.stderr
    assert f"'{gallery.segment(data).name}/data_level0.bin' in it" in done.stderr
    gallery.segment(data).chmod(0)
    done = chromashim("recover", "-y", data, user=65534)
    assert done.returncode == 1 and f"'{gallery.segment(data).name}' in it" in done.stderr


# ---- what it says ----


def test_json_is_whole(data, chromashim):
    """An object with an error, or nothing."""
    broken = state(data)
    (data / ".chromashim").mkdir()
    (data / ".chromashim/quarantine").write_text("in the way")
    done = chromashim("recover", "-y", "--json", data)
    told = json.loads(done.stdout)
    assert done.returncode == 1 and "cannot be exchanged" in told["error"]
    assert told["steps"] and "collections" not in told
    assert state(data) == broken and is_clean(data)
    assert chromashim("recover", "-y", "--json", data / "nothing").stdout == ""
    (data / ".chromashim/quarantine").unlink()
    assert "error" not in json.loads(chromashim("recover", "-y", "--json", data).stdout)


def test_bare_before(line, chromashim, tmp_path):
    """What had no vector before this damage is no loss of it."""
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    os.truncate(gallery.segment(data, "space-l2") / "data_level0.bin", 20000)

    def recover(*options: str, status: int) -> dict:
        done = chromashim("recover", "-y", "--json", *options, data)
        assert done.returncode == status, done.stderr
        [one] = [c for c in json.loads(done.stdout)["collections"] if c["name"] == "space-l2"]
        return one

    lost = recover(status=3)
    assert lost["without_vector"] == len(lost["lost"]) > 100 and lost["without_vector_before"] == 0
    gallery.sql("DELETE FROM embedding_fulltext_search_data WHERE id > 10")(data)
    again = recover(status=3)  # for what is still damaged
    assert {one["what"] for one in again["lost"]} == {"bare"}
    assert again["without_vector_before"] == lost["without_vector"]
    assert not again["lost_records"] and not again["without_vector"] and not again["changed"]
    gallery.sql("DELETE FROM embedding_fulltext_search_data WHERE id > 10")(data)
    words = chromashim("recover", "-y", "-o", tmp_path / "out", data).stdout
    assert f"{lost['without_vector']} had no vector before this damage" in words
    aside = recover("--set-aside", status=0)
    assert aside["without_vector_before"] == lost["without_vector"] and not aside["lost_records"]
    assert aside["before"]["records"] - aside["after"]["records"] == lost["without_vector"]
    assert check(chromashim, data) == set()


# ---- snapshots ----


def test_what_is_pinned(line, chromashim, tmp_path, actors):
    """A pin rests on the files that go to quarantine: it is copied before."""
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    segment = gallery.segment(data).name
    gallery.cut("link_lists.bin", 100)(data)  # before: a pin is broken by what others write
    backend = actors().sqlite(data)
    backend.do("db.execute('CREATE TABLE more(x)')")
    backend.kill()
    [pinned] = listed(chromashim, data)
    assert pinned["state"] == "pinned"
    assert chromashim("recover", "-y", data).returncode == 0
    [kept] = listed(chromashim, data)
    assert kept["id"] == pinned["id"] and kept["state"] == "complete"
    out = tmp_path / "out"
    assert chromashim("restore", "--force", "--to", kept["id"], "-o", out, data).returncode in (0, 3)
    assert (out / segment / "data_level0.bin").read_bytes() == (
        line.data / segment / "data_level0.bin").read_bytes()
    assert not (data / segment).exists()
    gallery.sql("CREATE TABLE more(y)")(out)  # it was pinned before there was one
