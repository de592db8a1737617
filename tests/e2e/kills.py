# SPDX-License-Identifier: MIT
"""kill -9 timed at persists: the harness of test_persists.py and of tests/torture.py."""

import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import hosts

LOADER = Path(__file__).with_name("persist_load.py")
FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
LONGEST = 0.030  # seconds from the first sign of a persist to the kill
ROUNDS = 12  # kills of one directory, then a new one is begun: the old grows slow to verify
TIMEOUT = 120


@dataclass
class Tally:
    kills: int = 0
    rolled_back: int = 0
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (f"{self.kills} kills, {self.rolled_back} roll-backs, {self.acknowledged} batches "
                f"acknowledged, {len(self.broken)} broken")


def marks(data: Path) -> dict[str, tuple[int, int]]:
    """When the files of all segments changed last, and their sizes."""
    out = {}
    try:
        for entry in os.scandir(data):
            if len(entry.name) != 36:
                continue
            for name in FILES:
                try:
                    st = os.stat(f"{entry.path}/{name}")
                except FileNotFoundError:
                    continue
                out[f"{entry.name}/{name}"] = (st.st_mtime_ns, st.st_size)
    except FileNotFoundError:
        pass
    undo = data / ".chromashim" / "undo"
    if undo.exists():
        out |= {name: (0, 0) for name in os.listdir(undo) if name.endswith(".undo")}
    return out


class Loader:
    """A process that has Chroma imported and forks the ones that are killed."""

    def __init__(self, driver: str, preload: str, env: dict[str, str], log: Path) -> None:
        settings = hosts.environment(env)
        if preload:
            settings["LD_PRELOAD"] = preload
        with open(log, "a", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [str(hosts.python(driver)), str(LOADER)], env=settings, text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True)

    def send(self, *words: object) -> int:
        print(*words, file=self.process.stdin, flush=True)
        return int(self.line().split()[1])

    def line(self) -> str:
        text = self.process.stdout.readline()
        assert text, "the loader is gone"
        return text.rstrip("\n")

    def finish(self) -> list[str]:
        """What the child says until its end, which is the last line."""
        said = [self.line()]
        while not said[-1].startswith("ended"):
            said.append(self.line())
        return said

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Kills:
    """Kills a host again and again. preload "" shows what happens without the shim."""

    def __init__(self, host: hosts.Host, directory: Path, preload: str, durability: str,
                 seed: int) -> None:
        self.host = host
        self.directory = directory
        self.preload = preload
        self.env = {"CHROMASHIM_DURABILITY": durability, "CHROMASHIM_BALLAST": "0"}
        self.rng = random.Random(seed)
        self.tally = Tally()
        self.log = directory / "stderr.log"
        self.data = directory / "data-0"
        self.batches = 0
        self.loader = Loader(host.driver, "" if host.server else preload, self.env, self.log)
        self.server: Optional[hosts.Server] = None

    def __enter__(self) -> "Kills":
        return self

    def __exit__(self, *_: object) -> None:
        self.loader.stop()
        if self.server:
            self.server.clean_up()

    def run(self, kills: int) -> Tally:
        directories = 0
        while self.tally.kills < kills:
            broken = self.round()
            if broken:
                self.tally.broken.append(broken)
            if broken or self.tally.kills % ROUNDS == 0:
                self.tally.acknowledged += self.batches
                if not broken:
                    shutil.rmtree(self.data)
                directories += 1
                self.data = self.directory / f"data-{directories}"
                self.batches = 0
        self.tally.acknowledged += self.batches
        self.tally.rolled_back = self.undone()
        assert "cannot be preloaded" not in self.log.read_text(errors="replace")
        return self.tally

    def round(self) -> str:
        """Verifies, loads, kills. Returns what is broken, or ""."""
        self.data.mkdir(exist_ok=True)
        target = str(self.data)
        if self.host.server:
            self.server = hosts.Server(self.host, self.data, self.preload, env=self.env)
            target = self.server.address
        pid = self.loader.send(target, self.batches)
        try:
            answer = self.loader.line()
            if not answer.startswith("verified"):
                return answer
            self.batches = int(answer.split()[1])
            self.kill_at_persist(self.server.pid if self.server else pid)
        finally:
            if self.server:
                self.server.clean_up()
        self.tally.kills += 1
        while not (answer := self.loader.line()).startswith("ended"):
            if answer.startswith("ack"):
                self.batches = int(answer.split()[1])
        return ""

    def undone(self) -> int:
        """How many persists the shim says it has undone."""
        logs = [self.log, *self.directory.glob("*-server.log")]
        return sum(log.read_text(errors="replace").count("it was undone") for log in logs
                   if log.exists())

    def kill_at_persist(self, pid: int) -> None:
        """After a few batches, at the first sign of a persist."""
        time.sleep(self.rng.uniform(0, 0.5))
        before, deadline = marks(self.data), time.monotonic() + TIMEOUT
        while marks(self.data) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(self.rng.uniform(0, LONGEST))
        os.kill(pid, signal.SIGKILL)
