# SPDX-License-Identifier: MIT
"""`chromashim report`: each number of it equals one that is computed apart from it, by the second
reader of the log; and whatever a name holds, it stays text."""

import collections
import html.parser
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

import hosts
from loads import Load

sys.path.insert(0, str(hosts.ROOT / "tests"))
import oplog_reader  # noqa: E402

pytestmark = pytest.mark.memory

WRITES = {"write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range", "splice"}
ACTS_ONLY = {"log.thread", "records", "records.purge", "collection", "segment", "migration", "vacuum", "disk"}
SYNCS = {"fsync", "fdatasync", "sync_file_range", "syncfs", "msync"}
RECORDS = 420  # of workload.life()
EVIL = "<img src=x onerror=alert(1)>\"'&\u202e</script>"


class Page(html.parser.HTMLParser):
    """Tables by their captions: rows of (words, number) with the head of each column."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.tags, self.words, self.numbers = {}, collections.Counter(), "", []
        self.into, self.cell, self.number = None, None, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags[tag] += 1
        if any(name.startswith("on") for name in attrs) or tag in ("script", "img", "iframe"):
            self.tags["evil"] += 1
        if tag == "table":
            self.rows, self.caption, self.into = [], "", None
        elif tag == "caption":
            self.into = "caption"
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell, self.into = "", "cell"
            self.number = int(attrs["data-n"]) if "data-n" in attrs else None
        if "data-n" in attrs:
            self.numbers.append(int(attrs["data-n"]))

    def handle_data(self, data):
        self.words += data
        if self.into == "caption":
            self.caption += data
        elif self.into == "cell":
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self.into == "cell":
            self.rows[-1].append(self.cell if self.number is None else self.number)
            self.into = None
        elif tag == "caption":
            self.into = None
        elif tag == "table":
            head, *rows = self.rows
            self.tables[self.caption] = [dict(zip(head, row)) for row in rows]

    def table(self, begins, key):
        rows, = [rows for caption, rows in self.tables.items() if caption.startswith(begins)]
        return {row[key]: row for row in rows}


def report(chromashim, directory, *options, codes=(0,)):
    done = chromashim("report", "-o", "-", "--utc", *options, directory)
    assert done.returncode in codes and not done.stderr, done.stderr
    return Page(done.stdout)


def records_of(directory):
    problems = []
    found = [r for r in oplog_reader.read_store(directory, problems) if r["op"] != "log.name"]
    found += [r for r in oplog_reader.read_acts(directory, problems) if r["op"] in ACTS_ONLY]
    assert not problems
    return sorted(found, key=lambda r: r["time"])


def live(data, shim, *parts, venv="venv"):
    subprocess.run([hosts.python(venv), hosts.WORKLOAD, data, *parts], check=True, timeout=120,
                   env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_WARN_FULL": "0"}),
                   stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def lived(tmp_path_factory, shim):
    """A life of real Chroma, seen to its end."""
    hosts.BY_NAME["python"].require()
    data = tmp_path_factory.mktemp("report") / "chroma_data"
    data.mkdir()
    live(data, shim, "life")
    return data


def names_of(data):
    """What the report calls files: by the collection whose index they are."""
    db = sqlite3.connect(f"file:{data}/chroma.sqlite3?mode=ro", uri=True)
    found = dict(db.execute("SELECT s.id, c.name FROM segments s JOIN collections c ON c.id = s.collection"))
    db.close()
    return found


def test_files(lived, chromashim):
    told = report(chromashim, lived).table("Files:", "File")
    names, wanted = names_of(lived), collections.defaultdict(collections.Counter)
    for r in records_of(lived):
        if not r.get("path") or r["in_flight"] or r["result"] < 0:
            continue
        segment, _, file = r["path"].partition("/")
        name = f"{names[segment]}: {file}" if segment in names else r["path"]
        if r["op"] in WRITES:
            wanted[name] += {"Written": r["result"], "Writes": 1}
        if r["op"] in SYNCS:
            wanted[name] += {"Syncs": 1, "Time in syncs": r["duration"]}
    wanted = {name: n for name, n in wanted.items() if n["Written"] and "/" not in name}
    assert {"chroma.sqlite3", "chroma.sqlite3-journal", "books: data_level0.bin"} <= set(wanted)
    for name, numbers in wanted.items():
        for column in ("Written", "Writes", "Syncs", "Time in syncs"):
            assert told[name][column] == numbers[column], (name, column)


def test_durations(lived, chromashim):
    told = report(chromashim, lived).table("Durations", "Operation")
    durations = collections.defaultdict(list)
    for r in records_of(lived):
        if r["in_flight"] or r["op"] in ACTS_ONLY:
            continue
        durations[r["op"]].append(r["duration"])
        if r["op"] in SYNCS:
            durations["Syncs"].append(r["duration"])
        if r["op"] in ("txn.commit", "txn.rollback", "txn.recover"):
            durations["Transactions"].append(r["duration"])
        if r["op"] == "persist.commit":
            durations["Index writes (persists)"].append(r["duration"])
    assert {"Transactions", "Syncs", "Index writes (persists)", "pwrite"} <= set(told)
    for name, row in told.items():
        all_ = sorted(durations[name])
        assert (row["Count"], row["Slowest"], row["Together"]) == (
            len(all_), all_[-1], sum(all_)), name
        for column, percent in (("Half within", 50), ("99 of 100", 99)):
            exact = all_[max(0, (len(all_) * percent + 99) // 100 - 1)]
            assert exact <= row[column] <= exact * 1.04 + 1, (name, column)


def test_transactions(lived, chromashim):
    page = report(chromashim, lived)
    records = records_of(lived)
    commits = [r for r in records if r["op"] == "txn.commit"]
    assert len(records) in page.numbers and len(commits) in page.numbers
    for caption, field, column in (("The slowest", "duration", "Took"),
                                   ("The transactions that", "length", "Written")):
        rows, = [rows for name, rows in page.tables.items() if name.startswith(caption)]
        best = sorted((r[field] for r in commits), reverse=True)[:len(rows)]
        assert len(rows) == 15 and [row[column] for row in rows] == best
    assert any("embeddings_queue" in row["What it was about"] for row in rows)
    process, = page.table("Processes", "Process").values()
    assert process["How it ended"] == "by itself" and process["Transactions"] == len(commits)
    assert process["Written"] == sum(r["result"] for r in records
                                     if r["op"] in WRITES and (r["result"] or 0) > 0)


def test_records_are_what_the_client_did(lived, chromashim):
    """Call by call, as workload.life() makes them; the collection that it deletes is still named."""
    page = report(chromashim, lived)
    told = page.table("Collections: records", "Collection")
    assert set(told) == {"books", "scrap"}
    columns = ("Added", "Updated", "Upserted", "Deleted")
    assert [told["scrap"][c] for c in columns] == [0, 0, 110, 0]
    upserted = RECORDS + 40
    assert [told["books"][c] for c in columns[:3]] == [0, 50, upserted]
    left = sqlite3.connect(f"file:{lived}/chroma.sqlite3?mode=ro", uri=True).execute(
        "SELECT count(*) FROM embeddings").fetchone()[0]
    assert told["books"]["Records now"] == left == RECORDS + 20 - told["books"]["Deleted"]
    assert re.search(r"A collection was deleted: scrap at .* by process \d+\. There is no snapshot", page.words)
    assert "Many records were deleted" not in page.words
    assert "in collection scrap" in page.words and "deleted" == told["scrap"]["Records now"]


def test_what_the_disk_lost(lived, chromashim):
    """Where each file's writes went furthest; what comes and goes does not count."""
    page, ends = report(chromashim, lived), collections.Counter()
    for r in records_of(lived):
        if r["op"] in WRITES and (r["result"] or 0) > 0 and not re.search("-(journal|wal|shm)$", r["path"]):
            ends[r["path"]] = max(ends[r["path"]], r["offset"] + r["result"])
    assert ends["chroma.sqlite3"] == (lived / "chroma.sqlite3").stat().st_size
    strip = page.words[page.words.index("Bytes that files grew by"):]
    told, unit = re.findall(r"([\d.]+) ([KM]iB)", strip[:strip.index("Syncs")])[-1]  # those before are of cells
    assert abs(float(told) * {"KiB": 1 << 10, "MiB": 1 << 20}[unit] / sum(ends.values()) - 1) < 0.06
    grown = page.words[page.words.index("Bytes grown, by file"):]
    grown = grown[:grown.index("The slowest and the largest")]
    assert "books: index" in grown and "chroma.sqlite3" in grown and "journal" not in grown


