# SPDX-License-Identifier: MIT
"""`chromashim log --sql` and `--export`: the log as tables, and for other tools."""

import csv
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess

import pytest

import hosts
import made_acts as made
from test_log import start, stop
from test_log_acts import LOAD

pytestmark = pytest.mark.memory


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, shim):
    directory = tmp_path_factory.mktemp("sql") / "chroma_data"
    directory.mkdir()
    stop(start(directory, shim))
    shutil.rmtree(directory / ".chromashim/acts", ignore_errors=True)
    made.make(directory, LOAD)
    return directory


@pytest.fixture
def ask(loaded, chromashim):
    """The rows of a query, as objects."""
    def rows(query, *options):
        done = chromashim("log", "--json", "--sql", query, *options, loaded)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return rows


def test_tables(ask):
    record, more = ask("SELECT * FROM records ORDER BY time")
    assert (record["collection"], record["upserted"], record["deleted"], record["records"]) == \
        ("conversations", 100, 3, 103)
    assert (record["first_seq"], record["last_seq"], record["process"], record["thread"]) == \
        (1, 103, "ingest.py", "tokio-worker-3")
    assert json.loads(record["ids"]) == ["doc-1", "doc-2"] and more["at_least"] == 1
    persist, = ask("SELECT * FROM persists")
    assert (persist["collection"], persist["outcome"], persist["duration_ns"], persist["segment"]) == \
        ("conversations", "commit", 380000000, made.SEGMENT)
    slow, = ask("SELECT number, pages FROM transactions WHERE duration_ns > 200000000")
    assert slow == {"number": 4, "pages": 13}
    assert [p["process"] for p in ask("SELECT process FROM processes")] == ["script.py", "ingest.py"]
    assert ask("SELECT words FROM acts WHERE failed") == [{"words": "refused: this is not the writer"}]
    assert {f["severity"] for f in ask("SELECT DISTINCT severity FROM findings")} <= \
        {"note", "warning", "damage", "unknown"}
    assert ask("SELECT count(*) n FROM snapshots")[0]["n"] >= 0
    assert ask("SELECT count(*) n FROM ops")[0]["n"] > ask("SELECT count(*) n FROM log")[0]["n"]


def test_columns_are_those_of_the_help(ask, chromashim):
    """What `help log` says of a table is what it has."""
    text = chromashim("help", "log").stdout
    text = text[text.index("Tables of --sql"):]
    for table in ("ops", "acts", "records", "transactions", "persists", "snapshots", "findings", "processes"):
        said = re.search(rf"^  {table} +((?:[^\n]|\n {{16}})+)", text, re.M)[1]
        columns = [c["name"] for c in ask(f"PRAGMA table_info({table})")]
        wanted = set(re.findall(r"\w+", said))
        assert wanted <= set(columns), table
        assert set(columns) - wanted <= {"time", "time_ns", "pid", "tid", "process"}, table


# In the second form a comment keeps the query from being grouped here, and SQLite does it.
GROUPED = [
    "SELECT op, count(*) FROM ops GROUP BY op ORDER BY op",
    "SELECT op AS what, count(*) n, sum(length), avg(duration_ns) mean FROM ops GROUP BY what ORDER BY n DESC, what",
    "SELECT path, op, min(time), max(time), total(length) FROM ops WHERE op GLOB 'p*' GROUP BY 1, 2 ORDER BY path, op",
    "SELECT substr(time, 1, 19) AS second, count(*) FROM log GROUP BY second HAVING count(*) > 1 ORDER BY 1 LIMIT 3",
    "SELECT count(*) * 2 + 1, max(length) - min(length), op FROM ops WHERE op IN ('pwrite', 'open', 'x') "
    "GROUP BY op ORDER BY max(length) - min(length), op",
    "SELECT collection, sum(upserted), sum(added), count(ids), sum(deleted) / 2.0 FROM records GROUP BY collection",
    "SELECT length % 7 AS rest, count(path2), min(path), max(errno) FROM ops GROUP BY length % 7 ORDER BY rest",
    "SELECT CASE WHEN failed THEN 'bad' ELSE 'good' END AS how, count(*) FROM ops GROUP BY how ORDER BY how",
    "SELECT pid > 0 AND length IS NOT NULL, count(errno) FROM ops GROUP BY 1 ORDER BY 1",
    "SELECT op, path FROM log GROUP BY op, path ORDER BY path, op",
    # what is left to SQLite
    "SELECT op, count(DISTINCT path) FROM ops GROUP BY op ORDER BY op",
    "SELECT \"op\", count(*) FROM ops GROUP BY op ORDER BY \"op\"",
    "SELECT o.op, count(*) FROM ops o GROUP BY o.op ORDER BY 1",
    "SELECT op, count(*) FROM (SELECT op FROM ops WHERE length > 5) GROUP BY op ORDER BY op",
    "SELECT p.process, count(*) FROM ops JOIN processes p USING (pid) GROUP BY p.process ORDER BY 1",
]


