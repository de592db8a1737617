# SPDX-License-Identifier: MIT
"""What the environment of a process must not make the shim do to it."""

import os
import shutil
import sqlite3
import subprocess

import pytest

import actor
import hosts
import torn
from disks import MIB, disks, loop_mounts, run as command  # noqa: F401


def run(shim, code, *words):
    return subprocess.run([*words, hosts.python("venv"), "-S", "-c", code], text=True, check=False,
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          timeout=120)


REFUSED = """
import fcntl, os, struct
fd = os.open(%r, os.O_RDWR)
%s
# SQLite's SHARED lock: the database is in use, and its removal is refused and said
fcntl.fcntl(fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0x40000002, 510, 0))
try:
    os.unlink(%r)
except OSError:
    pass
os._exit(0)
"""


@pytest.mark.parametrize("how", ["opened", "dup2"])
def test_standard_error_closed(data, shim, how):
    """The database has its number: nothing is written there."""
    torn.make(data)
    name = str(data / "chroma.sqlite3")
    change = ("os.close(fd); os.close(2); fd = os.open(%r, os.O_RDWR); assert fd == 2" % name
              if how == "opened" else "os.dup2(fd, 2); fd = 2")
    done = run(shim, REFUSED % (name, change, name))
    assert done.returncode == 0 and (data / "chroma.sqlite3").exists(), done.stderr
    with open(name, "rb") as f:
        assert f.read(15) == b"SQLite format 3"


@pytest.mark.parametrize("how", ["dup2", "freopen"])
def test_standard_error_put_elsewhere(data, shim, tmp_path, how):
    """As a daemon does: the lines go where its standard error goes."""
    torn.make(data)
    name, log = str(data / "chroma.sqlite3"), str(tmp_path / "log")
    change = (f"os.dup2(os.open({log!r}, os.O_WRONLY | os.O_CREAT), 2)" if how == "dup2" else
              f"""
import ctypes
c = ctypes.CDLL(None)
c.freopen.restype, c.freopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p] * 2 + [ctypes.c_void_p]
assert c.freopen({log.encode()!r}, b"w", ctypes.c_void_p.in_dll(c, "stderr"))
""")
    run(shim, REFUSED % (name, change, name))
    assert "chromashim: " in (tmp_path / "log").read_text()


