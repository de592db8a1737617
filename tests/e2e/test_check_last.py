# SPDX-License-Identifier: MIT
"""check: a part of an index, or all of it, is not what its last persist under the shim left."""

import os
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

import hosts
from actor import Actor
from test_formats import check

pytestmark = pytest.mark.memory

FOUND = {"index-mixed", "index-before-persist", "index-changed-without-pickle"}
FILES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]
BINS, PICKLE = FILES[:4], FILES[4]


def found(chromashim, data: Path) -> set[str]:
    return FOUND & {f["code"] for f in check(chromashim, data, "--full")["findings"]}


def segment_of(data: Path) -> Path:
    return next(data.glob("*/header.bin")).parent


class Made:
    """A directory, its segment before its last persist and two persists before, and the segment
    after a further one without the shim. The two processes go on: a start takes seconds."""

    def __init__(self, path: Path, actors, venv: str) -> None:
        self.data, self.older = path / "data", path / "older"
        self.before, self.beyond = path / "before", path / "beyond"
        self.data.mkdir()
        actor = self.actor = actors(venv=venv).chroma(self.data)
        actor.do("for n in range(0, 360, 60):\n    c.upsert(**batch(n))\nc.count()", 60)
        self.persists, k = 0, 0
        while self.persists < 3:
            shutil.copytree(segment_of(self.data), path / "now")
            k += 1
            actor.do(f"c.update(**{{**batch({k * 30}, 30), 'embeddings': vectors({k}, 30)}})\n"
                     f"c.upsert(**batch({1000 + k * 10}, 10))\n"
                     f"c.delete(ids=batch({300 + k * 3}, 3)['ids'])\n"
                     "c.query(query_embeddings=vectors(1, 1), n_results=1)", 60)
            pickle = (segment_of(self.data) / PICKLE).read_bytes()
            if pickle == (path / "now" / PICKLE).read_bytes():
                shutil.rmtree(path / "now")
                continue
            self.persists += 1
            (path / "now").rename(path / f"before-{self.persists}")
        (path / "before-1").rename(self.older)
        (path / "before-3").rename(self.before)
        copy = Path(shutil.copytree(self.data, path / "copy"))
        other = self.other = actors(False, venv=venv).chroma(copy)
        other.do("for n in range(0, 240, 30):\n"
                 "    c.update(**{**batch(n, 30), 'embeddings': vectors(n + 77, 30)})\n"
                 "    c.query(query_embeddings=vectors(1, 1), n_results=1)", 60)
        self.others = copy
        shutil.copytree(segment_of(copy), self.beyond)
        assert (self.beyond / PICKLE).read_bytes() != (segment_of(self.data) / PICKLE).read_bytes()


@pytest.fixture(scope="module", params=["venv", "venv-0.6"])
def made(request, tmp_path_factory, shim):
    if not hosts.python(request.param).exists():
        pytest.skip(f"{request.param} is missing; run wrappers/setup run check")
    started = []

    def actors(shimmed=True, venv="venv"):
        started.append(Actor(shim if shimmed else "", None, venv))
        return started[-1]

    try:
        yield Made(tmp_path_factory.mktemp("last"), actors, request.param)
    finally:
        for actor in started:
            actor.clean_up()


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made.data, tmp_path / "copy"))


def put(data: Path, source: Path, *names: str) -> None:
    for name in names:
        shutil.copyfile(source / name, segment_of(data) / name)


def put_part(data: Path, source: Path, first: float, last: float) -> None:
    """Of the pieces of the vectors that differ, some."""
    path = segment_of(data) / "data_level0.bin"
    content, now = (source / path.name).read_bytes(), path.read_bytes()
    differ = [at for at in range(0, min(len(content), len(now)) - 63, 64)
              if content[at:at + 64] != now[at:at + 64]]
    assert len(differ) >= 4
    with open(path, "r+b") as f:
        for at in differ[int(len(differ) * first):int(len(differ) * last)]:
            f.seek(at)
            f.write(content[at:at + 64])


def test_what_is_left_is_fine(made, copy, chromashim):
    """Also in a copy, with and without its store, and after persists of others."""
    assert list((made.data / ".chromashim" / "undo").glob("*.last"))
    for data in (made.data, copy, made.others):
        result = check(chromashim, data, "--full")
        assert result["verdict"] == "fine", result["findings"]
    shutil.rmtree(copy / ".chromashim")
    assert found(chromashim, copy) == set()


