# SPDX-License-Identifier: MIT
"""CHROMASHIM_LOG_CALLER=python: acts tell the line of the program that called Chroma, or none."""

import json
import subprocess
import textwrap

import pytest

import hosts
from test_acts import acts, of

# The marks say which line is meant.
PROGRAM = """
    import sys
    import threading
    import chromadb

    client = chromadb.PersistentClient(sys.argv[1])
    def make(name):
        return client.get_or_create_collection(name, metadata={  # made
            "hnsw:sync_threshold": 20, "hnsw:batch_size": 10})
    def add_message(collection, n, count):
        collection.add(ids=[f"m{n}-{i}" for i in range(count)], documents=["x"] * count,  # added
                       embeddings=[[n, i, 1.0] for i in range(count)])
"""
ALL = PROGRAM + """
    talks = make("talks")
    for n in range(8):
        add_message(talks, n, 5)
    talks.upsert("m1-1", [[1, 2, 3]])  # upserted
    talks.update(ids=["m1-2"], metadatas=[{"a": 1}])  # updated
    talks.query(query_embeddings=[[1, 1, 1]], n_results=2)
    talks.delete(ids=["m2-1"])  # deleted
    try:
        talks.add(ids=["twice", "twice"], embeddings=[[1, 2, 3]] * 2)
    except Exception as error:
        print(type(error).__name__)
    try:
        talks.add(ids=5, embeddings=[[1, 2, 3]])
    except Exception as error:
        print(type(error).__name__)
    print(talks.add.__name__, len(talks.get()["ids"]))
    talks.modify(name="renamed")  # renamed
    client.delete_collection("renamed")  # gone
"""
# Both at once, again and again; what two lines do alike cannot be told apart.
TWO = PROGRAM + """
    talks = make("talks")
    talks.add(ids=["0"], embeddings=[[0, 0, 0]])
    def first(n):
        talks.upsert(ids=[f"a{n}-{i}" for i in range(3)], embeddings=[[n, i, 1] for i in range(3)])  # three
    def second(n):
        talks.upsert(ids=[f"b{n}-{i}" for i in range(4)], embeddings=[[n, i, 1] for i in range(4)])  # four
    def third(n):
        talks.upsert(ids=[f"c{n}-{i}" for i in range(3)], embeddings=[[n, i, 1] for i in range(3)])  # also
    def many(what):
        for n in range(20):
            what(n)
    def reads(n):
        talks.get(ids=[f"b{n}-{i}" for i in range(4)])  # reads
    threads = [threading.Thread(target=many, args=(what,)) for what in (first, second, third, reads, reads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.fixture
def lines(tmp_path, data, shim):
    """Runs a program; a function from a mark to its line as it is told, and what it printed."""
    def run(program, driver="venv", **env):
        file = tmp_path / "backend.py"
        file.write_text(textwrap.dedent(program), encoding="utf-8")
        done = subprocess.run([hosts.python(driver), file, data], text=True, capture_output=True,
                              timeout=120, check=False,
                              env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_LOG_CALLER":
                                                     "python", "CHROMASHIM_LOG_IDS": "on", **env}))
        assert done.returncode == 0, done.stderr
        numbers = {line.split("# ")[1]: n for n, line in enumerate(
            file.read_text(encoding="utf-8").splitlines(), 1) if "# " in line}
        return lambda mark, function: f"{file}:{numbers[mark]} {function}", done

    return run


@pytest.mark.parametrize("driver", ["venv", "venv-0.6"])
def test_each_line(driver, lines, data, chromashim):
    if not hosts.python(driver).exists():
        pytest.skip(f"{driver} is missing; run wrappers/setup run check")
    line, done = lines(ALL, driver)
    assert "chromashim" not in done.stderr, "an ordinary day"
    assert done.stdout.split()[-4:] == ["DuplicateIDError", "ValueError", "add", "39"], "the program's own is as ever"
    found = acts(data)
    told = {verb: {r["caller"] for r in of(found, "records") if r[verb]}
            for verb in ("added", "upserted", "updated", "deleted")}
    assert told == {"added": {line("added", "add_message")}, "upserted": {line("upserted", "<module>")},
                    "updated": {line("updated", "<module>")}, "deleted": {line("deleted", "<module>")}}
    assert {r["caller"] for r in of(found, "persist.commit")} <= {
        line("added", "add_message"), line("upserted", "<module>"), line("deleted", "<module>")}
    assert of(found, "persist.commit")
    assert [r["caller"] for r in of(found, "collection") if r["result"] != 3] == [
        line("made", "make"), line("renamed", "<module>"), line("gone", "<module>")]

    shown = chromashim("log", data).stdout
    assert f"talks: 5 added (seq 1-5), by {line('added', 'add_message')}\n" in shown
    rows = chromashim("log", "--sql", "SELECT caller, sum(records) FROM acts WHERE op = 'records' "
                      "GROUP BY caller ORDER BY 2 DESC", "--json", data).stdout.splitlines()
    assert json.loads(rows[0])["caller"] == line("added", "add_message")
    blamed = json.loads(chromashim("blame", "--json", data).stdout)
    assert blamed["grow"]["line"][0]["name"] == line("added", "add_message")
    assert blamed["grow"]["line"][0]["count"] == 40
    assert blamed["slow"]["line"][0]["name"] == line("added", "add_message")
    page = chromashim("report", "-o", "-", data).stdout
    assert f"<code>{line('added', 'add_message')}</code>" in page


def test_what_cannot_be_told_apart(lines, data):
    line, _ = lines(TWO)
    by_id = {"a": line("three", "first"), "b": line("four", "second"), "c": line("also", "third")}
    told = [(r["ids"][0][1].decode()[0], r["caller"]) for r in of(acts(data), "records")
            if r["upserted"]]
    assert len(told) == 60
    assert all(caller in (None, by_id[who]) for who, caller in told), "never a wrong one"
    assert all(caller for who, caller in told if who == "b"), "the only one with four"
    assert any(caller is None for who, caller in told), "two at once did the same"


def test_what_is_installed_is_not_the_program(lines, tmp_path, data):
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "memory.py").write_text(textwrap.dedent("""
        def remember(collection, what):
            collection.upsert(ids=[what], embeddings=[[1.0, 2.0, 3.0]])
    """))
    line, _ = lines(PROGRAM + """
    sys.path.append(sys.argv[0].rpartition("/")[0] + "/site-packages")
    from memory import remember
    def talk():
        remember(make("talks"), "something")  # here
    talk()
    """)
    assert [r["caller"] for r in of(acts(data), "records")] == [line("here", "talk")]


def test_a_share(lines, data):
    lines(PROGRAM + """
    talks = make("talks")
    for n in range(19):
        add_message(talks, n, 1)
    """, CHROMASHIM_LOG_CALLER_SHARE="50%")
    told = [r["caller"] is not None for r in of(acts(data), "records")]
    assert sum(told) in (9, 10) and told[:4] in ([False, True] * 2, [True, False] * 2)


def test_off_by_default(lines, data):
    lines(PROGRAM + '    add_message(make("talks"), 1, 1)\n', CHROMASHIM_LOG_CALLER="")
    assert all(r["caller"] is None for r in acts(data))


def test_no_chroma_is_said_once(lines, data):
    _, done = lines("""
        import sqlite3, sys
        db = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3", isolation_level=None)
        for n in range(3):
            db.execute(f"CREATE TABLE t{n} (a)")
    """)
    assert done.stderr.count("CHROMASHIM_LOG_CALLER=python: there is no Chroma in Python 3") == 1
    assert done.stderr.count("chromashim: ") == 1


def test_no_python_is_said_once(data, shim, compiled):
    done = subprocess.run([compiled("sqlite", "-lsqlite3"), data / "chroma.sqlite3",
                           "CREATE TABLE a (a)", "CREATE TABLE b (b)"], text=True,
                          capture_output=True, check=True, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_LOG_CALLER": "python"}))
    assert done.stderr.count("this program has no Python 3 that could be asked") == 1
