# SPDX-License-Identifier: MIT
"""A random client of real Chroma, call by call: what the queue held after each call without the
library is what acts, the report and a search for an id tell with it, persists and purges between."""

import collections
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

import hosts
from made_acts import told
from test_acts import VERBS, acts, hashed, of, store_seed
from test_report import report

pytestmark = pytest.mark.memory

LOAD = Path(__file__).with_name("acts_random.py")
CALLS, NEVER, OFTEN = 150, 100_000, 60


def run(venv, data, seed, threshold, shim=""):
    done = subprocess.run([hosts.python(venv), LOAD, data, str(seed), str(CALLS), str(threshold)],
                          env=hosts.environment({"LD_PRELOAD": shim}), text=True, capture_output=True,
                          timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [call for call in map(json.loads, done.stdout.splitlines()) if call]


@pytest.fixture(scope="module", params=[("venv", 11, "delete"), ("venv", 12, "wal"), ("venv-0.6", 13, "delete")],
                ids=["1.5.9", "1.5.9-wal", "0.6.3"])
def lived(request, tmp_path_factory, shim):
    """The calls, the acts and the directory."""
    venv, seed, mode = request.param
    hosts.BY_NAME["python" if venv == "venv" else "python-0.6"].require()
    truth, data = (tmp_path_factory.mktemp("random") / name for name in ("truth", "chroma_data"))
    truth.mkdir(), data.mkdir()
    if mode == "wal":
        with sqlite3.connect(data / "chroma.sqlite3") as db:
            db.execute("PRAGMA journal_mode = WAL")
        db.close()
    calls = run(venv, truth, seed, NEVER)
    run(venv, data, seed, OFTEN, shim)
    return calls, acts(data), data, venv


def test_each_call(lived):
    calls, found, data, venv = lived
    ids = [r["collection"] for r in of(found, "collection") if r["what"] == "created"]
    seed, records = store_seed(data), of(found, "records")
    assert len(records) == len(calls) > CALLS / 2
    for act, call in zip(records, calls):
        counts = collections.Counter(operation for _, operation, _, _ in call)
        assert [act[verb] for verb in VERBS] == [counts[n] for n in range(4)], call[0]
        assert (act["first"], act["last"], act["more"]) == (call[0][0], call[-1][0], False)
        assert act["collection"] == ids[call[0][2]]
        known = [(operation, hashed([id_], seed)[0]) for _, operation, _, id_ in call]
        if venv == "venv":
            assert sorted(act["ids"]) == sorted(known)
        else:  # those that were purged at once have left none
            assert set(act["ids"]) <= set(known)


def test_what_is_left_of_the_queue(lived):
    calls, found, data, _ = lived
    purged = sum(r["count"] for r in of(found, "records.purge"))
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        left, = db.execute("SELECT count(*) FROM embeddings_queue").fetchone()
    db.close()
    assert purged and sum(map(len, calls)) - purged == left


def test_the_report_has_the_same(lived, chromashim):
    calls, found, data, _ = lived
    names = {r["collection"]: r["name"] for r in of(found, "collection") if r["what"] != "deleted"}
    ids = [r["collection"] for r in of(found, "collection") if r["what"] == "created"]
    wanted = collections.defaultdict(collections.Counter)
    for call in calls:
        wanted[names[ids[call[0][2]]]].update(operation for _, operation, _, _ in call)
    table = report(chromashim, data).table("Collections: records", "Collection")
    assert {name: [row[c] for c in ("Added", "Updated", "Upserted", "Deleted")]
            for name, row in table.items()} == {
                name: [n[k] for k in range(4)] for name, n in wanted.items()}


def test_a_search_for_an_id(lived, chromashim):
    calls, _, data, venv = lived
    times = collections.Counter(id_ for call in calls for id_ in {row[3] for row in call})
    for id_ in ("i1", "ü5", "nowhere"):
        found = [act for act in told(chromashim("log", data, "--json", "--id", id_)) if act["op"] == "records"]
        wanted = {call[0][0] for call in calls if id_ in {row[3] for row in call}}
        assert {act["first_seq"] for act in found} <= wanted and len(found) <= times[id_]
        assert venv != "venv" or len(found) == times[id_] > 0
