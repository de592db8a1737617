# SPDX-License-Identifier: MIT
"""Ninety ways to damage what real Chroma made, and whether check, recover, its account and run tell the truth.

    tests/damages.py [--snapshot] [--only WORD] [RELEASE...]

For each release (1.5.9, 1.0.20, 0.6.3, those whose environment is there) and damage: check has to find
it, and the account of recover has to be what a comparison record by record of what real Chroma then gives
with what it gave before says; run must not start without a word where something is lost. --snapshot: with
a snapshot in the store, from just before. A row for each that is not so, and the exit status is 1 then.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Optional

sys.path[:0] = [str(Path(__file__).resolve().parent / "e2e")]

import gallery  # noqa: E402
import hosts  # noqa: E402
from gallery import cut, overwrite, page_lost, remove, same_vector, segment, sql  # noqa: E402

RELEASES = {"1.5.9": "python", "1.0.20": "python-1.0", "0.6.3": "python-0.6"}
FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
TABLES = ("embeddings", "embedding_metadata", "embeddings_queue", "collections", "segments", "max_seq_id",
          "collection_metadata", "segment_metadata", "migrations", "tenants", "databases",
          "embeddings_queue_config", "embedding_fulltext_search")

Damage = Callable[[Path], None]


def tail(name: str, part: int) -> Damage:
    def run(data: Path) -> None:
        path = data / name if (data / name).exists() else segment(data) / name
        size = path.stat().st_size
        with open(path, "r+b") as f:
            f.seek(size - size // part)
            f.write(bytes(size // part))
    return run


def half(name: str, part: int = 2) -> Damage:
    def run(data: Path) -> None:
        path = data / name if (data / name).exists() else segment(data) / name
        os.truncate(path, path.stat().st_size // part // 4096 * 4096 or path.stat().st_size // part)
    return run


def noise(name: str) -> Damage:
    def run(data: Path) -> None:
        path = segment(data) / name
        content = bytearray(path.read_bytes())
        chance = random.Random(name)
        for _ in range(max(8, len(content) // 200)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
    return run


def other_collections(name: str) -> Damage:
    return lambda data: shutil.copy(segment(data, "space-l2") / name, segment(data) / name) and None


def both(*damages: Damage) -> Damage:
    def run(data: Path) -> None:
        for damage in damages:
            damage(data)
    return run


def renamed(suffix: str) -> Damage:
    return lambda data: segment(data).rename(f"{segment(data)}{suffix}") and None


def root_lost(table: str) -> Damage:
    def run(data: Path) -> None:
        db = sqlite3.connect(data / "chroma.sqlite3")
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        db.close()
        overwrite("chroma.sqlite3", (root - 1) * 4096, bytes(4096))(data)
    return run


def one_of_three(table: str) -> Damage:
    return sql(f"DELETE FROM {table} WHERE rowid % 3 = 0")


QUERIES = {
    "no VECTOR rows": "DELETE FROM segments WHERE scope = 'VECTOR'",
    "no METADATA rows": "DELETE FROM segments WHERE scope = 'METADATA'",
    "segments and collections gone": "DELETE FROM segments; DELETE FROM collections",
    "segments and collections of one gone": (
        "DELETE FROM segments WHERE collection IN (SELECT id FROM collections WHERE name = 'space-l2'); "
        "DELETE FROM collections WHERE name = 'space-l2'"),
    "all but documents gone": "DELETE FROM embedding_metadata WHERE key <> 'chroma:document'",
    "documents gone": "DELETE FROM embedding_metadata WHERE key = 'chroma:document'",
    "embeddings with their metadata gone": "DELETE FROM embedding_metadata; DELETE FROM embeddings",
    "records and queue gone": ("DELETE FROM embedding_metadata; DELETE FROM embeddings; DELETE FROM "
                               "embeddings_queue"),
    "marks of vectors gone": ("DELETE FROM max_seq_id WHERE segment_id IN (SELECT id FROM segments WHERE "
                              "scope = 'VECTOR')"),
    "marks of metadata gone": ("DELETE FROM max_seq_id WHERE segment_id IN (SELECT id FROM segments WHERE "
                               "scope = 'METADATA')"),
    "a name that is no UTF-8": "UPDATE collections SET name = CAST(x'73ff61' AS TEXT) WHERE name = 'space-l2'",
    "an id that is no UTF-8": ("UPDATE embeddings SET embedding_id = CAST(x'73ff61' AS TEXT) WHERE id = "
                               "(SELECT min(id) + 3 FROM embeddings)"),
    "an id that is a blob": ("UPDATE embeddings SET embedding_id = CAST(embedding_id AS BLOB) WHERE id = "
                             "(SELECT min(id) + 3 FROM embeddings)"),
    "an id of the queue that is no UTF-8": ("UPDATE embeddings_queue SET id = CAST(x'73ff61' AS TEXT) WHERE "
                                            "seq_id = (SELECT max(seq_id) FROM embeddings_queue)"),
    "a document that is no UTF-8": ("UPDATE embedding_metadata SET string_value = CAST(x'73ff61' AS TEXT) "
                                    "WHERE key = 'chroma:document' AND id = (SELECT min(id) + 3 FROM "
                                    "embeddings)"),
    "NaN in the queue": ("UPDATE embeddings_queue SET metadata = '{\"n\": NaN}' WHERE seq_id = (SELECT "
                         "max(seq_id) FROM embeddings_queue)"),
    "a vector cut in the queue": ("UPDATE embeddings_queue SET vector = substr(vector, 1, 5) WHERE seq_id = "
                                  "(SELECT max(seq_id) FROM embeddings_queue WHERE vector NOTNULL)"),
    "the sequence of the queue gone": "DELETE FROM sqlite_sequence",
    "dimension lost": "UPDATE collections SET dimension = NULL",
    "another dimension": "UPDATE collections SET dimension = 5 WHERE name = 'space-l2'",
    "segments of another collection": (
        "UPDATE segments SET collection = (SELECT id FROM collections WHERE name = 'space-ip') WHERE "
        "collection = (SELECT id FROM collections WHERE name = 'space-l2')"),
    "full-text index empty": "DELETE FROM embedding_fulltext_search_data WHERE id > 10",
    "full-text content gone": "DELETE FROM embedding_fulltext_search_content",
}

DAMAGES: dict[str, Damage] = {
    **{f"{f} lost": remove(f) for f in FILES},
    **{f"{f} empty": cut(f, 0) for f in FILES},
    **{f"{f} cut in half": half(f) for f in FILES if f != "header.bin"},
    **{f"{f} ends in zeros": tail(f, 2) for f in FILES},
    **{f"{f} begins with zeros": overwrite(f, 0, bytes(64)) for f in FILES},
    **{f"noise in {f}": noise(f) for f in FILES},
    **{f"{f} of another collection": other_collections(f) for f in FILES},
    **{f"rows of {t} gone": sql(f"DELETE FROM {t}") for t in TABLES},
    **{f"table {t} gone": sql(f"DROP TABLE {t}") for t in TABLES},
    **{f"a page of {t} lost": page_lost(t) for t in TABLES[:3]},
    **{f"root page of {t} lost": root_lost(t) for t in TABLES[:7]},
    **{f"a third of {t} gone": one_of_three(t) for t in TABLES[:3]},
    **{name: sql(text) for name, text in QUERIES.items()},
    **{f"database cut to {n} fifths": (lambda data, n=n: os.truncate(
        data / "chroma.sqlite3", (data / "chroma.sqlite3").stat().st_size // 4096 * n // 5 * 4096))
       for n in (1, 2, 3, 4)},
    "database ends in zeros": tail("chroma.sqlite3", 3),
    "page 1 lost": overwrite("chroma.sqlite3", 0, bytes(4096)),
    "database lost": lambda data: (data / "chroma.sqlite3").unlink(),
    "all directories of vectors lost": lambda data: [
        shutil.rmtree(path) for path in data.glob("*-*-*") if path.is_dir()] and None,
    "a directory of vectors lost": lambda data: shutil.rmtree(segment(data)),
    "a directory of vectors renamed": renamed(".bak"),
    "header and pickle lost": both(remove("header.bin"), remove("index_metadata.pickle")),
    "pickle and queue lost": both(remove("index_metadata.pickle"), sql("DELETE FROM embeddings_queue")),
    "a page and the pickle lost": both(page_lost("embeddings"), remove("index_metadata.pickle")),
}


class Trouble(Exception):
    pass


def chromashim(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([os.environ.get("CHROMASHIM", str(hosts.BUILD / "chromashim")), *map(str, words)], capture_output=True, text=True,
                          errors="surrogateescape", timeout=300, check=False)


def different(name: str, mine: Optional[dict[str, Any]], theirs: Optional[dict[str, Any]]) -> str:
    if not theirs:
        return "record"
    if not mine:
        return "added"
    if not same_vector(name, mine["embedding"], theirs["embedding"]):
        return "vector"
    same = (mine["document"], mine["metadata"]) == (theirs["document"], theirs["metadata"])
    return "" if same else "changed"


def names_of(data: Path) -> dict[str, str]:
    """What recover calls a collection whose name is lost, and what it was called."""
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        names = {f"lost-{i}": name for i, name in db.execute("SELECT id, name FROM collections")}
    db.close()
    return names


def losses(line: gallery.Line, found: dict[str, dict[str, Any]]) -> dict[tuple[str, str], str]:
    lost: dict[tuple[str, str], str] = {}
    for name, records in line.records.items():
        now = found.get(name, {})
        for i in records.keys() | now.keys():
            what = different(name, records.get(i), now.get(i))
            if what:
                lost[name, i] = what
    return lost


def examine(line: gallery.Line, name: str, data: Path, without: Path) -> str:
    """What is not as it has to be, or nothing."""
    wrong: list[str] = []
    checked = chromashim("check", "--full", data)
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    if done.returncode not in (0, 1, 3, 12):
        wrong.append(f"recover: {done.returncode} {done.stderr[-200:]}")
    account = json.loads(done.stdout or "{}")
    names = names_of(line.data)
    told = {(names.get(c["name"], c["name"]), one["id"]): one["what"]
            for c in account.get("collections", []) for one in c["lost"]}
    more = account.get("may_have_lost_more") or account.get("collections_without_name")
    differ = account.get("may_have_wrong_vectors")
    answer = line.ask(data) if (data / "chroma.sqlite3").exists() else {"records": {}}
    if "error" in answer:
        wrong.append("Chroma: " + answer["error"].strip().splitlines()[-1][-160:])
    if answer.get("missed"):
        wrong.append(f"{len(answer['missed'])} not found by their vectors")
    found = {names.get(name, name): records for name, records in answer.get("records", {}).items()}
    true = losses(line, found) if "error" not in answer else {}
    # Of some nothing is lost: what was overwritten was unused, or Chroma makes it again.
    if checked.returncode == 0 and (true or wrong):
        wrong.append("check: fine")
    silent = {at: what for at, what in true.items()
              if at not in told and not (differ and what == "vector")}
    false = [at for at in told if at not in true]
    if silent and not more and done.returncode in (0, 3):
        kinds = sorted(silent.values())
        wrong.append(f"{len(silent)} losses not told: " + ", ".join(
            f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))))
    if false and "error" not in answer:
        wrong.append(f"{len(false)} told that are whole: {sorted({told[at] for at in false})}")
    ran = chromashim("run", "--no-guard", "--dir", without, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    if true and "started\n" in ran.stdout and "lost" not in ran.stderr:
        wrong.append("run: started without a word of the loss")
    count = sum(map(len, line.records.values()))
    outcome = f"{count - len(true)} of {count} whole, {len(told)} told" + (", maybe more" if more else "")
    return f"{outcome}: {'; '.join(wrong)}" if wrong else ""


def run(release: str, options: argparse.Namespace, work: Path) -> int:
    host = hosts.BY_NAME[RELEASES[release]]
    line = gallery.Line(host, work)
    if options.snapshot:
        assert chromashim("snapshot", "create", line.data).returncode == 0
    bad = tried = 0
    for name, damage in DAMAGES.items():
        if options.only and options.only not in name:
            continue
        data = Path(shutil.copytree(line.data, work / "damaged"))
        try:
            damage(data)
        except sqlite3.Error as error:
            print(f"{release}: {name}: not tried: {error}", flush=True)
            shutil.rmtree(data)
            continue
        without = Path(shutil.copytree(data, work / "run"))
        try:
            wrong = examine(line, name, data, without)
        except (subprocess.TimeoutExpired, ValueError) as error:
            wrong = repr(error)[:200]
        tried += 1
        bad += bool(wrong)
        if wrong or options.only:
            print(f"{release}: {name}: {wrong or 'right'}", flush=True)
        if not options.keep:
            shutil.rmtree(data)
            shutil.rmtree(without)
    print(f"{release}: {tried} tried, {bad} wrong", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshot", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("releases", nargs="*", choices=[[], *RELEASES], default=[])
    options = parser.parse_args()
    bad = 0
    for release in options.releases or RELEASES:
        if not (hosts.BUILD / hosts.BY_NAME[RELEASES[release]].needs).exists():
            print(f"{release}: not tried: no build/{hosts.BY_NAME[RELEASES[release]].needs}")
            continue
        with tempfile.TemporaryDirectory(prefix="chromashim-damages-") as work:
            bad += run(release, options, Path(work))
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
