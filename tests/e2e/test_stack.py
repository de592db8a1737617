# SPDX-License-Identifier: MIT
"""Calls need little more stack than libc's: hosts make them in signal handlers and small threads."""

import shutil
import subprocess

import pytest

import torn
from hosts import SHIM

MORE = 2048
MORE_FIRST = 4096


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


@pytest.mark.parametrize("state", ["new", "made", "torn", "elsewhere"])
def test_first_open(compiled, actors, tmp_path, state):
    """It takes the directory under protection, and undoes what a dead process has left."""
    data, env = tmp_path / "data", {"LD_PRELOAD": str(SHIM), "CHROMASHIM_GUARD": "off"}
    if state == "new":
        data.mkdir()
    else:
        torn.make(data)
    if state == "torn":
        torn.tear(actors(), data)
    if state == "elsewhere":
        env["CHROMASHIM_STORE"] = str(tmp_path / "store")
    shutil.copytree(data, tmp_path / "second")
    (tmp_path / "beside").mkdir()
    program = compiled("first_open")

    def depth(where: str, env: dict) -> int:
        return int(subprocess.run([program, tmp_path / where / "chroma.sqlite3"], env=env,
                                  check=True, capture_output=True, text=True).stdout)

    assert depth("data", env) <= depth("beside", {}) + MORE_FIRST
    if state == "elsewhere":
        env["CHROMASHIM_STORE"] = str(tmp_path / "another")
    subprocess.run([program, tmp_path / "second/chroma.sqlite3", "least"], env=env, check=True)
    if state == "torn":
        assert torn.first(data) == torn.first(tmp_path / "second") == "OOOO"
