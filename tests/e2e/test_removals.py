# SPDX-License-Identifier: MIT
"""All or nothing: what is in use is not taken away in part; what is not can be had back."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

import hosts

FIRSTS = [0, 60, 120, 180]

IN_USE = {
    "rm": "rm -rf DATA",
    "mv": "mv DATA DATA.aside",
    "cp": "cp -r BACKUP/. DATA/",
    "tar": "tar cf TAR -C BACKUP . && tar xf TAR -C DATA",
    "segment": "rm -rf SEGMENT",
    "segment aside": "mv SEGMENT DATA.aside",
    "each file": "for f in SEGMENT/*; do : > $f || bad=1; done; [ -z $bad ]",
}


def contents(data: Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest()
            for f in data.rglob("*") if f.is_file() and ".chromashim" not in f.parts}


def filled(data: Path, actors, venv: str = "venv"):
    actor = actors(venv=venv).chroma(data)
    for n in FIRSTS:
        actor.do(f"c.upsert(**batch({n}))")
    return actor


def test_in_use_from_a_child(data, actors, shim, tmp_path):
    """By processes that have the library and nothing open themselves: nothing of it is changed."""
    actor = filled(data, actors)
    (segment,) = [p.parent for p in data.glob("*/header.bin")]
    subprocess.run(["cp", "-r", data, tmp_path / "backup"], check=True)
    actor.do("c.upsert(**batch(1000))")
    before = contents(data)
    for name, script in IN_USE.items():
        for word, path in (("DATA", data), ("SEGMENT", segment), ("BACKUP", tmp_path / "backup"),
                           ("TAR", tmp_path / "tar")):
            script = script.replace(word, str(path))
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False,
                              env=hosts.environment({"LD_PRELOAD": shim}))
        assert done.returncode and "chromashim: " in done.stderr, name
        assert contents(data) == before, name
    assert actor.ask(f"wrong(c, {[*FIRSTS, 1000]})") == []


@pytest.mark.fast
@pytest.mark.parametrize("how", ["shutil.rmtree(path)", "os.rename(path, path + '.aside')",
                                 "shutil.copytree(backup, path, dirs_exist_ok=True)",
                                 "shutil.rmtree(segment)"])
def test_in_use_from_inside(data, actors, how, tmp_path):
    actor = filled(data, actors)
    (segment,) = [p.parent for p in data.glob("*/header.bin")]
    subprocess.run(["cp", "-r", data, tmp_path / "backup"], check=True)
    actor.do("c.upsert(**batch(1000))")
    before = contents(data)
    actor.do(f"import shutil; path, segment = {str(data)!r}, {str(segment)!r}")
    assert actor.fails(f"backup = {str(tmp_path / 'backup')!r}; {how}")
    assert contents(data) == before
    actor.do("c.upsert(**batch(2000))")
    assert actor.ask(f"wrong(c, {[*FIRSTS, 1000, 2000]})") == []


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_removed_and_restored(data, actors, shim, chromashim, venv):
    """With nobody in it the directory goes, and its last state can be had back."""
    filled(data, actors, venv).stop()
    subprocess.run(["rm", "-rf", data], check=True, env=hosts.environment({"LD_PRELOAD": shim}))
    assert not data.exists()
    done = chromashim("restore", "-y", "--to", "latest", data)
    assert done.returncode == 0, done.stderr
    reader = actors(False, venv=venv).chroma(data)
    assert reader.ask(f"wrong(c, {FIRSTS})") == []


def test_neighbours_are_left_alone(data, actors):
    """A log or an upload beside the data is written by whom it belongs to."""
    actor = actors().sqlite(data)
    actor.do("db.execute('CREATE TABLE t(a)')")
    other = actors()
    other.do(f"""
import logging
path = {str(data)!r}
db = sqlite3.connect(path + "/chroma.sqlite3")
db.execute("SELECT * FROM t").fetchall()
logging.FileHandler(path + "/worker.log").emit(logging.makeLogRecord({{"msg": "x"}}))
os.mkdir(path + "/uploads")
Path(path, "uploads", "a").write_text("x")
os.rename(path + "/uploads/a", path + "/uploads/b")
os.unlink(path + "/uploads/b")
""")
    assert len(other.lines()) == 1 and "chroma.sqlite3: it is opened for reading" in other.lines()[0]
    assert (data / "worker.log").exists()
    assert "[Errno 16]" in other.fails("open(path + '/chroma.sqlite3', 'wb')")


def test_renamed_above_while_in_use(data, actors):
    """SQLite refuses as long as its file is not where it was opened; nothing else is in its way."""
    outer = data.parent / "outer"
    below = outer / "data"
    below.mkdir(parents=True)
    actor = actors().sqlite(below)
    actor.do("db.execute('CREATE TABLE t(a)'); db.execute('INSERT INTO t VALUES(1)')")
    actor.do(f"os.rename({str(outer)!r}, {str(outer) + '.away'!r})")
    assert "readonly" in actor.fails("db.execute('INSERT INTO t VALUES(2)')")
    assert actor.do("result = db.execute('SELECT count(*) FROM t').fetchall()") == [[1]]
    actor.do(f"os.rename({str(outer) + '.away'!r}, {str(outer)!r})")
    actor.do("db.execute('INSERT INTO t VALUES(3)')")
    assert actor.do("result = db.execute('SELECT count(*) FROM t').fetchall()") == [[2]]
    assert actor.lines() == []
    # A program that removes them without the library is in nobody's way.
    actor.stop()
    actors().do(f"import shutil; shutil.rmtree({str(below)!r})")
    aside = outer / ".data.chromashim"
    assert aside.is_dir()
    shutil.rmtree(aside)