def test_a_quiet_day_is_said_to_be_one(lived, chromashim):
    page = report(chromashim, lived)
    assert "Nothing went wrong" in page.words and "The directory is whole" in page.words
    assert "it ended by itself" in page.words and "Nothing was cut off" in page.words


def test_one_file_and_nothing_from_elsewhere(lived, chromashim, tmp_path):
    out = tmp_path / "report.html"
    done = chromashim("report", "-o", out, lived)
    assert done.returncode == 0 and str(out) in done.stdout
    text = out.read_text(encoding="utf-8")
    assert len(text) < 2_000_000 and "default-src 'none'" in text
    assert not re.search(r"https?://|src=|url\(|@import|<script|<link", text)
    page = Page(text)
    assert not page.tags["evil"] and page.tags["table"] == page.tags["caption"]
    assert page.tags["figure"] == page.tags["figcaption"]
    assert "prefers-color-scheme:dark" in text and "@media print" in text


def test_a_kill_is_told(data, shim, chromashim):
    hosts.BY_NAME["python"].require()
    load = Load(hosts.BY_NAME["python"], str(data), shim)
    load.wait_for(20)
    load.stop()
    pid = load.child.pid
    page = report(chromashim, data)
    last = max(r["time"] for r in records_of(data) if r["pid"] == pid)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(last // 10**9))
    assert "Something went wrong" in page.words and "1 process that wrote died" in page.words
    assert re.search(rf"{when} UTC: process {pid} .*it was killed from outside", page.words)
    told = {row["What"]: row for row in next(
        rows for name, rows in page.tables.items() if name.startswith("What happened"))}
    assert told["process died"]["Process"] == str(pid)
    assert "There is no snapshot to go back to" in page.words


FEW_AT_ONCE = textwrap.dedent("""
    import sys, chromadb
    from chromadb.config import Settings
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
    for name, threshold, times in ("often", 20, 18), ("oftener", 20, 20):
        c = client.create_collection(name, metadata={"hnsw:sync_threshold": threshold, "hnsw:batch_size": 10})
        for n in range(times):
            c.add(ids=[f"{n}-{i}" for i in range(20)], embeddings=[[n, i] * 1024 for i in range(20)])
""")


def test_a_second_writer_is_told_to_the_end(data, actors, chromashim):
    """Who it was, and what to do: the advice comes last."""
    first, second = (actors().sqlite(data) for _ in range(2))
    first.do("db.execute('CREATE TABLE t(x)')")
    assert second.fails("db.execute('INSERT INTO t VALUES(1)')")
    said = next(line for line in second.lines() if "only one process may" in line)
    page = report(chromashim, data)
    assert said.removeprefix("chromashim: ") in page.words and len(said) > 300, page.words


def test_persists_that_come_too_often(data, shim, chromashim):
    """What is the same for two collections is said once, with the numbers of each; and the steps that made
    the tables are one row."""
    hosts.BY_NAME["python"].require()
    subprocess.run([hosts.python("venv"), "-c", FEW_AT_ONCE, data], check=True, timeout=60,
                   env=hosts.environment({"LD_PRELOAD": shim}))
    page, names = report(chromashim, data), names_of(data)
    persists = collections.Counter(names[r["path"].partition("/")[0]] for r in oplog_reader.read_acts(data)
                                   if r["op"] == "persist.commit")
    assert page.words.count("Write indexes less often.") == page.words.count("Nothing becomes less safe") == 1
    told = dict(re.findall(r"Collection (\w+): you persist every \d+ records; in this time that happened "
                           r"(\d+) times", page.words))
    assert told == {name: str(persists[name]) for name in ("often", "oftener")}
    assert "With hnsw:sync_threshold of 200 it is a tenth" in page.words
    steps, = [row for name, rows in page.tables.items() if name.startswith("What happened")
              for row in rows if row["What"] == "upgrade of the tables"]
    assert re.fullmatch(r"\d\d steps, the last embeddings_queue 0000\d-[-\w]+\.sqlite\.sql", steps["About"])


SCRIPT = textwrap.dedent("""
    import os, sqlite3, sys
    root, evil = sys.argv[1:]
    db = sqlite3.connect(root + "/chroma.sqlite3")
    db.execute("UPDATE collections SET name = ?", (evil,))
    db.commit()
    db.execute('CREATE TABLE "%s"(x)' % evil.replace('"', '""'))
    db.execute('INSERT INTO "%s" VALUES(1)' % evil.replace('"', '""'))
    db.commit()
    f = os.open(root + "/" + evil.replace("/", "_"), os.O_RDWR | os.O_CREAT)
    os.write(f, b"x" * 70000)
    os.close(f)
""")


def test_names_stay_text(lived, shim, chromashim, tmp_path):
    data = tmp_path / "chroma_data"
    subprocess.run(["cp", "-r", lived, data], check=True)
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", SCRIPT, data, EVIL], check=True,
                   env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}))
    page = report(chromashim, data)
    assert not page.tags["evil"]
    shown = EVIL.replace("\u202e", "\ufffd")
    assert shown + ": data_level0.bin" in page.table("Files:", "File")
    assert shown.replace("/", "_") in page.table("Files:", "File")
    assert shown in page.table("Collections: records", "Collection")
    assert page.words.count(shown) >= 4 and "\u202e" not in page.words
    command, = [row["Command"] for row in page.table("Processes", "Process").values()
                if "-I -S -c" in row["Command"]]
    assert command.startswith("/usr/bin/python3")


