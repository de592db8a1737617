# SPDX-License-Identifier: MIT
"""`chromashim blame`: what it names is what the second reader of the log adds up."""

import collections
import json
import subprocess

import pytest

import hosts
from test_report import SYNCS, WRITES, live, names_of, records_of

pytestmark = pytest.mark.memory


@pytest.fixture(scope="module")
def lived(tmp_path_factory, shim):
    hosts.BY_NAME["python-0.6"].require()
    data = tmp_path_factory.mktemp("blame") / "chroma_data"
    data.mkdir()
    live(data, shim, "life", venv="venv-0.6")
    return data


def blamed(chromashim, data, *options):
    done = chromashim("blame", "--json", "--top", "100", *options, data)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


def listed(rows, key):
    assert [r[key] for r in rows] == sorted((r[key] for r in rows), reverse=True)
    return {r["name"]: r[key] for r in rows}


def test_what_wrote_and_what_synced(lived, chromashim):
    told, names = blamed(chromashim, lived), names_of(lived)
    written, synced, slow, statements = (collections.Counter() for _ in range(4))
    for r in records_of(lived):
        if r.get("sql") and r["op"] in ("sqlite.step", "sqlite.exec"):
            statements[" ".join(r["sql"].split())[:60]] += r["duration"]
        if r["in_flight"] or not r.get("path") or r["op"].startswith(("txn.", "persist.", "sqlite.")):
            continue
        segment, _, file = r["path"].partition("/")
        name = "the directory itself" if r["path"] == "." else r["path"]
        if segment in names:
            name = f"{names[segment]}: {file}" if file else names[segment]
        slow[name] += r["duration"]
        if r["op"] in WRITES and r["result"] > 0:
            written[name] += r["result"]
        if r["op"] in SYNCS and r["result"] == 0:
            synced[name] += r["duration"]
    exact = {name for name in written if name.startswith(("chroma.sqlite3", "books: "))}
    assert {"chroma.sqlite3", "books: data_level0.bin"} <= exact
    for question, key, wanted in (("write", "bytes", written), ("sync", "ns", synced),
                                  ("slow", "ns", slow)):
        files = listed(told[question]["file"], key)
        for name in exact:
            assert files.get(name, 0) == wanted[name], (question, name)
    rows = listed(told["slow"]["statement"], "ns")
    insert, = [name for name in rows if name.startswith("INSERT INTO \"embeddings_queue\"")]
    assert rows[insert] == statements[insert[:60]] > 0
    assert not any(name.startswith(("SELECT", "BEGIN")) for name in rows)


def test_growth_is_what_the_files_have_grown(lived, chromashim):
    grown = listed(blamed(chromashim, lived)["grow"]["file"], "bytes")
    segment, = [s for s, name in names_of(lived).items() if (lived / s).is_dir()]
    for file in ("data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"):
        assert grown[f"books: {file}"] == (lived / segment / file).stat().st_size
    assert "chroma.sqlite3-journal" not in grown


def test_a_table_for_people(lived, chromashim):
    done = chromashim("blame", "--top", "2", "--utc", lived)
    assert done.returncode == 0
    for line in ("What made it grow", "What made it slow", "What made it sync", "by statement:",
                 "by process:"):
        assert line in done.stdout.splitlines()
    assert "chroma.sqlite3" in done.stdout and " %  " in done.stdout
    assert chromashim("blame", "--until", "400d", lived).returncode == 12
    for wrong in (["--top", "0"], ["--since", "nonsense"], [lived]):
        assert chromashim("blame", *wrong, lived).returncode == 2
    assert subprocess.run([hosts.COMMAND, "blame", lived.parent], check=False,
                          capture_output=True).returncode == 12
