# SPDX-License-Identifier: MIT
"""`chromashim log` as it is opened first: acts, in Chroma's words. On logs that were made."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import xxhash

import hosts
import made_acts as made
from made_acts import told
from test_log import start, stop

pytestmark = pytest.mark.memory

LOAD = [
    made.start("/usr/bin/python3 -u /srv/ingest.py --all"),
    made.thread(7, "tokio-worker-3"),
    made.collection(1, "talks"), made.segment(), made.commit(1, 12.5),
    made.collection(2, "conversations\0talks", 2), made.commit(2, 1),
    made.records(1, 3, upserted=100, deleted=3, ids=["doc-1", "doc-2"], tid=7), made.commit(3, 22.25, tid=7),
    made.records(104, 4, added=7, more=True), made.commit(4, 250),
    made.persist(144), made.persist(145, 380, sync_ms=290),
    made.act(209, offset=1, length=103, result=103, arg=5, kind=made.NAME_COLLECTION, name=made.COLLECTION),
    made.commit(5, 1),
    made.act(160, length=100000, arg=4, text="before-schema"),
    made.act(176, result=-8, kind=made.FILE, name="chroma.sqlite3", text="chromashim: this is not the writer"),
    made.act(212, offset=3, arg=6, text="sysdb 00003-x.sqlite.sql"), made.commit(6, 1),
    made.act(213, offset=12 << 20, length=8 << 20),
    made.collection(4, "conversations", 7), made.commit(7, 1),
    made.end(15),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, shim):
    """A store with a process of before there were acts, and one whose acts were made."""
    directory = tmp_path_factory.mktemp("acts") / "chroma_data"
    directory.mkdir()
    stop(start(directory, shim))
    shutil.rmtree(directory / ".chromashim/acts", ignore_errors=True)
    made.make(directory, LOAD)
    return directory


@pytest.fixture
def words(loaded, chromashim):
    """The words of the made process's acts with some options."""
    def ask(*options):
        return [a["words"] for a in told(chromashim("log", "--json", *options, loaded))
                if a["process"] == "ingest.py"]

    return ask


def test_words(words):
    assert words() == [
        "started: /usr/bin/python3 -u /srv/ingest.py --all",
        "collection talks created",
        "collection conversations renamed, it was called talks",
        "conversations: 100 upserted, 3 deleted (seq 1-103)",
        "conversations: at least 7 added (seq 104-110)",
        "collection conversations: 110 records to disk, 290.0 ms of it syncing",
        "conversations: 103 records taken out of the queue (seq 1-103)",
        "snapshot 4 taken: before-schema",
        "refused: this is not the writer",
        "the database was upgraded: migration sysdb 00003-x.sqlite.sql",
        "the database was written anew (vacuum): 12.0 MiB before, 8.0 MiB after",
        "collection conversations deleted",
        "was stopped by SIGTERM, and ended in order"]


def test_a_line(loaded, chromashim):
    shown = chromashim("log", loaded).stdout
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}  ingest\.py\[\d+\] tokio-worker-3 +22\.2 ms  "
                     r"conversations: 100 upserted, 3 deleted \(seq 1-103\)$", shown, re.M), shown
    assert re.search(r"  script\.py\[\d+\] .* started: .*script\.py", shown), shown
    assert re.search(r"  script\.py\[\d+\] .* transaction 1 committed, .*the schema changed", shown), shown


def test_an_act_as_an_object(loaded, chromashim):
    act, = told(chromashim("log", "--json", "--id", "doc-2", loaded))
    assert {k: act[k] for k in ("op", "collection", "collection_id", "added", "upserted", "deleted", "first_seq",
                                "last_seq", "transaction", "duration_ns", "thread", "process", "ids")} == {
        "op": "records", "collection": "conversations", "collection_id": made.COLLECTION, "added": 0,
        "upserted": 100, "deleted": 3, "first_seq": 1, "last_seq": 103, "transaction": 3,
        "duration_ns": 22250000, "thread": "tokio-worker-3", "process": "ingest.py",
        "ids": [{"change": "upsert", "id": "doc-1"}, {"change": "upsert", "id": "doc-2"}]}


