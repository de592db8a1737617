# SPDX-License-Identifier: MIT
"""check and export against directories that real Chroma made: nothing healthy is called damaged,
every damage is named, and an export has what Chroma's own client returns."""

import json
import math
import os
import shutil
import sqlite3
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import hosts
from gallery import cut, overwrite, segment, sql, work

pytestmark = pytest.mark.memory

MADE_BY = [host for host in hosts.HOSTS if host.name != "server"]
NO_SERVERS = [host for host in MADE_BY if not host.server]


@pytest.fixture(scope="module", params=MADE_BY, ids=lambda host: host.name)
def made(request, tmp_path_factory) -> tuple[hosts.Host, Path]:
    host = request.param
    host.require()
    data = tmp_path_factory.mktemp(host.name) / "data"
    data.mkdir()
    work(host, data, "load", *(["arrays"] if host.name == "python" else []))
    return host, data


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "copy"))


def check(chromashim, data: Path, *options: str) -> dict[str, Any]:
    done = chromashim("check", "--json", *options, data)
    assert done.stderr == "", done.stderr
    result = json.loads(done.stdout)
    assert result["schema_version"] == 1
    assert done.returncode == ["fine", "warning", "damage", "unknown"].index(result["verdict"])
    return result


def codes(result: dict[str, Any]) -> set[str]:
    return {f["code"] for f in result["findings"] if f["severity"] != "note"}


def tree(data: Path) -> dict[str, Any]:
    return {str(p.relative_to(data)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else 0)
            for p in sorted(data.rglob("*"))}


def exported(chromashim, data: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = chromashim("export", *options, data)
    assert done.returncode == status, done.stderr
    result: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        collection = result.setdefault(record.pop("collection"), {})
        name = record.pop("id")
        assert name not in collection
        collection[name] = record
    return result


def close(a: list[float], b: list[float]) -> bool:
    """Cosine vectors not yet persisted were normalised and stretched again by Chroma's client."""
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=5e-7) for x, y in zip(a, b))


def as_float32(values: list[float]) -> list[float]:
    return list(struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values)))


# ---- healthy directories ----


@pytest.mark.parametrize("depth", ["--quick", "--full"])
def test_healthy_is_fine(made, chromashim, depth):
    before = tree(made[1])
    result = check(chromashim, made[1], depth)
    assert result["verdict"] == "fine", result["findings"]
    assert {f["code"] for f in result["findings"]} <= {"leftover-directory"}
    wrote = [r for r in result["releases"] if r["wrote_it"]]
    first = {"python": "1.5.0", "python-0.6": "0.5.6", "node": "1.0.0"}.get(made[0].name)
    assert not first or [r["first"] for r in wrote] == [first]
    assert tree(made[1]) == before


def test_releases_that_cannot_open_it(made, chromashim):
    verdicts = {r["first"]: r["verdict"] for r in check(chromashim, made[1])["releases"]}
    expected = {"python": ("panics", "fails"), "python-0.6": ("migrates", "opens"),
                "node": ("opens", "fails")}
    if made[0].name in expected:
        assert (verdicts["1.0.0"], verdicts["0.5.6"]) == expected[made[0].name]


@pytest.mark.fast
def test_export_is_what_the_client_returns(made, copy, chromashim):
    mine = exported(chromashim, copy)
    client = json.loads(work(made[0], copy, "dump"))
    assert {name: set(records) for name, records in mine.items()} == {
        name: set(records) for name, records in client.items() if records}
    for name, records in mine.items():
        for i, record in records.items():
            theirs = client[name][i]
            vector, own = record.pop("embedding"), theirs.pop("embedding")
            if name in ("space-cosine", "queue-only"):
                assert close(as_float32(vector), own), (name, i)
            else:
                assert as_float32(vector) == own, (name, i)
            assert record == theirs, (name, i)
            for key, value in (record["metadata"] or {}).items():
                assert type(value) is type(theirs["metadata"][key]), (name, i, key)


def test_export_options(made, copy, chromashim, tmp_path):
    everything = exported(chromashim, copy)
    only = exported(chromashim, copy, "--collection", "space-ip", "--no-embeddings")
    for record in everything["space-ip"].values():
        del record["embedding"]
    assert only == {"space-ip": everything["space-ip"]}
    assert chromashim("export", copy, "--collection", "nobody").returncode == 12
    plain, packed = tmp_path / "records.jsonl", tmp_path / "records.jsonl.zst"
    assert chromashim("export", copy, "-o", plain).returncode == 0
    assert chromashim("export", copy, "-o", packed, "--zstd").returncode == 0
    unpack = ("import sys, zstandard as z\n"
              "z.ZstdDecompressor().copy_stream(sys.stdin.buffer, sys.stdout.buffer)")
    done = subprocess.run([str(hosts.python("venv")), "-c", unpack], stdin=packed.open("rb"),
                          capture_output=True, check=True)
    assert done.stdout == plain.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", plain.name, packed.name]
    assert chromashim("export", copy, "-o", tmp_path / "none" / "x").returncode == 12