def test_undone_persist(made, copy, chromashim):
    """All of it is as before, and the database has the persist's mark."""
    put(copy, made.before, *FILES)
    assert found(chromashim, copy) == {"index-before-persist"}


@pytest.mark.parametrize("names", [["data_level0.bin"], BINS, [PICKLE], ["link_lists.bin"]],
                         ids=lambda names: names[0].split(".")[0])
def test_files_of_before(made, copy, chromashim, names):
    """Whole files of the state before, beside those of after."""
    if all((made.before / n).read_bytes() == (segment_of(made.data) / n).read_bytes()[
            :(made.before / n).stat().st_size] for n in names):
        pytest.skip("that persist only lengthened it")
    put(copy, made.before, *names)
    assert found(chromashim, copy) == {"index-mixed"}


@pytest.mark.parametrize("first", [0, .25, .5, .75])
def test_pieces_of_before(made, copy, chromashim, first):
    """A quarter of what was altered, as undo data of another time leaves it."""
    put_part(copy, made.before, first, first + .25)
    assert found(chromashim, copy) == {"index-mixed"}


@pytest.mark.parametrize("name", BINS)
def test_file_of_an_older_state(made, copy, chromashim, name):
    """One file of two persists ago, as somebody's own backup has it: what is altered is told."""
    if (made.older / name).read_bytes() == (segment_of(made.data) / name).read_bytes():
        pytest.skip("it has not changed since")
    put(copy, made.older, name)
    assert found(chromashim, copy)


def test_pieces_of_an_older_state(made, copy, chromashim):
    put(copy, made.older, "data_level0.bin")
    assert found(chromashim, copy) == {"index-mixed"}


@pytest.mark.parametrize("first", [0, .5])
def test_backup_and_pieces(made, copy, chromashim, first):
    """An older backup was put back, and a persist undone over it: what that saved, and its pickle."""
    after = Path(shutil.copytree(segment_of(copy), copy.parent / "after"))
    put(copy, made.before, *BINS)
    put_part(copy, after, first, first + .5)
    put(copy, after, "header.bin", PICKLE)
    assert "index-mixed" in found(chromashim, copy)


def test_newer_ones_and_pieces(made, copy, chromashim):
    """A start without the shim has persisted, and then an older persist was undone over that."""
    after = Path(shutil.copytree(segment_of(copy), copy.parent / "after"))
    put(copy, made.beyond, *FILES)
    assert found(chromashim, copy) == set()
    put_part(copy, after, 0, .5)
    put(copy, after, "header.bin", PICKLE)
    assert found(chromashim, copy)  # which one: pieces may by chance be again as they were before


def test_whole_backup_put_back(made, copy, chromashim, shim, tmp_path):
    """Database and all: that is no news, nor is it later."""
    put(copy, made.before, *FILES)
    database = sqlite3.connect(copy / "chroma.sqlite3")
    database.execute("CREATE TABLE mark (n)")
    database.execute("DROP TABLE mark")
    database.commit()
    database.close()
    with open(copy / "chroma.sqlite3", "r+b") as f:  # as it was when the backup was made
        f.seek(24)
        f.write(b"\0\0\0\1")
    assert found(chromashim, copy) == set()
    actor = Actor(shim, None, "venv")
    try:
        actor.sqlite(copy).do("db.execute('SELECT count(*) FROM collections').fetchall()")
    finally:
        actor.clean_up()
    assert list((copy / ".chromashim" / "undo").glob("*.last")) == []


def test_no_false_alarms(made, copy, chromashim, tmp_path):
    """Persists of all kinds, with and without the shim in turn: never a word."""
    rng = random.Random(int(os.environ.get("CHECK_SEED", "1")))
    for turn in range(int(os.environ.get("CHECK_TURNS", "3"))):
        copy = Path(shutil.copytree(copy, tmp_path / f"turn-{turn}"))  # as if after a stop
        actor = (made.other if turn % 3 == 1 else made.actor).chroma(copy)
        for _ in range(rng.randrange(2, 6)):
            n = rng.randrange(0, 600, 30)
            actor.do(rng.choice([
                f"c.upsert(**batch({n}, {rng.randrange(1, 120)}))",
                f"c.update(**{{**batch({n}, 60), 'embeddings': vectors({n + turn}, 60)}})",
                f"c.delete(ids=batch({n}, {rng.randrange(1, 60)})['ids'])"])
                + "\nc.count()", 60)
        assert found(chromashim, copy) == set()