def test_which(words):
    assert len(words("--collection", "conversations")) == 7
    assert words("--collection", "talks") == words("--collection", made.COLLECTION) == \
        words("--collection", "conversations")
    assert words("--slower-than", "100ms") == ["conversations: at least 7 added (seq 104-110)",
                                               "collection conversations: 110 records to disk, 290.0 ms of it syncing"]
    assert words("--top", "2") == ["collection conversations: 110 records to disk, 290.0 ms of it syncing",
                                   "conversations: at least 7 added (seq 104-110)"]
    assert words("--failed") == ["refused: this is not the writer"]
    assert words("--op", "txn.commit", "--slower-than", "20ms") == [
        "chroma.sqlite3: transaction 3 committed, 13 pages, 52.0 KiB written",
        "chroma.sqlite3: transaction 4 committed, 13 pages, 52.0 KiB written"]
    assert words("--tid", "7") == ["conversations: 100 upserted, 3 deleted (seq 1-103)"]
    assert words("--since", "today", "--until", "today") == words("--until", "yesterday") == []
    assert words("--since", "yesterday", "--until", "now") == words()
    assert len(words("-v")) > len(words())


def test_nobody_of_that_name(loaded, chromashim):
    done = chromashim("log", "--collection", "others", loaded)
    assert done.returncode == 12 and "'others'" in done.stderr
    done = chromashim("log", "--id", "doc-3", loaded)
    assert done.returncode == 0 and done.stdout == "" and "'doc-3'" in done.stderr


def test_a_hashed_id(tmp_path, loaded, chromashim):
    copy = tmp_path / "chroma_data"
    shutil.copytree(loaded, copy)
    shutil.rmtree(copy / ".chromashim/acts")
    identity = (loaded / ".chromashim/identity").read_text()
    seed = int.from_bytes(bytes.fromhex(re.search(r"\b([0-9a-f]{32})\b", identity)[1])[:8], "little")
    hashed = [xxhash.xxh3_64_intdigest(id, seed=seed).to_bytes(8, "little") for id in ("doc-7", "doc-8")]
    made.make(copy, [made.start("x"), made.records(1, 1, added=2, ids=hashed, hashed=True), made.commit(1, 1)])
    # A copy has an id of its own once it is used; the log's hashes are of the store that they were made in.
    found = [len(told(chromashim("log", "--json", "--id", id, copy))) for id in ("doc-7", "doc-8", "doc-9")]
    assert found == [1, 1, 0]
    assert "doc-7" not in chromashim("log", "--json", copy).stdout


def test_as_strace_has_it(loaded, chromashim):
    spent = chromashim("log", "-T", "-r", "--collection", "talks", loaded).stdout.splitlines()
    assert spent[0].split()[0] == "0.000000" and spent[2].endswith("(seq 1-103) <0.022250>")
    counts = chromashim("log", "-c", "--acts", loaded).stdout.splitlines()
    assert counts[0].split()[:2] == ["%", "time"] and "total" in counts[-1]
    rows = [line.split() for line in counts[2:-2]]
    assert [float(r[1]) for r in rows] == sorted((float(r[1]) for r in rows), reverse=True)
    assert [r[1] for r in rows if r[-1] == "persist.commit"] == ["0.380000"]
    calls = chromashim("log", "-T", "-P", "notes", loaded).stdout
    assert re.search(r"pwrite +notes @7 \+5 += 5 <0\.\d{6}>", calls)
    assert {r["op"] for r in told(chromashim("log", "--json", "--op", "fsync", loaded))} == {"fsync"}


def test_processes(loaded, chromashim):
    old, new = told(chromashim("log", "--processes", "--json", loaded))
    assert (old["ended"], old["process"], old["records"]) == ("exit", "script.py", 0)
    assert (new["ended"], new["process"], new["records"], new["persists"], new["refused"]) == \
        ("stop", "ingest.py", 110, 1, 1)
    assert "ingest.py" in chromashim("log", "--processes", loaded).stdout


def test_transactions_have_their_acts(loaded, chromashim):
    shown = chromashim("log", "--transactions", loaded).stdout
    assert re.search(r"#3 +22\.2 ms .* conversations: 100 upserted, 3 deleted", shown), shown
    assert "CREATE TABLE fruit" in shown


