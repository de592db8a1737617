# SPDX-License-Identifier: MIT
"""The store is out of bounds for the host's code, by whatever call and name; reading is free."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

import hosts

SHELL = {
    "rm": "rm -rf STORE",
    "rm through a link": "rm -rf LINK/",
    "rm of one file": "rm -f STORE/writer.lock",
    "from inside": "cd STORE; rm -f writer.lock",
    "from deeper inside": "cd LINK/oplog; rm -f ../writer.lock; rm -rf ../undo",
    "from the directory": "cd STORE/..; rm -rf ./.chromashim",
    "there and back": "rm -f STORE/../.chromashim/oplog/../writer.lock",
    "a link to a file": ": > FILE",
    "a new file": ": > STORE/new",
    "appending": "echo x >> STORE/writer.lock",
    "mv of all": "mv STORE STORE.aside",
    "mv of a part": "mv STORE/oplog STORE/aside",
    "mv over": "echo x > LINK.x; mv LINK.x STORE/writer.lock",
    "chmod": "chmod 777 STORE STORE/writer.lock",
    "touch": "touch STORE/writer.lock STORE/new",
    "hard link": "ln STORE/writer.lock LINK.hard && echo x >> LINK.hard",
    "link inside": "ln -s x STORE/x",
    "node": "mkfifo STORE/x; mkdir STORE/y; truncate -s 0 STORE/writer.lock; rmdir STORE/undo",
    "cp": "cp /etc/passwd STORE/x; cp /etc/passwd STORE/writer.lock",
}

CALLS = """
import ctypes, tempfile
libc = ctypes.CDLL(None, use_errno=True)
held = os.open(store, os.O_RDONLY)
file = os.open(store + "/writer.lock", os.O_RDONLY)
lock = store + "/writer.lock"
def raw(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "raw")
calls = [
    lambda: os.unlink("writer.lock", dir_fd=held), lambda: os.fchmod(held, 0o777),
    lambda: os.fchmod(file, 0o777), lambda: os.utime(file), lambda: os.chown(file, 1, 1),
    lambda: os.setxattr(file, "user.x", b""), lambda: os.removexattr(lock, "user.x"),
    lambda: os.open(f"/proc/self/fd/{held}/writer.lock", os.O_RDWR),
    lambda: os.open(f"/proc/self/fd/{file}", os.O_RDWR),
    lambda: os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=held),
    lambda: os.open(store, os.O_TMPFILE | os.O_RDWR), lambda: open(lock, "r+"),
    lambda: os.utime("writer.lock", dir_fd=held), lambda: tempfile.mkstemp(dir=store),
    lambda: tempfile.mkdtemp(dir=store), lambda: os.mkfifo(store + "/x"),
    lambda: os.link(lock, store + ".x"), lambda: os.symlink("x", store + "/x"),
    lambda: os.rename(lock, store + ".x"), lambda: os.replace(__file__, lock),
    lambda: os.truncate(lock, 0), lambda: os.rmdir(store + "/undo"), lambda: os.rmdir(store),
    lambda: os.rename(store, store + ".x"), lambda: os.mkdir(store + "/x"),
    lambda: raw(87, lock.encode()), lambda: raw(263, held, b"writer.lock", 0),
    lambda: raw(264, held, b"writer.lock", held, b"x"), lambda: raw(90, lock.encode(), 0o777),
    lambda: raw(257, -100, lock.encode(), os.O_RDWR), lambda: raw(76, lock.encode(), 0),
    lambda: raw(452, -100, lock.encode(), 0o777, 0), lambda: raw(132, lock.encode(), None),
    lambda: raw(235, lock.encode(), None), lambda: raw(261, held, b"writer.lock", None),
    lambda: libc.fopen(lock.encode(), b"r+") and 1 or raw(257, -100, lock.encode(), 1),
    lambda: __import__("fcntl").lockf(file, 5),
]
result = []
for number, call in enumerate(calls):
    try:
        call()
        result.append(number)
    except OSError as e:
        if e.errno != 1:
            result.append((number, e.errno))
