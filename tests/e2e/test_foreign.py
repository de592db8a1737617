# SPDX-License-Identifier: MIT
"""Foreign programs and test suites with the directory protected, beside a run without: what they
say is the same. These are the quick parts of tests/check-hosts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).resolve().parent.parent / "check-hosts"


@pytest.mark.parametrize("suite", ["cpython", "fio", "fsx", "redis"])
def test_says_the_same(suite, shim):
    done = subprocess.run([sys.executable, CHECK, "--quick", suite], capture_output=True, text=True,
                          env={**os.environ, "CHROMASHIM_BUILD": str(Path(shim).parent)}, check=False)
    if "# skip" in done.stdout:
        pytest.skip(done.stdout.split("# skip ")[1].strip())
    assert done.returncode == 0, done.stdout + done.stderr
