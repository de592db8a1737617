# SPDX-License-Identifier: MIT
"""How a persist may end: what its pickle is like, what fails at its end, and who gets to hear of it."""

import errno
import os
import shutil
import sqlite3
import subprocess
import textwrap

import pytest

import hosts
from actor import Actor
from test_persist_cases import A, FILES, PICKLE, PRELUDE, Directory

FAULTS = hosts.BUILD / "libchromashim-faults.so"
# As an update of records that exist: no file grows, and the pickle comes out as long as it was.
UPDATE = """
def update(segment, mark):
    for name, size in FILES.items():
        fd = os.open(f"{data}/{segment}/{name}", os.O_RDWR)
        os.pwrite(fd, mark * (size - 50), 20)
        os.close(fd)
    fd = os.open(f"{data}/{segment}/{PICKLE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(fd, mark * 300 + b".")
    return fd
"""


def updating(script):
    return UPDATE + textwrap.dedent(script)


@pytest.fixture(params=["process", "power"])
def directory(request, data, shim):
    return Directory(data, shim, request.param)


def is_updated(directory, segment, mark=b"n"):
    for name, size in FILES.items():
        assert (directory.path / segment / name).read_bytes() == \
            b"o" * 20 + mark * (size - 50) + b"o" * 30, name
    return (directory.path / segment / PICKLE).read_bytes() == mark * 300 + b"."


def plain(_):
    return ""


def second_name(pickle):
    os.link(pickle, pickle.parent.parent / "other")
    return ""


def second_descriptor(_):
    return "second = os.open(f'{data}/{A}/{PICKLE}', os.O_RDONLY)\n"


def attribute(pickle):
    try:
        os.setxattr(pickle, "user.label", b"x")
    except OSError as error:
        pytest.skip(f"no attributes here: {error}")
    return ""


def label(pickle):
    try:
        os.setxattr(pickle, "security.selinux", b"unconfined_u:object_r:user_home_t:s0\0")
    except OSError as error:
        pytest.skip(f"no labels here: {error}")
    return ""


