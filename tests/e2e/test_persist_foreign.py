# SPDX-License-Identifier: MIT
"""What was saved is put back over what it was saved from, whatever happens between two starts."""

import os
import shutil
import subprocess

import pytest

import hosts
from test_persist_cases import A, B, FILES, PICKLE, Directory

# A death before the pickle, with what was written in its place; and one in its midst.
BEFORE = """
bins(A, b"n")
os.ftruncate(os.open(f"{data}/{A}/header.bin", os.O_RDWR), 177)  # lets go what is held back
die()
"""
DURING = "bins(A, b'n'); pickle(A, b'n'); die()"


@pytest.fixture(params=["process", "power"])
def directory(request, data, shim):
    return Directory(data, shim, request.param)


@pytest.fixture(params=[BEFORE, DURING], ids=["before", "during"])
def death(request):
    return request.param


def content(segment):
    return {name: (segment / name).read_bytes() for name in [*FILES, PICKLE]}


def set_times(directory, seconds):
    for path in [directory.path, *directory.path.rglob("*")]:
        os.utime(path, (seconds, seconds), follow_symlinks=False)


@pytest.mark.parametrize("seconds", [1, 4_000_000_000])
def test_times_say_nothing(directory, death, seconds):
    """A clock that was stepped, a slow sync, `touch`."""
    directory.killed(death)
    set_times(directory, seconds)
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


@pytest.mark.parametrize("how", [["cp", "-r"], ["cp", "-a"], ["cp", "-al"], ["mv"]], ids="".join)
def test_copy_of_a_crashed_directory(directory, death, how):
    directory.killed(death)
    copy = directory.path.parent / "copy"
    subprocess.run([*how, directory.path, copy], check=True)
    directory.path = copy
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


@pytest.mark.parametrize("pickle", ["older", "same"])
@pytest.mark.parametrize("kept_times", [True, False])
def test_backup_put_back(directory, death, kept_times, pickle):
    """An older one; an update leaves the pickle as it is."""
    backup = directory.path.parent / "backup"
    shutil.copytree(directory.path / A, backup)
    directory.run("bins(A, b'm'); os.close(pickle(A, b'm'))")
    if pickle == "same":
        shutil.copy2(directory.path / A / PICKLE, backup / PICKLE)
    directory.killed(death)
    for name in [*FILES, PICKLE]:
        (shutil.copy2 if kept_times else shutil.copyfile)(backup / name, directory.path / A / name)
    said = directory.next_start()
    assert content(directory.path / A) == content(backup)
    assert "Run chromashim check" in said or "run chromashim check" in said
    assert directory.undo() == []
    assert [p.name for p in (directory.path / ".chromashim/undo").glob("*.foreign")]
    assert directory.next_start() == ""


def test_same_state_put_back(directory, death):
    """A backup of the very state before: there is nothing wrong with that one, nor to be undone."""
    backup = directory.path.parent / "backup"
    shutil.copytree(directory.path / A, backup)
    directory.killed(death)
    for name in [*FILES, PICKLE]:
        shutil.copy2(backup / name, directory.path / A / name)
    directory.next_start()
    assert content(directory.path / A) == content(backup)


def test_started_without_the_shim(directory, death):
    """At once, and it persists: what it wrote stays, to the byte."""
    directory.killed(death)
    directory.run("bins(A, b'w'); os.close(pickle(A, b'w'))", preload=False)
    there = content(directory.path / A)
    assert "without the shim" in directory.next_start()
    assert content(directory.path / A) == there


def test_back_to_old_values_without_the_shim(directory, death):
    """Some of what it wrote is as it was before the crash, some as the crash left it."""
    directory.killed(death)
    directory.run("""
        fd = os.open(f"{data}/{A}/data_level0.bin", os.O_RDWR)
        os.pwrite(fd, b"o" * 1000, 64)
        os.pwrite(fd, b"w" * 64, 6400)
        os.close(pickle(A, b"w"))
    """, preload=False)
    there = content(directory.path / A)
    directory.next_start()
    assert content(directory.path / A) == there


