# SPDX-License-Identifier: MIT
"""The gallery of damage: check names it, recover heals it and accounts for every record, and real
Chroma then opens the directory and has exactly what the account says."""

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import gallery
import hosts
from gallery import check, cut, same_vector, sql

pytestmark = pytest.mark.memory


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    made: dict[str, gallery.Line] = {}

    def line(name: str) -> gallery.Line:
        if name not in made:
            hosts.BY_NAME[name].require()
            made[name] = gallery.Line(hosts.BY_NAME[name], tmp_path_factory.mktemp(name))
        return made[name]

    yield line
    gallery.stop_actors()


def recover(chromashim, data: Path, *options: str, status: int = 0) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", *options, data)
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def compare(line: gallery.Line, account: dict[str, Any], data: Path) -> None:
    """Real Chroma has what the account claims: all but what it names as lost, and nothing else."""
    answer = line.ask(data)
    assert "error" not in answer, answer["error"]
    assert not answer["missed"]
    for collection in account["collections"]:
        name = collection["name"]
        found, inserted = answer["records"].get(name, {}), line.records.get(name, {})
        lost = {one["id"] for one in collection["lost"]}
        assert len(found) == collection["after"]["records"], name
        assert set(inserted) - set(found) == lost, name
        for i, record in found.items():
            before = inserted[i]
            assert same_vector(name, before["embedding"], record["embedding"]), (name, i)
            assert (before["document"], before["metadata"]) == (
                record["document"], record["metadata"]), (name, i)
    assert {c["name"] for c in account["collections"]} == set(line.records)


# name: (line, damage, the finding, the step that heals it, exit status)
GALLERY = {
    "links cut": ("node", cut("link_lists.bin", 400), "links-short", "hnsw", 0),
    "lengths cut": ("python", cut("length.bin", 100, "space-l2"), "length-short", "hnsw", 0),
    "full-text index": ("node", sql(
        "UPDATE embedding_fulltext_search_data SET block = zeroblob(40) WHERE id > 100"),
        "fts-malformed", "indexes", 0),
    "no VECTOR row": ("python", sql("DELETE FROM segments WHERE scope = 'VECTOR'"),
                      "segment-row-missing", "segments", 0),
    "no mark of the index, 0.6": ("python-0.6", sql(
        "DELETE FROM max_seq_id WHERE segment_id IN (SELECT id FROM segments WHERE scope = 'VECTOR')"),
        "mark-missing", "marks", 0),
    "migrations half recorded": ("python", sql(
        "PRAGMA writable_schema = ON; DELETE FROM migrations WHERE dir = 'sysdb' AND version > 3"),
        "migration-interrupted", "migration", 0),
    "ids that are no UUID": ("python", sql(
        "UPDATE databases SET id = 'first'; UPDATE collections SET database_id = 'first'"),
        "id-unreadable", "segments", 0),
    "no METADATA row": ("python", sql("DELETE FROM segments WHERE scope = 'METADATA'"),
                        "segment-row-missing", "segments", 0),
    "no rows of segments": ("python", sql("DELETE FROM segments"), "segment-row-missing",
                            "segments", 0),
    "another METADATA row": ("python", sql(
        "INSERT INTO segments SELECT '00000000-0000-0000-0000-00000000000' || rowid, type, scope, "
        "collection FROM segments WHERE scope = 'METADATA'"), "segment-row-twice", "segments", 0),
    "a scope that there is not, 0.6": ("python-0.6", sql(
        "UPDATE segments SET scope = 'VEKTOR' WHERE scope = 'VECTOR'"), "segment-scope-unknown",
        "segments", 0),
    "no VECTOR row, 0.6": ("python-0.6", sql("DELETE FROM segments WHERE scope = 'VECTOR'"),
                           "segment-row-missing", "segments", 0),
    "no METADATA row, 0.6": ("python-0.6", sql("DELETE FROM segments WHERE scope = 'METADATA'"),
                             "segment-row-missing", "segments", 0),
    "full-text table gone": ("python", sql(
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = "
        "'embedding_fulltext_search'"), "table-missing", "indexes", 0),
    "full-text table gone, 0.6": ("python-0.6", sql("DROP TABLE embedding_fulltext_search"),
                                  "table-missing", "indexes", 0),
    "full-text table half made": ("python", sql(
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = "
        "'embedding_fulltext_search_docsize'"), "fts-malformed", "pages", 0),
    "full-text data gone": ("python", sql("DELETE FROM embedding_fulltext_search_data"),
                            "fts-malformed", "indexes", 0),
    "another table for the full-text index": ("python", sql(
        "DROP TABLE embedding_fulltext_search; CREATE TABLE embedding_fulltext_search(string_value)"),
        "fts-malformed", "indexes", 0),
    "a view for the full-text index": ("python-0.6", sql(
        "DROP TABLE embedding_fulltext_search; CREATE VIEW embedding_fulltext_search AS SELECT id AS "
        "rowid, string_value FROM embedding_metadata"), "fts-malformed", "indexes", 0),
    "migration 9": ("python-0.6", sql(
        "ALTER TABLE segments RENAME TO segments_temp; DELETE FROM migrations WHERE dir = 'sysdb' "
        "AND version = 9"), "migration-interrupted", "migration", 0),
    "migration 8": ("python-0.6", sql(
        "DELETE FROM migrations WHERE dir = 'sysdb' AND version >= 8"),
        "migration-interrupted", "migration", 0),
    "migration 7": ("python-0.6", sql(
        "DELETE FROM migrations WHERE dir = 'sysdb' AND version >= 7; DROP TABLE maintenance_log"),
        "migration-interrupted", "migration", 0),
}


