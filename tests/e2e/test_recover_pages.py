# SPDX-License-Identifier: MIT
"""recover where SQLite gives up: page 1, the schema, interior pages or the file's end are lost. What
it calls whole is whole to the bit, nothing deleted comes back, and real Chroma opens what is left."""

import hashlib
import json
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Callable

import pytest

import hosts
from test_export import pages_of
from test_formats import check, codes, exported, work

pytestmark = pytest.mark.memory

LINES = [host for host in hosts.HOSTS if host.name in ("python", "python-0.6")]
LOAD = Path(__file__).with_name("pages_load.py")
PAGE = 4096
COUNT = 2300


@pytest.fixture(scope="module", params=LINES, ids=lambda host: host.name)
def made(request, tmp_path_factory, chromashim) -> tuple[hosts.Host, Path, dict[str, Any]]:
    host = request.param
    host.require()
    data = tmp_path_factory.mktemp(host.name) / "data"
    data.mkdir()
    work(host, data, "load", *(["arrays"] if host.name == "python" else []))
    hosts.chroma(host.driver, LOAD, data, COUNT)
    whole = exported(chromashim, data)
    assert len(whole["big"]) == COUNT - 600
    return host, data, whole


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "copy"))


def recover(chromashim, data: Path, *options: str) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", *options, data, timeout=120)
    assert done.returncode in (0, 3), (done.stderr, done.stdout)
    return json.loads(done.stdout)


def harmed(account: dict[str, Any]) -> dict[str, set[str]]:
    return {c["name"]: {one["id"] for one in c["lost"]} for c in account["collections"]}


def named(records: dict[str, Any], account: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Under the names that they had: a collection whose row is lost is called lost-ID."""
    result = {}
    for name, of in records.items():
        if name.startswith("lost-"):
            [name] = {n for n, r in whole.items() if set(of) & set(r)}
            account["collections"].extend(
                {**c, "name": name} for c in list(account["collections"]) if
                c["name"].startswith("lost-") and {one["id"] for one in c["lost"]} & set(whole[name]))
        result[name] = of
    return result


def whole_but(chromashim, data: Path, whole: dict[str, Any], account: dict[str, Any]) -> int:
    """Each record is one that was inserted, and as it was unless the account names it."""
    found = named(exported(chromashim, data, status=3 if any(
        one["what"] == "vector" for c in account["collections"] for one in c["lost"]) else 0),
                  account, whole)
    lost, missing = harmed(account), 0
    for name, records in whole.items():
        mine = found.get(name, {})
        # what only the index has may have been deleted by rows of the queue that are lost
        assert set(mine) <= set(records) | lost.get(name, set()), name
        missing += len(set(records) - set(mine))
        for i in set(mine) - lost.get(name, set()):
            assert mine[i] == records[i], (name, i)
    assert set(found) <= set(whole)
    return missing


# ---- damage ----

Damage = Callable[[Path], None]


def write(offset: int, content: bytes) -> Damage:
    def run(data: Path) -> None:
        with open(data / "chroma.sqlite3", "r+b") as f:
            f.seek(offset)
            f.write(content)
    return run


def pages(data: Path) -> list[bytes]:
    content = (data / "chroma.sqlite3").read_bytes()
    return [content[i:i + PAGE] for i in range(0, len(content), PAGE)]


def lose_pages(which: Callable[[int, bytes], bool]) -> Damage:
    def run(data: Path) -> None:
        for n, page in enumerate(pages(data)):
            if which(n, page):
                write(n * PAGE, bytes(PAGE))(data)
    return run


def is_interior(n: int, page: bytes) -> bool:
    return n > 0 and page[0] == 5


def is_schema(n: int, page: bytes) -> bool:
    return n == 0 or (page[0] == 13 and b"CREATE " in page and b".sqlite.sql" not in page)


def is_migration(n: int, page: bytes) -> bool:
    return is_schema(n, page) or (page[0] == 13 and b".sqlite.sql" in page)


def lose_root(table: str) -> Damage:
    """Nothing leads to its rows any more, nor can they be read before that is healed."""
    def run(data: Path) -> None:
        with closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
            root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        assert is_interior(root - 1, pages(data)[root - 1])
        write((root - 1) * PAGE, bytes(PAGE))(data)
    return run


def break_freelist(data: Path) -> None:
    trunk = struct.unpack_from(">I", pages(data)[0], 32)[0]
    assert trunk
    write((trunk - 1) * PAGE, b"\xff" * 64)(data)


def cut(part: float) -> Damage:
    return lambda data: os.truncate(data / "chroma.sqlite3",
                                    int((data / "chroma.sqlite3").stat().st_size * part))


GARBAGE = random.Random(1).randbytes(PAGE)

# Nothing of the records is lost with these.
HARMLESS: dict[str, tuple[Damage, str]] = {
    "page 1 zeroed": (write(0, bytes(PAGE)), "database-not-sqlite"),
    "page 1 text": (write(0, b"Lorem ipsum " * 341), "database-not-sqlite"),
    "page 1 garbage": (write(0, GARBAGE), "database-not-sqlite"),
    "header torn": (write(0, bytes(100)), "database-not-sqlite"),
    "page 1 without its tree": (write(100, bytes(PAGE - 100)), "database-malformed"),
    "schema lost": (lose_pages(is_schema), "database-not-sqlite"),
    "interior pages lost": (lose_pages(is_interior), "database-malformed"),
    "root of the metadata lost": (lose_root("embedding_metadata"), "database-malformed"),
    "page 1 and interior pages lost": (lose_pages(lambda n, p: n == 0 or is_interior(n, p)),
                                       "database-not-sqlite"),
    "freelist broken": (break_freelist, "database-malformed"),
}
ASKED = {"page 1 zeroed", "schema lost", "interior pages lost"}


@pytest.mark.parametrize("name", HARMLESS)
def test_nothing_lost(name, made, copy, chromashim):
    host, _, whole = made
    damage, code = HARMLESS[name]
    damage(copy)
    found = check(chromashim, copy, "--full")
    assert code in codes(found)
    assert all("recover" in f["helps"] for f in found["findings"] if f["code"] == code)
    account = recover(chromashim, copy)
    assert account["steps"][0]["step"] == "pages"
    assert not any(harmed(account).values())
    assert whole_but(chromashim, copy, whole, account) == 0
    assert codes(check(chromashim, copy, "--full")) <= {"vectors-without-record"}
    if name in ASKED:
        real_chroma_has(host, copy, whole, account)


def real_chroma_has(host, data: Path, whole: dict[str, Any], account: dict[str, Any]) -> None:
    answer = {n: r for n, r in json.loads(work(host, data, "dump")).items() if r}
    answer = named(answer, account, whole)
    lost = harmed(account)
    for name, records in answer.items():
        assert set(records) <= set(whole[name]) | lost.get(name, set())
        for i, record in records.items():
            if i not in lost.get(name, set()):
                for part in ("document", "metadata"):
                    assert record[part] == whole[name][i][part], (name, i)


def test_newest_vectors_lost(made, copy, chromashim):
    """The index has older ones of the records that were updated: the account says so."""
    _, _, whole = made
    lose_pages(lambda n, page: page[0] == 13 and b"persistent://" in page and b"new 1" in page)(copy)
    account = recover(chromashim, copy)
    assert whole_but(chromashim, copy, whole, account) == 0
    assert "id-1" in harmed(account)["big"]


ADD = """
import sys, chromadb
from chromadb.config import Settings
big = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False)) \
    .get_collection("big", embedding_function=None)
