# SPDX-License-Identifier: MIT
"""An older Chroma in a child of what `run` started, on a database that a newer one wrote."""

import sqlite3
import subprocess

import pytest

import hosts
from test_run_directory import make
from test_run_guardian import guardians, wait_until

CHILD = """
import ctypes, sqlite3, sys
ctypes.CDLL(sys.argv[2])
sqlite3.connect(sys.argv[1] + "/chroma.sqlite3").execute("SELECT * FROM migrations").fetchall()
"""
RUN = (hosts.COMMAND, "run", "--no-guard")
TOLD = "was written by a newer Chroma"


@pytest.fixture
def opens(tmp_path, data, shim):
    """Starts a program, and in it a child with what tells an installation; what is said."""

    def go(release, library="chromadb_rust_bindings/chromadb_rust_bindings.abi3.so", run=RUN,
           **env):
        packages = tmp_path / release / "lib/python3.11/site-packages"
        native = packages / library
        native.parent.mkdir(parents=True)
        (packages / f"chromadb-{release}.dist-info").mkdir()
        for other in range(200):
            (packages / f"other-{other}.dist-info").mkdir()
        (tmp_path / "empty.c").write_text("int nothing;")
        subprocess.run(["cc", "-shared", "-o", native, tmp_path / "empty.c"], check=True)
        done = subprocess.run(
            [*run, *(["--dir", data, "--"] if run else []), "sh", "-c", '"$@"; :', "sh",
             hosts.python("venv"), "-c", CHILD, data, native],
            env=hosts.environment(env if run else {"LD_PRELOAD": shim, **env}), capture_output=True, text=True, check=True)
        return done.stderr

    make("venv", data)
    return go


def test_it_is_told(opens, data):
    said = opens("1.0.8")
    assert said.count(TOLD) == 1 and "this one is 1.0.8 and will panic" in said
    assert str(data) in said and "Nothing is damaged: start Chroma 1.5.9" in said
    said = opens("0.6.3", "hnswlib.cpython-311-x86_64-linux-gnu.so")
    assert said.count(TOLD) == 1 and "0.6.3 and will fail on it" in said


def test_it_is_told_of_a_directory_that_is_new_to_the_library(opens, data):
    """No store is there that says who wrote it: the look before the first open finds that out."""
    assert not (data / ".chromashim").exists()
    said = opens("1.0.8", run=(), CHROMASHIM_GUARD="on")
    wait_until(lambda: not guardians(data), 60)
    assert said.count(TOLD) == 1 and "this one is 1.0.8 and will panic" in said


def test_nothing_is_told(opens, data):
    """Of those that open it, and where the line is of another database."""
    for release in ("1.5.9", "1.2.2", "2.0.0", "1.0"):
        assert TOLD not in opens(release)
    assert TOLD in opens("1.0.9", run=())
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute("CREATE TABLE another(x)")
    db.close()
    assert TOLD not in opens("1.0.10", run=())


@pytest.mark.parametrize("line", ["", "schema", "schema 99999999999999999999 by 1 to 2\n",
                                  "schema 1 by 1.5.0 to 1.5.9\n", "x" * 5000])
def test_a_line_that_is_none(data, shim, actors, line):
    actor = actors()
    actor.sqlite(data)
    actor.do("db.execute('CREATE TABLE t(x)')")
    (data / ".chromashim/written-by").write_text(line)
    second = subprocess.run([hosts.python("venv"), "-c",
                             "import sqlite3, sys\n"
                             "sqlite3.connect(sys.argv[1]).execute('SELECT 1 FROM t')",
                             data / "chroma.sqlite3"],
                            env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                            text=True, check=True)
    assert TOLD not in second.stderr
