# SPDX-License-Identifier: MIT
"""The pre-flight of `chromashim run` on real Chroma's directories: upgrades and downgrades, damage,
what a dead backend left, other processes."""

import contextlib
import os
import re
import sqlite3
import subprocess

import pytest

import hosts
from test_guardian_clock import Days, clock  # noqa: F401

LOAD = """
import sys, chromadb, numpy as np
client = chromadb.PersistentClient(sys.argv[1])
records = client.get_or_create_collection("records", metadata={"hnsw:sync_threshold": 20,
                                                               "hnsw:batch_size": 10})
if len(sys.argv) > 2:
    at = records.count()
    n = int(sys.argv[2])
    records.upsert(ids=[f"id-{at + i}" for i in range(n)],
                   embeddings=np.random.default_rng(at).random((n, 8)).tolist())
print(chromadb.__version__, records.count())
"""


def load(venv, data, *count):
    """The command that adds records, and prints the release and how many there are."""
    return [str(hosts.python(venv)), "-c", LOAD, str(data), *map(str, count)]


def make(venv, data, count=30):
    if not hosts.python(venv).exists():
        pytest.skip(f"{hosts.python(venv)} is missing; run wrappers/setup run check")
    subprocess.run(load(venv, data, count), check=True, capture_output=True,
                   env=hosts.environment())


@pytest.fixture
def run(chromashim):
    def start(*arguments, env=None, **how):
        settings = hosts.environment({"CHROMASHIM_GUARD": "off", "CHROMASHIM_WAIT": "0",
                                      **(env or {})})
        return chromashim("run", *arguments, env=settings, **how)

    return start


def digest(directory):
    """All files but the store's."""
    return {p.relative_to(directory): p.read_bytes() for p in sorted(directory.rglob("*"))
            if p.is_file() and ".chromashim" not in p.relative_to(directory).parts}


# ---- upgrades and downgrades ----

def test_newer_chroma_snapshots_first_and_the_older_one_comes_back(run, chromashim, data):
    make("venv-0.6", data)
    done = run("--dir", data, "--", *load("venv", data, 10))
    assert done.returncode == 0 and done.stdout == "1.5.9 40\n", done.stderr
    assert "Chroma 1.5.9 will migrate the database; snapshot 1 keeps it" in done.stderr
    migrated = digest(data)

    # The older one is refused, nothing has changed, and it says where to go.
    done = run("--dir", data, "--", *load("venv-0.6", data))
    assert done.returncode == 1 and not done.stdout
    assert "not started" in done.stderr and "1.5.0 to 1.5.9" in done.stderr
    assert f"--to 1" in done.stderr and "30 records" in done.stderr
    assert digest(data) == migrated

    assert chromashim("restore", data, "--to", "before-schema", "-y").returncode == 0
    done = run("--dir", data, "--", *load("venv-0.6", data))
    assert done.returncode == 0 and done.stdout == "0.6.3 30\n", done.stderr

    # The same release takes no snapshot.
    count = len(list((data / ".chromashim/snapshots").glob("*.manifest")))
    assert run("--dir", data, "--", *load("venv-0.6", data)).returncode == 0
    assert len(list((data / ".chromashim/snapshots").glob("*.manifest"))) == count


def test_of_the_snapshots_that_an_older_chroma_opens_the_one_taken_last(run, chromashim, data, clock):  # noqa: F811
    """Neither the newest of all, which it does not open, nor the one of a clock that was ahead."""
    make("venv-0.6", data)
    days = Days(chromashim, data, clock)
    days.seconds = 700 * 86400
    assert days.command("snapshot", "create", data).returncode == 0
    assert chromashim("snapshot", "create", data).returncode == 0
    make("venv", data, 1)
    assert chromashim("snapshot", "create", data).returncode == 0
    done = run("--dir", data, "--", *load("venv-0.6", data))
    assert done.returncode == 1 and "or go back to snapshot 2 (" in done.stderr, done.stderr
    assert f"chromashim restore {data} --to 2\n" in done.stderr


def test_older_python_chroma_is_refused(run, data):
    make("venv", data)
    before = digest(data)
    done = run("--dir", data, "--", *load("venv-0.6", data))
    assert done.returncode == 1 and "Chroma 0.6.3 would fail on it" in done.stderr
    assert "there is no snapshot that this one could open" in done.stderr
    assert digest(data) == before
    assert run("--check-only", "--dir", data, "--", *load("venv-0.6", data)).returncode == 1