@pytest.mark.slow
@pytest.mark.parametrize("made", NO_SERVERS, indirect=True, ids=lambda host: host.name)
def test_check_while_it_is_written(made, chromashim, tmp_path):
    """A backend that persists all the time is never called damaged."""
    host, _ = made
    data = tmp_path / "busy"
    data.mkdir()
    script = tmp_path / "writer.py"
    script.write_text(
        "import sys, os, chromadb, random\n"
        "from chromadb.config import Settings\n"
        "s = Settings(anonymized_telemetry=False)\n"
        "c = chromadb.PersistentClient(sys.argv[1], settings=s)\n"
        "x = c.get_or_create_collection('busy', metadata={'hnsw:sync_threshold': 20,"
        " 'hnsw:batch_size': 10})\n"
        "n = 0\n"
        "while True:\n"
        "    x.upsert(ids=[str((n + i) % 700) for i in range(25)],"
        " embeddings=[[random.random() for _ in range(64)] for _ in range(25)],"
        " documents=['d'] * 25)\n"
        "    if n % 100 == 0: x.delete(ids=[str(n % 700)])\n"
        "    n += 25\n", encoding="utf-8")
    writer = hosts.Program([hosts.python(host.driver), script, data])
    try:
        deadline = time.monotonic() + 60
        while not list(data.glob("*/index_metadata.pickle")) and time.monotonic() < deadline:
            time.sleep(0.1)
        for _ in range(12):
            result = check(chromashim, data)
            assert result["verdict"] == "fine", result["findings"]
            assert result["processes"] >= 1
    finally:
        writer.clean_up()


# ---- damage ----


def one_element_more(data: Path) -> None:
    """As a persist leaves it that was killed before the pickle."""
    where = segment(data)
    header = bytearray((where / "header.bin").read_bytes())
    count, stride = struct.unpack_from("<Q", header, 20)[0], struct.unpack_from("<Q", header, 28)[0]
    with open(where / "data_level0.bin", "r+b") as f:
        element = bytearray(f.read(stride))
        element[2] = 0
        struct.pack_into("<Q", element, stride - 8, 100000)
        f.seek(count * stride)
        f.write(element)
    struct.pack_into("<QQ", header, 12, count + 1, count + 1)
    (where / "header.bin").write_bytes(header)
    for name in ("length.bin", "link_lists.bin"):
        with open(where / name, "ab") as f:
            f.write(bytes(4))


