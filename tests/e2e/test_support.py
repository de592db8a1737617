# SPDX-License-Identifier: MIT
"""`chromashim support`: numbers as the log has them, and no name, id, path or content in clear."""

import json
import re
import subprocess
import textwrap

import pytest

import hosts
from test_report import records_of

pytestmark = pytest.mark.memory

WORD = "gooseberry"
LOAD = textwrap.dedent("""
    import sqlite3, sys, chromadb
    root, word = sys.argv[1:]
    client = chromadb.PersistentClient(root)
    things = client.create_collection(word + "-collection", metadata={word + "-about": word},
                                      configuration={"hnsw": {"sync_threshold": 20, "batch_size": 10}})
    for n in range(0, 60, 10):
        ids = [f"{word}-id-{n + i}" for i in range(10)]
        things.upsert(ids=ids, embeddings=[[n + i, 1.0, 2.0] for i in range(10)],
                      documents=[f"a {word} document"] * 10, metadatas=[{word: word}] * 10)
    things.delete(ids=[f"{word}-id-3"])
    del client
""")
OWN = textwrap.dedent("""
    import os, sqlite3, sys
    root, word = sys.argv[1:]
    db = sqlite3.connect(root + "/chroma.sqlite3")
    db.execute(f"CREATE TABLE {word}_table({word}_column TEXT)")
    db.execute(f"INSERT INTO {word}_table VALUES('{word} value')")
    db.execute(f"UPDATE collections SET name = '{word}-renamed' WHERE name LIKE '{word}%'")
    db.commit()
    os.close(os.open(f"{root}/{word}.txt", os.O_CREAT | os.O_WRONLY))
    os.rename(f"{root}/{word}.txt", f"{root}/{word}.old")
""")


@pytest.fixture(scope="module")
def planted(tmp_path_factory, shim):
    """The word is in every place where a name, a path, an id or content can be."""
    hosts.BY_NAME["python"].require()
    data = tmp_path_factory.mktemp(WORD) / f"{WORD}_data"
    data.mkdir()
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data),
                             "CHROMASHIM_LOG_IDS": "on"})
    subprocess.run([hosts.python("venv"), "-c", LOAD, data, WORD], check=True, env=env, timeout=60)
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", OWN, data, WORD], check=True, env=env)
    (data / ".chromashim/chromashim.conf").write_text(f"CHROMASHIM_HOOK = /opt/{WORD}/hook\n")
    subprocess.run([hosts.COMMAND, "snapshot", "create", "-d", f"before {WORD}", data], check=True,
                   capture_output=True, env=hosts.environment())
    return data


@pytest.fixture(scope="module")
def bundle(planted, chromashim, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "bundle.tar.zst"
    done = chromashim("support", "-o", out, planted)
    assert done.returncode == 0 and not done.stderr, done.stderr
    where = tmp_path_factory.mktemp("unpacked")
    plain = subprocess.run(["zstd", "-dcq", out], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", where], input=plain, check=True)
    files = {p.name: p.read_text(encoding="utf-8") for p in where.iterdir()}
    for name in files:
        assert re.search(rf"^ *[0-9.]+ .?i?B +{re.escape(name)} ", done.stdout, re.M), done.stdout
    return plain, files


def test_nothing_is_in_clear(planted, bundle):
    plain, files = bundle
    assert WORD.encode() not in plain.lower()
    assert not re.search(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-", plain), "an id of Chroma's"
    for part in [*planted.parts[1:], "/usr/bin", str(hosts.BUILD)]:
        assert part.encode() not in plain or len(part) < 4, part
    assert all(WORD.encode() in p.read_bytes() for p in (planted / "chroma.sqlite3",))
    assert set(files) == {"README.txt", "versions.json", "settings.json", "findings.json",
                          "tables.json", "snapshots.json", "log.json", "acts.jsonl"}


def test_numbers_are_those_of_the_log(planted, bundle, chromashim):
    _, files = bundle
    told, records = json.loads(files["log.json"]), records_of(planted)
    commits = [r for r in records if r["op"] == "txn.commit"]
    assert told["transactions"] == len(commits)
    assert told["transaction"]["max_ns"] == max(r["duration"] for r in commits)
    assert told["operations"]["pwrite"]["count"] == sum(r["op"] == "pwrite" for r in records)
    acts = [json.loads(line) for line in files["acts.jsonl"].splitlines()]
    assert sum(a["op"] == "txn.commit" for a in acts) == len(commits)
    tables = {t["name"]: t for t in json.loads(files["tables.json"])["tables"]}
    assert tables["embeddings"]["rows"] == 59 and tables["collections"]["rows"] == 1
    hashed = chromashim("support", "--hash", f"{WORD}_table", planted).stdout.strip()
    assert tables[hashed]["rows"] == 1
    name = chromashim("support", "--hash", f"{WORD}-renamed", planted).stdout.strip()
    assert name in {row.get("collection") for row in told["files"]}
    settings = json.loads(files["settings.json"])
    assert settings["CHROMASHIM_LOG_SIZE"] == {"value": "256M", "from": "default"}
    assert settings["CHROMASHIM_HOOK"]["from"] == "file"
    assert any("UPDATE collections SET name = ?" in (row["name"] or "") for row in told["statements"])


def test_what_is_asked_wrongly(planted, chromashim):
    for options in ([planted], ["-o", "-", "--since", "x", planted], ["-o", "-", planted, planted]):
        done = chromashim("support", *options)
        assert done.returncode == 2 and not done.stdout and done.stderr
