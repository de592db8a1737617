# SPDX-License-Identifier: MIT
"""The look before the first open of a directory that `run` did not know of: what is damaged is
healed before Chroma reads it, or said, and nothing is lost or exchanged under a backend."""

import os
import shutil
import struct
import subprocess
import time

import pytest

import hosts
from test_run_crash import TEAR, DIE
from test_run_guardian import guardians, wait_until

ASK = """
import os, sys
import chromadb
books = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection(
    "books", configuration={"hnsw": {"sync_threshold": 100}})
if "FIRST" in os.environ:
    books.add(ids=[str(n) for n in range(250)], embeddings=[[float(n), 1.0] for n in range(250)])
if "IDS" in os.environ:
    print(len(books.get()["ids"]))
    sys.exit()
try:
    got = books.get(include=["embeddings"])
    wrong = sum(e[0] != float(i) for i, e in zip(got["ids"], got["embeddings"]))
    print(len(got["ids"]), wrong, books.query(query_embeddings=[[77.2, 1.0]], n_results=1)["ids"])
except Exception as error:
    print("failed", type(error).__name__, error)
"""
FINE = "250 0 [['77']]\n"
HEALED = "is damaged; healing it on a copy"
WORDS = [hosts.python("venv"), "-c", ASK]


def environment(library=hosts.SHIM, **settings):
    return hosts.environment({"CHROMASHIM_GUARD": "on", "LD_PRELOAD": str(library), **settings})


