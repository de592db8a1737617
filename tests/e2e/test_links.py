# SPDX-License-Identifier: MIT
"""A segment, a database or a directory that lies elsewhere, and inodes that are given out again."""

import os
import shutil
import subprocess

import pytest

import torn

SEGMENT = torn.SEGMENT
LEVEL0 = "data_level0.bin"


def linked(data, elsewhere, how) -> None:
    """The segment's directory goes elsewhere; a link of some kind leads there."""
    segment = data / SEGMENT
    if how == "bind":
        shutil.copytree(segment, elsewhere)
        if subprocess.run(["mount", "--bind", elsewhere, segment], capture_output=True).returncode:
            pytest.skip("cannot mount")
        return
    shutil.move(segment, elsewhere)
    if how == "absolute":
        segment.symlink_to(elsewhere)
    elif how == "relative":
        segment.symlink_to(os.path.relpath(elsewhere, data))
    else:
        first, second = data.parent / "first", data.parent / "second"
        first.symlink_to(second)
        second.symlink_to(elsewhere)
        segment.symlink_to(first)


def undone(actors, data) -> str:
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    return torn.first(data)


@pytest.mark.fast
@pytest.mark.parametrize("disk", ["same", "other"])
@pytest.mark.parametrize("how", ["absolute", "relative", "chain", "bind"])
def test_linked_segment(data, actors, tmp_path, data_in_memory, how, disk):
    elsewhere = (tmp_path if disk == "same" else data_in_memory) / "elsewhere"
    torn.make(data)
    linked(data, elsewhere, how)
    try:
        torn.tear(actors(), data)
        assert undone(actors, data) == "OOOO"
        torn.tear(actors(), data, elsewhere / LEVEL0 if how != "bind" else None)
        assert undone(actors, data) == "OOOO"
    finally:
        if how == "bind":
            subprocess.run(["umount", data / SEGMENT], check=True)


@pytest.mark.parametrize("disk", ["same", "other"])
@pytest.mark.parametrize("by", ["the process", "another"])
def test_linked_while_it_runs(data, actors, tmp_path, data_in_memory, by, disk):
    """The link is there before what it leads to, and before anything of it was met."""
    elsewhere = (tmp_path if disk == "same" else data_in_memory) / "elsewhere"
    torn.make(data)
    aside = torn.make(tmp_path / "aside")
    (tmp_path / "aside/chroma.sqlite3").unlink()
    shutil.rmtree(data / SEGMENT)
    owner = actors().sqlite(data)
    owner.do("db.execute('SELECT * FROM t')")
    make = f"os.symlink({str(elsewhere)!r}, {str(data / SEGMENT)!r})"
    exec(make) if by == "another" else owner.do(make)
    shutil.move(aside, elsewhere)
    torn.tear(owner, data)
    assert undone(actors, data) == "OOOO"


PERSIST = """
database = os.open({data!r} + "/chroma.sqlite3", os.O_RDWR)
level0 = os.open({segment!r} + "/data_level0.bin", os.O_RDWR)
os.pwrite(level0, b"N" * 8192, 0)
os.close(level0)
pickle = os.open({segment!r} + "/index_metadata.pickle", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
os.write(pickle, b"x.")
os.close(pickle)
"""


@pytest.mark.fast
def test_linked_segment_is_synced(data, actors, tmp_path):
    """Also the names in it, wherever a link leads to: nothing is said of a disk that fails."""
    torn.make(data)
    linked(data, tmp_path / "elsewhere", "absolute")
    owner = actors(env={"CHROMASHIM_DURABILITY": "power"})
    owner.do(PERSIST.format(data=str(data), segment=str(data / SEGMENT)))
    owner.stop()
    assert "on syncing" not in owner.errors()
    assert undone(actors, data) == "NNNN"


@pytest.mark.fast
@pytest.mark.parametrize("where", ["beside it", "elsewhere"])
@pytest.mark.parametrize("name", torn.FILES)
def test_linked_file(data, actors, tmp_path, name, where):
    """A persist could not be undone, and that is said before it is one."""
    segment = torn.make(data)
    target = segment / "other" if where == "beside it" else tmp_path / "other"
    shutil.move(segment / name, target)
    (segment / name).symlink_to(target)
    owner = actors()
    torn.overwrite(owner, data)
    said = [line for line in owner.lines() if "UNPROTECTED" in line]
    assert len(said) == 1 and "(a file of it is a symbolic link)" in said[0], owner.lines()


