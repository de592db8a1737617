# SPDX-License-Identifier: MIT
"""Persists in special situations, each a small script under the shim that does what hnswlib does."""

import os
import random
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import hosts

pytestmark = pytest.mark.memory

A, B = "0a1b2c3d-0000-4000-8000-00000000000a", "0a1b2c3d-0000-4000-8000-00000000000b"
FILES = {"header.bin": 100, "data_level0.bin": 50000, "length.bin": 400, "link_lists.bin": 3000}
PICKLE = "index_metadata.pickle"
PRELUDE = f"""
import os, signal, sys
data, A, B = sys.argv[1], {A!r}, {B!r}
FILES, PICKLE = {FILES!r}, {PICKLE!r}

def bins(segment, mark):
    "Overwrites most of every file and lengthens it."
    for name, size in FILES.items():
        fd = os.open(f"{{data}}/{{segment}}/{{name}}", os.O_RDWR)
        os.pwrite(fd, mark * (size - 50), 20)
        os.lseek(fd, size, os.SEEK_SET)
        os.write(fd, mark * 77)
        os.close(fd)

def pickle(segment, mark):
    "Begins the pickle; whoever closes it commits."
    fd = os.open(f"{{data}}/{{segment}}/{{PICKLE}}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.write(fd, mark * 500 + b".")
    return fd

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Directory:
    def __init__(self, path, shim, durability):
        self.path, self.shim, self.durability = path, shim, durability
        for segment in (A, B):
            (path / segment).mkdir()
            for name, size in FILES.items():
                (path / segment / name).write_bytes(b"o" * size)
            (path / segment / PICKLE).write_bytes(b"o" * 300 + b".")

    def start(self, script, preload=True, within=(), **how):
        env = hosts.environment({"CHROMASHIM_DIR": str(self.path), "CHROMASHIM_BALLAST": "0",
                                 "CHROMASHIM_DURABILITY": self.durability,
                                 "CHROMASHIM_SINGLE_WRITER": "off"})
        if preload:
            env["LD_PRELOAD"] = self.shim
        return subprocess.Popen(
            [*within, str(hosts.python("venv").resolve()), "-I", "-S", "-c",
             PRELUDE + textwrap.dedent(script), str(self.path)], env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)

    def run(self, script, status=0, preload=True):
        child = self.start(script, preload)
        output, errors = child.communicate(timeout=60)
        assert child.returncode == status, errors
        return output + errors

    def killed(self, script):
        return self.run(script, status=-9)

    def next_start(self):
        return self.run("")

    def is_old(self, segment):
        for name, size in FILES.items():
            assert (self.path / segment / name).read_bytes() == b"o" * size, name
        return (self.path / segment / PICKLE).read_bytes() == b"o" * 300 + b"."

    def is_new(self, segment, mark=b"n"):
        for name, size in FILES.items():
            assert (self.path / segment / name).read_bytes() == \
                b"o" * 20 + mark * (size - 50) + b"o" * 30 + mark * 77, name
        return (self.path / segment / PICKLE).read_bytes() == mark * 500 + b"."

    def undo(self):
        return sorted(p.name for p in (self.path / ".chromashim" / "undo").iterdir()
                      if p.suffix in (".undo", ".moved", ".fresh"))


@pytest.fixture(params=["process", "power"])
def directory(request, data, shim):
    return Directory(data, shim, request.param)


@pytest.mark.fast
def test_commit(directory):
    directory.run("bins(A, b'n'); os.close(pickle(A, b'n')); die()", status=-9)
    assert directory.undo() == []
    assert directory.next_start() == ""
    assert directory.is_new(A) and directory.is_old(B)


def test_two_at_once(directory):
    directory.killed("""
        bins(A, b"n"); bins(B, b"n")
        a, b = pickle(A, b"n"), pickle(B, b"n")
        os.close(b)
        die()
    """)
    said = directory.next_start()
    assert said.count("it was undone") == 1 and A in said
    assert directory.is_old(A) and directory.is_new(B)
    assert directory.undo() == []


@pytest.mark.parametrize("how,committed", [
    ("os.dup(fd); os.close(fd)", False),
    ("other = os.dup(fd); os.close(fd); os.close(other)", True),
    ("os.dup2(os.open('/dev/null', os.O_RDONLY), fd)", True),
    ("os.closerange(fd, fd + 1)", True),
    ("f = os.fdopen(fd, 'wb'); f.close(); f.close()", True),
    ("os.fork() or os._exit(0)", False),
    ("os.fork() or (os.close(fd), os._exit(0)); os.wait()", False),
    ("import subprocess; subprocess.run(['true'])", False),
    ("os.execv('/bin/true', ['true'])", False),
], ids=["dup", "both", "dup2", "closerange", "twice", "fork", "closed-in-child", "vfork", "exec"])
def test_who_commits(directory, how, committed):
    script = f"bins(A, b'n'); fd = pickle(A, b'n')\n{how}\ndie()"
    if "execv" in how:
        directory.run(script)
    else:
        directory.killed(script)
    directory.next_start()
    assert directory.is_new(A) if committed else directory.is_old(A)


def test_child_and_parent(directory):
    """A child that was forked in a persist is none of it; the parent goes on and commits."""
    directory.killed("""
        bins(A, b"n")
        if not os.fork():
            os._exit(0)
        os.wait()
        os.close(pickle(A, b"n"))
        die()
    """)
    assert directory.next_start() == ""
    assert directory.is_new(A)


def test_several_persists(directory):
    directory.killed("""
        for mark in b"x", b"y", b"n":
            bins(A, mark); os.close(pickle(A, mark))
            for name, size in FILES.items():
                os.truncate(f"{data}/{A}/{name}", size + 77)
        bins(A, b"z"); pickle(A, b"z")
        die()
    """)
    assert "it was undone" in directory.next_start()
    for name, size in FILES.items():
        assert (directory.path / A / name).stat().st_size == size + 77
    assert (directory.path / A / PICKLE).read_bytes() == b"n" * 500 + b"."


def test_truncation(directory):
    directory.killed("""
        os.truncate(f"{data}/{A}/data_level0.bin", 1000)
        fd = os.open(f"{data}/{A}/link_lists.bin", os.O_RDWR)
        os.ftruncate(fd, 5)
        os.write(fd, b"n" * 4000)
        open(f"{data}/{A}/length.bin", "wb").write(b"n" * 9000)
        die()
    """)
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


@pytest.mark.parametrize("before_death", ["", "os.rmdir(f'{data}/{A}')"], ids=["half", "whole"])
def test_deletion_in_a_persist(directory, before_death):
    directory.killed(f"""
        bins(A, b"n"); fd = pickle(A, b"n")
        for name in os.listdir(f"{{data}}/{{A}}"):
            os.unlink(f"{{data}}/{{A}}/{{name}}")
        {before_death}
        die()
    """)
    assert directory.next_start() == ""
    assert directory.undo() == []
    assert not (directory.path / A / PICKLE).exists()


def test_renamed_directory(directory):
    directory.killed("""
        bins(A, b"n"); fd = pickle(A, b"n")
        os.rename(f"{data}/{A}", f"{data}/aside")
        die()
    """)
    assert directory.next_start() == ""
    assert (directory.path / "aside" / PICKLE).read_bytes() == b"n" * 500 + b"."


@pytest.mark.parametrize("closed", [False, True])
def test_pickle_by_rename(directory, closed):
    """As a Chroma might do it one day: written elsewhere, renamed into place."""
    directory.killed(f"""
        bins(A, b"n")
        new = f"{{data}}/{{A}}/new"
        open(new, "wb").write(b"n" * 500 + b".")
        if {closed}:
            os.rename(new, f"{{data}}/{{A}}/{{PICKLE}}")
        die()
    """)
    directory.next_start()
    assert directory.is_new(A) if closed else directory.is_old(A)


def test_hard_link(directory):
    """A pickle with two names stays one file."""
    os.link(directory.path / A / PICKLE, directory.path / "other")
    directory.killed("bins(A, b'n'); pickle(A, b'n'); die()")
    assert (directory.path / "other").read_bytes() == b"n" * 500 + b"."
    directory.next_start()
    assert directory.is_old(A)
    assert (directory.path / "other").samefile(directory.path / A / PICKLE)


def test_mode_and_descriptor(directory):
    os.chmod(directory.path / A / PICKLE, 0o640)
    said = directory.run("""
        bins(A, b"n")
        fd = pickle(A, b"n")
        st = os.fstat(fd)
        assert st.st_size == 501 and st.st_nlink == 1 and st.st_mode & 0o777 == 0o640
        assert st.st_ino == os.stat(f"{data}/{A}/{PICKLE}").st_ino
        print(fd)
        os.close(fd)
    """)
    assert int(said) < 10
    assert directory.is_new(A)


def test_incomplete_pickle(directory):
    """An exception in the midst of it: the file is closed, but it does not end as a pickle does."""
    said = directory.run("""
        import errno
        bins(A, b"n")
        fd = os.open(f"{data}/{A}/{PICKLE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, b"n" * 200)
        os.close(fd)
        try:
            bins(A, b"m")
        except OSError as error:
            print(errno.errorcode[error.errno])
        bins(B, b"n"); os.close(pickle(B, b"n"))
    """)
    assert "EIO" in said and "frozen" in said
    assert directory.is_old(A) and directory.is_new(B)


def test_store_breaks(directory):
    """Without a place for its pre-images a persist goes on, and that is said."""
    child = directory.start("""
        os.close(os.open(data, os.O_RDONLY))
        print(flush=True)
        input()
        bins(A, b"n")
        os.close(pickle(A, b"n"))
    """, stdin=subprocess.PIPE)
    child.stdout.readline()
    shutil.rmtree(directory.path / ".chromashim" / "undo")
    _, said = child.communicate("\n", timeout=60)
    assert "UNPROTECTED" in said
    assert directory.is_new(A)


def test_reads_see_what_is_written(directory):
    directory.run("""
        import mmap
        path = f"{data}/{A}/data_level0.bin"
        fd = os.open(path, os.O_RDWR)
        for at in range(0, 40000, 1000):
            os.pwrite(fd, b"n" * 10, at)
        other = os.open(path, os.O_RDONLY)
        assert os.pread(other, 30, 995) == b"o" * 5 + b"n" * 10 + b"o" * 15
        assert os.read(other, 2005) == (b"n" * 10 + b"o" * 990) * 2 + b"n" * 5
        assert os.lseek(other, 0, os.SEEK_CUR) == 2005
        assert os.lseek(fd, 0, os.SEEK_CUR) == 0
        os.pwrite(fd, b"m" * 5, 1003)
        assert os.pread(fd, 20, 998) == b"oonnnmmmmmnnoooooooo"
        assert os.fstat(fd).st_size == 50000 == os.lseek(other, 0, os.SEEK_END)
        with mmap.mmap(other, 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as m:
            assert m[1000:1012] == b"nnnmmmmmnnoo"
        os.write(fd, b"k" * 3)
        assert os.preadv(other, [b := bytearray(6)], 0) == 6 and b == b"kkknnn"
        assert open(path, "rb").read(5) == b"kkknn"
    """)


def test_live_process_is_left_alone(directory):
    child = directory.start("bins(A, b'n'); fd = pickle(A, b'n'); print(flush=True); input(); "
                            "os.close(fd)", stdin=subprocess.PIPE)
    child.stdout.readline()
    assert directory.next_start() == ""
    child.communicate("\n", timeout=30)
    assert child.returncode == 0
    assert directory.next_start() == ""
    assert directory.is_new(A)


def test_two_starts_at_once(directory):
    for _ in range(5):
        directory.killed("bins(A, b'n'); bins(B, b'n'); pickle(A, b'n'); die()")
        children = [directory.start("") for _ in range(4)]
        said = "".join("".join(child.communicate(timeout=60)) for child in children)
        assert said.count("it was undone") == 2
        assert directory.is_old(A) and directory.is_old(B)


def test_written_without_the_shim(directory):
    """What is left of a dead process must not undo what came later."""
    directory.killed("bins(A, b'x'); pickle(A, b'x'); die()")
    directory.run("bins(A, b'n'); os.close(pickle(A, b'n'))", preload=False)
    for name, size in FILES.items():
        os.truncate(directory.path / A / name, size + 77)
    said = directory.next_start()
    assert "without the shim" in said
    assert directory.is_new(A)
    assert directory.next_start() == ""


@pytest.mark.fast
def test_log(directory, chromashim):
    directory.killed("bins(A, b'n'); os.close(pickle(A, b'n')); bins(B, b'n'); die()")
    directory.next_start()
    told = chromashim("log", "--calls", directory.path).stdout
    assert told.count("persist.begin") == 2
    assert told.count("persist.commit") == 1 and told.count("persist.rollback") == 1


def test_only_what_changes_is_saved(directory):
    """hnswlib writes whole elements again for the sake of some links: the rest costs no undo data."""
    directory.killed("""
        for name, size in FILES.items():
            fd = os.open(f"{data}/{A}/{name}", os.O_RDWR)
            os.write(fd, b"o" * (size // 2) + b"n" + b"o" * (size // 2 - 1) + b"n" * 77)
            os.close(fd)
        pickle(A, b"n")
        die()
    """)
    undo, = (directory.path / ".chromashim" / "undo").glob("*.undo")
    assert undo.stat().st_size < 512 + (len(FILES) + 1) * (24 + 64 + 24 + 8)
    assert "it was undone" in directory.next_start()
    assert directory.is_old(A)


RANDOM_WRITES = """
import random
random.seed({seed})
fd = os.open(f"{{data}}/{{A}}/data_level0.bin", os.O_RDWR)
other = os.open(f"{{data}}/{{A}}/data_level0.bin", os.O_RDONLY)
now = bytearray(os.pread(fd, 1 << 20, 0))
for number in range(3000):
    length = random.choice([1, 7, 64, 200, 1676, 1676, 1676, 5000])
    at = random.randrange(len(now) + 100) if random.random() < 0.1 else number * 97 % len(now)
    new = bytearray(now[at:at + length].ljust(length, b"+"))
    for _ in range(random.choice([0, 0, 1, 1, 2, 30])):
        spot = random.randrange(length)
        piece = os.urandom(random.choice([1, 4, 130]))[:length - spot]
        new[spot:spot + len(piece)] = piece
    if at > len(now):
        now.extend(bytes(at - len(now)))
    now[at:at + length] = new
    how = random.randrange(3)
    if how == 0:
        os.pwrite(fd, new, at)
    else:
        os.lseek(fd, at, os.SEEK_SET)
        cut = random.randrange(length)
        os.writev(fd, [new[:cut], new[cut:]]) if how == 1 else os.write(fd, new)
        assert os.lseek(fd, 0, os.SEEK_CUR) == at + length
    if random.random() < 0.3:
        at = max(0, at - random.randrange(4000))
        assert os.pread(other, 5000, at) == now[at:at + 5000], number
"""


@pytest.mark.parametrize("committed", [False, True], ids=["undone", "committed"])
@pytest.mark.parametrize("seed", range(4))
def test_random_writes(directory, seed, committed):
    """Most of what is written is as it was; what is read in between is as it was written."""
    path = directory.path / A / "data_level0.bin"
    old = random.Random(seed).randbytes(150_000)
    path.write_bytes(old)
    end = "os.close(fd); os.close(pickle(A, b'n'))" if committed else "pickle(A, b'n')"
    directory.killed(RANDOM_WRITES.format(seed=seed) + f"""
{end}
with open(data + "/now", "wb") as f:
    f.write(now)
die()
""")
    directory.next_start()
    assert path.read_bytes() == ((directory.path / "now").read_bytes() if committed else old)


# ---- files that may not be written

GIVEN_AWAY = """
fds = {name: os.open(f"{data}/{A}/{name}", os.O_RDWR) for name in FILES}
os.chown(f"{data}/{A}/NAME", 0, 0)
os.chmod(f"{data}/{A}/NAME", 0o644)
os.seteuid(65534)
for fd in fds.values():
    os.pwrite(fd, b"n" * 50, 20)
try:
    pickle(A, b"n")
except PermissionError:
    pass
die()
"""


@pytest.mark.parametrize("name", [PICKLE, "data_level0.bin"])
def test_given_away(directory, name):
    """A file that root's backup put back, say: it can be saved, though not opened for writing."""
    if os.getuid():
        pytest.skip("needs root")
    for path in [directory.path, *directory.path.rglob("*")]:
        os.chown(path, 65534, 65534)
    hosts.let_others_in(directory.path.parent)
    assert "UNPROTECTED" not in directory.killed(GIVEN_AWAY.replace("NAME", name))
    directory.next_start()
    assert directory.is_old(A)


@pytest.mark.parametrize("name", [PICKLE, "data_level0.bin", "."])
@pytest.mark.parametrize("crashed", [True, False])
def test_immutable(directory, name, crashed):
    """What cannot be put back now is put back later; what need not be is no obstacle."""
    path = directory.path / A / name
    if crashed:
        directory.killed("bins(A, b'n'); pickle(A, b'n'); die()")
    if subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode:
        pytest.skip("no immutable files here")
    try:
        if crashed:
            directory.next_start()
        else:
            directory.killed("""
                try:
                    bins(A, b"n"); pickle(A, b"n")
                except PermissionError:
                    pass
                die()
            """)
            directory.next_start()
            assert name == "." or directory.is_old(A)
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    directory.next_start()
    assert directory.is_old(A)
    assert directory.undo() == []


@pytest.mark.parametrize("committed", [True, False])
def test_labelled(directory, committed):
    """With SELinux every file has an attribute, and keeps it."""
    for name in [*FILES, PICKLE]:
        try:
            os.setxattr(directory.path / A / name, "security.selinux", b"system_u:object_r:x:s0\0")
        except OSError:
            pytest.skip("no such attributes here")
    directory.killed(f"bins(A, b'n'); fd = pickle(A, b'n'); {committed} and os.close(fd); die()")
    assert committed == ("undone" not in directory.next_start())
    assert directory.is_new(A) if committed else directory.is_old(A)
    for name in [*FILES, PICKLE]:
        assert os.getxattr(directory.path / A / name, "security.selinux")[:8] == b"system_u"


@pytest.mark.parametrize("durability", ["process", "power"])
def test_few_reads(compiled, data, shim, strace, tmp_path, durability):
    """What is saved and announced is read by pages, not for each write: some 10 000 of them here."""
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=pread64", "-o", tmp_path / "trace", "-E",
         f"LD_PRELOAD={shim}", compiled("hnsw_persist"), data, "persist", "1", "20"],
        env=hosts.environment({"CHROMASHIM_DIR": str(data), "CHROMASHIM_BALLAST": "0",
                               "CHROMASHIM_DURABILITY": durability}),
        capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.endswith("done 20\n"), done
    assert (tmp_path / "trace").read_text().count("pread64(") < 1000


FIRST_ELEMENTS = """
import os, struct, sys
segment = f"{sys.argv[1]}/cccccccc-0000-4000-8000-000000000000"
def write(name, data):
    fd = os.open(f"{segment}/{name}", os.O_RDWR | os.O_CREAT)
    os.write(fd, data)
    os.close(fd)
def header(elements):
    raw = bytearray(100)
    struct.pack_into("<i", raw, 0, 1)
    struct.pack_into("<QQQ", raw, 12, 1000, elements, 1676)
    return bytes(raw)
os.mkdir(segment)
write("header.bin", header(0))
write("data_level0.bin", b"0" * 16760)
os.access("/it gets elements", os.F_OK)
write("header.bin", header(3))
write("data_level0.bin", b"1" * 16760)
write("index_metadata.pickle", b"p.")
"""


def test_undo_file_of_a_first_persist_is_on_the_disk(data, shim, strace, tmp_path):
    """Not before: most segments never have one. But before the header says that there are elements:
    with these and without a pickle it would be a loss."""
    subprocess.run(
        ["strace", "-y", "-e", "trace=fdatasync,fsync,write,access", "-o", tmp_path / "trace", "-E",
         f"LD_PRELOAD={shim}", sys.executable, "-c", FIRST_ELEMENTS, data],
        env=hosts.environment({"CHROMASHIM_DIR": str(data), "CHROMASHIM_BALLAST": "0",
                               "CHROMASHIM_DURABILITY": "power", "CHROMASHIM_GUARD": "off"}),
        capture_output=True, timeout=60, check=True)
    made, first = (tmp_path / "trace").read_text().split("/it gets elements")
    assert "/header.bin>" in made and "/undo" not in made
    before, after = first.split("/header.bin>", 1)
    assert re.search(r"fdatasync\(\d+<[^>]*/undo/cccccccc-", before), first
    assert "/index_metadata.pickle>" in after