def test_a_death_stands_after_the_last_act(tmp_path, shim, chromashim):
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    process = start(directory, shim)
    process.send_signal(signal.SIGKILL)
    stop(process)
    shutil.rmtree(directory / ".chromashim/acts", ignore_errors=True)
    made.make(directory, LOAD)
    ops = [(a["process"], a["op"]) for a in told(chromashim("log", "--json", directory))]
    assert ops.index(("script.py", "death")) < ops.index(("ingest.py", "log.start"))
    assert told(chromashim("log", "--json", "--op", "death", directory))[0]["pid"] == process.pid
    assert [p["ended"] for p in told(chromashim("log", "--processes", "--json", directory))] == ["death", "stop"]


def test_follow(loaded, tmp_path, chromashim):
    copy = tmp_path / "chroma_data"
    shutil.copytree(loaded, copy)
    follower = subprocess.Popen([str(hosts.COMMAND), "log", "-f", "--json", "--op", "records", str(copy)],
                                stdout=subprocess.PIPE, text=True)
    try:
        assert "100 upserted" in follower.stdout.readline() and "7 added" in follower.stdout.readline()
        subprocess.run([made.maker(), copy / ".chromashim", "acts"], check=True, text=True,
                       input="".join([made.start("x"), made.records(200, 1, added=9), made.commit(1, 5)]))
        assert "9 added (seq 200-208)" in follower.stdout.readline()
    finally:
        follower.send_signal(signal.SIGINT)
        follower.wait(10)


def test_damaged_and_compressed(loaded, tmp_path, chromashim):
    copy = tmp_path / "chroma_data"
    shutil.copytree(loaded, copy)
    whole = chromashim("log", "--json", copy).stdout
    file, = (copy / ".chromashim/acts").iterdir()
    subprocess.run(["zstd", "-q", "--rm", file], check=True)
    assert chromashim("log", "--json", copy).stdout == whole
    subprocess.run(["zstd", "-qd", "--rm", f"{file}.zst"], check=True)
    image = bytearray(file.read_bytes())
    at = image.index(b"renamed"[:0] + b"tokio") // 64 * 64 + 20
    image[at] ^= 1
    file.write_bytes(image)
    done = chromashim("log", "--json", copy)
    assert done.returncode == 3 and "damaged" in done.stderr
    assert "100 upserted, 3 deleted" in done.stdout
    file.unlink()  # and then there is what oplog/ has
    assert "ingest.py" not in chromashim("log", copy).stdout


def test_a_log_of_somebody_else(loaded, tmp_path, chromashim):
    if os.geteuid():
        pytest.skip("needs root")
    copy = tmp_path / "chroma_data"
    shutil.copytree(loaded, copy)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, 65534, 65534)
    assert "100 upserted" in chromashim("log", copy).stdout
    assert {p.stat().st_uid for p in (copy, *copy.rglob("*"))} == {65534}


COMMANDS = {"/usr/bin/node /srv/app.js x": "app.js", "python3 -m uvicorn app:x": "uvicorn",
            "/opt/chroma run --path x": "chroma", "python3 -c import_x": "python3 -c",
            "/usr/bin/python3.11 -X dev /v/bin/chroma run": "chroma"}


def test_names_of_interpreters(tmp_path, shim, chromashim):
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    stop(start(directory, shim))
    for command in COMMANDS:
        shutil.rmtree(directory / ".chromashim/acts", ignore_errors=True)
        made.make(directory, [made.start(command), made.end()])
        processes = told(chromashim("log", "--processes", "--json", directory))
        assert processes[1]["process"] == COMMANDS[command]


def test_the_five_answers(tmp_path, shim, chromashim):
    """In their order, of a death whose acts were made."""
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    other = start(directory, shim)
    shutil.rmtree(directory / ".chromashim/acts", ignore_errors=True)
    made.make(directory, LOAD[:-1])  # it has not said farewell
    try:
        told_, = told(chromashim("log", "--last-crash", "--json", directory))
        assert told_["process"] == "ingest.py" and told_["ended"] == "signal"
        assert told_["last_acknowledged"]["collection"] == "conversations"
        assert told_["last_acknowledged"]["seq"] == 110 and told_["others"] == [other.pid]
        lines = chromashim("log", "--last-crash", directory).stdout.splitlines()
        assert [line.split(":")[0] for line in lines[:5]] == \
            ["Ended", "Last", "In flight", "Others", "Snapshots"]
        assert "ingest.py (pid" in lines[0] and "did not end by itself" in lines[0]
        assert "conversations: at least 7 added (seq 104-110)" in lines[1]
        assert "nothing was cut off" in lines[2] and f"script.py (pid {other.pid}" in lines[3]
        for snapshot in told_["snapshots"]:
            assert snapshot["records_lost"] == 110
        assert not told_["snapshots"] or "110 changes of records would be lost" in lines[4]
    finally:
        stop(other)


