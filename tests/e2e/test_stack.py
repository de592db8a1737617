# SPDX-License-Identifier: MIT
"""Calls need little more stack than libc's: hosts make them in signal handlers and small threads."""

import subprocess

import torn
from hosts import SHIM

MORE = 2048


def test_calls_need_two_kib_more_at_most(compiled, tmp_path):
    def depths(name: str, env: dict) -> dict[str, int]:
        torn.make(tmp_path / name / "data")
        done = subprocess.run([compiled("stack"), tmp_path / name / "data"], env=env, check=True,
                              capture_output=True, text=True)
        return {call: int(n) for call, n in (line.split() for line in done.stdout.splitlines())}

    without = depths("without", {})
    seen = depths("with", {"LD_PRELOAD": str(SHIM), "CHROMASHIM_GUARD": "off"})
    assert len(without) == 16
    assert not {call: n for call, n in seen.items() if n > without[call] + MORE}
