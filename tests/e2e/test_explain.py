# SPDX-License-Identifier: MIT
"""explain on the words of real Chroma: a fault, what Chroma then says, what explain makes of it, that
check confirms it, and that the way it names leads back. The rows are those of the table of error
texts; what is damaged by hand here is made by real faults in test_gallery.py and test_power_cuts.py.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

import gallery
import hosts
from gallery import Fault, cut, overwrite, remove, sql
from test_recover_gallery import lines  # noqa: F401

PICKLE = "index_metadata.pickle"
DATABASE = "chroma.sqlite3"
FULL_TEXT = sql("UPDATE embedding_fulltext_search_data SET block = zeroblob(40) WHERE id > 100")


def codes(chromashim, data: Path, *options: object) -> set[str]:
    done = chromashim("check", "--full", "--json", *options, data)
    return {f["code"] for f in json.loads(done.stdout)["findings"]}


def explain(chromashim, text: str) -> dict[str, Any]:
    done = chromashim("explain", "--json", "-", input=text)
    assert done.returncode == 0, text[-3000:]
    return json.loads(done.stdout)


def nothing(_: Path) -> None:
    pass


# Ways back: what is run before Chroma is asked again.
RECOVER = ["recover", "-y", "--set-aside"]
AGAIN: list[str] = []

# name: (line, damage, fault, verb, what real Chroma says, codes of which check finds one, way back)
Row = tuple[str, Callable[[Path], None], Optional[Fault], str, str, set[str], Optional[list[str]]]
ROWS: dict[str, Row] = {
    "inconsistent hash": (
        "python", sql("UPDATE migrations SET hash = replace(hash, '4', '5') WHERE dir = 'sysdb' AND version = 3"), None,
        "connect", "Inconsistent hash: db=", {"migrations-altered"}, None),
    "inconsistent version": (
        "python", sql("DELETE FROM migrations WHERE dir = 'sysdb' AND version = 3"), None,
        "connect", "Inconsistent version: db=", {"migrations-unknown"}, None),
    "nothing found on disk": (
        "python", remove(PICKLE), None, "ask", "Nothing found on disk|Error finding id",
        {"pickle-missing"}, RECOVER),
    "pickle empty": (
        "python", cut(PICKLE, 0), None, "read", "Error deserializing pickle file",
        {"pickle-truncated"}, RECOVER),
    "pickle empty, 0.6": (
        "python-0.6", cut(PICKLE, 0), None, "read", "Ran out of input", {"pickle-truncated"},
        RECOVER),
    "pickle cut, 0.6": (
        "python-0.6", cut(PICKLE, 2000), None, "read", "pickle data was truncated",
        {"pickle-truncated"}, RECOVER),
    "no descriptors": (
        "python", nothing, Fault("header.bin", "openat,open", "error=EMFILE"), "read",
        "Error loading hnsw index", set(), AGAIN),
    "no descriptors, 0.6": (
        "python-0.6", nothing, Fault("header.bin", "openat,open", "error=EMFILE"), "read",
        "Cannot open header file", set(), AGAIN),
    "too many open files, 0.6": (
        "python-0.6", nothing, Fault(PICKLE, "openat,open", "error=EMFILE"), "read",
        "Too many open files", set(), AGAIN),
    "header": (
        "python", overwrite("header.bin", 0, b"\xff" * 100), None, "read", "Error loading hnsw index",
        {"header-damaged", "header-version"}, None),
    "header, 0.6": (
        "python-0.6", overwrite("header.bin", 20, b"\xa5" * 40), None, "read",
        "memory|corrupted|bad_alloc|Segmentation", {"header-damaged"}, RECOVER),
    "finding id": (
        "python", sql("DELETE FROM embeddings_queue"), None, "read", "Error finding id",
        {"records-without-vector"}, RECOVER),
    "getting embedding": (
        "python", cut("data_level0.bin", 20000), None, "read", "Error getting embedding|Segmentation fault",
        {"labels-lost"}, RECOVER),
    "segment writer": (  # which of them depends on what its threads meet first
        "python", overwrite("data_level0.bin", 4096, bytes(40000)), None, "read",
        "Failed to apply logs to the hnsw segment writer|Error getting embedding|Segmentation fault",
        {"labels-lost"}, RECOVER),
    "label not found, 0.6": (
        "python-0.6", overwrite("data_level0.bin", 4096, bytes(40000)), None, "read",
        "Label not found|Segmentation fault", {"labels-lost"}, RECOVER),
    "metadata segment": (
        "python", FULL_TEXT, None, "add", "Failed to apply logs to the metadata segment",
        {"fts-malformed"}, RECOVER),
    "log store": (
        "python", sql("UPDATE embeddings_queue SET metadata = 'x' WHERE id = 'q-3'"), None, "read",
        "Failed to pull logs from the log store", {"queue-damaged"}, None),
    "mark as a blob": (
        "python", sql("UPDATE max_seq_id SET seq_id = CAST(x'0000000000000001' AS BLOB)"), None,
        "read", "mismatched types; Rust type `u64`", {"mark-blob"}, RECOVER),
    "page 1": (
        "python", overwrite(DATABASE, 0, bytes(4096)), None, "connect",
        r"code: 26\) file is not a database", {"database-not-sqlite"}, None),
    "table already exists, 0.6": (
        "python-0.6", sql("DELETE FROM migrations WHERE dir = 'sysdb' AND version >= 8"), None,
        "connect", "already exists", {"migration-interrupted"}, RECOVER),
    "duplicate column, 0.6": (
        "python-0.6", sql("DELETE FROM migrations WHERE dir = 'sysdb' AND version >= 7; "
                          "DROP TABLE maintenance_log"), None, "connect", "duplicate column name",
        {"migration-interrupted"}, RECOVER),
    "no such table, 0.6": (
        "python-0.6", sql("ALTER TABLE segments RENAME TO segments_temp"), None, "read",
        "no such table", {"migration-interrupted"}, RECOVER),
    "tenant, 0.6": (
        "python-0.6", sql("DROP TABLE tenants"), None, "connect", "Could not connect to tenant",
        {"table-missing"}, None),
    "disk I/O error, 0.6": (
        "python-0.6", nothing, Fault(f"{DATABASE}-journal", "fdatasync,fsync", "error=EIO"), "add",
        "disk I/O error", set(), AGAIN),
    "unreadable disk, 0.6": (
        "python-0.6", nothing, Fault(DATABASE, "pread64", "error=EIO:when=4+"), "read",
        "disk image is malformed", set(), AGAIN),
    "unable to open": (
        "python-0.6", nothing, Fault(DATABASE, "openat,open", "error=EACCES"), "connect",
        "unable to open database file", set(), AGAIN),
    "read-only": (
        "python", nothing, Fault(DATABASE, "openat,open", "error=EROFS:when=1"), "add",
        "readonly database", set(), AGAIN),
    "disk is full": (
        "python", nothing, Fault(f"{DATABASE}-journal", "pwrite64", "error=ENOSPC"), "add",
        "database or disk is full", set(), AGAIN),
    "another dimension": (
        "python", nothing, None, "other_dimension", "expecting embedding with dimension of 16",
        set(), AGAIN),
    "another dimension, 0.6": (
        "python-0.6", nothing, None, "other_dimension", "does not match collection dimensionality",
        set(), AGAIN),
    "deleted under the client": (
        "python", nothing, None, "deleted", r"code: 1032", set(), None),
    "other settings": (
        "python", nothing, None, "other_settings", "with different settings", set(), AGAIN),
}


@pytest.mark.parametrize("name", ROWS)
def test_text(name, lines, chromashim, tmp_path, strace):  # noqa: F811
    host, damage, fault, verb, said, found, way = ROWS[name]
    line = lines(host)
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    damage(data)
    kept = Path(shutil.copytree(data, tmp_path / "kept"))
    acted = gallery.act(line.host, data, verb, fault)
    assert re.search(said, acted.text), acted.text[-3000:]
    told = explain(chromashim, acted.text)
    confirming = set((told["codes"] or "").split(", "))
    there = codes(chromashim, kept)
    assert found <= there if len(found) < 2 else found & there
    assert not found or found & confirming, told
    if found == set():
        assert chromashim("check", kept).returncode == 0
    if way is not None:
        if way:
            assert chromashim(*way, kept).returncode in (0, 3)
        again = gallery.act(line.host, kept, "read")
        assert again.status == 0, again.text[-3000:]


# who opens it, who wrote it, with what --backend, what is said
OLDER = {
    "1.0.5 on 1.5.9": ("node", "python", "npm", "range start index 10 out of range for slice of length 9"),
    "0.6.3 on 1.5.9": ("python-0.6", "python", "venv-0.6", "KeyError: '_type'"),
    "0.6.3 on 1.0.5": ("python-0.6", "node", "venv-0.6", "KeyError: '_type'"),
}


@pytest.mark.parametrize("name", OLDER)
def test_a_newer_database(name, lines, chromashim, tmp_path):  # noqa: F811
    """Nothing is damaged; the Chroma that wrote it reads all of it."""
    opener, writer, backend, said = OLDER[name]
    line, older = lines(writer), lines(opener).host
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    acted = gallery.act(older, data, "read")
    assert said in acted.text, acted.text[-3000:]
    told = explain(chromashim, acted.text)
    assert told["codes"] == "backend-older" and "othing is damaged" in told["means"]
    done = chromashim("check", "--json", "--backend", hosts.BUILD / backend, data)
    assert done.returncode == 1
    assert "backend-older" in {f["code"] for f in json.loads(done.stdout)["findings"]}
    assert chromashim("check", "--full", data).returncode == 0
    assert line.ask(data)["records"].keys() == line.records.keys()


@pytest.mark.fast
def test_validation(lines, chromashim, tmp_path):  # noqa: F811
    """Chroma is told not to migrate. (1.x makes its table before it looks, so "Migrations table not
    initialized" comes from nowhere any more.)"""
    line = lines("python-0.6")
    newer = lines("python").host
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    acted = gallery.act(newer, data, "validate")
    assert "Unapplied migrations found" in acted.text
    assert explain(chromashim, acted.text)["codes"] == "backend-migrates"
    assert "backend-migrates" in codes(chromashim, data, "--backend", hosts.BUILD / "venv")
    assert gallery.act(newer, data, "read").status == 0
