# SPDX-License-Identifier: MIT
"""A part of the gallery of what people do around a backend: each act, each state, both releases.

All of it is `make check-around`; see around.py.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

import around
import around_acts
import hosts


def chosen() -> list[around.Cell]:
    """One cell of each act, and of each second one with 0.6 as well; states and loads take turns."""
    every = []
    for turn, release in enumerate(around.RELEASES):
        for n, act in list(enumerate(around_acts.ACTS))[::1 + turn]:
            state = around.STATES[(n + 1 + 2 * turn) % len(around.STATES)]
            load = around.LOADS[(n // 4 + n + turn) % len(around.LOADS)]
            every.append(around.Cell(release, load, state, act))
    return every


@pytest.fixture(scope="module")
def gallery():
    if not around.FAULTS.exists():
        pytest.skip(f"{around.FAULTS} is missing; run make {around.FAULTS.name}")
    with tempfile.TemporaryDirectory(prefix="around-") as path:  # pytest's own are private
        os.chmod(path, 0o755)
        with around.gallery(Path(path), around.compiled(Path(path))) as one:
            yield one


@pytest.mark.parametrize("cell", chosen(), ids=str)
def test_cell(gallery, cell):
    """Right, or what is missing is refused or named; never wrong in silence."""
    hosts.BY_NAME[{"1.5": "python", "0.6": "python-0.6"}[cell.release]].require()
    missing = [program for program in cell.act.needs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is missing; run wrappers/setup check")
    if cell.act.as_root and os.geteuid():
        pytest.skip("only root can do this")
    outcome, detail, site = gallery.play(cell)
    assert outcome == "right" or (cell.act.may_fail and outcome in ("refused", "said")), \
        f"{outcome}: {detail}\n" + "\n".join(site.said)
