# SPDX-License-Identifier: MIT
"""kill -9 in persists of real Chroma: no broken collection, no acknowledged record missing.

tests/torture.py runs the same for as long as one likes, and without the shim.
"""

import os

import pytest

import hosts
import kills

# Together more than forty; `make torture` has a thousand.
CASES = [
    ("python", "process", 10),
    ("python", "power", 8),
    ("python-0.6", "process", 8),
    ("python-0.6", "power", 8),
    ("server", "power", 8),
    ("node", "power", 8),
]


@pytest.mark.slow
@pytest.mark.parametrize("name,durability,count", CASES,
                         ids=[f"{name}-{durability}" for name, durability, _ in CASES])
def test_kills(tmp_path, shim, name, durability, count):
    host = hosts.BY_NAME[name]
    host.require()
    seed = int.from_bytes(os.urandom(4), "little")
    with kills.Kills(host, tmp_path, shim, durability, seed) as harness:
        tally = harness.run(count)
    print(f"seed {seed}: {tally}")
    assert not tally.broken, f"seed {seed}: {tally}\n" + "\n".join(tally.broken)
    assert tally.rolled_back, f"seed {seed}: no kill hit a persist: {tally}"
