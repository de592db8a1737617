# SPDX-License-Identifier: MIT
"""Real Chroma in a second process that only reads: it opens, sees what is written, and is told.

Each client of Chroma's from 1.0 on writes a row when it opens a database, and its first question to
a collection applies what the queue has beyond the marks. These transactions go nowhere; any other
one of a process that is not the writer is refused.
"""

import select
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import hosts

WRITER = """
import chromadb, sys
books = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("books")
books.upsert(ids=[str(n) for n in range(50)], embeddings=[[n, 1.0, 2.0] for n in range(50)])
for line in sys.stdin:
    print("done", flush=True)
    if line.strip() == "journal":
        open(sys.argv[1] + "/chroma.sqlite3-journal", "x").close()
    else:
        n = int(line)
        books.upsert(ids=[str(n)], embeddings=[[n, 1.0, 2.0]], documents=[f"number {n}"])
    print("done", flush=True)
"""

READER = """
import chromadb, sqlite3, subprocess, sys
writer = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1)

def write(n):
    print(n, file=writer.stdin, flush=True)
    assert [writer.stdout.readline() for _ in range(2)] == ["done\\n"] * 2

write(50)
def rows():
    db = sqlite3.connect("file:" + sys.argv[-1] + "/chroma.sqlite3?mode=ro", uri=True)
    return db.execute("SELECT count(*) FROM acquire_write").fetchone()[0]

before = rows()
client = chromadb.PersistentClient(sys.argv[-1])
second = chromadb.PersistentClient(sys.argv[-1] + "/.")  # another path, another client
assert rows() == before, "the row goes nowhere"
assert second.get_collection("books").count() == 51
books = client.get_or_create_collection("books")
for n in range(51, 60):
    write(n)  # one transaction: SQLite believes that it has done the last one itself
    assert books.count() == n + 1, (books.count(), n)
    assert books.get(ids=[str(n)])["documents"] == [f"number {n}"]
assert client.list_collections()[0].name == "books"
assert len(books.query(query_embeddings=[[7.0, 1.0, 2.0]], n_results=3)["ids"][0]) == 3

def refused(what):
    try:
        what()
    except Exception as e:
        assert "readonly database" in str(e), e
    else:
        assert False, "it was written"

refused(lambda: books.upsert(ids=["x"], embeddings=[[1.0, 2.0, 3.0]]))
refused(lambda: client.create_collection("other"))
refused(lambda: books.delete(ids=["1"]))
# A journal that is there in this moment; an empty one is not in use, so the write comes so far.
write("journal")
refused(lambda: books.delete(ids=["1"]))
assert books.count() == 60
writer.stdin.close()
assert writer.wait() == 0
books.upsert(ids=["x"], embeddings=[[1.0, 2.0, 3.0]])  # nobody else writes any more
assert books.count() == 61 and rows() == before
again = chromadb.PersistentClient(sys.argv[-1] + "/./.")
assert rows() == before + 1, "it is the writer, and its row is there"
print("all right")
"""


@pytest.fixture(autouse=True)
def chroma():
    hosts.BY_NAME["python"].require()


