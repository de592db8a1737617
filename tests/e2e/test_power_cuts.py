# SPDX-License-Identifier: MIT
"""Power cuts while real Chroma writes: every record acknowledged before is there, bit for bit."""

import os

import pytest

import hosts
import power
import replay

# By the recorded order of writes: also where there are no loop mounts.
RECORDED = [("python", 36), ("python-0.6", 18)]
CASES = [("python", "ext4", 16), ("python", "xfs", 8), ("python-0.6", "ext4", 8)]


def cut_power(tmp_path, preload, name, kind, count):
    host = hosts.BY_NAME[name]
    host.require()
    why = power.missing()
    if why:
        pytest.skip(f"no power cuts: {why}")
    seed = int.from_bytes(os.urandom(4), "little")
    harness = power.PowerCuts(host, tmp_path, preload, kind, seed)
    try:
        tally = harness.run(count)
    except power.NoLoopMounts as error:
        pytest.skip(f"no power cuts: {error}")
    print(f"seed {seed}: {tally}")
    return seed, tally


@pytest.mark.slow
@pytest.mark.parametrize("name,kind,count", CASES, ids=[f"{n}-{k}" for n, k, _ in CASES])
def test_power_cuts(tmp_path, shim, name, kind, count):
    seed, tally = cut_power(tmp_path, shim, name, kind, count)
    assert not tally.broken, f"seed {seed}: {tally}\n" + "\n".join(tally.broken)
    assert tally.acknowledged, f"seed {seed}: {tally}"


@pytest.mark.slow
def test_chroma_alone_does_not_survive(tmp_path):
    """What the others would look like if the harness saw nothing. On a machine that is slow, few
    cuts meet a write: then there are more of them."""
    tallies = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        tallies.append(cut_power(tmp_path / str(number), "", "python", "ext4", 5)[1])
        if tallies[-1].broken:
            return
    pytest.fail(str(tallies))


def cut_recorded(tmp_path, preload, name, count):
    host = hosts.BY_NAME[name]
    host.require()
    why = replay.missing()
    if why:
        pytest.skip(f"no power cuts from a recording: {why}")
    seed = int.from_bytes(os.urandom(4), "little")
    tally = replay.Replay(host, tmp_path, preload, seed).run(count)
    print(f"seed {seed}: {tally}")
    return seed, tally


@pytest.mark.slow
@pytest.mark.parametrize("name,count", RECORDED, ids=[name for name, _ in RECORDED])
def test_recorded_writes(tmp_path, shim, name, count):
    seed, tally = cut_recorded(tmp_path, shim, name, count)
    assert not tally.broken, f"seed {seed}: {tally}\n" + "\n".join(tally.broken)
    assert tally.acknowledged, f"seed {seed}: {tally}"


@pytest.mark.slow
def test_recorded_writes_of_chroma_alone(tmp_path):
    """The same without the shim shows the damage."""
    _, tally = cut_recorded(tmp_path, "", "python", 10)
    assert tally.broken, str(tally)
