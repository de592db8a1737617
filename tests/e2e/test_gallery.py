# SPDX-License-Identifier: MIT
"""The gallery of damage, made by real Chroma and real faults: strace meets a call of a Chroma that
runs without the shim, kills it there or answers with the kernel's error. For each: what check finds,
that explain names that for the text which Chroma then gives, that export still has every record
that exists, the account of recover, and real Chroma with all that the account claims.

The rows of the table of crashes, and where else they are shown:

    a b c e g   test_row, killed or out of room in the middle of a real persist
    b           a delete that is replayed for ever: test_recover_moments.py
    d           test_explain.py, "nothing found on disk"; partial copies: test_recover_moments.py
    f           test_power_goes
    h           test_explain.py, "no descriptors"
    i i' j k    test_first_start_of_python_is_killed, test_killed_at_a_commit, test_reset_killed_late;
                migrations of a directory with records, by hand: test_recover_gallery.py
    l           test_recover.py, test_queue_started_again (people empty the queue by hand)
    m n         test_migration_that_runs_twice, test_downgrade
    o           not made: 40 collections under 256 descriptors all went on answering in 1.5.9. Its
                texts are those of d, its way back a restart.
    p           needs 0.5.5, which makes it: `make check-releases` checks and exports such directories
    2.6         test_two_processes
"""

import concurrent.futures
import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import gallery
import gallery_act
import hosts
import persist_load
import power
from gallery import Fault, check, same_vector
from test_recover_gallery import lines  # noqa: F401

pytestmark = pytest.mark.memory

PICKLE = "index_metadata.pickle"
# Row g: its newer vector was thrown away, and the index has an older one. Nothing tells.
STALE: set[tuple[str, str]] = set()


@pytest.fixture(autouse=True)
def needs(strace):
    pass


@dataclass
class Truth:
    """What Chroma was given and has acknowledged, and what may be there or not."""

    line: gallery.Line
    records: dict[str, dict[str, Any]]
    maybe: dict[str, Any]  # of COLLECTION: one batch that was under way
    # An upsert whose vector was thrown away leaves the one before it in the index; nothing tells.
    stale: set[tuple[str, str]]
    lost: dict[str, set[str]] = field(default_factory=dict)

    def same(self, name: str, i: str, record: dict[str, Any]) -> None:
        mine = self.records[name].get(i) or self.maybe[i]
        assert same_vector(name, mine["embedding"], record["embedding"]) or (
            name, i) in self.stale, (name, i)
        assert (mine["document"], mine["metadata"]) == (record["document"], record["metadata"]), (
            name, i)

    def in_chroma(self, data: Path) -> None:
        """Every record but the lost ones; and of what was under way all or none."""
        answer = self.line.ask(data)
        assert "error" not in answer, answer["error"]
        assert not answer["missed"]
        for name, inserted in self.records.items():
            found, lost = answer["records"].get(name, {}), self.lost.get(name, set())
            more = set(found) - set(inserted)
            assert not more or more | lost >= set(self.maybe), name
            assert set(inserted) - set(found) <= lost and not lost & set(found), name
            for i, record in found.items():
                self.same(name, i, record)

    def in_export(self, chromashim, data: Path) -> None:
        """Everything that exists: all documents, and every vector but the lost ones."""
        done = chromashim("export", data)
        assert done.returncode in (0, 3), done.stderr
        seen: dict[str, set[str]] = {name: set() for name in self.records}
        for text in done.stdout.splitlines():
            record = json.loads(text)
            name, i = record["collection"], record["id"]
            seen[name].add(i)
            if record["embedding"]:
                record["embedding"] = gallery.float32(record["embedding"])
                self.same(name, i, record)
            else:
                assert i in self.lost.get(name, ()), (name, i)
        assert all(seen[name] >= set(inserted) for name, inserted in self.records.items())


def truth(line: gallery.Line, acted: gallery.Acted, stale: set[tuple[str, str]]) -> Truth:
    records = {name: dict(found) for name, found in line.records.items()}
    acknowledged = [int(number) for number in acted.acknowledged]
    for number in acknowledged:
        records[gallery_act.COLLECTION] |= of_batch(number)
    return Truth(line, records, of_batch(len(acknowledged)), stale)


def of_batch(number: int) -> dict[str, Any]:
    batch = gallery_act.batch(number)
    return {i: {"embedding": vector, "document": document, "metadata": None} for i, vector, document
            in zip(batch["ids"], batch["embeddings"], batch["documents"])}