def test_reader_beside_a_writer(data, shim):
    done = subprocess.run([hosts.python("venv"), "-c", READER, "-c", WRITER, data],
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.stdout == "all right\n", done.stderr[-3000:]
    assert "only one process may write at a time" in done.stderr
    assert "chroma.sqlite3: it is opened for reading only" not in done.stderr


READ = """
import chromadb, sys
print(chromadb.PersistentClient(sys.argv[1]).get_collection("books").count())
"""


def write(writer, n):
    print(n, file=writer.stdin, flush=True)
    assert [writer.stdout.readline() for _ in range(2)] == ["done\n"] * 2


@contextmanager
def writing(data, env):
    """A writer that has 51 records, and is idle."""
    with subprocess.Popen([hosts.python("venv"), "-c", WRITER, data], env=env, text=True, bufsize=1,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        write(writer, 50)
        yield writer
        writer.stdin.close()


def test_many_readers_at_once(data, shim, chromashim):
    """They open in the same moment, beside a writer, and leave nothing behind."""
    env = hosts.environment({"LD_PRELOAD": shim})
    with writing(data, env):
        readers = [subprocess.Popen([hosts.python("venv"), "-c", READ, data], env=env, text=True,
                                    stdout=subprocess.PIPE) for _ in range(4)]
        told = [r.communicate(timeout=120)[0] for r in readers]
        assert told == ["51\n"] * 4 and not (data / "chroma.sqlite3-journal").exists()
    assert chromashim("check", data).returncode == 0


def test_journal_of_one_that_was_killed(data, shim):
    """It had not begun to write to the database: SQLite leaves that journal to the next transaction."""
    env = hosts.environment({"LD_PRELOAD": shim})
    with writing(data, env) as writer:
        # As it is before its first sync: no magic, no number of pages; the nonce and the sizes.
        (data / "chroma.sqlite3-journal").write_bytes(bytes(12) + bytes(range(1, 17)) + bytes(4588))
        reader = subprocess.run([hosts.python("venv"), "-c", READ, data], env=env, text=True, timeout=60,
                                stdout=subprocess.PIPE, check=True)
        assert reader.stdout == "51\n"
        write(writer, 51)
        assert not (data / "chroma.sqlite3-journal").exists()


# Persists at 100 records, so that few are enough.
SMALL = """
import chromadb, sys
books = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection(
    "books", configuration={"hnsw": {"sync_threshold": 100}})
def add(first, n):
    books.upsert(ids=[str(i) for i in range(first, first + n)],
                 embeddings=[[float(i), 1.0] for i in range(first, first + n)])
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""

BESIDE = """
import chromadb, subprocess, sys
writer = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1)

def write(line):
    print(line, file=writer.stdin, flush=True)
    assert writer.stdout.readline() == "done\\n"

def add(first, n):
    books.upsert(ids=[str(i) for i in range(first, first + n)],
                 embeddings=[[float(i), 2.0] for i in range(first, first + n)])

def refused(what):
    try:
        what()
    except Exception as e:
        return
    assert False, "it was written"

write("add(0, 50)")
books = chromadb.PersistentClient(sys.argv[-1]).get_collection("books")
assert books.count() == 50
"""

LONG_LIVED = BESIDE + """
for n in range(50, 1050, 100):  # ten persists of the writer
    write(f"add({n}, 100)")
    write(f"books.update(ids=['{n}', '{n + 1}'], embeddings=[[0.0, 3.0]] * 2)")
    write(f"books.delete(ids=['{n + 2}'])")
    left = n + 100 - (n + 50) // 100
    assert books.count() == left == len(books.get()["ids"]), (books.count(), left)
    assert len(books.query(query_embeddings=[[7.0, 1.0]], n_results=3)["ids"][0]) == 3
"""

HEIR = BESIDE + """
if "persisted" in sys.argv:
    write("add(50, 100)")
writer.stdin.close()
assert writer.wait() == 0
add(1000, 40)
refused(lambda: add(1040, 60))  # the persist: its index has no files
refused(lambda: add(1100, 200))
"""

ALL = """
import chromadb, sys
got = chromadb.PersistentClient(sys.argv[1]).get_collection("books").get(include=["embeddings"])
assert all(int(i) == round(float(e[0])) for i, e in zip(got["ids"], got["embeddings"]))
print(sorted(map(int, got["ids"])))
"""


def test_a_reader_that_stays(data, shim, chromashim):
    """It answers while the writer persists, and nothing is said: nothing is wrong."""
    done = subprocess.run([hosts.python("venv"), "-c", LONG_LIVED, "-c", SMALL, data],
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert chromashim("check", data).returncode == 0
    assert chromashim("log", "--failed", data).stdout == ""
    assert chromashim("log", "--failed", "--calls", data).stdout == ""


PART_OF_A_PERSIST = """
import os, sqlite3, sys
data, segment, how = sys.argv[1:]
sqlite3.connect(f"{data}/chroma.sqlite3").execute("CREATE TABLE IF NOT EXISTS mine (a)")
files = []
for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin"):
    file = open(f"{segment}/{name}", "r+b", buffering=0)
    first = file.read(64)
    file.seek(0)
    file.write(first)
    files.append(file)
kept = open(f"{segment}/index_metadata.pickle", "rb").read()
pickle = open(f"{segment}/index_metadata.pickle", "wb", buffering=0)
pickle.write(kept[:100])
print("midst", flush=True)
sys.stdin.readline()
pickle.write(kept[100:])
pickle.close()
print("end", flush=True)
"""
LOAD = """
import os, sqlite3, sys
data, segment, how = sys.argv[1:]
database = sqlite3.connect(f"{data}/chroma.sqlite3")
tables = "SELECT count(*) FROM sqlite_master"
database.execute(tables).fetchone()
print("begins", flush=True)
pickle = open(f"{segment}/index_metadata.pickle", "rb")
print("got", len(pickle.read()), flush=True)
if how == "read":
    for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin"):
        open(f"{segment}/{name}", "rb").read()
    try:
        open(f"{segment}/header.bin", "r+b", buffering=0)
    except OSError:
        pass
    database.execute(tables).fetchone()
    print("loaded", flush=True)
sys.stdin.readline()
"""


def start(script, data, shim, how=""):
    segment, = data.glob("*-*")
    return subprocess.Popen([hosts.python("venv"), "-c", script, data, segment, how],
                            env=hosts.environment({"LD_PRELOAD": shim}), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.fixture
def indexed(data, shim):
    subprocess.run([hosts.python("venv"), "-c", MAKE, data], check=True, timeout=120,
                   env=hosts.environment({"LD_PRELOAD": shim}))
    # One persist with the library: the store has its lock.
    with start(PART_OF_A_PERSIST, data, shim) as writer:
        assert writer.communicate("\n", timeout=60)[0] == "midst\nend\n"
    return data


def said_within(process, seconds):
    return bool(select.select([process.stdout], [], [], seconds)[0])


def test_no_load_in_the_midst_of_a_persist(indexed, shim):
    pickle, = indexed.glob("*-*/index_metadata.pickle")
    whole = pickle.stat().st_size
    with start(PART_OF_A_PERSIST, indexed, shim) as writer:
        assert writer.stdout.readline() == "midst\n"
        with start(LOAD, indexed, shim) as reader:
            assert reader.stdout.readline() == "begins\n"
            assert not said_within(reader, 0.5)
            assert writer.communicate("\n", timeout=60)[0] == "end\n"
            assert reader.communicate("\n", timeout=60)[0] == f"got {whole}\n"


@pytest.mark.parametrize("how", ["", "read"])
def test_no_persist_in_the_midst_of_a_load(indexed, shim, how):
    """It waits for a second; not when all has been read."""
    with start("import os\n" + PART_OF_A_PERSIST.replace("files = []", """files = []
print("begins", flush=True)
sys.stdin.readline()
"""), indexed, shim) as writer:
        assert writer.stdout.readline() == "begins\n"
        with start(LOAD, indexed, shim, how) as reader:
            while reader.stdout.readline() != ("loaded\n" if how else "got 6408\n"):
                pass
            began = time.monotonic()
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "midst\n"
            waited = time.monotonic() - began
            assert writer.communicate("\n", timeout=60)[0] == "end\n"
            assert how or waited > 0.9
            # It has not waited, else the lock would have been given to it at the very end.
            assert not how or not hosts.locks(indexed / ".chromashim/loads.lock")
            reader.communicate("\n", timeout=60)


MAKE = """
import chromadb, sys
client = chromadb.PersistentClient(sys.argv[1])
books = client.create_collection("books", configuration={"hnsw": {"sync_threshold": 100}})
books.add(ids=[str(n) for n in range(250)], embeddings=[[float(n), 1.0] for n in range(250)])
"""
LOOK = """
import chromadb, sys
books = chromadb.PersistentClient(sys.argv[1]).get_collection("books")
if "waits" in sys.argv:
    print("open", flush=True)
    sys.stdin.read()
print(books.count(), books.query(query_embeddings=[[77.2, 1.0]], n_results=1)["ids"], flush=True)
"""


def test_an_index_that_is_not_there_yet(data, shim, chromashim):
    """After healing Chroma builds it from the queue, and makes its directory, also to read."""
    python, env = hosts.python("venv"), hosts.environment({"LD_PRELOAD": shim})
    subprocess.run([python, "-c", MAKE, data], env=env, check=True, timeout=120)
    assert chromashim("recover", "-y", "--rebuild", "books", data).returncode == 0
    assert not list(data.glob("*-*"))
    with subprocess.Popen([python, "-c", LOOK, data, "waits"], env=env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        done = subprocess.run([python, "-c", LOOK, data], env=env, text=True, timeout=120,
                              capture_output=True, check=False)
        assert (done.stdout, done.stderr) == ("250 [['77']]\n", "")
        assert not list(data.glob("*-*/*"))
        assert writer.communicate("")[0] == "250 [['77']]\n"
    assert len(list(data.glob("*-*/*"))) == 5
    assert chromashim("check", data).returncode == 0


@pytest.mark.parametrize("persisted", ["", "persisted"])
def test_a_reader_that_becomes_the_writer(data, shim, chromashim, persisted):
    """Its index was opened beside the writer, so its persists write nothing: they must fail."""
    python = hosts.python("venv")
    heir = HEIR.replace('"persisted" in sys.argv', str(bool(persisted)))
    done = subprocess.run([python, "-c", heir, "-c", SMALL, data],
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "index_metadata.pickle: writing is refused: this process loaded the collection's index " \
        "while another one was writing it" in done.stderr
    assert "Nothing is lost" in done.stderr and "Restart this process" in done.stderr
    assert chromashim("check", data).returncode == 0
    left = subprocess.run([python, "-c", ALL, data], env=hosts.environment(), text=True,
                          stdout=subprocess.PIPE, timeout=120, check=True).stdout
    first = 150 if persisted else 50
    assert left.strip() == str([*range(first), *range(1000, 1300)])


# What a writer has not done yet when a reader comes: the queue has rows that are not applied, the
# index is to be persisted, and rows that all have applied are to be removed.
BEHIND = """
import chromadb, sqlite3, sys
client = chromadb.PersistentClient(sys.argv[1])
books = client.create_collection("books", configuration={"hnsw": {"sync_threshold": 100}})
client.create_collection("other")
db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3")
def queue(purge):
    db.execute("UPDATE embeddings_queue_config SET config_json_str = replace(config_json_str, ?, ?)",
               (str(not purge).lower(), str(purge).lower()))
    db.commit()
queue(False)
for first in range(0, 2000, 200):
    books.add(ids=[str(n) for n in range(first, first + 200)],
              embeddings=[[float(n), 1.0] for n in range(first, first + 200)],
              documents=[f"number {n} of them all " * 30 for n in range(first, first + 200)],
              metadatas=[{"n": n, "even": n % 2 == 0} for n in range(first, first + 200)])
queue(True)
table, = db.execute("SELECT sql FROM sqlite_master WHERE name = 'embedding_fulltext_search'").fetchone()
late = "SELECT id FROM embeddings WHERE seq_id > 500"
db.execute(f"DELETE FROM embedding_fulltext_search WHERE rowid IN ({late})")
db.execute(f"DELETE FROM embedding_metadata WHERE id IN ({late})")
db.execute("DELETE FROM embeddings WHERE seq_id > 500")
db.execute("UPDATE max_seq_id SET seq_id = 500")
db.commit()
"""

LATE = """
import chromadb, hashlib, pathlib, subprocess, sys

def content():
    return {p.relative_to(sys.argv[-1]): hashlib.sha256(p.read_bytes()).digest()
            for p in sorted(pathlib.Path(sys.argv[-1]).rglob("*"))
            if p.is_file() and ".chromashim" not in p.parts}

writer = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1)
def write(line):
    print(line, file=writer.stdin, flush=True)
    assert writer.stdout.readline() == "done\\n"