@pytest.mark.parametrize("query", GROUPED)
def test_groups_are_those_of_sqlite(ask, query):
    mine = ask(query)
    assert mine and mine == ask(query.replace("GROUP BY", "/**/ GROUP BY"))


def test_what_a_query_says_is_looked_at_first(ask):
    times = [r["time_ns"] for r in ask("SELECT time_ns FROM ops")]
    assert times == sorted(times)
    middle = times[len(times) // 2]
    for clause in (f"time_ns >= {middle}", f"time_ns < {middle}", f"time_ns = {middle}",
                   "time >= '2026-01-01' AND time < '2999'", "op = 'pwrite'", "op GLOB 'txn.*'", "op = NULL",
                   "op IN ('fsync', 'rename')", "path = 'notes'", "collection = 'conversations'", "time > '1999'",
                   "path = 'notes' AND op = 'pwrite'", "pid = 1", "op = 'nonsense'", "time LIKE '2%'"):
        got = ask(f"SELECT * FROM ops WHERE {clause}")
        assert got == ask(f"SELECT * FROM (SELECT * FROM ops LIMIT -1) WHERE {clause}"), clause


def test_forms(loaded, chromashim):
    query = "SELECT op, count(*) AS n, NULL AS none FROM ops WHERE op = 'fsync' GROUP BY op"
    assert chromashim("log", "--sql", query, loaded).stdout == "fsync\t1\t\n"
    assert chromashim("log", "--sql", query, "--table", loaded).stdout == \
        "op     n  none\n-----  -  ----\nfsync  1      \n"
    assert chromashim("log", "--sql", query, "--csv", loaded).stdout == "op,n,none\nfsync,1,\n"


@pytest.mark.parametrize("query", ["SELECT nonsense", "SELECT * FROM nothing", "DELETE FROM processes",
                                   "CREATE TABLE x(a)", "ATTACH '/tmp/x' AS y", "SELECT load_extension('x')",
                                   "PRAGMA temp_store=1", "VACUUM", "VACUUM INTO '/tmp/chromashim-x.db'",
                                   "SELECT fts3_tokenizer('simple')", "SELECT op, count(*) FROM ops GROUP BY"])
def test_what_a_query_may_not(loaded, chromashim, query):
    done = chromashim("log", "--sql", query, loaded)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith("chromashim: --sql: ")
    assert not os.path.exists("/tmp/chromashim-x.db")


def test_a_join_reads_the_log_once_for_each_row_of_the_smaller(ask):
    """A pass over the log for each act of one kind, not for each call."""
    plan = ask("EXPLAIN QUERY PLAN SELECT count(*) FROM ops p JOIN ops o ON o.time_ns = p.time_ns "
               "WHERE o.op = 'vacuum'")
    assert [row["detail"].split()[1] for row in plan] == ["o", "p"]


def test_no_file_is_made(loaded, chromashim, strace, tmp_path):
    """Not even where SQLite sorts all rows."""
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-e", "trace=openat,open", "-o", trace, hosts.COMMAND, "log", "--sql",
                    "SELECT * FROM ops a ORDER BY a.length, a.detail", loaded], check=True, env=hosts.environment(),
                   stdout=subprocess.DEVNULL)
    assert "O_CREAT" not in trace.read_text()