def test_follow_from_the_start(tmp_path, shim):
    """A process that is met in oplog/ first: nothing is told twice when it has acts."""
    directory = tmp_path / "chroma_data"
    directory.mkdir()
    stop(start(directory, shim))
    follower = subprocess.Popen([str(hosts.COMMAND), "log", "-f", "--json", str(directory)],
                                stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        (directory / "chroma.sqlite3").unlink()  # the script makes its table again
        process = start(directory, shim)
        stop(process)
        time.sleep(1)
    finally:
        follower.send_signal(signal.SIGINT)
    acts = [json.loads(line) for line in follower.communicate(timeout=20)[0].splitlines()]
    lines = [(a["pid"], a["time"], a["op"]) for a in acts if a["op"] != "log.start"]
    assert len(lines) == len(set(lines)) and (process.pid, "log.exit") in {(p, o) for p, _, o in lines}
    assert [a["op"] for a in acts if a["pid"] == process.pid].count("log.start") == 1


# ---- real Chroma ----

CHROMA = """if True:
    import os, sys, chromadb
    client = chromadb.PersistentClient(sys.argv[1])
    def vectors(n):
        return [[float(n % 7), float(n % 11), 1.0]] * n
    talks = client.create_collection("talks")
    for n in range(30):
        talks.add(ids=[f"a{n}-{k}" for k in range(50)], embeddings=vectors(50))
    talks.update(ids=["a0-0", "a0-1"], embeddings=vectors(2))
    talks.upsert(ids=["a0-0", "new"], embeddings=vectors(2))
    talks.delete(ids=["a1-0", "a1-1", "a1-2"])
    talks.modify(name="conversations")
    gone = client.create_collection("gone")
    gone.add(ids=["x"], embeddings=vectors(1))
    client.delete_collection("gone")
    if sys.argv[2:]:
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("python", ["venv", "venv-0.6"])
def test_what_chroma_did(data, shim, chromashim, python):
    """Counts are those of the calls; names are there after a change of name and a deletion."""
    if not hosts.python(python).exists():
        pytest.skip("no such Chroma here")
    done = subprocess.run([hosts.python(python), "-c", CHROMA, data, "kill"], capture_output=True, text=True,
                          env=hosts.environment({"LD_PRELOAD": shim}), check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    counts = {r["collection"]: (r["a"], r["u"], r["p"], r["d"]) for r in told(chromashim(
        "log", "--json", "--sql", "SELECT collection, sum(added) a, sum(updated) u, sum(upserted) p, "
        "sum(deleted) d FROM records GROUP BY collection", data))}
    assert counts == {"conversations": (1500, 2, 2, 3), "gone": (1, 0, 0, 0)}
    shown = chromashim("log", data).stdout
    for line in ("collection conversations renamed, it was called talks", "gone: 1 added (seq 1508)",
                 "conversations: 3 deleted (seq 1505-1507)", "collection gone deleted"):
        assert line in shown, shown
    assert re.search(r"ms  collection conversations: \d+ records? to disk", shown), shown
    assert [a["words"] for a in told(chromashim("log", "--json", "--id", "new", data))] == \
        ["conversations: 2 upserted (seq 1503-1504)"]
    assert len(told(chromashim("log", "--json", "--collection", "talks", "--op", "records", data))) >= 33
    crash, = told(chromashim("log", "--last-crash", "--json", data))
    assert (crash["ended"], crash["last_acknowledged"]["collection"], crash["last_acknowledged"]["seq"]) == \
        ("signal", "gone", 1508)
    assert "gone: 1 added (seq 1508)" in chromashim("log", "--last-crash", data).stdout.splitlines()[1]
    assert "died" in shown.splitlines()[-1]
