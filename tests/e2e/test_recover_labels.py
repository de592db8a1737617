# SPDX-License-Identifier: MIT
"""The commonest crash: Chroma is killed while it rewrites index_metadata.pickle, and the other four
files are one persist ahead of the marks. And its neighbours: a lost header, a file cut short. Every
vector is compared with what was acknowledged."""

import json
import os
import shutil
from pathlib import Path

import pytest

import gallery
import hosts
from gallery import Fault, segment

pytestmark = pytest.mark.memory

PICKLE = "index_metadata.pickle"
HOST = hosts.BY_NAME["python"]
CASES = {  # what is killed, how much of the pickle is there then, and what happens afterwards
    "adds": ("pairs_adds", 1, ""),
    "adds, some of the pickle": ("pairs_adds", 2, ""),
    "upserts": ("pairs_upserts", 1, ""),
    "adds, upserts and deletes": ("pairs_mixed", 1, ""),
    "the service went on": ("pairs_adds", 1, "pairs_later"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory, strace):
    HOST.require()
    data = tmp_path_factory.mktemp("pairs") / "data"
    acted = gallery.act(HOST, data, "pairs_base")
    assert acted.status == 0, acted.text
    yield data, told(acted)
    gallery.stop_actors()


def vector(name: str, i: int, number: int) -> list[float]:
    return [float(i), float(number), 1.0, float(i * number % 17)]


def told(acted: gallery.Acted) -> dict[str, dict[str, int]]:
    """{collection: {id: version}}, 0: deleted."""
    records: dict[str, dict[str, int]] = {"space-l2": {}, "space-cosine": {}}
    for line in acted.acknowledged:
        name, first, last, number = line.split()
        records[name] |= {str(i): int(number) for i in range(int(first), int(last))}
    return records


def is_version(record: list[float], i: str, number: int) -> bool:
    return gallery.same_vector("space-cosine", vector("", int(i), number), record)


def compare(name: str, acknowledged: dict[str, int], found: dict[str, list[float]]) -> int:
    """How many are right; a version that is not acknowledged may have been under way."""
    right = 0
    for i, number in acknowledged.items():
        if number == 0:
            assert i not in found, (name, i)
            continue
        assert i in found, (name, i)
        right += any(is_version(found[i], i, n) for n in (number, 2))
    return right


@pytest.mark.parametrize("case", CASES)
def test_pickle_cut(case, base, chromashim, tmp_path):
    verb, write, later = CASES[case]
    data = Path(shutil.copytree(base[0], tmp_path / "data"))
    fault = Fault(PICKLE, "write", f"error=EIO:signal=KILL:when={write}")
    acted = gallery.act(HOST, data, verb, fault)
    assert acted.status == -9, acted.text
    acknowledged = {name: {**base[1][name], **new} for name, new in told(acted).items()}
    if later:
        went_on = gallery.act(HOST, data, later)
        for name, new in told(went_on).items():
            acknowledged[name] |= new
    exported = export(chromashim, data, 0)
    done = chromashim("recover", "-y", "--json", data)
    assert done.returncode == 0, done.stderr
    answer = gallery.ask(HOST, data)
    assert "error" not in answer, answer["error"]
    for name, records in acknowledged.items():
        there = sum(number > 0 for number in records.values())
        assert there >= 470
        for found in exported[name], vectors(answer["records"][name]):
            assert compare(name, records, found) == there, name


@pytest.mark.parametrize("verb", ["pairs_adds", "pairs_mixed"])
def test_pickle_of_an_earlier_persist(verb, base, chromashim, tmp_path):
    """Whole, but put back beside newer files: what was made since is found by the order, too."""
    data = Path(shutil.copytree(base[0], tmp_path / "data"))
    older = {path: path.read_bytes() for path in data.glob(f"*/{PICKLE}")}
    acted = gallery.act(HOST, data, verb)
    assert acted.status == 0, acted.text
    acknowledged = {name: {**base[1][name], **new} for name, new in told(acted).items()}
    newer = [path for path, content in older.items() if path.read_bytes() != content]
    assert newer
    for path in newer:
        path.write_bytes(older[path])
    exported = export(chromashim, data, 0)
    assert chromashim("recover", "-y", "--json", data).returncode == 0
    answer = gallery.ask(HOST, data)
    assert "error" not in answer, answer["error"]
    for name, records in acknowledged.items():
        there = sum(number > 0 for number in records.values())
        for found in exported[name], vectors(answer["records"][name]):
            assert compare(name, records, found) == there, name


def export(chromashim, data: Path, status: int) -> dict[str, dict[str, list[float]]]:
    done = chromashim("export", data)
    assert done.returncode == status, done.stderr
    assert "no vector that can" not in done.stderr
    found: dict[str, dict[str, list[float]]] = {"space-l2": {}, "space-cosine": {}}
    for text in done.stdout.splitlines():
        record = json.loads(text)
        if record["embedding"]:
            found[record["collection"]][record["id"]] = record["embedding"]
    return found


def vectors(records: dict) -> dict[str, list[float]]:
    return {i: record["embedding"] for i, record in records.items()}


ELEMENT = 4 + 4 * 32 + 4 * 4 + 8  # of M = 16 and dimension 4


def cut_short(data: Path) -> None:
    os.truncate(segment(data, "space-l2") / "data_level0.bin", 300 * ELEMENT)


@pytest.mark.parametrize("size, older", [(300 * ELEMENT, True), (300 * ELEMENT + 7, False)])
def test_level0_of_an_earlier_persist(size, older, base, chromashim, tmp_path):
    """It ends with an element: what changed since then is as it was, and nothing tells which."""
    data = Path(shutil.copytree(base[0], tmp_path / "data"))
    os.truncate(segment(data, "space-l2") / "data_level0.bin", size)
    done = chromashim("recover", "-y", "--set-aside", data)
    assert done.returncode == 3, done.stderr
    assert ("or older than they should be" in done.stdout + done.stderr) == older


def zero_tailed(data: Path) -> None:
    path = segment(data, "space-l2") / "data_level0.bin"
    size = path.stat().st_size
    cut_short(data)
    os.truncate(path, size)


@pytest.mark.parametrize("damage", [cut_short, zero_tailed])
def test_header_lost(damage, base, chromashim, tmp_path):
    """Every whole element that is left, whatever its neighbours were."""
    data = Path(shutil.copytree(base[0], tmp_path / "data"))
    (segment(data, "space-l2") / "header.bin").unlink()
    damage(data)
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    assert done.returncode == 3, done.stderr
    answer = gallery.ask(HOST, data)
    assert "error" not in answer, answer["error"]
    found = vectors(answer["records"]["space-l2"])
    # what the queue still has comes besides
    assert len(found) >= 300
    assert all(is_version(found[i], i, 1) for i in found if i != "written after")
    assert len(vectors(answer["records"]["space-cosine"])) == 500