def test_live_in_another_container(directory):
    """Its pid says nothing there, and may be another's; and the same the other way round."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a pid namespace")
    for within, other in ((), inside), (inside, ()):
        child = directory.start("bins(A, b'n'); fd = pickle(A, b'n'); print(flush=True); input(); "
                                "os.close(fd)", stdin=subprocess.PIPE, within=within)
        child.stdout.readline()
        _, said = directory.start("", within=other).communicate(timeout=60)
        assert said == ""
        child.communicate("\n", timeout=30)
        assert directory.is_new(A)
        for name, size in FILES.items():
            (directory.path / A / name).write_bytes(b"o" * size)


def test_lock_of_somebody_else(directory):
    """Left by root: whoever owns the directory rolls back all the same."""
    if os.getuid():
        pytest.skip("needs root")
    directory.killed(DURING)
    for path in [directory.path, *directory.path.rglob("*")]:
        os.chown(path, 65534, 65534)
    lock = directory.path / ".chromashim/undo/rollback.lock"
    lock.touch(0o600)
    os.chown(lock, 0, 0)
    hosts.let_others_in(directory.path.parent)
    child = directory.start("", user=65534, group=65534, extra_groups=[])
    _, said = child.communicate(timeout=60)
    assert "it was undone" in said, said
    assert directory.is_old(A)


# ---- segments that were made, and never persisted

MAKE = """
def make(segment, names=FILES):
    os.mkdir(f"{data}/{segment}")
    for name in names:
        os.write(os.open(f"{data}/{segment}/{name}", os.O_RDWR | os.O_CREAT | os.O_TRUNC), b"i" * 90)
"""


@pytest.mark.parametrize("durability", ["process", "power"])
def test_thousands_that_were_never_persisted(data_in_memory, shim, durability):
    """None of them is being written: they take no place among those that are. In memory: a disk
    takes its time for 50 000 files and syncs, with or without the shim."""
    directory = Directory(data_in_memory, shim, durability)
    said = directory.run(MAKE + """
for i in range(4200):
    make(f"{i:08x}-0000-4000-8000-000000000000", FILES if i % 40 == 0 else ["header.bin"])
    os.closerange(5, 60)
bins(A, b"n"); os.close(pickle(A, b"n"))
bins(B, b"n"); pickle(B, b"n")
os.kill(os.getpid(), 9)
""", status=-9)
    assert said == ""
    assert directory.next_start().count("it was undone") == 1
    assert directory.is_new(A) and directory.is_old(B)
    assert len(os.listdir(directory.path)) > 4200
    assert not list(directory.path.glob("0000*/header.bin"))


def test_first_persist_of_one(directory):
    script = MAKE + """
new = "cccccccc-0000-4000-8000-000000000000"
make(new)
for name in FILES:
    os.write(os.open(f"{data}/{new}/{name}", os.O_RDWR), b"v" * 5000)