ids = [f"new-{n}" for n in range(300)]
big.add(ids=ids, embeddings=[[0.5] * int(sys.argv[2])] * 300, documents=["new"] * 300)
assert len(big.get(ids=ids)["ids"]) == 300
"""


def test_ids_lost(made, copy, chromashim):
    """Documents whose record's row is lost, and its entry in the index: Chroma would give the number
    to a new record, and fail."""
    host, _, whole = made
    for page in pages_of(copy, "embeddings")[:3] + pages_of(copy, "sqlite_autoindex_embeddings_1"):
        write((page - 1) * PAGE, bytes(PAGE))(copy)
    account = recover(chromashim, copy, "--set-aside")
    whole_but(chromashim, copy, whole, account)
    assert "lost their ids" in json.dumps(account["steps"])
    [aside] = (copy / ".chromashim" / "quarantine").glob("*/lost.sqlite3")
    db = sqlite3.connect(aside)
    rows = db.execute("SELECT document, metadata FROM lost WHERE id IS NULL").fetchall()
    db.close()
    known = {r["document"]: r["metadata"] for records in whole.values() for r in records.values()}
    assert rows and all(d in known for d, _ in rows if d is not None)
    assert "metadata-without-record" not in codes(check(chromashim, copy))
    hosts.chroma(host.driver, "-c", ADD, copy, len(whole["big"]["id-1"]["embedding"]))
    real_chroma_has(host, copy, {**whole, "big": {**whole["big"], **{
        f"new-{n}": {"document": "new", "metadata": None} for n in range(300)}}}, account)


def migrations(data: Path) -> set[tuple[Any, ...]]:
    db = sqlite3.connect(data / "chroma.sqlite3")
    rows = set(db.execute("SELECT dir, version, filename, sql, hash FROM migrations"))
    db.close()
    return rows


def test_migrations_lost(made, copy, chromashim):
    """Then the oldest release that has what is there counts, and a newer one migrates on."""
    host, _, whole = made
    lose_pages(is_migration)(copy)
    account = recover(chromashim, copy)
    assert whole_but(chromashim, copy, whole, account) == 0
    assert "migration-interrupted" not in codes(check(chromashim, copy))
    assert migrations(copy) == migrations(made[1])
    assert all(hashlib.md5(sql.encode()).hexdigest() == md5 for _, _, _, sql, md5 in migrations(copy))
    real_chroma_has(host, copy, whole, account)


@pytest.mark.parametrize("part", [0.97, 0.8, 0.51, 0.3, 0.203])
def test_cut_short(part, made, copy, chromashim):
    host, _, whole = made
    cut(part)(copy)
    assert {"database-short"} <= codes(check(chromashim, copy))
    account = recover(chromashim, copy, "--set-aside")
    missing = whole_but(chromashim, copy, whole, account)
    assert missing <= 2 * COUNT * (1 - part / 2)
    if part in (0.8, 0.3):
        real_chroma_has(host, copy, whole, account)


def test_terabytes(made, copy, chromashim):
    """A hole of 16 TB between the pages that hold something."""
    _, _, whole = made
    path = copy / "chroma.sqlite3"
    content = path.read_bytes()
    try:
        os.truncate(path, 16 << 40)
    except OSError:
        os.truncate(path, 15 << 40)  # ext4 ends before
    write(path.stat().st_size - len(content) // PAGE * PAGE, content)(copy)
    write(0, bytes(PAGE))(copy)
    for command in ("check", "export"):
        done = chromashim(command, copy)
        assert done.returncode in (2, 3)
    account = recover(chromashim, copy)
    assert whole_but(chromashim, copy, whole, account) == 0
    assert path.stat().st_size < 1 << 30


@pytest.mark.parametrize("size", [0, 1, 99, 100, 4095, 4096, 8192])
def test_nothing_left(size, made, copy, chromashim):
    os.truncate(copy / "chroma.sqlite3", size)
    before = (copy / "chroma.sqlite3").read_bytes()
    found = check(chromashim, copy)
    assert found["verdict"] == "damage"
    assert codes(found) == {"database-lost" if size else "database-missing"}
    assert chromashim("recover", "-y", copy).returncode == 1
    assert (copy / "chroma.sqlite3").read_bytes() == before


def spoil(data: Path, seed: int) -> None:
    """Pages of garbage and of zeros, sometimes page 1 among them, or cut short."""
    rnd = random.Random(seed)
    count = (data / "chroma.sqlite3").stat().st_size // PAGE
    for _ in range(rnd.choice([1, 3, 10, 40])):
        write(rnd.randrange(count) * PAGE, rnd.choice([rnd.randbytes(PAGE), bytes(PAGE)]))(data)
    if rnd.random() < 0.3:
        write(0, bytes(PAGE))(data)
    if rnd.random() < 0.2:
        cut(rnd.random())(data)


SEEDS = int(os.environ.get("CHROMASHIM_SEEDS", "10"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_spoilt_pages(seed, made, copy, chromashim):
    _, _, whole = made
    spoil(copy, seed)
    if check(chromashim, copy, "--full")["verdict"] == "fine":
        return
    done = chromashim("recover", "-y", "--json", copy, timeout=120)
    assert done.returncode in (0, 1, 3), done.stderr
    if done.returncode != 1:
        whole_but(chromashim, copy, whole, json.loads(done.stdout))


def test_arrays_are_taken_from_the_queue(made, copy, chromashim):
    """With pages of their own, of records whose other metadata lacks nothing or lacks as well."""
    host, _, whole = made
    if host.name != "python":
        pytest.skip("no arrays before 1.5")
    with sqlite3.connect(copy / "chroma.sqlite3") as db:
        told = {i for i, in db.execute("SELECT id FROM embeddings_queue WHERE metadata LIKE '%\"tags\":[%'")}
    db.close()
    assert len(told & set(whole["arrays"])) > 20
    for page in pages_of(copy, "embedding_metadata_array") + pages_of(copy, "embedding_metadata"):
        write((page - 1) * PAGE, bytes(PAGE))(copy)
    account = recover(chromashim, copy)
    assert not told & harmed(account)["arrays"]
    whole_but(chromashim, copy, whole, account)


@pytest.mark.parametrize("name", ["page 1 garbage", "schema lost", "interior pages lost"])
def test_export_gives_all(name, made, copy, chromashim):
    HARMLESS[name][0](copy)
    before = (copy / "chroma.sqlite3").read_bytes()
    assert exported(chromashim, copy, status=3) == made[2]
    assert (copy / "chroma.sqlite3").read_bytes() == before


FIND = """
import sys, chromadb
from chromadb.config import Settings
c = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
print(len(c.get_collection("big").get(where_document={"$contains": "lambda"}, include=[])["ids"]))
"""

INCOMPLETE = {
    "rows missing": "DELETE FROM embedding_fulltext_search WHERE rowid % 3 = 0",
    "other content": "UPDATE embedding_fulltext_search SET string_value = 'what it was' "
                     "WHERE rowid % 3 = 0",
    "terms missing": "CREATE TEMP TABLE c AS SELECT * FROM embedding_fulltext_search_content WHERE "
                     "id % 3 = 0; CREATE TEMP TABLE d AS SELECT * FROM "
                     "embedding_fulltext_search_docsize WHERE id % 3 = 0;"
                     "DELETE FROM embedding_fulltext_search WHERE rowid % 3 = 0;"
                     "INSERT INTO embedding_fulltext_search_content SELECT * FROM c;"
                     "INSERT INTO embedding_fulltext_search_docsize SELECT * FROM d",
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_fulltext_lacks_documents(name, made, copy, chromashim):
    """Well-formed, but not all of it: real Chroma does not find them until it is built again."""
    host, data, whole = made
    assert "fts-incomplete" not in codes(check(chromashim, copy, "--full"))

    def found(where: Path) -> int:
        return int(hosts.chroma(host.driver, "-c", FIND, where).split()[-1])

    db = sqlite3.connect(copy / "chroma.sqlite3")
    db.executescript(INCOMPLETE[name])
    db.close()
    assert codes(check(chromashim, copy, "--full")) == {"fts-incomplete"}
    account = json.loads(chromashim("recover", "-y", "--json", "--only", "indexes", copy).stdout)
    assert account["healed"] == 1 and not any(harmed(account).values())
    assert codes(check(chromashim, copy, "--full")) == set()
    if name == "rows missing":
        assert found(copy) == sum("lambda" in r["document"] for r in whole["big"].values())


@pytest.mark.parametrize("has_snapshot", [True, False])
def test_collections_without_their_row(has_snapshot, made, copy, chromashim):
    """Name and settings from a snapshot, else a name that says so; the records are there."""
    host, _, whole = made
    if has_snapshot:
        assert chromashim("snapshot", "create", copy).returncode == 0
    for page in pages_of(copy, "collections"):
        write((page - 1) * PAGE, bytes(PAGE))(copy)
    account = recover(chromashim, copy)
    found = exported(chromashim, copy)
    if has_snapshot:
        assert found == whole and not any(harmed(account).values())
        return
    assert len(found) == len(whole) and all(name.startswith("lost-") for name in found)
    cosine = {i for name in ("space-cosine", "queue-only") for i in whole[name]}
    records = {i: r for of in whole.values() for i, r in of.items() if i not in cosine}
    assert {i: r for of in found.values() for i, r in of.items() if i not in cosine} == records
    real_chroma_has(host, copy, whole, account)


def test_log_beside_a_lost_page(made, copy, chromashim):
    """SQLite sees from page 1 that there is a log; what is committed in it counts all the same."""
    subprocess.run([sys.executable, "-c", "import os, sqlite3, sys\n"
                    "db = sqlite3.connect(sys.argv[1])\ndb.execute('PRAGMA journal_mode = wal')\n"
                    "db.execute(\"UPDATE embedding_metadata SET string_value = 'in the log' WHERE key = "
                    "'chroma:document' AND id IN (SELECT id FROM embeddings WHERE embedding_id = "
                    "'id-700')\")\ndb.commit()\nos._exit(0)", str(copy / "chroma.sqlite3")], check=True)
    assert (copy / "chroma.sqlite3-wal").stat().st_size > PAGE
    write(0, bytes(PAGE))(copy)
    recover(chromashim, copy)
    found = exported(chromashim, copy)
    assert found["big"].pop("id-700")["document"] == "in the log"
    assert all(found["big"][i] == r for i, r in made[2]["big"].items() if i != "id-700")


def test_schema_that_says_more(made, copy, chromashim, tmp_path):
    """The text of a table is what a table is made of, and nothing else is done with it."""
    outside = tmp_path / "outside"
    with sqlite3.connect(copy / "chroma.sqlite3") as db:
        db.execute("PRAGMA writable_schema = ON")
        for name, text in (("one", f"ATTACH '{outside}' AS x"),
                           ("two", f"CREATE TABLE two(a); ATTACH '{outside}' AS x; "
                                   "CREATE TABLE x.y(a)")):
            db.execute("INSERT INTO sqlite_master VALUES ('table', ?1, ?1, 0, ?2)", (name, text))
    db.close()
    write(0, bytes(100))(copy)
    recover(chromashim, copy)
    assert not outside.exists()
    assert codes(check(chromashim, copy)) == set()