def judge(chromashim, line: gallery.Line, data: Path, acted: gallery.Acted, found: set[str],
          text: str = "", stale: Any = frozenset()) -> dict[str, Any]:
    """The whole way from the damage back to Chroma. Returns the account."""
    kept = Path(shutil.copytree(data, data.with_name("kept")))
    right = truth(line, acted, set(stale))
    there = check(chromashim, data)
    assert there & found if found else not there
    said = line.ask(Path(shutil.copytree(data, data.with_name("asked")))).get("error", "")
    assert re.search(text, said), said[-2000:]
    if said:
        done = chromashim("explain", "--json", "-", input=said)
        assert done.returncode == 0, said[-2000:]
        told = json.loads(done.stdout)
        assert set(told["codes"].split(", ")) & there, (told, there)
    account = recover_what_there_is(chromashim, data)
    right.lost = {c["name"]: {one["id"] for one in c["lost"]} for c in account["collections"]}
    assert check(chromashim, data) == set()
    right.in_export(chromashim, kept)
    right.in_chroma(data)
    return account


def recover_what_there_is(chromashim, data: Path) -> dict[str, Any]:
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    assert done.returncode in (0, 3), done.stderr
    account = json.loads(done.stdout)
    assert (done.returncode == 3) == any(c["lost"] for c in account["collections"])
    return account


# ---- rows of the table of crashes

KILL = "signal=KILL"
TORN = {"length-short", "links-short", "level0-short", "persist-torn", "labels-lost"}
CUT = {"pickle-truncated"}
UNREADABLE = "Error deserializing pickle file|Ran out of input|pickle data was truncated"
ROWS = {  # the call, what check may find, what Chroma then says, whether vectors are lost
    "a killed between the files": (Fault("length.bin", "write,writev", f"{KILL}:when=1"), TORN, "",
                                   False),
    "b killed before the pickle": (Fault(PICKLE, "openat", f"error=EIO:{KILL}:when=2"), TORN, "",
                                   False),
    "c killed, pickle empty": (Fault(PICKLE, "write", f"error=EIO:{KILL}:when=1"), CUT, UNREADABLE,
                               None),
    "c killed, pickle cut": (Fault(PICKLE, "write", f"error=EIO:{KILL}:when=2"), CUT, UNREADABLE,
                             None),
    "c disk full at the pickle": (Fault(PICKLE, "write", "error=ENOSPC"), CUT, UNREADABLE, None),
    "e killed before the mark": (Fault(PICKLE, "close", f"error=EIO:{KILL}:when=2"), set(), "",
                                 False),
    "g disk full in the index": (Fault("data_level0.bin", "write,writev", "error=ENOSPC:when=2+"),
                                 TORN | {"labels-damaged"}, "", True),
}
CASES = [(row, name) for row in ROWS for name in ("python", "python-0.6", "node")
         if name != "node" or row[0] in "ag"]


@pytest.mark.parametrize("row,name", CASES, ids=[f"{row} {name}" for row, name in CASES])
def test_row(row, name, lines, chromashim, tmp_path):  # noqa: F811
    fault, found, text, loses = ROWS[row]
    line = lines(name)
    data, acted = met(line, tmp_path, "add", fault)
    stale = {("space-l2", "space-l2-60")} if row.startswith("g") else set()
    account = judge(chromashim, line, data, acted, found, text, stale)
    if loses is not None:
        assert any(c["lost"] for c in account["collections"]) == loses


# ---- migrations, resets, deletions: killed when a transaction is about to be committed

COMMIT = ("chroma.sqlite3-journal", "unlink")
ATTEMPTS = 12


def met(line: gallery.Line, tmp_path: Path, verb: str, fault: Fault) -> tuple[Path, gallery.Acted]:
    """A copy of the line's directory that the fault has met: strace counts the calls of each thread
    by itself, and so it may not."""
    for number in range(ATTEMPTS):
        data = Path(shutil.copytree(line.data, tmp_path / f"data-{number}"))
        acted = gallery.act(line.host, data, verb, fault)
        if acted.status or KILL not in fault.inject:
            return data, acted
    raise AssertionError(f"the fault met none of {ATTEMPTS}: {acted.text}")


def killed(host: hosts.Host, data: Path, verb: str, commit: int) -> None:
    acted = gallery.act(host, data, verb, Fault(*COMMIT, f"{KILL}:when={commit}"))
    assert acted.status == -9, acted.text