"""


def contents(store: Path) -> dict[str, tuple]:
    """All of it but what the log of a living process writes by itself."""
    out = {}
    for path in sorted([store, *store.rglob("*")]):
        kind = os.lstat(path)
        if path.parent.name == "oplog":
            continue
        body = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        times = 0 if path.is_dir() else kind.st_mtime_ns
        out[str(path)] = (kind.st_mode, kind.st_uid, kind.st_nlink, times, body)
    return out


def made(data: Path, actors) -> Path:
    first = actors().sqlite(data)
    first.do("db.execute('CREATE TABLE t(a)')")
    first.stop()
    return data / ".chromashim"


def test_from_a_child(data, actors, shim, tmp_path):
    """Of a process that has nothing under protection itself: a shell and its commands."""
    store = made(data, actors)
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(store)
    file.symlink_to(store / "writer.lock")
    before = contents(store)
    for name, script in SHELL.items():
        script = script.replace("STORE", str(store)).replace("LINK", str(link))
        done = subprocess.run(["sh", "-c", script.replace("FILE", str(file))], text=True,
                              env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                              check=False)
        assert contents(store) == before, name
        if name != "hard link":
            assert done.returncode, name
        assert "chromashim: " in done.stderr and "belongs to chromashim" in done.stderr, name
    copied = subprocess.run(["sh", "-c", f"cp -a {store} {tmp_path}/copy && rm -f {link} {file}"],
                            env=hosts.environment({"LD_PRELOAD": shim}), check=False)
    assert copied.returncode == 0 and (tmp_path / "copy/writer.lock").exists()


@pytest.mark.fast
@pytest.mark.parametrize("open_too", [False, True])
def test_by_every_call(data, actors, open_too):
    store = made(data, actors)
    before = contents(store)
    actor = actors(env={"CHROMASHIM_BALLAST": "0"})
    if open_too:
        actor.sqlite(data).do("db.execute('SELECT * FROM t').fetchall()")
        before = contents(store)
    actor.do(f"store = {str(store)!r}; __file__ = {str(data.parent / 'other')!r}; open(__file__, 'w')")
    assert actor.do(CALLS) == []
    assert contents(store) == before
    said = [line for line in actor.lines() if "belongs to chromashim" in line]
    assert len(said) == 1 and "chromashim snapshot prune" in said[0]


def test_store_elsewhere(data, actors, shim, tmp_path):
    elsewhere = tmp_path / "kept"
    env = {"CHROMASHIM_STORE": str(elsewhere)}
    owner = actors(env=env).sqlite(data)
    owner.do("db.execute('CREATE TABLE t(a)')")
    before = contents(elsewhere)
    assert "[Errno 1]" in owner.fails(f"os.unlink({str(elsewhere / 'writer.lock')!r})")
    owner.do(f"os.chdir({str(elsewhere)!r})")
    assert "[Errno 1]" in owner.fails("os.truncate('writer.lock', 0)")
    done = subprocess.run(["rm", "-rf", elsewhere], check=False, capture_output=True,
                          env=hosts.environment({"LD_PRELOAD": shim, **env}))
    assert done.returncode and contents(elsewhere) == before


def test_hidden_descriptors_are_not_there(data, actors):
    """What the library has open itself cannot be written through by its number."""
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    errors = actor.do("""
result = set()
for name in os.listdir("/proc/self/fd"):
    try:
        path = os.readlink("/proc/self/fd/" + name)
    except OSError:
        continue
    if ".chromashim" not in path:
        continue
    for call in (lambda f: os.write(f, b"x"), lambda f: os.ftruncate(f, 0),
                 lambda f: os.pwrite(f, b"x", 0), lambda f: os.fchmod(f, 0o777)):
        try:
            call(int(name))
            result.add(path)
        except OSError as e:
            result.add(e.errno)
result = list(result)
""")
    assert errors == [9]


def test_other_things_of_that_name(data, actors):
    """A directory that is called so and is no store is the host's own."""
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    actor.do(f"""
import shutil
other = Path({str(data.parent)!r}) / ".chromashim"
(other / "sub").mkdir(parents=True)
(other / "sub" / "file").write_text("x")
os.rename(other / "sub", other / "bus")
Path({str(data)!r}, ".chromashim.txt").write_text("x")
os.unlink(Path({str(data)!r}, ".chromashim", "..", ".chromashim.txt"))
shutil.rmtree(other)
""")
    assert not actor.lines()