def default_acl(pickle):
    if not shutil.which("setfacl"):
        pytest.skip("needs setfacl")
    subprocess.run(["setfacl", "-m", "u:12345:rw", str(pickle)], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:12345:rw", str(pickle.parent)], check=True)
    return ""


def foreign_group(pickle):
    """A group that the process is not in: what takes the pickle's place could not be given to it."""
    if os.getuid():
        pytest.skip("needs root")
    for path in (pickle.parent.parent, *pickle.parent.parent.rglob("*")):
        os.chown(path, 65534, 65534)
    os.chown(pickle, 65534, 12345)
    hosts.let_others_in(pickle.parents[2])
    return "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"


WAYS = [plain, second_name, second_descriptor, attribute, label, default_acl, foreign_group]


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_update_stays(directory, way):
    """Acknowledged is acknowledged, whatever is special about the pickle; and again after it."""
    prelude = UPDATE + way(directory.path / A / PICKLE)
    said = directory.killed(prelude + "os.close(update(A, b'm')); os.close(update(A, b'n')); die()")
    assert said == ""
    assert directory.undo() == []
    assert directory.next_start() == ""
    assert is_updated(directory, A)


@pytest.mark.parametrize("way", WAYS[:4], ids=[way.__name__ for way in WAYS[:4]])
def test_update_that_did_not_end(directory, way):
    prelude = UPDATE + way(directory.path / A / PICKLE)
    directory.killed(prelude + "update(A, b'n'); die()")
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


def test_nothing_waits_behind_the_pickle(directory):
    """What is written while the pickle is open is where everybody sees it, at once."""
    directory.run(updating("""
        second = os.open(f"{data}/{A}/{PICKLE}", os.O_RDONLY)
        fd = update(A, b"n")
        os.environ.pop("LD_PRELOAD")
        import subprocess
        assert subprocess.run(["cat", f"{data}/{A}/{PICKLE}"], capture_output=True).stdout \
            == b"n" * 300 + b"."
        os.close(fd)
    """))
    assert is_updated(directory, A)


CALLS_TRIED_FIRST = {
    "clone": "fcntl.ioctl(to, 0x40049409, source)",
    "range": "fcntl.ioctl(to, 0x4020940d, struct.pack('qQQQ', source, 0, 0, 0))",
    "copied": "os.copy_file_range(source, to, 10, 0, 1 << 40)",
    "splice": "os.splice(source, to, 10)",
    "punched": "libc.fallocate(to, 3 | 0x80, 0, ctypes.c_long(10)) < 0 and oops()",
}


@pytest.mark.parametrize("call", CALLS_TRIED_FIRST)
def test_what_is_only_tried_is_no_failure(directory, call):
    """What a file system does not know is tried, and then done otherwise: as cp does it."""
    said = directory.run(updating(f"""
        import ctypes, errno, fcntl, struct
        libc = ctypes.CDLL(None, use_errno=True)
        def oops():
            raise OSError(ctypes.get_errno(), "")
        source = os.open("/dev/shm", os.O_RDONLY)
        to = os.open(f"{{data}}/{{A}}/data_level0.bin", os.O_RDWR)
        try:
            {CALLS_TRIED_FIRST[call]}
        except OSError as error:
            print(errno.errorcode[error.errno], flush=True)
        os.close(to)
        os.close(update(A, b"n"))
        die()
    """), status=-9)
    assert "frozen" not in said and said.startswith("E"), said
    assert directory.next_start() == ""
    assert is_updated(directory, A)


def test_copied_with_clones(directory):
    """The whole directory, by a child that has the library: to where it is a directory of its own."""
    sqlite3.connect(directory.path / "chroma.sqlite3").execute("create table t (x)").connection.close()
    copy = directory.path.parent / "copy"
    copy.mkdir()
    said = directory.run(f"""
        import subprocess
        done = subprocess.run(["cp", "-a", f"{{data}}/chroma.sqlite3", f"{{data}}/{{A}}", "{copy}"],
                              capture_output=True, text=True)
        print(done.returncode, done.stderr)
    """)
    assert said.startswith("0"), said
    for name in [*FILES, PICKLE]:
        assert (copy / A / name).read_bytes() == (directory.path / A / name).read_bytes()


def test_clone_has_what_is_held_back(directory):
    """Where clones work; elsewhere the copy that follows has it."""
    said = directory.run(updating("""
        import fcntl
        fd = os.open(f"{data}/{A}/data_level0.bin", os.O_RDWR)
        os.pwrite(fd, b"n" * 1000, 100)
        to = os.open(f"{data}/../clone", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.ioctl(to, 0x40049409, fd)
        except OSError:
            os.copy_file_range(fd, to, 50000, 0, 0)
        os.fsync(to)
        os.environ.pop("LD_PRELOAD")
        import subprocess
        subprocess.run(["cat", f"{data}/../clone"], stdout=open(f"{data}/../seen", "wb"))
    """))
    assert said == ""
    assert (directory.path.parent / "seen").read_bytes()[100:1100] == b"n" * 1000


# ---- errors at the very end


@pytest.fixture
def faulty(request, data, shim):
    if not FAULTS.exists():
        pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
    sqlite3.connect(data / "chroma.sqlite3").execute("create table t (x)").connection.close()
    return data


def run_faulty(data, fault, script):
    env = hosts.environment({"LD_PRELOAD": str(FAULTS), "CHROMASHIM_BALLAST": "0",
                             "CHROMASHIM_FAULT": fault})
    done = subprocess.run([str(hosts.python("venv").resolve()), "-I", "-S", "-c",
                           PRELUDE + UPDATE + script, str(data)],
                          env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("heard", [True, False])
def test_error_that_chroma_may_not_hear(faulty, heard):
    """
    A buffer that is dropped swallows the error of its last write, and Chroma moves the mark and
    removes the records: the next transaction is told instead. An error at the open is heard.
    """
    directory = Directory(faulty, str(FAULTS), "power")
    # 1 to 4: the .bin files, as they are let go at the open; 5: the open; 6: the pickle's write.
    fault = f"once:{5 if heard else 6}:{errno.EIO}"
    out, err = run_faulty(faulty, fault, """
import sqlite3
db = sqlite3.connect(data + "/chroma.sqlite3")
try:
    os.close(update(A, b"n"))
except OSError as error:
    print("persist", error.errno)
try:
    db.execute("insert into t values (1)")
    db.commit()
    print("committed")
except sqlite3.Error as error:
    print(error)
print(db.execute("select count(*) from t").fetchone())
""")
    assert f"persist {errno.EIO}" in out
    if heard:
        assert "committed" in out
    else:
        assert "disk I/O error" in out and "(0,)" in out
        assert "all writing to this directory is refused" in err and "frozen" in err
        assert directory.is_old(A)
    out, err = run_faulty(faulty, "", "import sqlite3\n"
                          "db = sqlite3.connect(data + '/chroma.sqlite3')\n"
                          "db.execute('insert into t values (2)'); db.commit(); print('fine')")
    assert "fine" in out


@pytest.mark.parametrize("venv, call", [("venv", 2), ("venv-0.6", 3)])
def test_error_that_chroma_hears(data, venv, call):
    """In the midst of its pickle, and with Python also at its end: others go on, nothing is lost."""
    if not FAULTS.exists() or not hosts.python(venv).exists():
        pytest.skip(f"{FAULTS} or {venv} is missing; run wrappers/setup run check")
    # 1: the pickle is made; 2: the first of its pieces, of 8 KiB or 64; 3: of these the last.
    actor = Actor(str(FAULTS), {"CHROMASHIM_FAULT": f"once:{call}:{errno.EIO}:pickles"}, venv)
    later = Actor(str(FAULTS), None, venv)
    try:
        actor.chroma(data).do("c = client.create_collection('one_persist', metadata={"
                              "**METADATA, 'hnsw:batch_size': 2500, 'hnsw:sync_threshold': 2500})")
        refused = actor.fails("c.upsert(**batch(0, 2500))", 60)
        assert bool(refused) == (venv == "venv"), refused  # Python's Chroma acknowledges it
        actor.do("other = client.get_or_create_collection('other', metadata=METADATA)")
        for n in range(0, 360, 60):
            actor.do(f"other.upsert(**batch({n}))")
        assert actor.ask("wrong(other, range(0, 360, 60))") == []
        said = [line for line in actor.lines() if "frozen" in line]
        assert len(said) == 1 and "refused" not in said[0], actor.lines()
        actor.stop()
        later.chroma(data, "one_persist").do("other = client.get_collection('other')")
        later.do("c.upsert(**batch(3000)); other.upsert(**batch(1000, 110))")
        assert later.do("""
want, got = batch(0, 2500), c.get(include=["embeddings"])
have = {i: np.float32(e).tobytes() for i, e in zip(got["ids"], got["embeddings"])}
result = [i for i, e in zip(want["ids"], want["embeddings"]) if have.get(i) != np.float32(e).tobytes()]
""") == []
        assert later.ask("wrong(c, [3000]) + wrong(other, [*range(0, 360, 60)])") == []
        assert not [line for line in later.lines() if "frozen" in line]
    finally:
        actor.clean_up()
        later.clean_up()


# ---- threads that do not come back


def test_cancelled_in_a_read(directory, compiled):
    """Nothing is locked while the host reads; and the next one sees what is held back."""
    env = hosts.environment({"LD_PRELOAD": directory.shim, "CHROMASHIM_BALLAST": "0",
                             "CHROMASHIM_DURABILITY": directory.durability})
    done = subprocess.run([str(compiled("cancel")), str(directory.path / "chroma.sqlite3"),
                           str(directory.path / A / "data_level0.bin")], env=env, text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.stdout == "100\n", done.stdout + done.stderr


@pytest.mark.parametrize("held", [[], ["held"]], ids=["alone", "held"])
@pytest.mark.parametrize("how", ["jump", "cancel"])
def test_left_in_the_midst(directory, compiled, how, held):
    """A handler jumps out of whatever the library does, or its thread ends there: the next goes on."""
    env = hosts.environment({"LD_PRELOAD": directory.shim, "CHROMASHIM_BALLAST": "0",
                             "CHROMASHIM_DURABILITY": directory.durability})
    done = subprocess.run([str(compiled("jumps")), str(directory.path / "chroma.sqlite3"),
                           str(directory.path / A), how, *held], env=env, text=True,
                          capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "40\n"), done.stdout + done.stderr
