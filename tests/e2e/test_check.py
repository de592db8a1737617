# SPDX-License-Identifier: MIT
"""check: what is around the files, what the store tells, which Chroma can open it, and directories
that look strange and are healthy."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import disks
import hosts
from gallery import segment, sql
from test_formats import DAMAGE, check, codes, copy, made, tree  # noqa: F401

pytestmark = pytest.mark.memory

STORE = ".chromashim"


def severities(result) -> dict[str, str]:
    return {f["code"]: f["severity"] for f in result["findings"]}


# ---- which Chroma can open it ----

BACKENDS = {  # of each host: venv (1.5.9), venv-0.6 (0.6.3), npm (1.0.5)
    "python": ("opens", "fails", "panics"),
    "python-0.6": ("migrates", "opens", "migrates"),
    "node": ("migrates", "fails", "opens"),
}


@pytest.mark.fast
def test_backend(made, chromashim):
    host, data = made
    if host.name not in BACKENDS:
        pytest.skip("which release that is depends")
    for place, release, expected in zip(("venv", "venv-0.6/bin/python", "npm"),
                                        ("1.5.9", "0.6.3", "1.0.5"), BACKENDS[host.name]):
        if not (hosts.BUILD / place).exists():
            continue
        result = check(chromashim, data, "--backend", str(hosts.BUILD / place))
        assert result["backend"] == {"release": release, "verdict": expected}
        code = {"opens": None, "migrates": "backend-migrates"}.get(expected, "backend-older")
        assert {c for c in severities(result) if c.startswith("backend")} == ({code} - {None})
        assert result["verdict"] == ("warning" if code == "backend-older" else "fine")
    told = check(chromashim, data, "--backend", str(data))
    assert (told["verdict"], codes(told)) == ("unknown", {"backend-unknown"})


# ---- around the files ----


def test_several_names(copy, chromashim, tmp_path):
    os.link(copy / "chroma.sqlite3", tmp_path / "other")
    os.link(segment(copy) / "data_level0.bin", tmp_path / "level0")
    assert codes(check(chromashim, copy)) == {"linked", "segment-linked"}


def test_owners(copy, chromashim):
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(copy, 65534, 65534)
    os.chown(copy / "chroma.sqlite3", 65534, 65534)
    result = check(chromashim, copy)
    assert codes(result) == {"owner-mixed"}
    assert [f["helps"] for f in result["findings"] if f["code"] == "owner-mixed"] == [
        f"With Chroma stopped: sudo chown -R --reference={copy}/chroma.sqlite3 {copy}"]
    subprocess.run(["chown", "-R", f"--reference={copy}/chroma.sqlite3", copy], check=True)
    assert codes(check(chromashim, copy)) == set()
    (copy / "chroma.sqlite3").chmod(0o444)
    assert codes(check(chromashim, copy)) == {"not-writable"}


@pytest.mark.parametrize("what", ["file", "link", "others"])
def test_what_stands_where_the_store_belongs(copy, chromashim, tmp_path, what):
    """There can be none: no verb keeps silent about it, and each says what helps."""
    env = {}
    if what == "file":
        (copy / STORE).write_text("x")
    elif what == "link":
        (copy / STORE).symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / "others").mkdir()
        (tmp_path / "others/file").write_text("x")
        env = {"CHROMASHIM_STORE": str(tmp_path / "others")}
    env = hosts.environment(env)
    done = chromashim("check", copy, env=env)
    assert done.returncode == 1 and "store-unusable: the store: it is no" in done.stdout, done.stdout
    run = ["run", "--no-guard", "--dir", copy, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}"]
    for words in (["check"], ["status"], ["explain"], ["report", "-o", tmp_path / "r"], ["log"],
                  ["snapshot", "create"], run):
        done = chromashim(*words, *(["--", "true"] if words == run else [copy]), env=env)
        assert "move away what is there" in (done.stdout + done.stderr).lower(), (words, done)
        assert "it is no" in done.stdout + done.stderr and "as CHROMASHIM_STORE." in done.stdout + done.stderr
    assert "refused nothing" not in chromashim("explain", copy, env=env).stdout


def test_read_only_and_full_disks(copy, chromashim, tmp_path):
    try:
        disk = disks.Disk(tmp_path, "disk", 100 * disks.MIB, "ext4")
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("no loop mounts here")
    try:
        data = disk.root / "data"
        shutil.copytree(copy, data)
        disk.leave(10 * disks.MIB)
        assert codes(check(chromashim, data)) == {"disk-low"}
        disks.run("mount", "-o", "remount,ro", disk.root)
        assert codes(check(chromashim, data)) == {"read-only-filesystem"}
    finally:
        disk.clean_up()


def test_processes_are_named(copy, chromashim):
    script = f"import sqlite3, time; d = sqlite3.connect({str(copy / 'chroma.sqlite3')!r}); " \
             "d.execute('SELECT * FROM segments').fetchall(); print(flush=True); time.sleep(60)"
    children = [subprocess.Popen([hosts.python("venv"), "-c", script], stdout=subprocess.PIPE)
                for _ in range(2)]
    try:
        for child in children:
            child.stdout.readline()
        result = check(chromashim, copy)
        assert (result["verdict"], result["processes"]) == ("fine", 2)
        assert severities(result)["open-in-several"] == "note"
        assert "-c import sqlite3" in chromashim("check", copy).stdout
    finally:
        for child in children:
            child.kill()
            child.wait()
            child.stdout.close()


# ---- the database ----

FOUND = {
    "foreign table": (sql("CREATE TABLE mine (x); CREATE TRIGGER t AFTER INSERT ON mine BEGIN "
                          "SELECT 1; END"), "fine", {"table-foreign"}),
    "no full-text index": (sql("DROP TABLE embedding_fulltext_search"), "damage", {"table-missing"}),
    "no tenants": (sql("DROP TABLE tenants"), "damage", {"table-missing"}),
    "queue without JSON": (sql("UPDATE embeddings_queue SET metadata = 'x' WHERE id = 'q-3'"),
                           "damage", {"queue-damaged"}),
    "queue with half a vector": (sql("UPDATE embeddings_queue SET vector = x'0000803f00' WHERE "
                                     "id = 'q-3'"), "damage", {"queue-damaged"}),
    "queue with another dimension": (sql("UPDATE embeddings_queue SET vector = x'0000803f' WHERE "
                                         "id = 'q-3'"), "damage", {"queue-damaged"}),
    "queue with an operation": (sql("UPDATE embeddings_queue SET operation = 9 WHERE id = 'q-3'"),
                                "damage", {"queue-damaged"}),
}


@pytest.mark.parametrize("name", FOUND)
def test_database(copy, chromashim, name):
    change, verdict, expected = FOUND[name]
    change(copy)
    result = check(chromashim, copy)
    assert set(severities(result)) - {"leftover-directory"} == expected, result["findings"]
    assert result["verdict"] == verdict


def test_log_that_is_none(copy, chromashim):
    sql("PRAGMA journal_mode = wal")(copy)
    (copy / "chroma.sqlite3-wal").write_bytes(b"\xa5" * 9000)
    before = tree(copy)
    assert codes(check(chromashim, copy)) == {"wal-damaged"}
    assert tree(copy) == before
    (copy / "chroma.sqlite3-wal").write_bytes(bytes(9000))
    assert codes(check(chromashim, copy)) == set()


# ---- what the store tells ----

TORN = """
import os, signal, sys
fd = os.open(sys.argv[1] + "/header.bin", os.O_RDWR)
os.pwrite(fd, b"\\xa5" * 40, 20)
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def under_shim(shim: str, data: Path, script: str, *words: str) -> int:
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data),
                             "CHROMASHIM_SINGLE_WRITER": "off"})
    return subprocess.run([hosts.python("venv").resolve(), "-I", "-S", "-c", script, *words],
                          env=env, capture_output=True, check=False).returncode


