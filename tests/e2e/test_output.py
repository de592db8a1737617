# SPDX-License-Identifier: MIT
"""Every verb that has -o, and every kind of thing that its name may lead to."""

import os
import stat

import pytest

import hosts

# The verb's words, and whether it makes a directory.
VERBS = {
    "export": (["export"], False),
    "folders": (["export", "--folders"], True),
    "restore": (["restore", "-yq", "--to", "latest"], True),
    "recover": (["recover", "-yq"], True),
}
FILES = [name for name, (_, makes) in VERBS.items() if not makes]
FOLDERS = [name for name, (_, makes) in VERBS.items() if makes]


MAKE = """
import sys
import chromadb
c = chromadb.PersistentClient(sys.argv[1]).create_collection("some", embedding_function=None)
c.add(ids=["a", "b"], embeddings=[[1.0, 2.0], [3.0, 4.0]])
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory, chromashim):
    """A directory with a snapshot."""
    path = tmp_path_factory.mktemp("source") / "d"
    if not hosts.python("venv").exists():
        pytest.skip("no Chroma; run wrappers/setup check")
    hosts.chroma("venv", "-c", MAKE, path)
    assert chromashim("snapshot", "create", "-q", path).returncode == 0
    return path


@pytest.fixture
def write(source, chromashim, tmp_path):
    def run(verb: str, name) -> int:
        done = chromashim(*VERBS[verb][0], "-o", name, source, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        if done.returncode not in (0, 3):
            assert len(done.stderr.splitlines()) >= 2, "what is wrong, and what to do"
        return done.returncode

    return run


def device(path, number: int):
    """One of the test's own: never one of the machine's."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, number))
    except PermissionError:
        pytest.skip("making a device needs root")
    return path


def kind(path) -> int:
    return stat.S_IFMT(os.lstat(path).st_mode)


@pytest.mark.fast
@pytest.mark.parametrize("verb", VERBS)
def test_device(verb, write, tmp_path):
    null = device(tmp_path / "null", 3)
    assert (write(verb, null) in (0, 3)) == (verb in FILES)
    assert kind(null) == stat.S_IFCHR
    full = device(tmp_path / "full", 7)
    assert write(verb, full) not in (0, 3)
    assert kind(full) == stat.S_IFCHR


@pytest.mark.parametrize("verb", VERBS)
def test_fifo(verb, write, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert (write(verb, fifo) in (0, 3)) == (verb in FILES)
    os.close(reader)
    assert kind(fifo) == stat.S_IFIFO


@pytest.mark.parametrize("verb", VERBS)
def test_links(verb, write, tmp_path):
    """The target is made or replaced where it is, and the link stays one."""
    (tmp_path / "sub").mkdir()
    for name in ("dangling", "second"):
        (tmp_path / name).symlink_to("sub/new" if name == "dangling" else "dangling")
    assert write(verb, tmp_path / "second") in (0, 3)
    assert kind(tmp_path / "second") == kind(tmp_path / "dangling") == stat.S_IFLNK
    assert (tmp_path / "sub/new").is_dir() == (verb in FOLDERS)
    assert (tmp_path / "sub/new").exists()
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["new"]


@pytest.mark.parametrize("verb", VERBS)
def test_directory_and_file(verb, write, tmp_path):
    filled = tmp_path / "filled"
    filled.mkdir()
    (filled / "mine").write_text("kept")
    assert write(verb, filled) not in (0, 3)
    assert [p.name for p in filled.iterdir()] == ["mine"]
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o640)
    assert (write(verb, file) in (0, 3)) == (verb in FILES)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (file.read_text() == "old") == (verb in FOLDERS)


@pytest.mark.parametrize("verb", VERBS)
def test_dash(verb, write, tmp_path):
    assert (write(verb, "-") == 0) == (verb in FILES)
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_place_that_is_read_only(verb, write, small_disk):
    (small_disk / "file").write_text("old")
    # In a mount of its own, so that nobody else's file is held.
    assert os.system(f"mount -o remount,ro {small_disk}") == 0
    assert write(verb, small_disk / ("file" if verb in FILES else "new")) not in (0, 3)
    assert os.system(f"mount -o remount,rw {small_disk}") == 0
    assert [p.name for p in small_disk.iterdir()] == ["file"]
    assert (small_disk / "file").read_text() == "old"


@pytest.mark.parametrize("verb", VERBS)
def test_full_disk(verb, write, small_disk):
    """What is there is left as it was, and nothing lies beside it."""
    (small_disk / "file").write_text("old")
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    assert write(verb, small_disk / ("file" if verb in FILES else "new")) not in (0, 3)
    assert sorted(p.name for p in small_disk.iterdir()) == ["file", "filler"]
    assert (small_disk / "file").read_text() == "old"
