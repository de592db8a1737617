# SPDX-License-Identifier: MIT
"""What hnswlib has in memory: a damaged graph must not be written, nor one that another outran."""

import struct
from pathlib import Path

import pytest

import hosts
import oplog_reader

CHROMAS = ["venv", "venv-0.6"]

MAKE = """
from workload import *
from chromadb.api.client import SharedSystemClient
def connect_anew(path):
    SharedSystemClient.clear_system_cache() if hasattr(SharedSystemClient, "clear_system_cache") \\
        else SharedSystemClient._identifer_to_system.clear()
    return connect(path)
path = {path!r}
"""


@pytest.fixture(params=CHROMAS)
def venv(request) -> str:
    if not hosts.python(request.param).exists():
        pytest.skip(f"{request.param} is missing; run wrappers/setup run check")
    return request.param


def refusals(data: Path) -> list[dict]:
    return [r for r in oplog_reader.read_store(data) if r["op"].startswith("refuse.")]


# ---- a length that is wrong ----


def poison(links: Path, elements: int) -> None:
    """One of the last lists says that it has 20 MB."""
    content = bytearray(links.read_bytes())
    at = 0
    for _ in range(elements - 10):
        at += 4 + struct.unpack_from("<I", content, at)[0]
    struct.pack_into("<I", content, at, 20_000_000)
    links.write_bytes(content)


def test_runaway_links(data, actors, venv):
    """Refused before it grows; other collections go on; after a restart all is there."""
    first = actors(venv=venv).chroma(data)
    for n in range(0, 360, 60):
        first.do(f"c.upsert(**batch({n}))")
    (links,) = data.glob("*/link_lists.bin")
    first.stop()
    whole = links.read_bytes()
    poison(links, 300)
    size = links.stat().st_size

    second = actors(venv=venv).chroma(data)
    second.do("other = client.get_or_create_collection('other', metadata=METADATA)")
    for n in range(1000, 1180, 60):
        second.fails(f"c.upsert(**batch({n}))")
        second.do(f"other.upsert(**batch({n}))")
    assert links.stat().st_size <= size
    assert any("far beyond its end refused" in line for line in second.lines())
    assert second.ask("wrong(other, range(1000, 1180, 60))") == []
    second.stop()
    assert links.stat().st_size <= size

    links.write_bytes(whole)
    third = actors(venv=venv).chroma(data)
    third.do("c.upsert(**batch(3000))")
    assert third.ask("wrong(c, [*range(0, 360, 60), *range(1000, 1180, 60), 3000])") == []


def test_no_false_refusals(data, actors, venv):
    """Few links and many, growing, updates, deletes: what Chroma writes is within its bounds."""
    actor = actors(venv=venv)
    actor.do(MAKE.format(path=str(data)))
    same = actor.do("""
client = connect(path)
result = []
for links, size in ((2, 900), (5, 300), (64, 500)):
    c = client.create_collection(f"links{links}", metadata={**METADATA, "hnsw:M": links,
                                                        "hnsw:sync_threshold": 200})
    for n in range(0, size, 100):
        c.upsert(**batch(n, 100))
        if n % 300 == 200:
            c.delete(ids=batch(n, 40)["ids"])
            c.upsert(**batch(n, 70))
            c.update(**batch(n - 100, 30))
    got = c.get(ids=batch(0, 70)["ids"], include=["embeddings"])
    result.append(np.allclose(sorted(map(tuple, got["embeddings"])), sorted(vectors(0, 70))))
    c = client.create_collection(f"at_once{links}", metadata={**METADATA, "hnsw:M": links})
    c.upsert(**batch(0, 1500))
    c.upsert(**batch(5000, 110))
""", 120)
    assert actor.lines() == [] and refusals(data) == []
    assert same == [True] * 3


# ---- two clients of one directory in a process ----


def two(data: Path, actors, venv: str):
    actor = actors(venv=venv)
    actor.do(MAKE.format(path=str(data)))
    actor.do("""
one = connect(path)
a = one.get_or_create_collection("books", metadata=METADATA)
for n in range(0, 240, 60):
    a.upsert(**batch(n))
two = connect_anew(path + "/.")
b = two.get_collection("books")
b.query(query_embeddings=vectors(1, 1), n_results=1)
other = two.get_or_create_collection("other", metadata=METADATA)
""")
    return actor


@pytest.mark.fast
def test_second_client(data, actors, venv):
    """Whoever has not seen what the other wrote may not write; what is acknowledged is there."""
    actor = two(data, actors, venv)
    for n in range(1000, 1360, 60):
        actor.do(f"a.upsert(**batch({n}))")
    firsts = {"books": [*range(0, 240, 60), *range(1000, 1360, 60)], "other": []}
    refused = ""
    for n in range(2000, 2360, 60):
        error = actor.fails(f"b.upsert(**batch({n}))")
        refused += error
        firsts["books"] += [] if error else [n]
        actor.do(f"a.upsert(**batch({n + 2000}))")
        firsts["books"].append(n + 2000)
        if not actor.fails(f"other.upsert(**batch({n}))"):
            firsts["other"].append(n)
        actor.do("b.count(); b.query(query_embeddings=vectors(1, 1), n_results=1)")
    assert refused and (firsts["other"] or venv == "venv-0.6")
    line = [line for line in actor.lines() if "another client in this process" in line][0]
    assert "Use one client" in line
    actor.stop()
    reader = actors(False, venv=venv).chroma(data)
    for name, wanted in firsts.items():
        assert reader.ask(f"wrong(client.get_collection({name!r}), {wanted})") == []


def test_one_client_after_another(data, actors, venv):
    """Cleared and made again, as tests and reloaders do it: each in turn writes."""
    actor = two(data, actors, venv)
    for turn in range(1, 4):
        for n in range(0, 240, 60):
            actor.do(f"b.upsert(**batch({n + turn * 1000}))")
        actor.do("b = connect_anew(path).get_collection('books')")
    firsts = [n + turn * 1000 for turn in range(4) for n in range(0, 240, 60)]
    assert actor.ask(f"wrong(b, {firsts})") == []
    assert actor.lines() == [] and refusals(data) == []


def test_loaded_before_another_process_wrote(data, actors):
    """Who only read so far, and writes when the writer has ended, may not write an old index."""
    venv = "venv-0.6"  # whose client writes nothing when it is made
    maker = actors(venv=venv)
    maker.do(MAKE.format(path=str(data)))
    maker.do("one = connect(path)\na = one.get_or_create_collection('books', metadata=METADATA)\n"
             "for n in range(0, 240, 60):\n    a.upsert(**batch(n))")
    maker.stop()
    later, between = actors(venv=venv), actors(venv=venv)
    for actor in (later, between):
        actor.do(MAKE.format(path=str(data)))
        actor.do("a = connect(path).get_collection('books')\n"
                 "a.query(query_embeddings=vectors(1, 1), n_results=1)")
    firsts = [*range(0, 240, 60), *range(1000, 1360, 60)]
    between.do("for n in range(1000, 1360, 60):\n    a.upsert(**batch(n))")
    between.stop()
    for n in range(2000, 2360, 60):
        firsts += [] if later.fails(f"a.upsert(**batch({n}))") else [n]
    assert "or another process, has written" in later.errors()
    later.stop()
    assert actors(False, venv=venv).chroma(data).ask(f"wrong(c, {firsts})") == []