@pytest.mark.parametrize("limit", [256, 1024, 32768])
def test_file_size_limit(data, shim, compiled, limit):
    """A program in C, which the signal would end."""
    program = compiled("sqlite", "-lsqlite3")
    words = ["CREATE TABLE t(x)", *["INSERT INTO t VALUES (1)"] * 30]
    done = subprocess.run(["bash", "-c", f"ulimit -f {limit}; exec \"$0\" \"$@\"", program,
                           data / "chroma.sqlite3", *words], check=False, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("bytes_", [0, 1])
def test_file_size_limit_of_a_reader(data, shim, compiled, bytes_):
    """It makes no file at all, and the library none for it."""
    name = data / "chroma.sqlite3"
    with sqlite3.connect(name) as db:
        db.execute("CREATE TABLE t(x)")
    done = subprocess.run(["prlimit", f"--fsize={bytes_}", compiled("sqlite", "-lsqlite3"),
                           name, "SELECT x FROM t"],
                          check=False, timeout=60, capture_output=True, text=True,
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_GUARD": "on"}))
    assert done.returncode == 0, done.stderr
    assert ": cannot use the store .chromashim: the process may not make" in done.stderr


def test_standard_error_at_the_file_size_limit(data, shim, compiled, tmp_path):
    """The library has something to say, and its line does not fit there."""
    log = tmp_path / "log"
    log.write_bytes(bytes(65536))
    with open(log, "ab") as f:
        done = subprocess.run(["prlimit", "--fsize=65536", compiled("sqlite", "-lsqlite3"),
                               data / "chroma.sqlite3", "CREATE TABLE t(x)"],
                              check=False, timeout=60, stdout=subprocess.PIPE, stderr=f,
                              env=hosts.environment({"LD_PRELOAD": shim}))
    assert done.returncode == 0
    assert log.stat().st_size == 65536


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_store_of_another_user_without_a_log(data, shim, tmp_path):
    """It is there, and nothing may be made in it: that is the reason which is said."""
    hosts.let_others_in(tmp_path)
    store = data / ".chromashim"
    script = f"import os; os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR | os.O_CREAT, 0o666)"
    run(shim, script)
    shutil.rmtree(store / "oplog")
    (data / "chroma.sqlite3").chmod(0o666)
    for path in [store, *store.rglob("*")]:
        path.chmod(0o755)
    done = run(shim, script, "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    assert "cannot use the store .chromashim: permission denied" in done.stderr, done.stderr


@pytest.mark.parametrize("what", ["link", "file"])
def test_store_that_is_no_directory(data, shim, tmp_path, what):
    """To make it writable would not help."""
    store = tmp_path / "store"
    store.symlink_to(tmp_path) if what == "link" else store.touch()
    done = run(shim, f"import os; os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR | os.O_CREAT)",
               "env", f"CHROMASHIM_STORE={store}")
    assert "Name a directory of its own as CHROMASHIM_STORE, and restart.\n" in done.stderr


# Nobody serves what is mounted: whoever asks it waits until this ends.
MOUNTS = """
import ctypes, os, sys
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
failed = ctypes.CDLL(None).mount(b"test", sys.argv[1].encode(), b"fuse", 6, options.encode())
print("failed" if failed else "mounted", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def unanswered(tmp_path):
    """Mounts what does not answer at a directory, and takes it away in the end."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("not root, or no /dev/fuse")
    holders = []

    def mount(at):
        at.mkdir()
        holder = subprocess.Popen([hosts.python("venv"), "-S", "-c", MOUNTS, at], text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        holders.append((holder, at))
        if holder.stdout.readline() != "mounted\n":
            pytest.skip("FUSE cannot be mounted")

    yield mount
    for holder, at in holders:
        holder.communicate("")
        subprocess.run(["umount", "-l", at], check=False)


@pytest.mark.parametrize("where", ["in it", "behind a link", "behind a link to a file"])
def test_mount_that_does_not_answer(data, shim, tmp_path, unanswered, where):
    """Chroma has nothing to do with it, and so the library does not."""
    unanswered(data / "sub" if where == "in it" else tmp_path / "mount")
    if where != "in it":
        (data / "link").symlink_to(tmp_path / "mount" / ("file" if "file" in where else ""))
    done = subprocess.run([hosts.python("venv"), "-S", "-c",
                           "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); "
                           "db.execute('CREATE TABLE t(x)')", data / "chroma.sqlite3"],
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          text=True, check=False, timeout=10)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_of_neighbours(data, actors):
    """More names than can be kept, of files that are none of Chroma's: segments stay protected."""
    torn.make(data)
    owner = actors(env={"CHROMASHIM_LOG_SIZE": "16M"}).sqlite(data)
    owner.do(f"""
os.chdir({str(data)!r})
db.execute("SELECT * FROM t")
for n in range(530000):
    try:
        os.unlink(f"upload-{{n:030}}")
    except FileNotFoundError:
        pass
""", 120)
    torn.make(data, "99999999-2222-3333-4444-555555555555")
    level0 = data / "99999999-2222-3333-4444-555555555555/data_level0.bin"
    torn.overwrite(owner, data, level0)
    owner.kill()
    assert torn.first(data, level0.parent.name) == "NNNN"
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data, level0.parent.name) == "OOOO"


def test_bad_pointers(data, shim):
    """A path that is no address is answered by the kernel."""
    torn.make(data)
    code = f"""
import ctypes, errno, os
os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
for bad in (1, 0xfff, -1, 1 << 63):
    for call in ("open", "creat", "unlink", "rmdir", "mkdir", "chmod", "truncate"):
        path, more = ctypes.c_void_p(bad & (1 << 64) - 1), ctypes.c_void_p(0)
        assert getattr(libc, call)(path, more, more) == -1, call
        assert ctypes.get_errno() == errno.EFAULT, (call, ctypes.get_errno())
"""
    done = run(shim, code)
    assert done.returncode == 0, done.stderr


HANDLERS = {
    "default": "",
    "faulthandler": "import faulthandler; faulthandler.enable()",
    "ignored": "import signal; signal.signal(signal.SIGBUS, signal.SIG_IGN)",
    # Of the thread that writes; the kernel ends a process by a bus error that is blocked.
    "blocked": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])",
}
# Or later, when the library has its handler already.
MOMENTS = [("default", "before"), *((name, moment) for name in ("faulthandler", "ignored", "blocked")
                                    for moment in ("before", "after"))]


def with_handler(actors, data, handler, moment):
    """A process that has the directory open; and SIGBUS so."""
    owner = actors()
    if moment == "before":
        owner.do(HANDLERS[handler])
    owner.sqlite(data).do('db.execute("SELECT * FROM t")')
    if moment == "after":
        owner.do(HANDLERS[handler])
    return owner


def segment_file(data, name):
    return next(data.glob(f"*-*-*-*-*/{name}"))


@pytest.mark.parametrize("handler, moment", MOMENTS)
@pytest.mark.parametrize("size", [0, 100, 4096])
def test_undo_file_is_cut(data, actors, handler, moment, size):
    """In the midst of a persist: it goes on, and that it has no protection is said once."""
    torn.make(data)
    owner = with_handler(actors, data, handler, moment)
    level0 = segment_file(data, "data_level0.bin")
    owner.do(f"f = os.open({str(level0)!r}, os.O_RDWR); os.pwrite(f, b'N' * 4096, 0)")
    undo, = (data / ".chromashim/undo").glob("*.undo")
    os.truncate(undo, size)
    owner.do("for n in range(30): os.pwrite(f, b'M' * 4096, 4096 * n)")
    said = owner.errors()
    assert size == 4096 or said.count("UNPROTECTED") == 1, said
    assert level0.read_bytes()[:4096 * 20] == b"M" * 4096 * 20
    owner.do("os.close(f); db.execute('CREATE TABLE further(x)'); db.close()")


@pytest.mark.parametrize("handler, moment", MOMENTS)
def test_log_is_cut(data, actors, handler, moment):
    """Whatever comes by it: a call that is recorded, a lock, a commit. It goes on in a new file."""
    torn.make(data)
    owner = with_handler(actors, data, handler, moment)
    for step in ("os.close(os.open(%r, os.O_RDONLY))" % str(data / "chroma.sqlite3"),
                 "db.execute('INSERT INTO t VALUES (1)')", "db.execute('CREATE TABLE two(x)')",
                 "os.mkdir(%r)" % str(data / "neighbour"), "db.close()"):
        for path in (data / ".chromashim/oplog").iterdir():
            os.truncate(path, 0)
        owner.do(step)
    assert owner.errors().count("(SIGBUS)") == 1, owner.errors()


def test_log_is_cut_under_a_thread(data, actors):
    """One that was begun with all signals blocked, as servers begin theirs."""
    torn.make(data)
    owner = actors().sqlite(data)
    owner.do(f"""
import signal, threading
db.execute("SELECT * FROM t")
go = threading.Event()
worker = threading.Thread(target=lambda: (go.wait(), os.mkdir({str(data / 'one')!r})))
before = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
worker.start()
signal.pthread_sigmask(signal.SIG_SETMASK, before)
""")
    for path in (data / ".chromashim/oplog").iterdir():
        os.truncate(path, 0)
    owner.do("go.set(); worker.join()")
    assert (data / "one").is_dir() and "(SIGBUS)" in owner.errors()


def test_bus_error_that_was_sent(data, actors):
    """To a thread that blocks it: it waits, whatever is written meanwhile, until it is asked for."""
    torn.make(data)
    owner = with_handler(actors, data, "blocked", "before")
    owner.do("""
os.kill(os.getpid(), signal.SIGBUS)
for n in range(20):
    db.execute("INSERT INTO t VALUES (1)")
assert signal.SIGBUS in signal.sigpending()
assert signal.SIGBUS in signal.pthread_sigmask(signal.SIG_BLOCK, [])
info = signal.sigwaitinfo([signal.SIGBUS])
assert (info.si_code, info.si_pid) == (0, os.getpid()), info
assert not signal.sigpending()
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGBUS])
caught = []
signal.signal(signal.SIGBUS, lambda number, frame: caught.append(number))
assert signal.signal(signal.SIGBUS, lambda number, frame: caught.append(-number))
os.kill(os.getpid(), signal.SIGBUS)
assert caught == [-signal.SIGBUS]
""")


@pytest.mark.parametrize("handler", ["default", "blocked"])
@pytest.mark.parametrize("which", ["state", "*.pre"])
def test_files_of_pins_are_cut(data, actors, chromashim, which, handler):
    """While one is held: it is broken and said, nothing wrong is called a snapshot."""
    torn.make(data)
    owner = with_handler(actors, data, handler, "before")
    level0 = segment_file(data, "data_level0.bin")
    owner.do('db.execute("CREATE TABLE one(x)"); db.execute("DROP TABLE one")')
    write = "f = os.open(%r, os.O_RDWR); os.pwrite(f, b'N' * 4096, %d); os.close(f)"
    owner.do(write % (str(level0), 0))
    files = list((data / ".chromashim/pins").glob(which))
    assert files
    for path in files:
        os.truncate(path, 0)
    for at in 0, 8192, 16384:
        owner.do(write % (str(level0), at))
    owner.do('db.execute("CREATE TABLE two(x)"); db.close()')
    said = owner.errors()
    assert said.count("in the store was cut while it was in use") == 1, said
    assert "is broken" in said or "no snapshot can be pinned" in said, said
    shown = chromashim("snapshot", "list", data, "--json")
    assert '"verified"' not in shown.stdout, shown.stdout


@pytest.mark.parametrize("handler, moment", MOMENTS)
def test_bus_error_of_the_host(data, actors, handler, moment, tmp_path):
    """It ends the host as without the library, and its own handler has it."""
    torn.make(data)
    owner = with_handler(actors, data, handler, moment)
    (tmp_path / "own").write_bytes(b"x" * 8192)
    with pytest.raises(actor.Failed, match="ended with -7"):
        owner.do(f"""
import mmap
f = os.open({str(tmp_path / 'own')!r}, os.O_RDWR)
m = mmap.mmap(f, 8192)
os.ftruncate(f, 0)
m[5000] = 1
""")
    assert ("Fatal Python error" in owner.errors()) == (handler == "faulthandler")


@pytest.mark.parametrize("under", [False, True])
def test_handler_of_the_host(data, shim, compiled, tmp_path, under):
    """It is told as the host set it, and is not reset by a child that borrows its memory."""
    torn.make(data)
    done = subprocess.run([compiled("bus"), data / "chroma.sqlite3", tmp_path / "own"], check=False,
                          capture_output=True, text=True, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim} if under else {}))
    assert done.returncode == 0, done


