# SPDX-License-Identifier: MIT
"""The table of shim/doc/recover.md: what check finds in each situation, and how many records recover and
export give of those that there were, with their vectors and texts compared. CHROMASHIM_WRITE_TABLE=1
writes it anew.

And its other side: what check calls fine is opened by the real Chroma that wrote it and by the newest.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest

import gallery
import hosts
from gallery import check, cut, overwrite, page_lost, remove, same_vector, segment, sql
from test_copies import as_text, compressed, files_in_capitals, flat, in_capitals, segment_not_downloaded
from test_recover_gallery import lines  # noqa: F401
from test_recover_records import cut as cut_to_a_quarter

pytestmark = pytest.mark.memory

TABLE = hosts.ROOT / "shim" / "doc" / "recover.md"
PICKLE = "index_metadata.pickle"
LINES = ("python", "python-0.6")
RELEASES = {"python": "1.5.9", "python-1.0": "1.0.20", "node": "1.0.5", "python-0.6": "0.6.3"}


def renamed(data: Path) -> None:
    path = segment(data)
    path.rename(f"{path}.drift-1")


def fts_gone(data: Path) -> None:
    sql("PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = "
        "'embedding_fulltext_search'")(data)


def header_lost_and_cut(data: Path) -> None:
    (segment(data) / "header.bin").unlink()
    path = segment(data) / "data_level0.bin"
    os.truncate(path, path.stat().st_size * 3 // 4)


SITUATIONS: dict[str, tuple[Callable[[Path], None], str]] = {
    "header.bin lost": (remove("header.bin"), "segment-file-missing"),
    "header.bin cut": (cut("header.bin", 60), "header-damaged"),
    "header.bin lost, data_level0.bin cut to 3/4": (header_lost_and_cut, "segment-file-missing"),
    "data_level0.bin cut": (cut("data_level0.bin", 20000), "level0-short"),
    "length.bin lost": (remove("length.bin"), "segment-file-missing"),
    "link_lists.bin lost": (remove("link_lists.bin"), "segment-file-missing"),
    "link_lists.bin damaged": (overwrite("link_lists.bin", 0, b"\xff" * 8), "links-damaged"),
    "the pickle lost": (remove(PICKLE), "pickle-missing"),
    "the pickle empty": (cut(PICKLE, 0), "pickle-truncated"),
    "the pickle cut": (cut(PICKLE, 900), "pickle-truncated"),
    "the directory of vectors lost": (lambda data: shutil.rmtree(segment(data)), "segment-missing"),
    "the directory of vectors renamed": (renamed, "segment-renamed"),
    "its files beside the database": (lambda data: flat(segment(data)), "segment-renamed"),
    "its files in capitals": (lambda data: files_in_capitals(segment(data)), "segment-file-renamed"),
    "no rows in segments": (sql("DELETE FROM segments WHERE scope = 'VECTOR'"), "segment-row-missing"),
    "all rows of records deleted": (sql("DELETE FROM embeddings"), "records-gone"),
    "the full-text table gone": (fts_gone, "table-missing"),
    "another table for the full-text index": (sql(
        "DROP TABLE embedding_fulltext_search; CREATE TABLE embedding_fulltext_search(string_value)"),
        "fts-malformed"),
    "a page of embeddings lost": (page_lost("embeddings"), "database-malformed"),
    "a page of embedding_metadata lost": (page_lost("embedding_metadata"), "database-malformed"),
    "a page of the queue lost": (page_lost("embeddings_queue"), "database-malformed"),
    "page 1 lost": (overwrite("chroma.sqlite3", 0, bytes(4096)), "database-not-sqlite"),
    "the database cut to a quarter": (cut_to_a_quarter, "database-short"),
    "pointers of Git LFS": (segment_not_downloaded, "not-downloaded"),
    "copied as text": (as_text, "copied-as-text"),
    "chroma.sqlite3 in capitals": (in_capitals, "database-renamed"),
    "chroma.sqlite3 compressed": (compressed, "packed"),
}


def count_right(text: str, whole: dict[str, dict[str, Any]]) -> tuple[int, int]:
    """Records with the right vector, and of these with the right text."""
    vectors = texts = 0
    for line in text.splitlines():
        record = json.loads(line)
        before = whole.get(record["collection"], {}).get(record["id"])
        if not before or not record["embedding"]:
            continue
        if not same_vector(record["collection"], before["embedding"],
                           gallery.float32(record["embedding"])):
            continue
        vectors += 1
        texts += (before["document"], before["metadata"]) == (record["document"], record["metadata"])
    return vectors, texts


def cell(counts: tuple[int, int], all_: int) -> str:
    vectors, texts = counts
    return f"{vectors} of {all_}" + ("" if vectors == texts else f", {texts} with all their texts")


def row(name: str, line_name: str, line: gallery.Line, chromashim, work: Path) -> str:
    damage, finding = SITUATIONS[name]
    data = Path(shutil.copytree(line.data, work / "data"))
    damage(data)
    found = check(chromashim, data)
    exported = count_right(chromashim("export", data).stdout, line.records)
    done = chromashim("recover", "-y", data)
    recovered = count_right(chromashim("export", data).stdout, line.records)
    all_ = sum(map(len, line.records.values()))
    release = RELEASES[line_name]
    left = "a copy that went wrong" in done.stderr or done.returncode == 12
    return (f"| {name} | {release} | {'`' + finding + '`' if finding in found else 'NOT FOUND'} | "
            f"{'left alone' if left else cell(recovered, all_)} | {cell(exported, all_)} |")


NUMBERS = re.compile(r"\d+ (?=of|with)")


def compare_rows(rows: list[str], told: list[str]) -> None:
    """Which elements lie where a file is cut, or ids on a page, differs from one run to the next."""
    assert len(rows) == len(told)
    for now, before in zip(rows, told):
        assert NUMBERS.sub("", now).replace(", with all their texts", "") == NUMBERS.sub(
            "", before).replace(", with all their texts", "")
        for a, b in zip(NUMBERS.findall(now), NUMBERS.findall(before)):
            assert int(a) >= int(b) - 25, (now, before)


@pytest.mark.parametrize("line_name", RELEASES)
def test_table(line_name, lines, chromashim, tmp_path):  # noqa: F811
    line = lines(line_name)
    rows = []
    for number, name in enumerate(SITUATIONS):
        (tmp_path / str(number)).mkdir()
        rows.append(row(name, line_name, line, chromashim, tmp_path / str(number)))
        shutil.rmtree(tmp_path / str(number))
    told = TABLE.read_text(encoding="utf-8").splitlines()
    release = RELEASES[line_name]
    if os.environ.get("CHROMASHIM_WRITE_TABLE"):
        kept = [text for text in told if f"| {release} |" not in text]
        TABLE.write_text("\n".join(kept + rows) + "\n", encoding="utf-8")
        return
    compare_rows(rows, [text for text in told if f"| {release} |" in text])


def test_what_a_skip_says_to_run_makes_what_is_missing(monkeypatch, tmp_path):
    text = (hosts.ROOT / "wrappers/setup").read_text()
    makers = {name: body for name, body in re.findall(r"^make_(\w+)\(\) \{\n(.*?)^\}", text, re.M | re.S)}
    monkeypatch.setattr(hosts, "BUILD", tmp_path)
    for host in hosts.BY_NAME.values():
        with pytest.raises(pytest.skip.Exception, match=f"{host.needs}.* is missing") as skipped:
            host.require()
        named = str(skipped.value).partition("wrappers/setup ")[2].split()
        assert any(f" build/{host.needs} " in makers[name] for name in named), skipped.value


# ---- what is fine

HEALTHY: dict[str, Callable[[Path], None]] = {
    "as it is": lambda data: None,
    "vacuumed": sql("VACUUM"),
    "in WAL mode": sql("PRAGMA journal_mode = WAL"),
    "many rows of locks": sql("CREATE TABLE IF NOT EXISTS acquire_write (id INTEGER PRIMARY KEY, "
                              "lock_status INTEGER NOT NULL); WITH RECURSIVE n(i) AS (SELECT 1 UNION "
                              "ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO "
                              "acquire_write(lock_status) SELECT 1 FROM n"),
    "a directory left behind": lambda data: shutil.copytree(
        segment(data), data / "00000000-0000-4000-8000-000000000000") and None,
    "an empty journal": lambda data: (data / "chroma.sqlite3-journal").write_bytes(b"") and None,
    "other files beside it": lambda data: (data / "notes.txt").write_text("mine\n") and None,
    "capacity beyond the file": lambda data: os.truncate(
        segment(data, "space-l2") / "data_level0.bin",
        (segment(data, "space-l2") / "data_level0.bin").stat().st_size + 200000),
}


@pytest.mark.parametrize("line_name", LINES)
@pytest.mark.parametrize("name", HEALTHY)
def test_fine_is_fine(name, line_name, lines, chromashim, tmp_path):  # noqa: F811
    """Count, all records, a query, a write: by who wrote it, and by the newest."""
    line, newest = lines(line_name), lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    HEALTHY[name](data)
    done = chromashim("check", "--full", data)
    assert done.returncode == 0, done.stdout
    for one in {id(line): line, id(newest): newest}.values():
        copy = Path(shutil.copytree(data, tmp_path / f"for-{one.host.name}"))
        answer = one.ask(copy)
        assert "error" not in answer and not answer["missed"], answer.get("error")
        for collection, records in line.records.items():
            assert set(answer["records"][collection]) == set(records)
