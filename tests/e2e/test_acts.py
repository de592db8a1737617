# SPDX-License-Identifier: MIT
"""The log of acts says what clients did to their collections, call by call, of real Chroma."""

import json
import os
import signal
import sqlite3
import subprocess
import textwrap
from pathlib import Path

import pytest
import xxhash

import hosts
import oplog_reader
import tracer

pytestmark = pytest.mark.memory

LOAD = Path(__file__).with_name("acts_load.py")
VERBS = ("added", "updated", "upserted", "deleted")
OPERATIONS = {"added": 0, "updated": 1, "upserted": 2, "deleted": 3}


def store_seed(data: Path) -> int:
    """The first eight bytes of the store's id."""
    text = (data / tracer.STORE / "identity").read_text(errors="replace")
    identity = next(word for word in text.split() if len(word) == 32)
    return int.from_bytes(bytes.fromhex(identity)[:8], "little")


def acts(data: Path) -> list:
    problems = []
    found = list(oplog_reader.read_acts(data, problems))
    assert not problems
    return found


def of(found: list, *ops: str) -> list:
    return [r for r in found if r["op"] in ops]


def load(driver: str, target, shim: str = "", **env: str) -> list:
    """Runs the load; what it did."""
    settings = hosts.environment({"LD_PRELOAD": shim, **env})
    done = subprocess.run([hosts.python(driver), LOAD, target], env=settings, text=True,
                          capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module", params=[h for h in hosts.HOSTS if h.name != "node-new"],
                ids=lambda h: h.name)
def lived(request, tmp_path_factory, shim):
    """What a client did, and the directory."""
    host = request.param
    host.require()
    data = tmp_path_factory.mktemp("acts") / "chroma_data"
    data.mkdir()
    if not host.server:
        return host, load(host.driver, data, shim), data
    server = hosts.Server(host, data, shim)
    try:
        done = load(host.driver, server.address)
        server.stop()
    finally:
        server.clean_up()
    return host, done, data


def hashed(ids: list, seed: int) -> list:
    return [xxhash.xxh3_64_intdigest(i.encode(), seed=seed).to_bytes(8, "little") for i in ids]


def test_each_call(lived):
    host, done, data = lived
    calls = [c for c in done if c["what"] == "records"]
    found = of(acts(data), "records")
    seed, following = store_seed(data), 1
    assert len(found) == len(calls)
    for act, call in zip(found, calls):
        n = len(call["ids"])
        counts = {verb: n if verb == call["verb"] else 0 for verb in VERBS}
        assert {verb: act[verb] for verb in VERBS} == counts, call["verb"]
        assert (act["collection"], act["count"], act["more"]) == (call["collection"], n, False)
        assert act["last"] - act["first"] + 1 == n and act["other"] == 0
        assert act["form"] == "hash" and act["transaction"]
        known = set(hashed(call["ids"], seed))
        assert all(id_ in known for _, id_ in act["ids"])
        assert {operation for operation, _ in act["ids"]} <= {OPERATIONS[call["verb"]]}
        # Before 1.0 the rows that were purged at once have left no id; a long one is not told.
        if host.driver == "venv" and max(map(len, call["ids"])) < 100:
            assert len(act["ids"]) >= min(n, 1000)
            if n < 1000:
                assert {id_ for _, id_ in act["ids"]} == known
        following = act["last"] + 1
    assert following > 1


def test_collections(lived):
    _, done, data = lived
    found = [{"what": r["what"], "collection": r["collection"], "name": r["name"],
              **({"old_name": r["old_name"]} if r["old_name"] else {})}
             for r in of(acts(data), "collection")]
    told = [c for c in done if c["what"] != "records"]
    # A first record sets the dimension, and a new metadata key the schema.
    assert [c for c in found if c["what"] != "configured"] == \
        [c for c in told if c["what"] != "configured"]
    for each in (c for c in told if c["what"] == "configured"):
        assert found.index(each) > [c["what"] for c in found].index("renamed")
    dimensions = [r for r in of(acts(data), "collection") if r["what"] == "configured" and
                  r["offset"] & 1]
    assert {r["length"] for r in dimensions} == {384} and len(dimensions) == 3
    segments = of(acts(data), "segment")
    assert [s["scope"] for s in segments].count("VECTOR") == \
        [c["what"] for c in told].count("created")
    assert {s["collection"] for s in segments} == {c["collection"] for c in told}
    assert {s["segment_id"] for s in segments} & set(os.listdir(data))


def test_purges(lived):
    _, done, data = lived
    added, purged = {}, {}
    for call in done:
        if call["what"] == "records":
            added[call["collection"]] = added.get(call["collection"], 0) + len(call["ids"])
    for act in of(acts(data), "records.purge"):
        assert act["count"] > 0 and act["first"] <= act["last"]
        purged[act["collection"]] = purged.get(act["collection"], 0) + act["count"]
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        left = dict(db.execute("SELECT substr(topic, -36), count(*) FROM embeddings_queue GROUP BY 1"))
    assert purged and {c: n - purged.get(c, 0) for c, n in added.items()} == \
        {c: left.get(c, 0) for c in added}


def test_migrations_and_who(lived):
    host, _, data = lived
    found = acts(data)
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        made = [f"{d} {f}" for d, f in db.execute("SELECT dir, filename FROM migrations")]
    assert sorted(r["texts"] for r in of(found, "migration")) == sorted(made)
    assert all(r["offset"] == int(r["texts"].split()[1][:5]) for r in of(found, "migration"))
    segments = oplog_reader.headers(data, "acts")
    for header in segments:
        own = [r for r in found if r["segment"] == header["segment"]]
        if not own:  # made ahead
            continue
        starts = of(own, "log.start")
        assert len(starts) == 1 and starts[0]["arg"] == int(header["sequence"] > 0)
        assert ("node" if host.node else "python") in starts[0]["texts"] or "chroma" in starts[0]["texts"]
        threads = {r["tid"] for r in of(own, "log.thread")}
        assert all(r["tid"] in threads for r in own if r["op"] not in ("log.name", "log.start"))
    assert host.node or of(found, "log.exit")


def test_nothing_private(lived):
    _, done, data = lived
    for path in (data / tracer.STORE / "acts").iterdir():
        content = path.read_bytes()
        assert b"SECRET" not in content and b"many-12" not in content and b"again-7" not in content