def test_older_native_chroma_is_refused_before_it_panics(run, data, tmp_path):
    node = hosts.BY_NAME["node"]
    node.require()
    make("venv", data)
    before = digest(data)
    command = node.serve(data, hosts.free_port())
    where = hosts.BUILD / node.needs
    done = run("--", *command, cwd=where)
    assert done.returncode == 1 and "Chroma 1.0.5 would panic at its start" in done.stderr
    assert digest(data) == before
    # The control: it does.
    done = run("--no-preflight", "--", *command, cwd=where, timeout=60)
    assert done.returncode not in (0, 1) and "range start index 10 out of range" in done.stderr


def test_a_backend_through_its_script_is_known(run, data, tmp_path):
    """A shebang leads to the environment, also pip's form for long paths."""
    make("venv-0.6", data)
    python = hosts.python("venv")
    for number, first in enumerate([f"#!{python}\n", "#!/usr/bin/env python\n",
                                    f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"]):
        script = tmp_path / f"serve-{number}"
        script.write_text(first + "print('never')\n")
        script.chmod(0o755)
        done = run("--check-only", "--dir", data, "--", script,
                   env={"PATH": f"{python.parent}:{os.environ['PATH']}"})
        assert "Chroma 1.5.9 will migrate" in done.stderr, first


# ---- other processes ----

def test_a_second_backend_is_refused(run, data, actors):
    make("venv", data)
    writer = subprocess.Popen([hosts.COMMAND, "run", "--dir", data, "--", hosts.python("venv"), "-c",
                               LOAD + "sys.stdout.flush(); sys.stdin.read()", data, "3"],
                              env=hosts.environment({"CHROMASHIM_GUARD": "off"}),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout.readline() == "1.5.9 33\n"
        done = run("--dir", data, "--", "echo", "never")
        assert done.returncode == 14 and not done.stdout
        assert f"pid {writer.pid}" in done.stderr
        done = run("--dir", data, "--", "echo", "on", env={"CHROMASHIM_SINGLE_WRITER": "off"})
        assert done.returncode == 0 and f"pid {writer.pid}" in done.stderr
    finally:
        writer.communicate("")


def test_a_predecessor_that_ends_is_waited_for(run, data):
    make("venv", data)
    old = subprocess.Popen([hosts.COMMAND, "run", "--dir", data, "--", hosts.python("venv"), "-c",
                            LOAD + "sys.stdout.flush(); import time; time.sleep(1.5)", data, "3"],
                           env=hosts.environment({"CHROMASHIM_GUARD": "off"}),
                           stdout=subprocess.PIPE, text=True)
    assert old.stdout.readline() == "1.5.9 33\n"
    done = run("--dir", data, "--", "echo", "up", env={"CHROMASHIM_WAIT": "20s"})
    assert done.returncode == 0 and done.stdout == "up\n"
    assert f"pid {old.pid}" in done.stderr and "waiting up to" in done.stderr
    old.communicate()


def test_any_writer_under_the_shim_is_in_the_way(run, data):
    """Also one that is no Chroma, and has only a segment's file open."""
    make("venv", data)
    writer = subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", "import os, sys\n"
                               "import glob\nname, = glob.glob(sys.argv[1] + '/*/length.bin')\n"
                               "f = open(name, 'r+b')\nf.write(f.read(1))\nf.flush()\n"
                               "print('up', flush=True)\nsys.stdin.read()", data],
                              env=hosts.environment({"LD_PRELOAD": str(hosts.SHIM),
                                                     "CHROMASHIM_DIR": str(data)}),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        writer.stdout.readline()
        done = run("--dir", data, "--", "echo", "never")
        assert done.returncode == 14 and f": pid {writer.pid}, since 20" in done.stderr
    finally:
        writer.communicate("")
    assert run("--dir", data, "--", "true").returncode == 0


def test_chroma_without_the_shim_is_in_the_way_and_a_reader_is_not(run, data):
    make("venv", data)
    other = subprocess.Popen([hosts.python("venv"), "-c",
                              LOAD + "sys.stdout.flush(); sys.stdin.read()", data],
                             env=hosts.environment(), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    try:
        other.stdout.readline()
        done = run("--dir", data, "--", "echo", "never")
        assert done.returncode == 14 and f"pid {other.pid}" in done.stderr
    finally:
        other.communicate("")
    reader = subprocess.Popen(["/usr/bin/python3", "-c", "import sqlite3, sys\n"
                               "c = sqlite3.connect(sys.argv[1])\nc.execute('select 1 from migrations')"
                               "\nprint('up', flush=True)\nsys.stdin.read()",
                               data / "chroma.sqlite3"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        reader.stdout.readline()
        done = run("--dir", data, "--", "echo", "on")
        assert done.returncode == 0 and f"pid {reader.pid}" in done.stderr
    finally:
        reader.communicate("")


# ---- damage ----

def segment(data):
    return next(p for p in data.iterdir() if (p / "header.bin").exists())


def test_one_line_when_all_is_well(run, data):
    make("venv", data)
    done = run("--dir", data, "--", *load("venv", data))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        line for line in done.stderr.splitlines()
        if re.fullmatch(rf"chromashim: {data}: fine, 1 collection, 30 records, [\d.]+ .iB; Chroma 1.5.9",
                        line)]
    assert not run("-q", "--dir", data, "--", "true").stderr


def test_damage_that_a_start_would_make_worse(run, data):
    """Chroma would make an empty database in place of the one that is gone."""
    make("venv", data)
    (data / "chroma.sqlite3").unlink()
    before = digest(data)
    for options in (["--on-damage=refuse"], [], ["--on-damage=restore"]):
        done = run("--dir", data, *options, "--", "echo", "never")
        assert done.returncode == 1 and "database-missing" in done.stderr, done.stderr
        assert not done.stdout and digest(data) == before
        told = run("--check-only", "--dir", data, *options)
        assert told.returncode == 1 and "would heal" not in told.stderr, "what only looks knows it"


def test_the_newest_snapshot_is_restored(run, chromashim, data):
    make("venv", data)
    assert chromashim("snapshot", "create", data).returncode == 0
    (segment(data) / "index_metadata.pickle").write_bytes(b"\x80")
    done = run("--dir", data, "--on-damage=restore", "--", *load("venv", data))
    assert done.returncode == 0 and done.stdout == "1.5.9 30\n", done.stderr
    assert "the newest snapshot was restored" in done.stderr
    assert run("--check-only", "--dir", data).returncode == 0


def test_damage_is_healed_on_a_copy(run, data):
    make("venv", data)
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as database:
        database.execute("UPDATE max_seq_id SET seq_id = 99999999999999")
        database.commit()
    before = digest(data)
    # What only looks foretells what a start does, by the same settings.
    done = run("--check-only", "--dir", data)
    assert done.returncode == 3 and "would heal" in done.stderr and digest(data) == before
    assert run("--check-only", "--on-damage=refuse", "--dir", data).returncode == 1
    done = run("--check-only", "--on-damage=restore", "--dir", data)
    assert done.returncode == 1 and "no snapshot to restore" in done.stderr
    assert run("--on-damage=refuse", "--dir", data, "--", "true").returncode == 1
    done = run("--dir", data, "--", *load("venv", data, 5))
    assert done.returncode == 0 and done.stdout == "1.5.9 35\n", done.stderr
    assert "is damaged; healing it on a copy" in done.stderr and "is whole again" in done.stderr
    kept, = (data / ".chromashim/quarantine").iterdir()
    assert digest(kept) == before
    assert run("--check-only", "--dir", data).returncode == 0


def test_damage_that_cannot_be_healed_is_kept_and_the_rest_starts(run, data):
    make("venv", data)
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as database:
        database.execute("DELETE FROM embeddings_queue")
        database.commit()
    for name in ("data_level0.bin", "index_metadata.pickle"):
        path = segment(data) / name
        path.write_bytes(b"\xa5" * path.stat().st_size)  # all there, and all wrong
    done = run("--dir", data, "--", "echo", "on")
    assert done.returncode == 0 and done.stdout == "on\n", done.stderr
    assert "kept as snapshot 1" in done.stderr
    # The same damage is neither healed nor kept twice.
    done = run("--dir", data, "--", "true")
    assert done.returncode == 0 and "kept as snapshot" not in done.stderr
    assert "healing" not in done.stderr
    assert len(list((data / ".chromashim/snapshots").glob("*.manifest"))) == 1
    assert run("--dir", data, "--on-damage=refuse", "--", "true").returncode == 1


def test_a_full_disk_is_said_and_the_backend_starts(run, data):
    make("venv", data)
    done = run("--dir", data, "--", *load("venv", data), env={"CHROMASHIM_MIN_FREE": "900T,100%"})
    assert "the disk is nearly full" in done.stderr


def test_no_preflight(run, data):
    make("venv", data)
    (segment(data) / "index_metadata.pickle").unlink()
    done = run("--dir", data, "--no-preflight", "--", "echo", "on")
    assert done.returncode == 0 and done.stdout == "on\n" and not done.stderr