def ask(data, library=hosts.SHIM, words=WORDS, **settings):
    done = subprocess.run([*words, data], env=environment(library, **settings), timeout=120,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A directory of 250 records whose index has been persisted, as one is without the library."""
    hosts.BY_NAME["python"].require()
    data = tmp_path_factory.mktemp("filled") / "chroma"
    done = subprocess.run([*WORDS, data], env=hosts.environment({"FIRST": "1"}), check=True,
                          capture_output=True, text=True, timeout=120)
    assert done.stdout == FINE
    return data


@pytest.fixture
def book(filled, tmp_path):
    data = tmp_path / "chroma"
    shutil.copytree(filled, data)
    yield data
    wait_until(lambda: not guardians(data), 60)


def poison(data):
    header, = data.glob("*-*/header.bin")
    header.write_bytes(b"\xff" * 64 + header.read_bytes()[64:])


def lose(data):
    """Vectors are gone that nothing else has: their queue was purged."""
    level0, = data.glob("*-*/data_level0.bin")
    os.truncate(level0, level0.stat().st_size // 4)


def state(data):
    return {f.relative_to(data): f.read_bytes() for f in sorted(data.rglob("*"))
            if f.is_file() and ".chromashim" not in f.parts}


@pytest.mark.parametrize("how", ["bare", "named", "run"])
def test_a_poisoned_index_is_healed(book, tmp_path, how):
    words = WORDS
    if how == "run":  # which looks at another directory
        words = [hosts.COMMAND, "run", "--dir", tmp_path / "other", "--", *WORDS]
    settings = {"CHROMASHIM_DIR": str(book)} if how == "named" else {}
    assert ask(book, words=words, **settings)[0] == FINE
    poison(book)
    said, told = ask(book, words=words, **settings)
    assert said == FINE and HEALED in told and "0 lost, 0 changed" in told, (said, told)
    said, told = ask(book, words=words, **settings)
    assert said == FINE and str(book) not in told, (said, told)


@pytest.mark.parametrize("setting", ["CHROMASHIM_PREFLIGHT", "CHROMASHIM_GUARD"])
def test_no_look(book, setting):
    poison(book)
    said, told = ask(book, **{setting: "off"})
    assert said != FINE and HEALED not in told and not (book / ".chromashim/look.lock").exists()


def test_no_look_in_children_of_a_start_without(book, tmp_path):
    poison(book)
    said, told = ask(book, words=[hosts.COMMAND, "run", "--no-preflight", "--dir",
                                  tmp_path / "other", "--", *WORDS])
    assert said != FINE and HEALED not in told


def test_a_loss_is_said_and_not_done(book, chromashim):
    lose(book)
    before = state(book)
    told = ask(book)[1]
    assert "it is opened as it is" in told and "records would be lost" in told, told
    assert {name: now for name, now in state(book).items() if name.suffix == ".bin"} == \
           {name: then for name, then in before.items() if name.suffix == ".bin"}
    assert "the damaged state is kept as snapshot" in told
    wait_until(lambda: not guardians(book), 60)
    # A start by `run` is somebody's decision, and tells what it cost.
    done = chromashim("recover", "-y", book)
    assert done.returncode == 3 and "lost" in done.stdout, done.stdout + done.stderr


def test_a_persist_that_was_cut_off(book):
    ask(book)
    wait_until(lambda: not guardians(book), 60)
    segment, = book.glob("*-*")
    before = state(book)
    killed = subprocess.run([hosts.python("venv").resolve(), "-I", "-S", "-c", TEAR + DIE, segment],
                            env=hosts.environment({"LD_PRELOAD": str(hosts.SHIM),
                                                   "CHROMASHIM_DIR": str(book)}), check=False)
    assert killed.returncode == -9 and state(book) != before
    said, told = ask(book)
    assert said == FINE and "a persist that was cut off was undone" in told, told


def test_started_together(book):
    """One heals, the others wait for it."""
    poison(book)
    children = [subprocess.Popen([*WORDS, book], env=environment(IDS="1"), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ended = [child.communicate(timeout=120) for child in children]
    assert [said for said, _ in ended] == ["250\n"] * 3, ended
    assert sum(HEALED in told for _, told in ended) == 1, ended
    assert len(list((book / ".chromashim/quarantine").iterdir())) == 1
    assert ask(book)[0] == FINE


# ---- who waits, and who does not ----

def before_open(data, number):
    """The command, as the library starts it; the word at its end."""
    shared = os.memfd_create("look")
    os.write(shared, struct.pack("I", number))
    done = subprocess.run([hosts.COMMAND, "run", "--dir", data, f"--before-open={shared}"],
                          pass_fds=[shared], capture_output=True, text=True, timeout=60,
                          env=hosts.environment(), check=False)
    word, = struct.unpack("I", os.pread(shared, 4, 0))
    os.close(shared)
    return done, word


def test_nothing_is_changed_once_the_backend_has_gone_on(book):
    poison(book)
    before = state(book)
    done, word = before_open(book, 3)
    assert done.returncode == 0 and word == 3 and state(book) == before, done.stderr
    done, word = before_open(book, 0)
    assert done.returncode == 0 and word == 3 and state(book) != before and \
        done.stdout == "" and HEALED in done.stderr


def test_nothing_is_changed_while_another_process_is_there(book):
    poison(book)
    before = state(book)
    with open(book / "chroma.sqlite3", "rb"):
        done, word = before_open(book, 0)
    assert (done.returncode, word, done.stderr) == (0, 3, "") and state(book) == before


def test_it_is_for_the_library_alone(book):
    done = subprocess.run([hosts.COMMAND, "run", "--dir", book, "--before-open=0"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "is no descriptor of a look" in done.stderr


@pytest.mark.parametrize("does", ["exec sleep 60", "exit 1", "kill -9 $$"])
def test_a_look_that_never_ends_is_not_waited_for(book, tmp_path, does):
    """The command beside the library is one that hangs, fails or dies."""
    library = tmp_path / "libchromashim.so"
    shutil.copy(hosts.SHIM, library)
    command = tmp_path / "chromashim"
    command.write_text(f"#!/bin/sh\n[ $1 = run ] || exit 0\necho $$ >{tmp_path}/pid\n{does}\n")
    command.chmod(0o755)
    began, hangs = time.monotonic(), "sleep" in does
    said, told = ask(book, library, WORDS)
    took = time.monotonic() - began
    assert said == FINE and (tmp_path / "pid").exists()
    assert ("it is opened without a look at it before: it takes too long" in told) == (
        hangs), told
    if hangs:  # and is no more
        assert 5 < took < 50
        pid = int((tmp_path / "pid").read_text())
        wait_until(lambda: not os.path.exists(f"/proc/{pid}/exe"))