@pytest.mark.parametrize("name", GALLERY)
def test_gallery(name, lines, chromashim, tmp_path):
    host, damage, finding, step, status = GALLERY[name]
    line = lines(host)
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    damage(data)
    assert finding in check(chromashim, data)
    account = recover(chromashim, data, status=status)
    assert step in {s["step"] for s in account["steps"]}
    assert check(chromashim, data) == set()
    compare(line, account, data)


# points of the load from which on Chroma 1.5.9 is about to be in its second persist
POINTS = [9300, 9700]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("undo", [True, False], ids=["undo", "no-undo"])
def test_killed_in_a_persist(point, undo, chromashim, tmp_path):
    """Real Chroma, killed by its own writes; with the pre-images and without."""
    hosts.BY_NAME["python"].require()
    killed = gallery.killed_in_a_persist(chromashim, tmp_path, point, undo)
    account = recover(chromashim, killed.data)
    assert ("hnsw" in {step["step"] for step in account["steps"]}) == (not undo)
    assert check(chromashim, killed.data) == set()
    answer = killed.verify()
    assert answer.startswith("verified"), answer


def lose_level0(data: Path) -> None:
    os.truncate(gallery.segment(data, "space-l2") / "data_level0.bin", 20000)


def test_vectors_from_a_snapshot(lines, chromashim, tmp_path):
    """Just those that the live files lost."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    done = chromashim("snapshot", "create", data, "-d", "before")
    assert done.returncode == 0, done.stderr
    lose_level0(data)
    assert "labels-lost" in check(chromashim, data)
    account = recover(chromashim, data)
    assert {"hnsw", "bare"} <= {s["step"] for s in account["steps"]}
    assert check(chromashim, data) == set()
    compare(line, account, data)


def test_set_aside(lines, chromashim, tmp_path):
    """Without a snapshot: the collection answers again, without what has no vector any more."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    lose_level0(data)
    account = recover(chromashim, data, "--set-aside", status=3)
    assert check(chromashim, data) == set()
    [hit] = [c for c in account["collections"] if c["name"] == "space-l2"]
    assert hit["lost_records"] == len(hit["lost"]) > 100
    aside = data / ".chromashim" / "quarantine" / account["quarantine"] / "lost.sqlite3"
    db = sqlite3.connect(aside)
    kept = db.execute("SELECT id, document, metadata FROM lost WHERE collection = 'space-l2'")
    rows = {i: (document, json.loads(metadata)) for i, document, metadata in kept}
    db.close()
    assert set(rows) == {one["id"] for one in hit["lost"]}
    for i, (document, metadata) in rows.items():
        before = line.records["space-l2"][i]
        assert (document, metadata) == (before["document"], before["metadata"])
    compare(line, account, data)