write("client.get_collection('other').add(ids=['a'], embeddings=[[1.0, 2.0]])")
before = content()
books = chromadb.PersistentClient(sys.argv[-1]).get_collection("books")
assert books.count() == 500, "what the writer has done"
assert content() == before, "it all went nowhere"
write("client.get_collection('books').add(ids=['last'], embeddings=[[7.5, 1.0]])")
assert content() != before and books.count() == 2001
got = books.get(ids=[*map(str, range(2000))], include=["documents", "metadatas", "embeddings"])
assert len(got["ids"]) == 2000  # 'last' is younger than the index that it has in memory
for i, e, d, m in zip(got["ids"], got["embeddings"], got["documents"], got["metadatas"]):
    assert (e[0], d, m["n"]) == (float(i), f"number {i} of them all " * 30, int(i))
assert books.query(query_embeddings=[[1500.0, 1.0]], n_results=1)["ids"] == [["1500"]]
assert len(books.get(where_document={"$contains": "number 1999 of"})["ids"]) == 1
try:
    books.update(ids=["1"], metadatas=[{"n": 0}])
    assert False, "it was written"
except chromadb.errors.ChromaError as e:
    assert "readonly database" in str(e), e
print("all right")
"""

LINES = """
import chromadb, sys
client = chromadb.PersistentClient(sys.argv[1])
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


