# SPDX-License-Identifier: MIT
"""Real Chroma under the shim answers as without it, and the op log agrees with strace."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import elf
import hosts
import tracer
import witness

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strace")]


@dataclass
class Run:
    host: hosts.Host
    data: Path
    without: dict[str, Any]
    under: dict[str, Any]
    strace: tracer.Strace
    log: witness.Log


def run(host: hosts.Host, work: Path, preload: str) -> Run:
    host.require()
    data = work / "data"
    without = hosts.live(host, work / "plain")
    under = hosts.live(host, data, preload, work / "strace")
    strace = tracer.Strace(tracer.Root(data), str(hosts.ROOT))
    for part in ("life", "again"):
        strace.read(work / f"strace-{part}")
    # Making the directory itself comes before it is known to be one.
    for tid, events in strace.threads.items():
        strace.threads[tid] = [e for e in events if (e.kind, e.path) != ("mkdir", ".")]
    return Run(host, data, without, under, strace, witness.recorded(data))


@pytest.fixture(scope="module", params=hosts.HOSTS, ids=lambda host: host.name)
def done(request, tmp_path_factory, shim) -> Run:
    return run(request.param, tmp_path_factory.mktemp(request.param.name), shim)


def test_answers_are_the_same(done):
    for part, answers in done.without.items():
        for question, answer in answers.items():
            assert done.under[part][question] == answer, f"{part}: {question}"


def test_log_and_strace_agree(done):
    assert done.log.problems == []
    found = witness.differences(done.strace.threads, done.log.threads)
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:60])


def test_all_of_it_was_seen(done):
    """The agreement is not one of two that saw nothing."""
    events = [e for each in done.strace.threads.values() for e in each]
    written = {e.path.split("/")[-1] for e in events if e.kind == "write"}
    assert {"chroma.sqlite3", "chroma.sqlite3-journal", "header.bin", "data_level0.bin",
            "length.bin", "link_lists.bin", "index_metadata.pickle"} <= written
    assert {"open", "write", "lock", "unlink", "mkdir"} <= {e.kind for e in events}
    assert {"fsync", "fdatasync"} & {e.kind for e in events}
    assert len(events) > 1000


def test_transactions_are_recognised(done):
    ops = [record["op"] for record in done.log.records]
    assert ops.count("txn.commit") >= 10
    assert ops.count("txn.begin") >= ops.count("txn.commit")


def test_status_knows_the_directory(done, chromashim):
    told = chromashim("status", "--json", done.data)
    assert told.returncode in (0, 3), told.stderr


def test_one_entry_point_less_is_noticed(tmp_path, shim):
    """The comparison fails when the library does not see one of the calls."""
    host = hosts.BY_NAME["python"]
    host.require()
    blind = elf.without_symbol(shim, "unlink", tmp_path / "libblind.so")
    data = tmp_path / "data"
    hosts.drive(host.driver, str(data), "life", str(blind), tmp_path / "strace")
    strace = tracer.Strace(tracer.Root(data), str(hosts.ROOT)).read(tmp_path / "strace")
    found = witness.differences(strace.threads, witness.recorded(data).threads)
    assert any("not recorded: unlink" in line for line in found)