def test_damage_is_told(loaded, tmp_path, chromashim):
    copy = tmp_path / "chroma_data"
    shutil.copytree(loaded, copy)
    for file in (copy / ".chromashim/oplog").iterdir():
        with open(file, "r+b") as f:
            f.seek(4096 + 64 * 5 + 40)
            f.write(b"xx")
    done = chromashim("log", "--sql", "SELECT count(*) FROM ops", copy)
    assert done.returncode == 3 and "damaged" in done.stderr and int(done.stdout) > 10


# ---- export ----

@pytest.fixture
def exported(loaded, chromashim, tmp_path):
    def run(form, *options):
        path = tmp_path / form
        done = chromashim("log", "--export", f"{form}={path}", *options, loaded)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return path

    return run


def test_export_sqlite(exported, ask, chromashim, loaded):
    path = exported("sqlite")
    db = sqlite3.connect(path)
    for table in ("ops", "acts", "records", "transactions", "persists", "processes"):
        count, = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert count == ask(f"SELECT count(*) n FROM {table}")[0]["n"], table
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_export_csv(exported, ask):
    rows = list(csv.DictReader(io.StringIO(exported("csv").read_text(), newline="")))
    assert [r["op"] for r in rows if r["op"] != "log.thread"] == [r["op"] for r in ask("SELECT op FROM ops")]
    assert any(r["words"].startswith("conversations: 100 upserted") for r in rows)


def test_export_perfetto(exported, ask):
    """The JSON of trace events: each call and act once, slices with their time in microseconds."""
    events = json.loads(exported("perfetto").read_text())["traceEvents"]
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert {"ingest.py", "script.py", "tokio-worker-3"} <= names
    told = [e for e in events if e["ph"] != "M"]
    assert [e["name"] for e in told] == [r["op"] for r in ask("SELECT op FROM ops")]
    persist, = [e for e in told if e["name"] == "persist.commit"]
    assert persist["ph"] == "X" and persist["dur"] == 380000 and persist["args"]["collection"] == "conversations"
    ended, = ask("SELECT time_ns FROM persists")
    assert abs(persist["ts"] + persist["dur"] - ended["time_ns"] / 1000) < 1


def test_export_strace(exported, ask):
    line = re.compile(r'^(\d+) +(\d+\.\d{6}) (\w+)\((.*)\) = (-?\d+)(?: (E\w+) \(.*\))? <(\d+\.\d{6})>$')
    lines = exported("strace").read_text().splitlines()
    assert all(line.match(x) for x in lines)
    assert any(x for x in lines if "unlink(" in x and "= -1 ENOENT (No such file or directory)" in x)
    assert any('rename("notes", "renamed") = 0' in x for x in lines)
    assert len(lines) == ask("SELECT count(*) n FROM log WHERE op NOT GLOB 'log.*' AND op NOT GLOB 'txn.*' "
                             "AND op NOT GLOB 'snapshot.*'")[0]["n"]


def test_export_to_a_full_disk(loaded, chromashim, small_disk):
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    for form in ("sqlite", "csv", "perfetto", "strace"):
        done = chromashim("log", "--export", f"{form}={small_disk / form}", loaded)
        assert done.returncode == 13, (form, done.stderr)
    assert os.listdir(small_disk) == ["filler"]


def test_export_writes_over_nothing(exported, chromashim, loaded):
    for form in ("sqlite", "csv", "perfetto", "strace"):
        path = exported(form)
        before = path.read_bytes()
        done = chromashim("log", "--export", f"{form}={path}", loaded)
        assert (done.returncode, done.stderr) == (2, f"chromashim: '{path}' is there already\n"
                                                  "  Name another file, or remove this one.\n"), form
        assert path.read_bytes() == before
    done = chromashim("log", "--export", "csv=/dev/stdout", loaded)
    assert done.returncode == 0 and done.stdout == (path.parent / "csv").read_text(encoding="utf-8")


def test_export_of_what_is_no_form(loaded, chromashim):
    for what in ("x=y", "csv", "csv=", "perfetto"):
        assert chromashim("log", "--export", what, loaded).returncode == 2