def test_a_reader_that_finds_work_half_done(data, shim, chromashim):
    """Its first question does for itself what the writer has still to do, and nobody sees it."""
    env, python = hosts.environment({"LD_PRELOAD": shim}), hosts.python("venv")
    subprocess.run([python, "-c", BEHIND, data], env=hosts.environment(), check=True, timeout=120)
    done = subprocess.run([python, "-c", LATE, "-c", LINES, data], env=env, capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.stdout == "all right\n", done.stderr[-3000:]
    assert done.stderr.count("writing is refused") == 1, done.stderr
    assert chromashim("check", data).returncode == 0


# The same tables, by an SQLite that is not Chroma's.
FOREIGN = """
import sys
def tell(connection, error):
    print(connection.execute("SELECT count(*) FROM embeddings").fetchone()[0])
    for sql in ("UPDATE embeddings SET seq_id = 7", "DELETE FROM max_seq_id",
                "DELETE FROM embeddings_queue WHERE seq_id < 5"):
        try:
            connection.execute(sql)
            print("written")
        except error as e:
            print(e)
"""
BY = {"venv": """
import sqlite3
tell(sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None), sqlite3.OperationalError)
""", "venv-sqlite": """
import apsw
tell(apsw.Connection(sys.argv[1] + "/chroma.sqlite3"), apsw.Error)
"""}


@pytest.mark.parametrize("venv", BY, ids=["libsqlite3", "static"])
def test_another_sqlite_is_told(data, shim, venv):
    """What it changes of the records is no catching up: an error, and no change that is lost."""
    env, python = hosts.environment({"LD_PRELOAD": shim}), hosts.python("venv")
    with subprocess.Popen([python, "-c", LINES, data], env=env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1) as writer:
        print("client.create_collection('books').add(ids=[*'abc'], embeddings=[[1.0, 2.0]] * 3)",
              file=writer.stdin, flush=True)
        assert writer.stdout.readline() == "done\n"
        told = subprocess.run([hosts.python(venv), "-c", FOREIGN + BY[venv], data], env=env,
                              text=True, stdout=subprocess.PIPE, timeout=60, check=True).stdout
        writer.stdin.close()
    assert told == "3\n" + "attempt to write a readonly database\n" * 3
