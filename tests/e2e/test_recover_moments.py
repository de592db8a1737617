# SPDX-License-Identifier: MIT
"""recover where the parts of a directory are of different moments: an index that was persisted and
a pickle that was not, a database without its journal, a database and an index copied apart. All
made by real Chroma, killed where it matters by strace, without the library."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any, Optional

import pytest

import deeds_load
import gallery
import hosts

pytestmark = pytest.mark.memory

LOAD = Path(deeds_load.__file__)
LINES = ["python", "python-0.6"]
FILLED = 40  # deeds: some persists, and something in the queue


def load(host: hosts.Host, data: Path, *words: object,
         kill: Optional[tuple[Path, str, int]] = None) -> int:
    """Does deeds; kill = (path, calls, n): at the n-th of these calls on it. How many were done."""
    if kill:
        path, calls, when = kill
        done = subprocess.run(
            ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={calls}", "-P", path, "-e",
             f"inject={calls}:signal=SIGKILL:when={when}", hosts.python(host.driver), LOAD, data,
             *map(str, words)],
            env=hosts.environment(), capture_output=True, text=True, timeout=300, check=False)
    else:
        done = hosts.attempt(host.driver, LOAD, data, *words, timeout=300)
    assert (done.returncode != 0) == (kill is not None), done.stderr[-3000:]
    did = [line for line in done.stdout.splitlines() if line.startswith("did")]
    return int(did[-1].split()[1]) if did else FILLED


class Made:
    def __init__(self, host: hosts.Host, work: Path) -> None:
        self.host, self.data = host, work / "data"
        self.data.mkdir()
        assert load(host, self.data, 0, FILLED) == FILLED

    def ask(self, data: Path) -> dict[str, Any]:
        """On a copy: it writes."""
        copy = data.with_name(f"{data.name}-asked")
        try:
            return gallery.ask(self.host, Path(shutil.copytree(data, copy)))
        finally:
            shutil.rmtree(copy)

    def records(self, data: Path) -> dict[str, dict[str, Any]]:
        answer = self.ask(data)
        assert "error" not in answer, answer["error"]
        assert not answer["missed"]
        return {i: {"embedding": r["embedding"], "document": r["document"]}
                for i, r in answer["records"][deeds_load.NAME].items()}


@pytest.fixture(scope="module", params=LINES)
def made(request, tmp_path_factory, strace):
    host = hosts.BY_NAME[request.param]
    host.require()
    return Made(host, tmp_path_factory.mktemp(host.name))


@pytest.fixture
def data(made, tmp_path) -> Path:
    return Path(shutil.copytree(made.data, tmp_path / "data"))


def findings(chromashim, data: Path, depth: str = "--full") -> dict[str, str]:
    found = json.loads(chromashim("check", depth, "--json", data).stdout)["findings"]
    return {f["code"]: f["severity"] for f in found}


def damage(chromashim, data: Path) -> set[str]:
    return {code for code, severity in findings(chromashim, data).items() if severity == "damage"}


def recover(chromashim, data: Path, *options: str) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", *options, data)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    account = json.loads(done.stdout)
    one = {"lost": []}  # nothing was to be healed: there is no account
    for collection in account["collections"]:
        if collection["name"] == deeds_load.NAME:
            one = collection
    return {"steps": [s["step"] for s in account["steps"]], "status": done.returncode, **one}


def test_replayed_deletes(made, data, chromashim):
    """Killed before the pickle: the queue deletes again what the index has deleted already. Chroma
    1.x then fails for ever, 0.6 leaves out what follows."""
    pickle = gallery.segment(data, deeds_load.NAME) / "index_metadata.pickle"
    did = load(made.host, data, FILLED, 3000, kill=(pickle, "openat", 2))
    answer = made.ask(data)
    assert ("Failed to apply logs to the hnsw segment writer" in answer["error"]
            if made.host.name == "python" else "KeyError" in answer["error"])
    assert {"persist-torn", "labels-lost"} <= damage(chromashim, data)
    account = recover(chromashim, data)
    assert account["steps"] == ["hnsw"] and account["status"] == 0
    assert damage(chromashim, data) == set()
    found = made.records(data)
    # what was under way may be there as well
    assert found in (deeds_load.state_after(did), deeds_load.state_after(did + 1))


# the n-th write to the database: one that has spilled, and some in the midst of a commit
WRITES = [("bulk", 150), ("deeds", 12), ("deeds", 40)]


@pytest.mark.parametrize("work, when", WRITES, ids=lambda value: str(value))
def test_journal_left_behind(work, when, made, data, chromashim):
    """Killed inside a transaction, and copied without the journal."""
    database, journal = data / "chroma.sqlite3", data / "chroma.sqlite3-journal"
    words = ["bulk"] if work == "bulk" else [FILLED, 3000]
    did = load(made.host, data, *words, kill=(database, "pwrite64,write", when))
    assert journal.stat().st_size > 512
    assert findings(chromashim, data)["journal-hot"] == "note"
    journal.unlink()
    if work == "bulk":
        assert findings(chromashim, data, "--quick")["journal-lost"] == "warning"
    account = recover(chromashim, data, "--set-aside")
    assert account["steps"] or work == "deeds"  # of which all may be there, or nothing
    assert damage(chromashim, data) == set()
    assert "journal-lost" not in findings(chromashim, data)
    found = made.records(data)
    assert not account["steps"] or len(found) == account["after"]["records"]
    if work == "bulk":
        # A page that was there before may have a few of the new ones.
        new = {i: found.pop(i) for i in [str(i) for i in deeds_load.BULK] if i in found}
        assert found == deeds_load.state_after(did) and len(new) < 100
        assert all(r["embedding"] == deeds_load.vector(int(i), 0) for i, r in new.items())
        return
    # What is there has a vector that it had, and what was deleted before stays so.
    before, after = deeds_load.state_after(did), deeds_load.state_after(did + 1)
    lost = {one["id"] for one in account["lost"]}
    assert set(found) <= set(before) | set(after)
    assert len(set(before) & set(after) - set(found) - lost) <= 0.1 * len(before)
    for i, record in found.items():
        assert record["embedding"] in [s[i]["embedding"] for s in (before, after) if i in s]
        assert record["document"] in [s[i]["document"] for s in (before, after) if i in s] + [None]


def test_deletion_by_half(made, data, chromashim):
    """The mark says that it was applied, and the record is still there: pages of two moments."""
    db = sqlite3.connect(data / "chroma.sqlite3")
    [[gone, sequence]] = db.execute(
        "SELECT id, seq_id FROM embeddings_queue WHERE operation = 3 AND id NOT IN (SELECT "
        "embedding_id FROM embeddings) ORDER BY seq_id DESC LIMIT 1")
    [[metadata]] = db.execute("SELECT id FROM segments WHERE scope = 'METADATA'")
    db.execute("INSERT INTO embeddings(segment_id, embedding_id, seq_id) VALUES (?, ?, ?)",
               (metadata, gone, sequence))
    db.commit()
    db.close()
    assert "error" in made.ask(data)
    assert damage(chromashim, data) == {"records-without-vector"}
    account = recover(chromashim, data)
    assert account["steps"] == ["bare"] and account["after"]["without_vector"] == 0
    assert damage(chromashim, data) == set()
    assert made.records(data) == deeds_load.state_after(FILLED)


def test_lost_rows_that_the_queue_has(made, data, chromashim):
    """When pages were salvaged, Chroma applies the queue again."""
    newest = ("(SELECT e.id FROM embeddings e JOIN embeddings_queue q ON q.id = e.embedding_id "
              "WHERE q.operation = 0 ORDER BY q.seq_id DESC LIMIT 1)")
    gallery.sql(f"DELETE FROM embedding_metadata WHERE id = {newest};"
                f"DELETE FROM embeddings WHERE id = {newest}")(data)
    gallery.overwrite("chroma.sqlite3", 32, (2).to_bytes(4, "big") + (1).to_bytes(4, "big"))(data)
    assert len(made.records(data)) == len(deeds_load.state_after(FILLED)) - 1
    account = recover(chromashim, data)
    assert "pages" in account["steps"]
    assert made.records(data) == deeds_load.state_after(FILLED)


@pytest.mark.parametrize("index", ["ahead", "behind"])
def test_copied_apart(index, made, data, chromashim, tmp_path):
    """The database of one moment, the index of another: searches find only what is there."""
    later = Path(shutil.copytree(data, tmp_path / "later"))
    assert load(made.host, later, FILLED, 2 * FILLED) == 2 * FILLED
    mixed, other = (data, later) if index == "ahead" else (later, data)
    segment = gallery.segment(mixed, deeds_load.NAME).name
    shutil.rmtree(mixed / segment)
    shutil.copytree(other / segment, mixed / segment)
    assert "index-of-another-moment" in damage(chromashim, mixed)
    account = recover(chromashim, mixed, "--set-aside")
    assert account["steps"] == ["hnsw", "bare"] and account["status"] == 3
    assert damage(chromashim, mixed) == set()
    assert "vectors-without-record" not in findings(chromashim, mixed)
    own = deeds_load.state_after(2 * FILLED if index == "behind" else FILLED)
    found = made.records(mixed)
    assert set(found) == set(own) - {one["id"] for one in account["lost"]}
    for i, record in found.items():
        assert record["document"] == own[i]["document"]
        # of which version cannot be told
        assert record["embedding"] in [deeds_load.vector(int(i), n) for n in range(2 * FILLED)]
