# SPDX-License-Identifier: MIT
"""Addresses that are none are answered as the kernel answers them, and not by a signal."""

import subprocess

import pytest

import torn
from hosts import SHIM


@pytest.fixture
def answers(compiled, tmp_path):
    """What each call with each address came to, with or without the library."""
    def ask(name: str, env: dict) -> list[str]:
        torn.make(tmp_path / name)
        done = subprocess.run([compiled("addresses"), tmp_path / name], env=env, check=True,
                              capture_output=True, text=True)
        return done.stdout.splitlines()

    return ask


def test_as_without_the_library(answers):
    without = answers("without", {})
    assert len(without) > 400
    assert not [line for line in without if "signal" in line]
    assert answers("with", {"LD_PRELOAD": str(SHIM), "CHROMASHIM_GUARD": "off"}) == without