@pytest.mark.parametrize("table", ["embeddings", "embedding_metadata", "embeddings_queue"])
def test_page_lost(table, lines, chromashim, tmp_path):
    """All but what was on the page is there, and the account says what was."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    gallery.page_lost(table)(data)
    assert "database-malformed" in check(chromashim, data)
    # what the index of embeddings has is all there is on its pages
    account = recover(chromashim, data, "--set-aside", status=0 if table == "embeddings" else 3)
    assert "pages" in {s["step"] for s in account["steps"]}
    assert check(chromashim, data) == set()
    answer = line.ask(data)
    assert "error" not in answer and not answer["missed"], answer.get("error")
    total = sum(map(len, line.records.values()))
    there = sum(len(records) for records in answer["records"].values())
    assert there == sum(c["after"]["records"] for c in account["collections"])
    assert there > 0.8 * total
    for name, records in answer["records"].items():
        for i, record in records.items():
            assert same_vector(name, line.records[name][i]["embedding"], record["embedding"])


def test_contradicting_pickle(lines, chromashim, tmp_path):
    """Whose vector it is cannot be told: no record gets another one's."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    gallery.wrong_label(data)
    assert "pickle-not-inverse" in check(chromashim, data)
    account = recover(chromashim, data, "--set-aside", status=3)
    assert check(chromashim, data) == set()
    [hit] = [c for c in account["collections"] if c["name"] == "space-l2"]
    assert {one["id"] for one in hit["lost"]} == {"space-l2-150", "space-l2-151"}
    compare(line, account, data)


def test_another_tokenizer(lines, chromashim, tmp_path):
    """It finds whole words only. Nothing that a start heals by itself: somebody may have wanted it."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    words = "CREATE VIRTUAL TABLE IF NOT EXISTS \"embedding_fulltext_search\" USING fts5 (string_value{})"
    filled = ("INSERT INTO embedding_fulltext_search(rowid, string_value) SELECT id, string_value FROM "
              "embedding_metadata WHERE key = 'chroma:document'")
    for options, finding in [(",  tokenize = \"Trigram\"", set()), ("", {"fts-foreign"})]:
        sql(f"DROP TABLE embedding_fulltext_search; {words.format(options)}; {filled}")(data)
        found = json.loads(chromashim("check", "--full", "--json", data).stdout)["findings"]
        assert {f["code"] for f in found if f["code"].startswith("fts")} == finding
    account = recover(chromashim, data)
    assert [s["step"] for s in account["steps"]] == ["indexes"]
    assert chromashim("check", "--full", data).returncode == 0
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        made = db.execute("SELECT sql FROM sqlite_master WHERE name = 'embedding_fulltext_search'")
        assert "tokenize='trigram'" in made.fetchone()[0]
    db.close()
    compare(line, account, data)


def lose_links(data: Path) -> None:
    """No element knows a neighbour any more: all files are whole, and searches find next to nothing."""
    path = gallery.segment(data, "space-l2") / "data_level0.bin"
    size, content = 4 + 4 * 32 + 4 * 16 + 8, bytearray(path.read_bytes())
    for at in range(0, len(content) - size + 1, size):
        content[at:at + 2] = b"\0\0"
    path.write_bytes(content)


def test_rebuild(lines, chromashim, tmp_path):
    """An index that is whole and finds nothing."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    lose_links(data)
    done = chromashim("check", "--full", data)
    assert done.returncode == 1 and "graph-unreachable" in done.stdout, done.stdout
    account = recover(chromashim, data, "--rebuild", "space-l2")
    assert {s["step"] for s in account["steps"]} == {"hnsw"}
    assert chromashim("recover", "-y", "--rebuild", "nobody", data).returncode == 12
    done = chromashim("check", "--full", data)
    assert done.returncode == 0, done.stdout
    compare(line, account, data)
