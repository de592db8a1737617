# SPDX-License-Identifier: MIT
"""Incidents made for real; whoever has only the report (or `log --last-crash`) knows cause, moment and
loss. A kill is in test_report.py."""

import contextlib
import json
import re
import sqlite3
import subprocess
import textwrap
import time


import hosts
from test_report import report

LOAD = textwrap.dedent("""
    import sys, chromadb, numpy as np
    from chromadb.config import Settings
    path, what = sys.argv[1:]
    client = chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))
    books = client.get_or_create_collection("books", metadata={"hnsw:sync_threshold": 100, "hnsw:batch_size": 50})
    def put(ids):
        books.upsert(ids=ids, embeddings=np.random.default_rng(1).random((len(ids), 16), dtype=np.float32).tolist())
    if what == "load":
        put([f"i{n}" for n in range(700)])
    elif what == "delete":
        books.delete(ids=[f"i{n}" for n in range(600)])
    elif what == "count":
        assert books.count() > 0
    else:
        put([what])
        sys.exit(int(what))
""")


def do(venv, data, shim, what, run=False, status=0):
    """A process of Chroma; its pid."""
    command = [hosts.python(venv), "-c", LOAD, data, what]
    if run:
        command = [hosts.COMMAND, "run", "--no-guard", "--dir", data, "--", *command]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True,
                          env=hosts.environment({} if run else {"LD_PRELOAD": shim})) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    return process.pid


def test_upgrade_downgrade_and_exit_code(data, shim, chromashim):
    for host in "python", "python-0.6":
        hosts.BY_NAME[host].require()
    do("venv-0.6", data, shim, "load", run=True)
    upgrade = do("venv", data, shim, "count", run=True)
    do("venv", data, shim, "count", run=True)  # which releases wrote it is known from the next start on
    older = do("venv-0.6", data, shim, "count")
    last = do("venv", data, shim, "3", status=3)
    page = report(chromashim, data)
    words = page.words
    assert page.table("Processes", "Process")[str(last)]["How it ended"] == "status 3"
    assert re.search(rf"A newer Chroma has upgraded the tables at .* \(process {upgrade}, 3 steps", words)
    assert re.search(r"upgraded the tables.*Snapshot \d+ of .* is from before", words)
    assert re.search(rf"An older Chroma was started here at .* \(process {older}\): the database was written "
                     r"by a newer Chroma \(1\.5\.\d to 1\.5\.9\); this one is 0\.6\.3", words)
    # The last one that wrote, though it gave the right to write back; with Chroma 0.6 all persists ended.
    assert re.search(rf"process {last} .*it ended by itself\. Its exit status was 3", words)
    assert "Nothing was cut off" in words and "in collection books (number 701 of the queue)" in words
    assert "ended by itself with exit status 3 at" in chromashim("log", "--last-crash", data).stdout
    told = json.loads(chromashim("log", "--last-crash", "--json", data).stdout)
    assert (told["pid"], told["exit_status"], told["open_persists"]) == (last, 3, [])
    assert "ended by itself, with exit status 3" in chromashim("log", data).stdout
    assert chromashim("log", data).stdout.count("exit status") == 1


def test_mass_deletion_and_restore(data, shim, chromashim):
    hosts.BY_NAME["python"].require()
    do("venv", data, shim, "load")
    made = chromashim("snapshot", "create", data)
    assert made.returncode == 0, made.stderr
    culprit = do("venv", data, shim, "delete")
    words = report(chromashim, data).words
    assert re.search(rf"Many records were deleted: 600 from collection books, most of them at [-0-9: .]+UTC by "
                     rf"process {culprit} \(600 in one go\)\. Snapshot \d+ of .* is from before", words)
    assert re.search(r"The newest, number \d+ of .*, would lose 600 changes of records", words)
    assert re.search(r"(verified|complete)asked for", words), "why there is a snapshot"
    done = chromashim("restore", "-y", "--to", "latest", data)
    assert done.returncode == 0, done.stderr
    words = report(chromashim, data).words
    assert re.search(r"The directory was restored from a snapshot after .*; what was there before is snapshot \d+", words)
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        assert db.execute("SELECT count(*) FROM embeddings").fetchone() == (700,)


WRITER = textwrap.dedent("""
    import os, sqlite3, sys, time
    db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    for _ in range(int(sys.argv[2])):
        db.execute("INSERT INTO t VALUES (zeroblob(500000))")
    print("ready", flush=True)
    sys.stdin.readline()
""")


def writer(data, shim, times, **env):
    return subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", WRITER, data, str(times)], text=True,
                            env=hosts.environment({"LD_PRELOAD": shim, **env}), stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_second_writer_and_growth(data, shim, chromashim):
    with writer(data, shim, 160) as first:
        assert first.stdout.readline() == "ready\n"
        with writer(data, shim, 1) as second:
            assert second.wait(30) == 1
        words = report(chromashim, data).words
        first.communicate("\n", 30)
    assert re.search(r"Something went wrong in this time: .*refused", words)
    assert "A second process wanted to write once and was refused" in words
    assert re.search(rf"A second process wanted to write, and was refused at [-0-9: ]+UTC \(process {second.pid}\): "
                     rf".*process {first.pid} ", words)
    assert re.search(r"The database has grown from .* to 7\d\.\d MiB", words)


def test_full_disk(small_disk, shim, chromashim):
    data = small_disk / "chroma_data"
    data.mkdir()
    begin = time.time()
    with writer(data, shim, 100, CHROMASHIM_MIN_FREE="8M") as process:
        _, errors = process.communicate("\n", 60)
    assert process.returncode == 1 and "full" in errors
    page = report(chromashim, data)
    assert re.search(r"A write was refused, since the disk was nearly full at [-0-9: ]+UTC "
                     rf"\(process {process.pid}\): ", page.words)
    told = {row["What"]: row for row in next(
        rows for name, rows in page.tables.items() if name.startswith("What happened"))}
    refused = told["a write was refused: no room on the disk"]
    assert refused["Process"] == str(process.pid)
    assert time.strftime("%Y-%m-%d %H", time.gmtime(begin)) in refused["When"]


def test_slow_disk(data, shim, chromashim, strace, tmp_path):
    """Each sync takes a quarter of a second."""
    subprocess.run(["strace", "-f", "-o", tmp_path / "trace", "-e", "trace=fsync,fdatasync", "-e",
                    "inject=fsync,fdatasync:delay_exit=250000", "-E", f"LD_PRELOAD={shim}",
                    "/usr/bin/python3", "-I", "-S", "-c", WRITER, data, "3"], check=True, input="\n", text=True,
                   env=hosts.environment(), stdout=subprocess.DEVNULL)
    page = report(chromashim, data)
    syncs = page.table("Durations", "Operation")["Syncs"]
    assert syncs["Half within"] >= 250_000_000 and syncs["Count"] >= 6
    rows, = [rows for name, rows in page.tables.items() if name.startswith("The slowest")]
    assert rows[0]["Took"] >= 500_000_000
    assert "disk" in page.words