def test_calls_that_are_not_known(data, actors):
    """What is behind a pointer is not read: such calls fail as on an older kernel, here alone."""
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    names = actor.do(f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
how = (ctypes.c_uint64 * 3)(os.O_WRONLY | os.O_TRUNC, 0, 0)
def opened(path, how):
    fd = libc.syscall(437, -100, path.encode(), how, 24)
    return "opened" if fd >= 0 else errno.errorcode[ctypes.get_errno()]
data = {str(data)!r}
neighbour = data + ".neighbour"
open(neighbour, "w").close()
result = [opened(neighbour, how), opened(neighbour, None), opened(data + "/chroma.sqlite3", how),
          opened(data + "/.chromashim/writer.lock", how), opened(data + "/chroma.sqlite3", None)]
""")
    assert names == ["opened", "EFAULT", "ENOSYS", "ENOSYS", "ENOSYS"]
    assert (data / "chroma.sqlite3").stat().st_size


# ---- not shown, and moved aside ----


def test_not_listed(data, actors, shim):
    """What lists a directory sees what would be there without the library."""
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    seen = actor.do(f"""
import ctypes, subprocess
def raw():
    buffer = ctypes.create_string_buffer(4096)
    held = os.open({str(data)!r}, os.O_RDONLY)
    n = ctypes.CDLL(None).syscall(217, held, buffer, 4096)
    return buffer.raw[:n].count(b"chroma")
result = [os.listdir({str(data)!r}), raw(),
          subprocess.run(["ls", "-A", {str(data)!r}], capture_output=True, text=True).stdout.split(),
          os.path.isdir({str(data / '.chromashim/oplog')!r})]
""")
    assert seen == [["chroma.sqlite3"], 1, ["chroma.sqlite3"], True]
    actor.do(f"import shutil; shutil.copytree({str(data)!r}, {str(data) + '.copy'!r})")
    assert not Path(str(data) + ".copy/.chromashim/snapshots").exists()
    assert (data / ".chromashim").exists()


@pytest.mark.parametrize("how", ["shutil.rmtree(path)", "os.system('rm -rf ' + path)"])
def test_removed_and_made_anew(data, actors, how):
    """As resets do it, with the database closed: all goes but the store, which is had again."""
    actor = actors().sqlite(data)
    aside = data.parent / f".{data.name}.chromashim"
    actor.do(f"import shutil; path = {str(data)!r}; db.execute('CREATE TABLE t(a)')")
    for _ in range(2):
        store = (data / ".chromashim").stat().st_ino
        actor.do("db.close()")
        actor.do(how)
        assert not data.exists() and aside.stat().st_ino == store
        assert not (aside / "ballast").exists()
        actor.do("os.mkdir(path)")
        actor.sqlite(data).do("db.execute('CREATE TABLE t(a)')")
        assert (data / ".chromashim").stat().st_ino == store and not aside.exists()
        assert actor.ask("db.execute('SELECT count(*) FROM t').fetchone()[0]") == 0
    assert f"kept beside it, in {aside.name}" in actor.lines()[-1]


def test_those_kept_are_named(data, actors, chromashim):
    """By a directory beside them, with what brings them back."""
    for path in (data, data.parent / "other"):
        path.mkdir(exist_ok=True)
        actor = actors().sqlite(path)
        actor.do("db.execute('CREATE TABLE collections(a)')")
        actor.stop()
    assert chromashim("snapshot", "create", data).returncode in (0, 3)
    assert chromashim("snapshot", "create", path).returncode in (0, 3)
    actors().do(f"import shutil; shutil.rmtree({str(data)!r})")
    for verb in (["snapshot", "list"], ["status"]):
        told = chromashim(*verb, path).stdout
        assert f"{data}: removed; the snapshots are kept" in told, told
    assert chromashim("restore", "--to", "latest", "-y", "--force", data).returncode in (0, 3)
    assert "removed;" not in chromashim("snapshot", "list", path).stdout


def test_outer_directory_removed(data, actors):
    actor = actors()
    actor.do(f"""
import tempfile
with tempfile.TemporaryDirectory(dir={str(data)!r}) as outer:
    os.makedirs(outer + "/a/b")
    db = sqlite3.connect(outer + "/a/b/chroma.sqlite3")
    db.execute("CREATE TABLE t(a)")
    db.close()
os.makedirs(outer + "/a/b")
db = sqlite3.connect(outer + "/a/b/chroma.sqlite3")
db.execute("CREATE TABLE t(a)")
result = os.listdir({str(data)!r}) == [os.path.basename(outer)]
""")
    assert list(data.glob("*/a/b/.chromashim/oplog")) and not list(data.glob(".*"))


def test_a_backup_is_given_back(data, actors):
    """A copy that a program made and closed is another one's to write."""
    maker = actors().sqlite(data)
    maker.do("db.execute('CREATE TABLE t(a)')")
    backup = data.parent / "backup"
    maker.do(f"import shutil; shutil.copytree({str(data)!r}, {str(backup)!r})")
    other = actors().sqlite(backup)
    other.do("db.execute('INSERT INTO t VALUES(1)')")
    assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES(1)')")
    maker.sqlite(backup)
    assert "readonly" in maker.fails("db.execute('INSERT INTO t VALUES(2)')")
    other.do("db.close()")
    maker.sqlite(backup).do("db.execute('INSERT INTO t VALUES(2)')")
    assert not any("process" in line for line in other.lines())
