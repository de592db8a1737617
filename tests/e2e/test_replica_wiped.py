# SPDX-License-Identifier: MIT
"""A machine is wiped under load, and comes back elsewhere from its replica; it writes on, and is
wiped again. For longer in tests/torture.py."""

import hosts
import wipes


def test_wiped_under_load(tmp_path):
    hosts.BY_NAME["python"].require()
    found = wipes.wipe(tmp_path / "machines", 3, 1, "0", 11)
    print(wipes.table(found))
    assert len(found) == 3
