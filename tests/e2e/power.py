# SPDX-License-Identifier: MIT
"""Power cuts: what is on the disk at one moment, and nothing that is only in the page cache.

The data directory is on an ext4 (or XFS) image on a loop device; the image is a file on an XFS that
can reflink. An atomic copy of that file, taken while Chroma writes, is what a power cut would leave;
mounting it replays the file system's journal, as after one.
"""

import contextlib
import fcntl
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

import hosts
import kills

OUTER = 3 << 30  # sparse
INNER = 400 << 20
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"], "xfs": ["mkfs.xfs", "-q", "-f"]}
SESSION = 10  # cuts of one directory
FICLONE = 0x40049409


class NoLoopMounts(Exception):
    """The kernel, or a container's limits, do not allow it."""


@dataclass
class Cut:
    image: Path
    acknowledged: int  # batches, before the cut
    possible: int  # after it, with the one under way


@dataclass
class Tally:
    cuts: int = 0
    rolled_back: int = 0
    acknowledged: int = 0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (f"{self.cuts} cuts, {self.rolled_back} roll-backs, {self.acknowledged} batches "
                f"acknowledged, {len(self.broken)} broken")


def run(*words: object) -> str:
    return subprocess.run([str(w) for w in words], check=True, capture_output=True,
                          text=True).stdout.strip()


def unsure(host: hosts.Host) -> int:
    """How many of the batches acknowledged last a power cut may take.

    SQLite commits by removing its journal, and does not sync the directory (that would be
    synchronous=EXTRA): what was acknowledged last may be rolled back. Chroma 1.x does more
    transactions for each upsert, whose syncs carry the first one along; 0.6 has only the one.
    """
    return 0 if host.driver == "venv" else 1


def missing() -> str:
    """Why there can be no power cuts here, or ""."""
    if os.geteuid():
        return "not root"
    for program in ("mkfs.xfs", "mkfs.ext4", "losetup", "mount"):
        if not shutil.which(program):
            return f"{program} is missing"
    return ""


@contextlib.contextmanager
def mounted(image: Path, at: Path, options: str = "defaults") -> Iterator[Path]:
    """The image on a loop device, mounted; neither is left behind."""
    at.mkdir(exist_ok=True)
    device = run("losetup", "--find", "--show", image)
    try:
        run("mount", "-o", options, device, at)
        try:
            yield at
        finally:
            for _ in range(100):
                if subprocess.run(["umount", str(at)], capture_output=True,
                                  check=False).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                run("umount", "-l", at)
    finally:
        run("losetup", "--detach", device)


def make_image(path: Path, size: int, kind: str) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
    run(*MAKE[kind], *(["-m", "reflink=1"] if kind == "xfs" else []), path)
    return path


def clone(image: Path, copy: Path) -> None:
    """What cp --reflink=always does, without the start of a program in between."""
    with open(image, "rb") as source, open(copy, "wb") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())


class PowerCuts:
    """Works in `directory`, which needs room for some hundreds of megabytes."""

    def __init__(self, host: hosts.Host, directory: Path, preload: str, kind: str,
                 seed: int) -> None:
        self.host, self.directory, self.preload, self.kind = host, directory, preload, kind
        self.rng = random.Random(seed)
        self.tally = Tally()
        self.env = {"CHROMASHIM_DURABILITY": "power", "CHROMASHIM_BALLAST": "0",
                    "CHROMASHIM_MIN_FREE": "1M"}
        self.unsure = unsure(host)
        self.log = directory / "stderr.log"

    def run(self, cuts: int) -> Tally:
        with contextlib.ExitStack() as stack:
            try:
                outer = stack.enter_context(mounted(
                    make_image(self.directory / "outer", OUTER, "xfs"), self.directory / "outer.d"))
            except subprocess.CalledProcessError as error:
                raise NoLoopMounts(f"{error.cmd[0]}: {error.stderr.strip()}") from None
            while self.tally.cuts < cuts:
                taken = self.session(outer, min(SESSION, cuts - self.tally.cuts))
                for cut in taken:
                    self.examine(cut)
                    cut.image.unlink()
        text = self.log.read_text(errors="replace")
        assert "cannot be preloaded" not in text, text
        if not self.tally.broken:  # what a cut tears while nothing depends on it is no damage
            assert "damaged" not in text, text
        self.tally.rolled_back = text.count("it was undone")
        return self.tally

    def session(self, outer: Path, cuts: int) -> list[Cut]:
        """Chroma writes into a new directory, and the power is cut again and again."""
        taken = []
        image = make_image(outer / "inner", INNER, self.kind)
        with mounted(image, self.directory / "inner.d") as inner:
            data = inner / "data"
            data.mkdir()
            loader = kills.Loader(self.host.driver, self.preload, self.env, self.log)
            try:
                loader.send(data, 0)
                assert loader.line() == "verified 0"
                acknowledged = Acknowledged(loader)
                for number in range(cuts):
                    self.wait(data)
                    before = max(0, acknowledged.now() - self.unsure)
                    copy = outer / f"cut-{number}"
                    clone(image, copy)
                    taken.append(Cut(copy, before, acknowledged.now() + 1))
            finally:
                loader.stop()
        image.unlink()
        return taken

    def wait(self, data: Path) -> None:
        """Whenever; at the start of a persist or shortly after; or when its data goes to the disk."""
        moment = self.rng.choice(["whenever", "persist", "persist", "data", "data"])
        time.sleep(self.rng.uniform(0, 0.3))
        deadline = time.monotonic() + kills.TIMEOUT
        if moment == "persist":
            before = kills.marks(data)
            while kills.marks(data) == before and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(self.rng.choice([0, 0.01, 0.05, 0.2]) * self.rng.random())
        elif moment == "data" and self.preload:
            undo = data / ".chromashim" / "undo"
            while not any(name.endswith(".moved") for name in os.listdir(undo)) and \
                    time.monotonic() < deadline:
                pass
            time.sleep(self.rng.choice([0, 0.005, 0.02]) * self.rng.random())

    def examine(self, cut: Cut) -> None:
        loader = kills.Loader(self.host.driver, self.preload, self.env, self.log)
        try:
            # Another test's namespace may keep the one that it is a copy of mounted.
            options = "nouuid" if self.kind == "xfs" else "defaults"
            with mounted(cut.image, self.directory / "cut.d", options) as at:
                try:
                    loader.send(at / "data", cut.acknowledged, cut.possible, "only")
                    answer = loader.line()
                finally:
                    loader.stop()
        finally:
            loader.stop()
        self.tally.cuts += 1
        self.tally.acknowledged += cut.acknowledged
        if not answer.startswith("verified"):
            self.tally.broken.append(f"{cut.acknowledged} batches: {answer}")


class Acknowledged:
    """The newest acknowledgement of a loader that goes on."""

    def __init__(self, loader: kills.Loader) -> None:
        self.stream = loader.process.stdout.buffer.raw
        os.set_blocking(self.stream.fileno(), False)
        self.rest, self.last = b"", 0

    def now(self) -> int:
        while part := self.stream.read(65536):
            *lines, self.rest = (self.rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"ack"):
                    self.last = int(line.split()[1])
        return self.last