def test_linked_directory(data, actors, tmp_path):
    torn.make(data)
    link = tmp_path / "link"
    link.symlink_to(data)
    torn.tear(actors(), link)
    assert undone(actors, data) == "OOOO"


@pytest.mark.parametrize("opener", ["os.open", "sqlite3.connect"])
def test_linked_database(data, actors, tmp_path, opener):
    """SQLite keeps its journal beside the target: that is said; the segments are protected."""
    torn.make(data)
    shutil.move(data / "chroma.sqlite3", tmp_path / "database")
    (data / "chroma.sqlite3").symlink_to("../database")
    owner = actors()
    if opener == "os.open":
        owner.do(f"os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR)")
    else:
        owner.sqlite(data).do("db.execute('INSERT INTO t VALUES (1)')")
    said = [line for line in owner.lines() if "UNPROTECTED" in line]
    assert len(said) == 1 and "is a symbolic link to ../database" in said[0]
    torn.tear(owner, data)
    assert undone(actors, data) == "OOOO"


def test_hard_linked_copy(data, actors, tmp_path):
    """As cp -al and rsnapshot make it."""
    torn.make(data)
    subprocess.run(["cp", "-al", data, tmp_path / "copy"], check=True)
    torn.tear(actors(), data)
    assert undone(actors, data) == "OOOO"
    assert torn.first(tmp_path / "copy") == "OOOO"


def test_links_that_are_no_segment_are_left_alone(data, actors, tmp_path, chromashim):
    torn.make(data)
    (tmp_path / "uploads").mkdir()
    (data / "uploads").symlink_to(tmp_path / "uploads")
    (data / "22222222-2222-3333-4444-555555555555").symlink_to(".")  # leads back to where it is
    owner = actors().sqlite(data)
    owner.do(f"""
db.execute('SELECT * FROM t')
open({str(data / 'uploads/notes')!r}, "w").write("x")
open({str(tmp_path / 'uploads/notes')!r}, "w").write("x")
open({str(data / '22222222-2222-3333-4444-555555555555/other')!r}, "w").write("x")
""")
    owner.stop()
    done = chromashim("log", "--calls", data)
    assert "notes" not in done.stdout and " other" in done.stdout


# ---- inodes ----

MANY = 40


def numbers(directories) -> set[int]:
    return {d.stat().st_ino for d in directories}


def segments(data) -> list:
    return [data / f"{n:08}-2222-3333-4444-555555555555" for n in range(MANY)]


def test_numbers_that_were_segments(data, actors, tmp_path, chromashim):
    torn.make(data)
    for segment in segments(data):
        segment.mkdir()  # and nothing in it, or the number is kept for a while
    owner, outside = actors().sqlite(data), tmp_path / "outside"
    outside.mkdir()
    owner.do("db.execute('SELECT * FROM t')")
    before = numbers(segments(data))
    for segment in segments(data):
        segment.rmdir()
    owner.do(f"""
for n in range(300):
    os.mkdir(f"{outside}/{{n}}")
    open(f"{outside}/{{n}}/notes", "w").write("x")
""")
    if not before & numbers(outside.iterdir()):
        pytest.skip("no number is given out again")
    owner.stop()
    assert "notes" not in chromashim("log", "--calls", data).stdout


@pytest.mark.parametrize("by", ["the process", "another"])
def test_numbers_that_were_elsewhere(data, actors, tmp_path, by):
    """A segment gets the number of a directory that was found not to be ours."""
    torn.make(data)
    shutil.move(data / SEGMENT, tmp_path / "aside")
    foreign = [tmp_path / f"foreign-{n}" for n in range(MANY)]
    for directory in foreign:
        directory.mkdir()
    owner = actors()
    owner.do(f"""
os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR)
os.chdir({str(tmp_path)!r})
for n in range({MANY}):
    try:
        os.open(f"foreign-{{n}}/notes", os.O_RDWR)
    except FileNotFoundError:
        pass
""")
    before = numbers(foreign)
    for directory in foreign:
        directory.rmdir()
    if by == "another":
        owner.do("time.sleep(1.1)")  # what is no segment is believed for a second
    for segment in segments(data):
        segment.mkdir() if by == "another" else owner.do(f"os.mkdir({str(segment)!r})")
        if segment.stat().st_ino in before:
            break
    else:
        pytest.skip("no number is given out again")
    for file in (tmp_path / "aside").iterdir():
        shutil.copy(file, segment)
    segment.rename(data / SEGMENT)
    torn.tear(owner, data)
    assert undone(actors, data) == "OOOO"
