# SPDX-License-Identifier: MIT
"""check: an index, or a part of it, of an earlier moment than the queue says."""

import shutil
from pathlib import Path

import pytest

import hosts
from test_formats import check, codes

pytestmark = pytest.mark.memory

LOAD = Path(__file__).with_name("older_load.py")
FOUND = "index-older-than-queue"


@pytest.fixture(scope="module", params=[("python", "l2"), ("python", "cosine"),
                                        ("python-0.6", "cosine")],
                ids="-".join)
def changed(request, tmp_path_factory):
    """A directory, and its segment as it was before the changes."""
    name, space = request.param
    host = hosts.BY_NAME[name]
    host.require()
    data = tmp_path_factory.mktemp("older") / "data"

    def load(what):
        hosts.chroma(host.driver, LOAD, data, what, space)

    load("make")
    segment, = (p.parent for p in data.glob("*/header.bin"))
    before = data.parent / "before"
    shutil.copytree(segment, before)
    load("change")
    return data, segment.name, before


@pytest.fixture
def copy(changed, tmp_path):
    data, segment, before = changed
    copied = Path(shutil.copytree(data, tmp_path / "copy"))
    return copied, copied / segment, before


def test_what_chroma_leaves_is_fine(changed, chromashim):
    result = check(chromashim, changed[0], "--full")
    assert result["verdict"] == "fine", result["findings"]


def test_undone_persist(copy, chromashim):
    """The whole segment is as it was, the mark and the queue are not."""
    data, segment, before = copy
    shutil.rmtree(segment)
    shutil.copytree(before, segment)
    result = check(chromashim, data)
    assert FOUND in codes(result) and result["verdict"] == "damage", result["findings"]


def test_older_pieces_in_it(copy, chromashim):
    """As undo data of another time leaves them: elements that are older, under a new pickle."""
    data, segment, before = copy
    old = (before / "data_level0.bin").read_bytes()
    with open(segment / "data_level0.bin", "r+b") as level0:
        level0.write(old)
    assert FOUND in codes(check(chromashim, data))