def test_last_death(copy, chromashim, shim):
    """Told as long as nothing has run since; and that what was torn can be undone."""
    where = segment(copy)
    assert under_shim(shim, copy, TORN, str(where), "die") == -signal.SIGKILL
    before = tree(copy)
    result = check(chromashim, copy)
    assert {"died", "persist-undo-waits", "header-damaged"} <= set(severities(result))
    assert severities(result)["died"] == "note" and result["verdict"] == "damage"
    detail = next(f["detail"] for f in result["findings"] if f["code"] == "died")
    assert "python" in detail and "20" in detail
    assert tree(copy) == before
    assert under_shim(shim, copy, "pass") == 0  # rolls back
    result = check(chromashim, copy)
    assert result["verdict"] == "fine"
    assert not {"died", "persist-undo-waits"} & set(severities(result))


def test_snapshots(copy, chromashim):
    (copy / STORE).mkdir(mode=0o700)
    assert severities(check(chromashim, copy))["snapshot-none"] == "note"
    assert chromashim("snapshot", "create", copy).returncode == 0
    (copy / "below").mkdir()
    done = chromashim("snapshot", "verify", "below", cwd=copy)  # an ID is meant
    assert done.returncode == 12 and "with a slash: ./below" in done.stderr
    result = check(chromashim, copy)
    assert result["verdict"] == "fine" and result["snapshots"] == 1 and result["newest_snapshot"]
    later = time.time() + 8 * 86400
    os.utime(copy / "chroma.sqlite3", (later, later))
    assert codes(check(chromashim, copy)) == {"snapshot-old"}
    manifest = next((copy / STORE / "snapshots").glob("*.manifest"))
    manifest.write_bytes(manifest.read_bytes()[:50])
    assert codes(check(chromashim, copy)) == {"snapshot-broken"}