def test_a_span(lived, chromashim):
    records = records_of(lived)
    middle = records[len(records) // 2]["time"]
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(middle // 10**9)) + f".{middle % 10**9:09}Z"
    later = report(chromashim, lived, "--since", since)
    assert sum(r["time"] >= middle for r in records) in later.numbers
    a_second_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(records[-1]["time"] // 10**9 - 1))
    soon = report(chromashim, lived, "--since", a_second_ago)
    assert re.search(r"(\d\d:\d\d:\d\d\.\d{3}){3}", soon.words), "seconds would be the same"
    assert chromashim("report", "-o", "-", "--until", "400d", lived).returncode == 12


def test_what_is_asked_wrongly(lived, chromashim, tmp_path):
    for options in ([lived], ["-o", "-", "--since", "nonsense", lived], ["-o", "-", lived, lived]):
        done = chromashim("report", *options)
        assert done.returncode == 2 and not done.stdout and done.stderr
    assert chromashim("report", "-o", "-", tmp_path).returncode == 12
    done = chromashim("report", "-o", tmp_path / "none" / "report.html", lived)
    assert done.returncode != 0 and done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content, says", [(None, "there is no op log"), ({}, "is empty"),
                                           ({"0000000000000001-1-000000.oplog": b"x" * 9000}, "can be read")])
def test_a_store_without_anything(tmp_path, chromashim, content, says):
    """Empty, or all of it damaged: no word of a time that nobody has asked for."""
    (tmp_path / "chroma.sqlite3").touch()
    folder = tmp_path / ".chromashim" / ("x" if content is None else "oplog")
    folder.mkdir(parents=True)
    for name, text in (content or {}).items():
        (folder / name).write_bytes(text)
    for verb in (["report", "-o", "-"], ["blame"]):
        done = chromashim(*verb, tmp_path)
        assert done.returncode == (10 if content is None else 12) and not done.stdout
        assert says in done.stderr and "--since" not in done.stderr


def test_free_room_by_time(data, chromashim):
    """Told each minute; here each time that it is looked at."""
    script = """
        import sqlite3, sys
        db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
        db.execute("CREATE TABLE t (a)")
        print(flush=True)
        while db.execute("SELECT count(*) FROM t").fetchone()[0] < 100000:
            db.execute("INSERT INTO t VALUES (1)")
    """
    settings = {"LD_PRELOAD": str(hosts.BUILD / "libchromashim-faults.so"), "CHROMASHIM_BOUNDS": "disk=1"}
    with subprocess.Popen([hosts.python("venv").resolve(), "-I", "-S", "-c", textwrap.dedent(script), data],
                          env=hosts.environment(settings), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        until = time.monotonic() + 60
        while len(found := [r for r in oplog_reader.read_acts(data) if r["op"] == "disk"]) < 2:
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        process.kill()
    room = os.statvfs(data)
    total = (room.f_blocks - room.f_bfree + room.f_bavail) * room.f_frsize
    assert all(0 <= r["offset"] <= r["length"] and abs(r["length"] - total) < total / 50 for r in found)
    assert "are free on the disk" in chromashim("log", "-v", data).stdout
    assert "are free on the disk" not in chromashim("log", data).stdout
    assert "Free on the disk, the least" in chromashim("report", "-o", "-", data).stdout
    assert not [r for r in oplog_reader.read_store(data) if r["op"] == "disk"], "among the acts alone"
