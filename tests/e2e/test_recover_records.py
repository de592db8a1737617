# SPDX-License-Identifier: MIT
"""Rows that the database has lost: what the index and snapshots still tell of them comes back, and
what was deleted stays so."""

import json
import os
import re
import shutil
import subprocess
import sqlite3
from pathlib import Path
from typing import Optional

import pytest

import gallery
import hosts
from gallery import same_vector
from test_recover_gallery import recover

pytestmark = pytest.mark.memory

HOST = hosts.BY_NAME["python"]
DELETED, CHANGED, NEW = range(0, 50), range(100, 300), range(1600, 1800)


@pytest.fixture(scope="module")
def base(tmp_path_factory, chromashim):
    HOST.require()
    data = tmp_path_factory.mktemp("texts") / "data"
    for verb in "texts_base", "snapshot", "texts_after":
        if verb == "snapshot":
            done = chromashim("snapshot", "create", data)
            assert done.returncode == 0, done.stderr
        else:
            acted = gallery.act(HOST, data, verb)
            assert acted.status == 0, acted.text
    yield data
    gallery.stop_actors()


def cut(data: Path) -> None:
    size = (data / "chroma.sqlite3").stat().st_size
    os.truncate(data / "chroma.sqlite3", size // 4096 // 4 * 4096)


def lose_rows(data: Path) -> None:
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute("DELETE FROM embeddings")
    db.close()


def documents_lost(data: Path) -> None:
    gallery.page_lost("embedding_metadata")(data)


def compare(data: Path, named: Optional[set[str]]) -> None:
    """Every vector is the newest; texts at least those of the snapshot, all but those named."""
    answer = gallery.ask(HOST, data)
    assert "error" not in answer, answer["error"]
    assert not answer["missed"]
    found = answer["records"]["texts"]
    assert set(found) == {str(i) for i in range(1800) if i not in DELETED}
    for i, record in found.items():
        number = 2 if int(i) in CHANGED or int(i) in NEW else 1
        vector = [float(i), float(number), 1.0, float(int(i) * number % 17)]
        assert same_vector("", vector, record["embedding"]), i
        if named is None or int(i) in NEW:
            continue
        assert record["document"] in {f"text {i} of {n}" * 9 for n in (1, number)}, i
        assert i in named or record["metadata"]["n"] == int(i)


@pytest.mark.parametrize("damage", [cut, lose_rows, documents_lost])
def test_with_a_snapshot(damage, base, chromashim, tmp_path):
    data = Path(shutil.copytree(base, tmp_path / "data"))
    damage(data)
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode in (0, 3), done.stderr
    [account] = json.loads(done.stdout)["collections"]
    assert account["before"]["records"] == 1750 and account["lost_records"] == 0
    assert account["before"]["with_vector"] == 1750
    assert json.loads(done.stdout)["may_be_older"] == (damage is not documents_lost)
    assert (account["may_be_older"] > 0) == (damage is not documents_lost)
    if damage is cut:  # what no snapshot has is told
        assert {int(one["id"]) for one in account["lost"]} >= {*NEW}
    if done.returncode == 3:
        assert "restore" in done.stderr and "--to 1" in done.stderr
    compare(data, {one["id"] for one in account["lost"]})


@pytest.mark.parametrize("damage", [cut, lose_rows])
def test_from_the_index_alone(damage, base, chromashim, tmp_path):
    data = Path(shutil.copytree(base, tmp_path / "data"))
    shutil.rmtree(data / ".chromashim")
    damage(data)
    exported = chromashim("export", data)
    assert len(exported.stdout.splitlines()) == 1750
    account = recover(chromashim, data, status=3)["collections"][0]
    assert account["before"]["records"] == 1750 and account["lost_records"] == 0
    assert len(account["lost"]) > 1000  # their documents
    compare(data, None)


@pytest.mark.parametrize("has_snapshot", [True, False])
def test_without_its_own_row(has_snapshot, base, chromashim, tmp_path):
    data = Path(shutil.copytree(base, tmp_path / "data"))
    if not has_snapshot:
        shutil.rmtree(data / ".chromashim")
    gallery.sql("DELETE FROM collections")(data)
    checked = chromashim("check", data)
    assert checked.returncode == 1 and "collection-row-missing" in checked.stdout, checked.stdout
    exported = [json.loads(line) for line in chromashim("export", data).stdout.splitlines()]
    assert len(exported) == 1750 and all(line["embedding"] and line["document"] for line in exported)
    account = recover(chromashim, data, status=0 if has_snapshot else 3)
    assert account["collections_without_name"] == (not has_snapshot)
    [collection] = account["collections"]
    assert collection["after"]["with_vector"] == 1750 and not collection["lost"]
    if has_snapshot:
        compare(data, set())
    else:
        gallery.sql("UPDATE collections SET name = 'texts' WHERE name GLOB 'lost-*'")(data)
        compare(data, set())


@pytest.mark.parametrize("fifths", [1, 2, 3, 4])
@pytest.mark.parametrize("has_snapshot", [True, False])
def test_cut(fifths, has_snapshot, base, chromashim, tmp_path):
    """Never less is told than is lost, and nothing is that index or snapshot have."""
    data = Path(shutil.copytree(base, tmp_path / "data"))
    if not has_snapshot:
        shutil.rmtree(data / ".chromashim")
    pages = (data / "chroma.sqlite3").stat().st_size // 4096
    os.truncate(data / "chroma.sqlite3", pages * fifths // 5 * 4096)
    account = recover(chromashim, data, "--set-aside", status=3)
    [told] = account["collections"]
    answer = gallery.ask(HOST, data)
    assert "error" not in answer, answer["error"]
    [found] = answer["records"].values()
    # deleted since, and nothing tells that any more: one too many is better than one lost
    assert set(found) - {str(i) for i in DELETED} == {str(i) for i in range(50, 1800)}
    losses = {one["id"] for one in told["lost"]}
    for i, record in found.items():
        number = 2 if int(i) in CHANGED or int(i) in NEW else 1
        if i not in losses and int(i) not in DELETED:
            assert record["document"] == f"text {i} of {number}" * 9, i
            assert same_vector("", [float(i), float(number), 1.0, float(int(i) * number % 17)],
                               record["embedding"]), i


def elsewhere(chromashim, data, out):
    done = chromashim("recover", "-y", "--json", "-o", out, data)
    assert done.returncode in (0, 3), done.stderr
    lines = [json.loads(line) for line in chromashim("export", out).stdout.splitlines()]
    assert len(lines) == 1750
    assert sum(line["document"] is not None for line in lines) >= 1550


def test_elsewhere(base, chromashim, tmp_path):
    """What a copy needs comes from the snapshots of DIR, which stays as it is."""
    data = Path(shutil.copytree(base, tmp_path / "data"))
    cut(data)
    before = (data / "chroma.sqlite3").read_bytes()
    elsewhere(chromashim, data, tmp_path / "out")
    assert before == (data / "chroma.sqlite3").read_bytes()


def test_elsewhere_from_a_read_only_mount(base, chromashim, tmp_path):
    """As people mount what they do not want to make worse."""
    data = Path(shutil.copytree(base, tmp_path / "data"))
    cut(data)
    if subprocess.run(["mount", "--bind", data, data], capture_output=True).returncode:
        pytest.skip("no bind mounts here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", data], check=True)
        elsewhere(chromashim, data, tmp_path / "out")
        done = chromashim("restore", "--to", "latest", "-o", tmp_path / "restored", data)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", data], check=True)


@pytest.mark.parametrize("rest", [False, True], ids=["emptied", "database gone"])
def test_emptied(rest, base, chromashim, tmp_path):
    data = Path(shutil.copytree(base, tmp_path / "data"))
    for entry in list(data.iterdir()):
        if entry.name == "chroma.sqlite3":
            entry.unlink()
        elif not rest and entry.name != ".chromashim":
            shutil.rmtree(entry)
    checked = chromashim("check", data)
    assert checked.returncode == 2 and "restore" in checked.stdout, checked.stdout
    recovered = chromashim("recover", "-y", data)
    assert recovered.returncode == 1 and "restore" in recovered.stderr, recovered.stderr
    ran = chromashim("run", "--no-guard", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert ran.returncode == 1 and not ran.stdout, ran.stdout
    assert "--to latest" in ran.stderr, ran.stderr
    assert not (data / "chroma.sqlite3").exists()


def test_run_says_what_is_lost(base, chromashim, tmp_path):
    """It does not start with a loss, and never says that all is whole again."""
    data = Path(shutil.copytree(base, tmp_path / "data"))
    cut(data)
    before = (data / "chroma.sqlite3").read_bytes()
    ran = chromashim("run", "--no-guard", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert ran.returncode == 1 and "started\n" not in ran.stdout, ran
    assert re.search(r"not started: .* [1-9]\d* records would be lost", ran.stderr), ran.stderr
    assert "chromashim recover" in ran.stderr and "--to latest" in ran.stderr, ran.stderr
    assert "whole again" not in ran.stderr
    assert (data / "chroma.sqlite3").read_bytes() == before
