# SPDX-License-Identifier: MIT
"""Random persists that die anywhere, against a model: a segment is as it was committed last, always.

And if somebody else wrote to it meanwhile, it is left as it is.
"""

import os
import random
import shutil
import subprocess

import pytest

import hosts

FAULTS = hosts.BUILD / "libchromashim-faults.so"
SEEDS = int(os.environ.get("PERSIST_SEEDS", "30"))
FIRST = int(os.environ.get("PERSIST_FIRST", "0"))


class Segments:
    def __init__(self, program, path, seed):
        if not FAULTS.exists():
            pytest.skip(f"{FAULTS} is missing; run make {FAULTS.name}")
        self.program, self.path, self.seed = program, path, seed
        self.data, self.model = path / "data", path / "model"
        self.random = random.Random(seed)
        self.durability = self.random.choice(["process", "power"])
        self.data.mkdir()
        assert self.run("make", seed, preload=False).returncode == 0

    def run(self, *args, fault="", preload=True):
        env = hosts.environment({"CHROMASHIM_DIR": str(self.data), "CHROMASHIM_BALLAST": "0",
                                 "CHROMASHIM_DURABILITY": self.durability,
                                 "CHROMASHIM_GUARD": "off", "CHROMASHIM_FAULT": fault,
                                 "CHROMASHIM_SINGLE_WRITER": "off"})
        if preload:
            env["LD_PRELOAD"] = str(FAULTS)
        return subprocess.run([str(self.program), str(self.data), str(self.model),
                               *map(str, args)], env=env, capture_output=True, text=True,
                              timeout=60, check=False)

    def die(self):
        """After a step, or in the midst of one."""
        steps = self.random.choice([self.random.randrange(1, 40), self.random.randrange(1, 400)])
        fault = f"kill:{self.random.randrange(1, steps * 4)}" if self.random.random() < .6 else ""
        done = self.run("run", self.seed, steps, fault=fault)
        assert done.returncode == -9, f"seed {self.seed}: {done}"

    def copy(self):
        copy = self.path / "copy"
        subprocess.run(["cp", self.random.choice(["-r", "-a"]), self.data, copy], check=True)
        shutil.rmtree(self.data)
        copy.rename(self.data)

    def next_start(self):
        """What each segment is, and what was said; the first start may die, too."""
        fault = f"kill:{self.random.randrange(1, 30)}" if self.random.random() < .3 else ""
        done = self.run("check", fault=fault)
        said = done.stderr
        if done.returncode == -9:
            done = self.run("check")
            said += done.stderr
        assert done.returncode == 0, f"seed {self.seed}: {done}"
        left = [p.name for p in self.data.glob(".chromashim/undo/*")
                if p.suffix in (".undo", ".moved", ".fresh")]
        assert left == [], f"seed {self.seed}"
        return [line for line in done.stdout.splitlines() if line[0] != " "], said


@pytest.fixture
def segments(compiled, tmp_path):
    def make(seed):
        path = tmp_path / str(seed)
        path.mkdir()
        return Segments(compiled("persist_random"), path, seed)

    return make


@pytest.mark.slow
def test_always_as_committed(segments):
    for seed in range(FIRST, FIRST + SEEDS):
        s = segments(seed)
        s.die()
        if s.random.random() < .3:
            s.copy()
        s.run("find", preload=False)
        found, said = s.next_start()
        assert all("old" in one or "new" in one for one in found), f"seed {seed}: {found}, {said}"
        assert "left as it is" not in said, f"seed {seed}: {said}"
        shutil.rmtree(s.path)


@pytest.mark.slow
def test_never_over_what_others_wrote(segments):
    for seed in range(FIRST, FIRST + SEEDS):
        s = segments(seed)
        s.die()
        meddled = int(s.run("meddle", seed, preload=False).stdout)
        found, said = s.next_start()
        assert "there" in found[meddled], f"seed {seed}: {found}, {said}"
        assert "old" in found[1 - meddled] or "new" in found[1 - meddled], f"seed {seed}: {found}"
        shutil.rmtree(s.path)
