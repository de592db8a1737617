# SPDX-License-Identifier: MIT
"""On overlayfs, where a map does not keep a file's locks: descriptors do, and all is as elsewhere."""

import os
import subprocess
from pathlib import Path

import pytest

import torn


@pytest.fixture
def merged(tmp_path) -> Path:
    """The root of an overlay."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    if os.geteuid():
        pytest.skip("mounts need root")
    words = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, tmp_path / "merged"],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no overlay here: {done.stderr.strip()}")
    yield tmp_path / "merged"
    subprocess.run(["umount", "-l", tmp_path / "merged"], check=False)


def held(owner) -> set[str]:
    """Lock files that a process keeps open by descriptors."""
    links = (p.readlink().name for p in Path(f"/proc/{owner.pid}/fd").iterdir())
    return {name for name in links if name.endswith(".lock")}


def test_one_writer(merged, actors):
    data = merged / "data"
    torn.make(data)
    owner = actors().sqlite(data)
    owner.do("db.execute('INSERT INTO t VALUES (1)')")
    assert held(owner) == {"alive.lock", "writer.lock"}
    assert not owner.lines()
    other, without = actors().sqlite(data), actors(False).sqlite(data)
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (2)')")
    assert "locked" in without.fails("db.execute('INSERT INTO t VALUES (2)')")
    owner.do("os.closerange(100, 100000)")  # what a host does not know
    assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES (2)')")
    owner.kill()
    assert not actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES (2)')")


@pytest.mark.parametrize("forks", [False, True])
def test_alive(merged, actors, forks):
    """What a living process is at is not undone, and what a dead one left is, whoever came of it."""
    data = merged / "data"
    torn.make(data)
    owner = actors()
    torn.overwrite(owner, data)
    if forks:
        owner.do("""
child = os.fork()
if not child:
    os.setsid()
    os.pause() if hasattr(os, "pause") else __import__("signal").pause()
""")
    assert held(owner) >= {"alive.lock"}
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "NNNN"
    child = owner.ask("child") if forks else 0
    owner.kill()
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "OOOO"
    if child:
        os.kill(child, 9)