def test_restore_that_was_cut_off(copy, chromashim):
    (copy / STORE / "restore").mkdir(parents=True)
    (copy / STORE / "restore" / "journal").write_bytes(b"x")
    (copy / "chroma.sqlite3").write_bytes(b"a placeholder")
    before = tree(copy)
    assert codes(check(chromashim, copy)) == {"restore-interrupted"}
    assert tree(copy) == before


# ---- the command that is named helps ----

HEALED = [name for name in DAMAGE if name not in (
    # what was lost is not brought back by any command
    "queue emptied", "database missing", "database empty", "database cut",
    "migration cut")]


@pytest.mark.parametrize("made", [hosts.BY_NAME["python"]], indirect=True, ids=["python"])
@pytest.mark.parametrize("name", HEALED)
def test_the_command_named_helps(made, copy, chromashim, name):
    DAMAGE[name][0](copy)
    before = check(chromashim, copy)
    found = next(f for f in before["findings"] if f["severity"] == "damage" or
                 f["code"] in ("unreadable", "journal-lost"))
    words = found["helps"].split("chromashim ", 1)
    if found["code"] != "unreadable":
        verb = words[1].split()
        assert verb[0] == "recover" and verb[-1] == str(copy), found["helps"]
        assert chromashim(*verb, "-y").returncode in (0, 3)
        after = codes(check(chromashim, copy))
        assert after <= {"records-without-vector"}, (codes(before), after)


# ---- strange and healthy ----
#
# What has been taken for damage elsewhere, and where it is shown to be fine: a pickle without
# dimensionality, files that do not follow max_elements, first sizes without a pickle, deleted
# collections, megabyte and non-ASCII documents (test_formats.py, test_healthy_is_fine); garbage in
# length.bin, thousands of rows in acquire_write, WAL mode, vacuum, a hot journal (test_no_false_alarm
# there); a busy writer (test_check_while_it_is_written there); a newer database (test_backend, and
# test_explain.py); a first start or a deletion that was killed (test_gallery.py); undo files that a
# power cut tore (test_power_cuts.py); reset, NUL bytes, Chroma's own vacuum, ten thousand
# collections: here.