fd = os.open(f"{data}/{new}/{PICKLE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(fd, b"p" * 100)
"""
    new = directory.path / "cccccccc-0000-4000-8000-000000000000"
    directory.killed(script + "die()")
    assert directory.next_start() == ""
    assert os.listdir(new) == []
    new.rmdir()
    directory.killed(script + "os.write(fd, b'.'); os.close(fd); die()")
    assert directory.undo() == []
    directory.next_start()
    assert (new / PICKLE).stat().st_size == 101


def test_first_persist_without_the_shim_stays(directory):
    directory.killed(MAKE + "make('cccccccc-0000-4000-8000-000000000000'); die()")
    new = directory.path / "cccccccc-0000-4000-8000-000000000000"
    for name in [*FILES, PICKLE]:
        (new / name).write_bytes(b"whole.")
    assert "left as it is" in directory.next_start()
    assert (new / PICKLE).read_bytes() == b"whole." and len(os.listdir(new)) == 5


def test_creation_is_no_persist(directory, chromashim):
    """Neither after a clean end nor after a crash."""
    directory.run(MAKE + "make('cccccccc-0000-4000-8000-000000000000')")
    for ask in ("log", "--last-crash"), ("check",):
        told = chromashim(*ask, directory.path)
        assert "persist" not in told.stdout.replace(str(directory.path), ""), told.stdout
    assert directory.next_start() == ""
    assert "persist." not in chromashim("log", "--calls", directory.path).stdout


def test_child_of_many(directory):
    """A forked child goes on by itself, and its parent's creations are none of its own."""
    directory.run(MAKE + """
make("cccccccc-0000-4000-8000-000000000000")
if not os.fork():
    new = f"{data}/cccccccc-0000-4000-8000-000000000000"
    fd = os.open(f"{new}/header.bin", os.O_RDWR)
    os.pwrite(fd, b"child", 0)
    fd = os.open(f"{new}/{PICKLE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b"p.")
    os.close(fd)
    os._exit(0)
assert os.wait()[1] == 0
""")
    assert "frozen" not in directory.next_start()


C = "cccccccc-0000-4000-8000-000000000000"
# As hnswlib makes an index: version 1, no elements.
EMPTY = f"""
C = "{C}"
def create():
    for name, content in zip(FILES, [(1).to_bytes(4, "little") + bytes(96), b"i" * 900, b"i" * 90, b""]):
        fd = os.open(f"{{data}}/{{C}}/{{name}}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.write(fd, content)
        os.close(fd)
def persist():
    for name in FILES:
        fd = os.open(f"{{data}}/{{C}}/{{name}}", os.O_RDWR)
        os.pwrite(fd, (1).to_bytes(4, "little") + b"n" * 200, 0)
        os.close(fd)
    fd = os.open(f"{{data}}/{{C}}/{{PICKLE}}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, b"p.")
    os.close(fd)
"""


@pytest.mark.parametrize("end", ["", "persist()", "die()",
                                 "if not os.fork():\n    persist(); os._exit(0)\nos.wait()"],
                         ids=["ends", "persists", "dies", "forks"])
def test_made_by_one_and_again_by_another(directory, end):
    """The one before it, that never persisted it, has not ended yet when this one begins."""
    first = directory.start(EMPTY + """
os.mkdir(f"{data}/{C}"); create()
print("made", flush=True); sys.stdin.read()
""", stdin=subprocess.PIPE)
    assert first.stdout.readline() == "made\n"
    directory.run(EMPTY + "create()\n" + end, status=-9 if "die" in end else 0)
    left = directory.undo()
    assert len(left) == (0 if "persist" in end else 1), left
    assert first.communicate() == ("", "")
    assert directory.next_start() == ""
    assert directory.undo() == []
    assert len(os.listdir(directory.path / C)) == (5 if "persist" in end else 0)
    if "persist" in end:
        assert (directory.path / C / "header.bin").read_bytes()[4:] == b"n" * 200


# ---- states on the way to which a persist may come: none of them is somebody else's

ANEW = """
bins(A, b"n"); fd = pickle(A, b"n")
pickle(A, b"m"); die()
"""
# Chroma 0.4 to 0.6 persists more than once in a transaction.
ANEW_IN_TRANSACTION = """
import sqlite3
db = sqlite3.connect(data + "/chroma.sqlite3", isolation_level=None)
db.execute("create table t (x)")
db.execute("begin immediate"); db.execute("insert into t values (1)")
bins(A, b"n"); os.close(pickle(A, b"n"))
bins(A, b"m"); fd = pickle(A, b"m")
if closed:
    os.close(fd)
die()
"""


@pytest.mark.parametrize("script", [ANEW, "closed = 0\n" + ANEW_IN_TRANSACTION,
                                    "closed = 1\n" + ANEW_IN_TRANSACTION],
                         ids=["open", "transaction", "closed"])
def test_pickle_begun_anew(directory, script):
    """Each time it has another content."""
    directory.killed(script)
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


CUTS = {
    "in a grain": "os.ftruncate(fd, 1000)",
    "in one that was written": "os.pwrite(fd, b'n' * 500, 800); os.ftruncate(fd, 1000)",
    "and lengthened": "os.ftruncate(fd, 1000); os.ftruncate(fd, 2000)",
    "a gap": "os.ftruncate(fd, 1000); os.pwrite(fd, b'n', 3000)",
    "a gap in what was written": "os.ftruncate(fd, 960); os.pwrite(fd, b'n' * 50, 960); "
                                 "os.pwrite(fd, b'n' * 500, 3000)",
    "appended": "os.ftruncate(fd, 1000); os.write(os.open(name, os.O_WRONLY | os.O_APPEND), "
                "b'n' * 300)",
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_cut(directory, cut):
    directory.killed(f"""
name = f"{{data}}/{{A}}/data_level0.bin"
fd = os.open(name, os.O_RDWR)
{cut}
die()
""")
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


def test_size_after_a_cut(directory):
    """What is written behind the end is not held back: others see the size, and append."""
    directory.run("""
name = f"{data}/{A}/data_level0.bin"
fd = os.open(name, os.O_RDWR)
os.ftruncate(fd, 1000)
os.pwrite(fd, b"n" * 500, 1000)
assert os.fstat(fd).st_size == 1500
os.write(os.open(name, os.O_WRONLY | os.O_APPEND), b"m" * 500)
os.close(pickle(A, b"n"))
""")
    assert (directory.path / A / "data_level0.bin").read_bytes() == \
        b"o" * 1000 + b"n" * 500 + b"m" * 500