def hot_journal(data: Path) -> None:
    db = sqlite3.connect(data / "chroma.sqlite3", isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("DELETE FROM embeddings")
    away = data.with_name("away")
    shutil.copytree(data, away)
    db.execute("ROLLBACK")
    db.close()
    shutil.rmtree(data)
    away.rename(data)


def cut_at_a_stop(data: Path) -> None:
    """Behind a byte that looks like the STOP of a pickle: label 46, by its own byte or two."""
    path = segment(data) / "index_metadata.pickle"
    whole = path.read_bytes()
    at = max(whole.find(b"K.", 0, -2), whole.find(b"J.\0\0\0", 0, -2))
    assert at >= 0
    os.truncate(path, at + 2)


DAMAGE = {
    "pickle cut": (cut("index_metadata.pickle", 2000), {"pickle-truncated"}),
    "pickle cut at a stop": (cut_at_a_stop, {"pickle-truncated"}),
    "pickle empty": (cut("index_metadata.pickle", 0), {"pickle-truncated"}),
    "pickle garbage": (overwrite("index_metadata.pickle", 1500, b"\xff" * 40), {"pickle-damaged"}),
    "pickle missing": (lambda d: (segment(d) / "index_metadata.pickle").unlink(),
                       {"pickle-missing"}),
    "header cut": (cut("header.bin", 60), {"header-damaged"}),
    "header garbage": (overwrite("header.bin", 20, b"\xa5" * 40), {"header-damaged"}),
    "level 0 cut": (cut("data_level0.bin", 20000), {"level0-short", "labels-lost"}),
    "level 0 zeroed": (overwrite("data_level0.bin", 4096, bytes(8192)),
                       {"labels-damaged", "labels-lost"}),
    "lengths cut": (cut("length.bin", 100), {"length-short"}),
    "links cut": (cut("link_lists.bin", 400), {"links-short"}),
    "links garbage": (overwrite("link_lists.bin", 200, b"\xee" * 300), {"links-damaged"}),
    "links runaway": (cut("link_lists.bin", 4 << 40), {"links-runaway"}),
    "link lists missing": (lambda d: (segment(d) / "link_lists.bin").unlink(),
                           {"segment-file-missing"}),
    "torn persist": (one_element_more, {"persist-torn"}),
    "segment missing": (lambda d: shutil.rmtree(segment(d)), {"segment-missing"}),
    "mark poisoned": (sql("UPDATE max_seq_id SET seq_id = 1229822654365841720 WHERE segment_id = "
                          "(SELECT id FROM segments WHERE scope = 'METADATA' LIMIT 1)"),
                      {"mark-poisoned"}),
    "queue emptied": (sql("DELETE FROM embeddings_queue"),
                      {"mark-beyond-queue", "records-without-vector", "vectors-without-record"}),
    "migration cut": (sql("ALTER TABLE segments RENAME TO segments_temp"),
                      {"migration-interrupted"}),
    "page 1 lost": (overwrite("chroma.sqlite3", 0, bytes(4096)), {"database-not-sqlite"}),
    "database cut": (lambda d: os.truncate(d / "chroma.sqlite3",
                                           (d / "chroma.sqlite3").stat().st_size * 2 // 3),
                     {"database-short", "database-malformed"}),
    "free pages": (overwrite("chroma.sqlite3", 32, struct.pack(">II", 2, 1)),
                   {"database-malformed"}),
    "journal lost": (lambda d: os.truncate(
        d / "chroma.sqlite3", (d / "chroma.sqlite3").stat().st_size + 8192), {"journal-lost"}),
    "database missing": (lambda d: (d / "chroma.sqlite3").unlink(), {"database-missing"}),
    "database empty": (lambda d: os.truncate(d / "chroma.sqlite3", 0), {"database-missing"}),
    "terabytes of nothing": (lambda d: [
        overwrite("header.bin", 12, struct.pack("<QQ", 2**32 - 2, 2**32 - 2))(d),
        cut("data_level0.bin", 4 << 40)(d), cut("link_lists.bin", 4 << 40)(d)],
        {"level0-short", "length-short", "links-short", "links-runaway", "labels-damaged"}),
    "a fifo": (lambda d: [(segment(d) / "length.bin").unlink(),
                          os.mkfifo(segment(d) / "length.bin")],
               {"unreadable"}),
    "a link out": (lambda d: [(segment(d) / "header.bin").unlink(),
                              (segment(d) / "header.bin").symlink_to("/etc/passwd")],
                   {"unreadable"}),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(made, copy, chromashim, name):
    damage, expected = DAMAGE[name]
    where = segment(copy)
    damage(copy)
    result = check(chromashim, copy)
    # behind the last element there is garbage, which may look like anything
    assert codes(result) - ({"persist-torn"} if "terabytes" in name else set()) == expected
    for finding in result["findings"]:
        assert finding["means"] and finding["helps"] and "DIR" not in finding["helps"]
        if finding["segment"] and finding["file"]:
            assert finding["segment"] == where.name


NO_DAMAGE = {
    "wal mode": sql("PRAGMA journal_mode = wal"),
    "many opens": sql("CREATE TABLE IF NOT EXISTS acquire_write (id INTEGER PRIMARY KEY, "
                      "lock_status INTEGER NOT NULL); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
                      "SELECT i + 1 FROM n WHERE i < 15188) INSERT INTO acquire_write(lock_status) "
                      "SELECT 1 FROM n"),
    "vacuum": sql("VACUUM"),
    "lengths of l2 garbage": lambda d: (segment(d, "space-l2") / "length.bin").write_bytes(
        b"\x00\x00\xc0\x7f" * 1000),
    "another name": lambda d: (d / "not-a-segment").mkdir(),
    "hot journal": hot_journal,
}


@pytest.mark.parametrize("name", NO_DAMAGE)
def test_no_false_alarm(copy, chromashim, name):
    whole = exported(chromashim, copy, "--no-embeddings")
    NO_DAMAGE[name](copy)
    before = tree(copy)
    result = check(chromashim, copy)
    assert result["verdict"] == "fine", result["findings"]
    assert exported(chromashim, copy, "--no-embeddings") == whole
    assert tree(copy) == before  # also no -wal and -shm, and no journal rolled back


@pytest.mark.parametrize("name", [n for n in DAMAGE if n not in ("page 1 lost", "migration cut")])
def test_export_of_what_is_left(made, copy, chromashim, name):
    """Whatever is damaged, the other collections come out whole, and nothing wrong comes out."""
    whole = exported(chromashim, copy)
    DAMAGE[name][0](copy)
    done = chromashim("export", copy)
    assert done.returncode in (0, 1, 3), done.stderr
    for line in done.stdout.splitlines():
        record = json.loads(line)
        before = whole.get(record["collection"], {}).get(record["id"])
        if before is None:
            assert name.startswith("database")  # then collections are named by their segments
        elif record["collection"] != "space-cosine" and record["embedding"] and (
                name not in ("queue emptied", "database cut")):  # the newest vectors were in it
            assert record["embedding"] == before["embedding"]
    if done.returncode != 1 and not name.startswith("database"):
        assert len(done.stdout.splitlines()) == sum(map(len, whole.values()))


def test_no_chroma_directory(chromashim, tmp_path):
    assert chromashim("check", tmp_path).returncode == 3
    assert chromashim("check", tmp_path / "none").returncode == 3
    assert chromashim("export", tmp_path).returncode == 12
    assert chromashim("check", "--nonsense", tmp_path).returncode == 3