RESET = """
import os, sys
import chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], settings=Settings(
    anonymized_telemetry=False, allow_reset=True))
one = client.create_collection("before-it", metadata={"hnsw:sync_threshold": 10, "hnsw:batch_size": 5})
one.add(ids=[str(n) for n in range(25)], embeddings=[[n, 1.0] for n in range(25)])
client.reset()
client.create_collection("after-it").add(ids=["1"], embeddings=[[1.0, 2.0]], documents=["a\\0b"])
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("venv", ["venv", "venv-0.6"])
def test_after_reset(data, chromashim, venv):
    if not hosts.python(venv).exists():
        pytest.skip(f"{venv} is missing; run wrappers/setup run check")
    hosts.chroma(venv, "-c", RESET, data)
    for depth in ("--quick", "--full"):
        result = check(chromashim, data, depth)
        assert result["verdict"] == "fine", result["findings"]
    told = json.loads(chromashim("export", data).stdout)
    assert (told["collection"], told["document"]) == ("after-it", "a\0b")


def test_after_chroma_vacuum(made, copy, chromashim):
    host, _ = made
    if host.node:
        pytest.skip("its own vacuum asks for a terminal")
    words = ["utils", "vacuum"] if host.name == "python-0.6" else ["vacuum"]
    done = subprocess.run([hosts.python(host.driver).with_name("chroma"), *words, "--path", copy,
                           "--force"], env=hosts.environment(), capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for depth in ("--quick", "--full"):
        result = check(chromashim, copy, depth)
        assert result["verdict"] == "fine", result["findings"]


MANY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000),
one AS (SELECT * FROM collections WHERE name = 'queue-only')
INSERT INTO collections (id, name, dimension, database_id, config_json_str)
SELECT printf('%08x-0000-4000-8000-000000000001', i), 'many-' || i, NULL, database_id,
config_json_str FROM n, one;
INSERT INTO segments (id, type, scope, collection)
SELECT replace(c.id, '000000000001', s.ending), s.type, s.scope, c.id FROM collections c, (SELECT
type, scope, CASE scope WHEN 'VECTOR' THEN '000000000002' ELSE '000000000003' END AS ending
FROM segments WHERE collection = (SELECT id FROM collections WHERE name = 'queue-only')) s
WHERE c.name GLOB 'many-*';
INSERT INTO embeddings_queue (operation, topic, id, vector, encoding, metadata)
SELECT 0, 'persistent://default/default/' || id, 'r', x'0000803f0000803f', 'FLOAT32', '{}'
FROM collections WHERE name GLOB 'many-*5';
"""


def test_ten_thousand_collections(copy, chromashim):
    """Rows as Chroma makes them, multiplied; a tenth has a record in the queue."""
    sql(MANY)(copy)
    result = check(chromashim, copy)
    assert result["verdict"] == "fine", result["findings"][:3]
    assert result["collections"] > 10000
    told = chromashim("export", copy, "--no-embeddings", "--collection", "many-5")
    assert json.loads(told.stdout)["id"] == "r"


# ---- on a terminal ----


def test_progress_on_a_terminal(chromashim, tmp_path):
    hosts.BY_NAME["python"].require()
    data = tmp_path / "big"
    subprocess.run([hosts.python("venv"), hosts.ROOT / "tests/bench/big_directory.py", data, "60"],
                   check=True, env=hosts.environment())
    leader, follower = pty.openpty()
    child = subprocess.Popen(["nice", "-n", "19", hosts.COMMAND, "check", "--full", data],
                             stdout=subprocess.DEVNULL, stderr=follower, env=hosts.environment())
    os.close(follower)
    # Slow enough for a bar, however fast the machine is.
    for _ in range(60):
        time.sleep(0.005)
        os.kill(child.pid, signal.SIGSTOP)
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGCONT)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert child.wait() <= 1  # its graph is made up
    assert b"checking" in seen and b"%" in seen and seen.endswith(b"\r\x1b[K"), seen[:200]