def complaint(host: hosts.Host, data: Path) -> str:
    """What Chroma says of a copy; "" if it opens it."""
    copy = Path(shutil.copytree(data, data.with_name(f"{data.name}-asked")))
    acted = gallery.act(host, copy, "read")
    return acted.text if acted.status else ""


@pytest.mark.parametrize("commit", [2, 8, 10, 13, 17, 20, 24, 26, 34])
def test_first_start_of_python_is_killed(commit, lines, chromashim, tmp_path):  # noqa: F811
    """Row i: its migrations commit statement by statement. Where Chroma goes on by itself there is no
    damage; where it never starts again, recover takes the half one back."""
    host = lines("python-0.6").host
    data = tmp_path / "data"
    data.mkdir()
    killed(host, data, "connect", commit)
    said = complaint(host, data)
    assert check(chromashim, data) == ({"migration-interrupted"} if said else set()), said
    if said:
        told = json.loads(chromashim("explain", "--json", "-", input=said).stdout)
        assert "migration-interrupted" in told["codes"]
        done = chromashim("recover", "-y", data)
        assert done.returncode == 0, done.stderr
        assert check(chromashim, data) == set()
    assert gallery.act(host, data, "read").status == 0


# What is killed in what of whose directory, which then is as it was: rows i', j, k.
KILLED = {
    "migration of Rust": ("python-0.6", "python", "connect", 1, set()),
    "reset": ("python", "python", "reset", 3, {"migration-interrupted"}),
    "collection delete": ("python", "python", "delete", 1, set()),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_a_commit(name, lines, chromashim, tmp_path):  # noqa: F811
    writer, opener, verb, commit, found = KILLED[name]
    line, opened = lines(writer), lines(opener)
    for number in range(ATTEMPTS):  # a reset that commits in another thread gets further
        data = Path(shutil.copytree(line.data, tmp_path / f"data-{number}"))
        killed(opened.host, data, verb, commit)
        said, there = complaint(opened.host, data), check(chromashim, data)
        assert bool(said) == bool(there), said
        if there == found:
            break
    assert there == found
    right = truth(line, gallery.Acted(0, [], ""), set())
    right.line, right.maybe = opened, {}
    right.in_export(chromashim, data)
    if said:
        told = json.loads(chromashim("explain", "--json", "-", input=said).stdout)
        assert set(told["codes"].split(", ")) & found
        recover_what_there_is(chromashim, data)
        assert check(chromashim, data) == set()
    right.in_chroma(data)


def test_reset_killed_late(lines, chromashim, tmp_path):  # noqa: F811
    """Row j, when tables are gone: what is lost was meant to be. check says so, and what there is
    comes out."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    killed(line.host, data, "reset", 5)
    said = complaint(line.host, data)
    told = json.loads(chromashim("explain", "--json", "-", input=said).stdout)
    assert set(told["codes"].split(", ")) & check(chromashim, data) == {"table-missing"}
    done = chromashim("export", data)
    assert done.returncode in (0, 3)
    assert len(done.stdout.splitlines()) >= sum(len(r) for name, r in line.records.items()
                                                if name.startswith("space-"))


# ---- releases, processes, power


def test_downgrade(lines, chromashim, tmp_path):  # noqa: F811
    """Row n: 1.5.9 has migrated a directory of 0.6.3, which then writes to it again."""
    line, newer = lines("python-0.6"), lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    assert gallery.act(newer.host, data, "read").status == 0
    acted = gallery.act(line.host, data, "add")
    assert acted.status == 0, acted.text
    said = complaint(newer.host, data)
    assert "mismatched types; Rust type `u64`" in said
    told = json.loads(chromashim("explain", "--json", "-", input=said).stdout)
    assert {told["codes"]} == check(chromashim, data) == {"mark-blob"}
    right = truth(line, acted, set())
    right.line = newer
    right.in_export(chromashim, data)
    assert not any(c["lost"] for c in recover_what_there_is(chromashim, data)["collections"])
    assert check(chromashim, data) == set()
    right.in_chroma(data)


def test_migration_that_runs_twice(lines, chromashim, tmp_path):  # noqa: F811
    """Row m: real 1.5.9 poisons the marks by its own migration, whose record was lost. It accepts
    what is added then, ignores it and, other than the table says, purges it as well."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    gallery.sql("DELETE FROM migrations WHERE dir = 'metadb' AND version >= 5")(data)
    assert gallery.act(line.host, data, "connect").status == 0
    worse = Path(shutil.copytree(data, tmp_path / "worse"))
    right = truth(line, gallery.Acted(0, [], ""), set())
    right.maybe = {}
    assert check(chromashim, data) == {"mark-poisoned"}
    right.in_export(chromashim, data)
    assert not any(c["lost"] for c in recover_what_there_is(chromashim, data)["collections"])
    assert check(chromashim, data) == set()
    right.in_chroma(data)
    assert gallery.act(line.host, worse, "add").acknowledged == ["0", "1", "2", "3"]
    assert "mark-poisoned" in check(chromashim, worse)
    told = chromashim("export", worse).stdout
    assert "act-1" not in told and '"space-l2-150"' in told


def together(line: gallery.Line, second: gallery.Actor, data: Path, work: Path) -> gallery.Acted:
    """Two real Chromas on one directory, each with all in its memory."""
    assert second.act(str(data), "read", (), work / "other").status == 0
    with concurrent.futures.ThreadPoolExecutor() as threads:
        other = threads.submit(second.act, str(data), "upsert_others", (), work / "other")
        acted = gallery.act(line.host, data, "add")
        assert acted.status == other.result().status == 0, acted.text + other.result().text
    return acted


def test_two_processes(lines, chromashim, tmp_path):  # noqa: F811
    """Both are told that all is well, and their files of the index are a mixture. What the one has
    written where the other's pickle points cannot be told: such a record may have the other's
    vector. No other record has a wrong one, and each is there or called lost."""
    line = lines("python")
    second = gallery.Actor(line.host.driver)
    try:
        for number in range(12):  # they may also have come one after the other
            data = Path(shutil.copytree(line.data, tmp_path / f"data-{number}"))
            acted = together(line, second, data, tmp_path)
            if check(chromashim, data):
                break
    finally:
        second.stop()
    assert check(chromashim, data)
    right = truth(line, acted, set())
    mine = right.records[gallery_act.COLLECTION]
    for i, record in [(i, r) for i, r in mine.items() if i.startswith("act-")]:
        mine[f"other-{i}"] = record
    right.stale = {(gallery_act.COLLECTION, i) for i in mine if "act-" in i}
    right.maybe = {}
    kept = Path(shutil.copytree(data, tmp_path / "kept"))
    done = chromashim("recover", "-y", "--json", "--set-aside", data)
    assert done.returncode in (0, 3), done.stderr
    right.lost = {c["name"]: {one["id"] for one in c["lost"]}
                  for c in json.loads(done.stdout)["collections"]}
    assert check(chromashim, data) == set()
    right.in_export(chromashim, kept)
    right.in_chroma(data)


def test_power_goes(chromashim, tmp_path):
    """Row f: SQLite was synced and its queue purged, the index was not. A disk's image is copied in
    one moment while Chroma writes; what is lost is named, and the rest is there."""
    why = power.missing()
    if why:
        pytest.skip(f"no power cuts: {why}")
    host = hosts.BY_NAME["python"]
    host.require()
    cuts = power.PowerCuts(host, tmp_path, "", "ext4", 1)
    try:
        with power.mounted(power.make_image(tmp_path / "outer", power.OUTER, "xfs"),
                           tmp_path / "outer.d") as outer:
            for cut in cuts.session(outer, 5):
                with power.mounted(cut.image, tmp_path / "cut.d") as at:
                    data = Path(shutil.copytree(at / "data", tmp_path / f"{cut.image.name}-data"))
                if cut.acknowledged > 4 and check(chromashim, data):
                    break
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no power cuts: {error}")
    assert check(chromashim, data)
    exported = {r["id"]: r for r in map(json.loads, chromashim("export", data).stdout.splitlines())}
    [collection] = recover_what_there_is(chromashim, data)["collections"]
    assert check(chromashim, data) == set()
    lost = {one["id"] for one in collection["lost"]}
    given: dict[str, list[list[float]]] = {}
    for number in range(cut.possible):
        for i, vector in persist_load.batch(number).items():
            given.setdefault(i, []).append([float(x) for x in vector])
    acknowledged = {i for n in range(cut.acknowledged) for i in persist_load.batch(n)}
    answer = gallery.ask(host, data)
    assert "error" not in answer and not answer["missed"], answer.get("error")
    [found] = answer["records"].values()
    assert acknowledged <= set(found) | lost and not lost & set(found)
    for i, record in found.items():
        assert record["embedding"] in given[i], i
        assert gallery.float32(exported[i]["embedding"]) == record["embedding"], i
