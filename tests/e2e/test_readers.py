# SPDX-License-Identifier: MIT
"""Real Chroma in a second process that only reads: it opens, sees what is written, and is told.

Each client of Chroma's from 1.0 on writes a row when it opens a database. That transaction goes
nowhere; any other one of a process that is not the writer is refused.
"""

import subprocess

import pytest

import hosts

WRITER = """
import chromadb, sys
books = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("books")
books.upsert(ids=[str(n) for n in range(50)], embeddings=[[n, 1.0, 2.0] for n in range(50)])
for line in sys.stdin:
    print("done", flush=True)
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
assert rows() == before, "the row goes nowhere"
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
assert books.count() == 60
writer.stdin.close()
assert writer.wait() == 0
books.upsert(ids=["x"], embeddings=[[1.0, 2.0, 3.0]])  # nobody else writes any more
assert books.count() == 61 and rows() == before
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
    assert "chroma.sqlite3: opened for reading only" not in done.stderr


READ = """
import chromadb, sys
print(chromadb.PersistentClient(sys.argv[1]).get_collection("books").count())
"""


def test_many_readers_at_once(data, shim, chromashim):
    """They open in the same moment, beside a writer, and leave nothing behind."""
    env = hosts.environment({"LD_PRELOAD": shim})
    python = hosts.python("venv")
    with subprocess.Popen([python, "-c", WRITER, data], env=env, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True, bufsize=1) as writer:
        print(50, file=writer.stdin, flush=True)
        assert [writer.stdout.readline() for _ in range(2)] == ["done\n"] * 2
        readers = [subprocess.Popen([python, "-c", READ, data], env=env, text=True,
                                    stdout=subprocess.PIPE) for _ in range(4)]
        told = [r.communicate(timeout=120)[0] for r in readers]
        assert told == ["51\n"] * 4 and not (data / "chroma.sqlite3-journal").exists()
        writer.stdin.close()
    assert chromashim("check", data).returncode == 0


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


@pytest.mark.parametrize("persisted", ["", "persisted"])
def test_a_reader_that_becomes_the_writer(data, shim, chromashim, persisted):
    """Its index was opened beside the writer, so its persists write nothing: they must fail."""
    python = hosts.python("venv")
    heir = HEIR.replace('"persisted" in sys.argv', str(bool(persisted)))
    done = subprocess.run([python, "-c", heir, "-c", SMALL, data],
                          env=hosts.environment({"LD_PRELOAD": shim}), capture_output=True,
                          text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "index_metadata.pickle: writing refused" in done.stderr
    assert chromashim("check", data).returncode == 0
    left = subprocess.run([python, "-c", ALL, data], env=hosts.environment(), text=True,
                          stdout=subprocess.PIPE, timeout=120, check=True).stdout
    first = 150 if persisted else 50
    assert left.strip() == str([*range(first), *range(1000, 1300)])
