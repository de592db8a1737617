# SPDX-License-Identifier: MIT
"""The wheel for aarch64, as far as another machine can try it: what is in it, that pip takes it for such
a machine, and persists that are killed, undone, kept and restored, under qemu. `make wheel
ARCH=aarch64` builds it; what is missing here is a skip."""

import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile

import pytest

from test_wheel import BUILD, NEWEST, ROOT, VERSION, environment, run

TRIPLET = "aarch64-linux-gnu"
WHEEL = BUILD / f"chromashim-{VERSION}-py3-none-manylinux_2_28_aarch64.whl"
EMULATOR = ["qemu-aarch64", "-L", f"/usr/{TRIPLET}"]

pytestmark = pytest.mark.skipif(not WHEEL.is_file(), reason=f"{WHEEL} is missing; run make wheel ARCH=aarch64")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Where pip has put it."""
    folder = tmp_path_factory.mktemp("aarch64") / "target"
    run(sys.executable, "-m", "pip", "-q", "install", "--no-index", "--no-deps", "--target", folder,
        "--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", WHEEL)
    return folder


@pytest.fixture(scope="module")
def emulated(tree):
    """emulated(WORD...): the command of the wheel."""
    if not shutil.which("qemu-aarch64") or not shutil.which(f"{TRIPLET}-gcc"):
        pytest.skip("no emulator, or no cross compiler; run wrappers/setup aarch64")
    return lambda *words, **how: run(*EMULATOR, tree / "bin/chromashim", *words, **how)


def test_nothing_in_it_is_newer_than_glibc_2_28(tmp_path):
    with zipfile.ZipFile(WHEEL) as z:
        names = [n for n in z.namelist() if n.endswith(("scripts/chromashim", ".so"))]
        z.extractall(tmp_path, names)
    assert len(names) == 2
    for name in names:
        assert "AArch64" in run("readelf", "-h", tmp_path / name).stdout
        table = run("readelf", "-W", "--dyn-syms", tmp_path / name).stdout
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([0-9.]+)", table)}
        assert versions and max(versions) <= NEWEST, (name, max(versions))


def test_the_command_says_what_is_in_it(emulated):
    said = emulated("--version", "-v").stdout
    assert said.startswith(f"chromashim {VERSION}\n") and "linked statically: sqlite " in said


def test_persists_that_are_killed_kept_and_restored(emulated, tree, tmp_path):
    data, program = tmp_path / "data", tmp_path / "hnsw_persist"
    data.mkdir()
    db = sqlite3.connect(data / "chroma.sqlite3")
    db.execute("CREATE TABLE t(x)")
    db.close()
    run(f"{TRIPLET}-gcc", "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-w", "-o", program,
        ROOT / "tests/e2e/hnsw_persist.c")
    settings = {"LD_PRELOAD": f"{tree}/libexec/chromashim/libchromashim.so", "CHROMASHIM_DIR": str(data),
                "CHROMASHIM_GUARD": "off", "CHROMASHIM_PREFLIGHT": "off"}
    shimmed = [*EMULATOR, *(word for pair in settings.items() for word in ("-E", "=".join(pair))), program, data]

    def generation():
        return int(run(*shimmed, "check").stdout.split()[1])

    assert run(*shimmed, "persist", 1, 5).stdout.split()[-1] == "5"
    made = emulated("snapshot", "create", "--no-verify", "-d", "five", data).stdout
    undone = 0
    for _ in range(3):
        child = subprocess.Popen([str(w) for w in [*shimmed, "persist", generation() + 1, 1500]],
                                 stdout=subprocess.PIPE, text=True, env=environment())
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        undone += "undone" in run(*shimmed, "check").stderr
        assert generation() >= int.from_bytes((data / "mark").read_bytes()[:4], "little") > 5
    assert undone
    emulated("restore", "--to", re.search("[0-9]+", made)[0], "-y", "-f", data, status=3)  # no tables of Chroma in it
    assert generation() == 5
    assert "persist" in emulated("log", data).stdout
