# SPDX-License-Identifier: MIT
"""State at any moment comes back, and single records since any moment. The same for as long as one
likes: CHROMASHIM_MOMENTS_SECONDS, which tests/torture.py sets."""

import os
import random

import pytest

import hosts
from moments import Moments

SECONDS = float(os.environ.get("CHROMASHIM_MOMENTS_SECONDS", "0"))
LINES = ["python", "python-0.6"] + (["server", "node"] if SECONDS else [])
SEED = int(os.environ.get("CHROMASHIM_MOMENTS_SEED", "7"))


@pytest.fixture(params=LINES)
def moments(request, tmp_path, chromashim):
    host = hosts.BY_NAME[request.param]
    host.require()
    one = Moments(host, tmp_path, chromashim, SEED)
    one.data.mkdir()
    yield one
    one.clean_up()


def some(rng: random.Random, found: list, most: int) -> list:
    return found if SECONDS else rng.sample(found, min(len(found), most))


def test_any_moment(moments):
    """Each restored snapshot is the model at its moment, with its index; what has changed since is
    what the model says; single records come back; also after prune, and after restoring in place
    and going on."""
    m = moments
    m.run(SECONDS or 2.5)
    found = m.snapshots()
    assert len(found) >= 3
    for one in some(m.rng, found, 4):
        m.bring_back(one)
    for one in some(m.rng, found, 3):
        m.compare(one)
        m.compare(*sorted(m.rng.sample(found, 2), key=lambda s: s["id"]))
    for one in m.rng.sample(found, int(SECONDS / 10)) if SECONDS else found[len(found) * 2 // 3:][:1]:
        m.bring_records(one)
    keep = max(2, len(found) // 2)
    done = m.chromashim("snapshot", "prune", f"--keep-last={keep}", "-y", m.data)
    assert done.returncode == 0, done.stderr
    left = m.snapshots()
    assert 2 <= len(left) < len(found)
    for one in some(m.rng, left, 1):
        m.bring_back(one)
    if SECONDS:
        m.go_back(m.rng.choice(left[:-1]))
        m.run(SECONDS / 4)
        for one in m.snapshots():
            m.bring_back(one)
    print(f"{m.host.name}: {len(found)} snapshots, {m.returned} moments restored and compared, "
          f"{m.compared} changes of records compared, {m.asked} records asked for back, "
          f"{m.kills} guardians killed, {m.restarts} starts, {len(m.calls())} calls, seed {m.seed}")
