# SPDX-License-Identifier: MIT
"""What hnswlib has in memory: a damaged graph must not be written, nor one that another outran."""

import json
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest

import hosts
import oplog_reader
from test_persist_cases import A, B, FILES, PICKLE, Directory

pytestmark = pytest.mark.memory

PERSISTS = int(os.environ.get("BOUNDS_PERSISTS", "1500"))
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


def test_runaway_links(data, actors, venv, chromashim):
    """Refused before it grows, and pinned; other collections go on; healed, all is there."""
    first = actors(venv=venv).chroma(data)
    for n in range(0, 360, 60):
        first.do(f"c.upsert(**batch({n}))")
    (links,) = data.glob("*/link_lists.bin")
    first.stop()
    poison(links, 300)
    size = links.stat().st_size

    second = actors(venv=venv).chroma(data)
    second.do("other = client.get_or_create_collection('other', metadata=METADATA)")
    for n in range(1000, 1180, 60):
        second.fails(f"c.upsert(**batch({n}))")
        second.do(f"other.upsert(**batch({n}))")
    assert links.stat().st_size <= size
    assert any("far beyond its end is refused" in line for line in second.lines())
    assert second.ask("wrong(other, range(1000, 1180, 60))") == []
    second.stop()
    assert links.stat().st_size <= size

    held = json.loads(chromashim("snapshot", "list", "--json", data).stdout)
    assert [s["reason"] for s in held].count("damage") == 1, held

    done = chromashim("recover", "-y", data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert chromashim("check", "--full", data).returncode == 0
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
        if n % 300 == 200 and links > 5:  # of few links, hnswlib dies of it now and then
            c.delete(ids=batch(n, 40)["ids"])
        if n % 300 == 200:
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


def test_no_false_refusals_of_hnswlib(data, shim, tmp_path):
    """The same of hnswlib alone, in all its shapes; BOUNDS_PERSISTS of them."""
    if not hosts.python("venv-0.6").exists():
        pytest.skip("venv-0.6 is missing; run wrappers/setup run check")
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [hosts.python("venv-0.6"), Path(__file__).with_name("bounds_load.py"), data, str(PERSISTS),
         str(seed)], capture_output=True, text=True, check=False,
        env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DURABILITY": "process"}))
    assert done.returncode == 0 and done.stderr == "", f"seed {seed}: {done}"
    assert json.loads(done.stdout) == {"persists": PERSISTS}


@pytest.mark.parametrize("dimension", [1, 24])
def test_index_of_one_record(data, actors, dimension):
    """hnswlib does not write it when its record is updated; Chroma before 1.0 persists it so."""
    actor = actors(venv="venv-0.6")
    actor.do(MAKE.format(path=str(data)) + f"""
c = connect(path).create_collection("books", metadata={{
    **METADATA, "hnsw:batch_size": 3, "hnsw:sync_threshold": 5}})
for n in range(30):
    c.upsert(ids=["one"], embeddings=[[n] * {dimension}])
result = c.get(include=["embeddings"])["embeddings"][0][0]
""", 60)
    assert actor.errors() == "" and refusals(data) == []


HEADER = """
import errno, struct
def header(segment, elements):
    fd = os.open(f"{data}/{segment}/header.bin", os.O_RDWR)
    os.write(fd, struct.pack("<iQQQQQQiIQQQdQ", 1, 0, elements, elements, 500, 0, 0, 1, 0, 16, 32,
                             16, 0.36, 100))
    os.close(fd)
def tried(fd, at):
    try:
        return os.pwrite(fd, b"x", at)
    except OSError as e:
        return errno.errorcode[e.errno]
"""


def make_database(data, size):
    """How large a pickle of 100 elements may be then."""
    with open(data / "chroma.sqlite3", "wb") as f:
        f.truncate(size << 20)
    return (2 * size + 64) << 20


@pytest.mark.parametrize("database", [0, 40])
def test_runaway_pickle(data, shim, database):
    """No larger than twice all ids that there can be, and what SQLite may have in memory."""
    directory = Directory(data, shim, "power")
    most = make_database(data, database)
    said = directory.run(HEADER + f"""
header(B, 100)
bins(B, b"n")
header(A, 100)
fd = pickle(A, b"n")
print(tried(fd, {most - 1}), tried(fd, {most + (1 << 20)}), os.fstat(fd).st_size)
os.close(fd)
os.close(pickle(B, b"n"))
""")
    assert said.splitlines()[0] == f"1 EFBIG {most}", said
    assert f"{A}/{PICKLE}: a write far beyond its end is refused" in said
    assert "and other collections go on" in said and "all writing" not in said
    assert directory.is_old(A)
    assert (data / B / PICKLE).read_bytes() == b"n" * 500 + b"."
    assert (data / B / "length.bin").stat().st_size == FILES["length.bin"] + 77


def test_what_may_end_a_pickle(data, shim):
    """A buffer that is dropped swallows the error of its last write: no small one is refused."""
    directory = Directory(data, shim, "power")
    most = make_database(data, 0)
    said = directory.run(HEADER + f"""
def written(fd, bytes):
    try:
        return os.write(fd, bytes)
    except OSError as e:
        return errno.errorcode[e.errno]
header(A, 100)
header(B, 100)
fd = pickle(A, b"n")
os.lseek(fd, {most} - 100, os.SEEK_SET)
print(written(fd, b"n" * 8000 + b"."), written(fd, b"n" * 8000))
os.close(fd)
fd = pickle(B, b"n")
os.lseek(fd, {most} - 100, os.SEEK_SET)
print(written(fd, b"n" * 80000 + b"."))
os.close(fd)
""")
    assert said.splitlines()[:2] == ["8001 EFBIG", "EFBIG"], said
    assert f"{A}/{PICKLE}: a write far beyond its end is refused" in said
    assert [B in line for line in said.splitlines() if "all writing" in line] == [True]
    assert directory.is_old(A) and directory.is_old(B)


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