def test_standard_error_nobody_reads(data, shim, compiled):
    """A program in C, which SIGPIPE would end; the line is lost."""
    program = compiled("sqlite", "-lsqlite3")
    (data / ".chromashim").mkdir(parents=True)
    (data / ".chromashim/oplog").write_text("in the way")
    done = subprocess.run(["bash", "-c", "\"$@\" 2> >(exec 2>&-; exec 0<&-; exec sleep 0); "
                           "exit $?", "-", "bash", "-c", "sleep 0.3; exec \"$@\"", "-", program,
                           data / "chroma.sqlite3", "CREATE TABLE t(x)"], check=False, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True)
    assert done.returncode == 0, done


def test_store_copied_by_reflink_on_a_full_disk(actors, disks):  # noqa: F811
    """Each store into a map needs a block then: SIGBUS in log, pins and undo file alike."""
    disk = disks(320 * MIB, "xfs")
    torn.make(disk.data)
    owner = actors(env={"CHROMASHIM_BALLAST": "0"}).sqlite(disk.data)
    owner.do('db.execute("CREATE TABLE one(x)"); db.execute("DROP TABLE one")')
    level0 = segment_file(disk.data, "data_level0.bin")
    owner.do(f"f = os.open({str(level0)!r}, os.O_RDWR); os.pwrite(f, b'N' * 4096, 0)")
    command("sync", "-f", disk.data)
    command("cp", "-a", "--reflink=always", disk.data / ".chromashim", disk.root / "copy")
    with disk.filler.open("wb", 0) as f:
        for size in MIB, 4096:
            try:
                while f.write(bytes(size)):
                    pass
            except OSError:
                pass
    owner.do("for n in range(20): os.pwrite(f, b'M' * 4096, 4096 * n)")
    owner.do("for n in range(3000): os.pread(f, 1, 0)")
    assert "(SIGBUS)" in owner.errors(), owner.errors()
    owner.clean_up()
