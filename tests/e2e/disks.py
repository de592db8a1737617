# SPDX-License-Identifier: MIT
"""Small file systems on loop devices, for tests that fill them."""

import os
import subprocess
from pathlib import Path

import pytest

MIB = 1 << 20


def run(*words: object) -> None:
    subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True, timeout=60)


class Disk:
    """An image, mounted. Nothing of it is left after clean_up()."""

    def __init__(self, work: Path, name: str, size: int, kind: str, options: str = "",
                 make: tuple[str, ...] = ()) -> None:
        self.image, self.root = work / f"{name}.img", work / name
        self.root.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(size)
        if kind == "ext4":
            make = ("-m", "0", *make)  # nothing that is kept back for root, which tests may be
        run(f"mkfs.{kind}", "-q", *make, self.image)
        run("mount", "-o", f"loop{options and ',' + options}", self.image, self.root)
        self.data = self.root / "chroma_data"
        self.data.mkdir()
        self.filler = self.root / "filler"

    def free(self) -> int:
        fs = os.statvfs(self.root)
        return fs.f_bavail * fs.f_frsize

    def leave(self, size: int) -> None:
        """Fills it from outside so that `size` bytes are free, more or less."""
        with open(self.filler, "ab") as f:
            for step in (MIB, 65536, 4096):
                while self.free() > size + step:
                    try:
                        os.posix_fallocate(f.fileno(), f.seek(0, os.SEEK_END), step)
                    except OSError:
                        break

    def fill(self) -> None:
        self.leave(0)

    def relieve(self) -> None:
        self.filler.unlink(missing_ok=True)

    def clean_up(self) -> None:
        subprocess.run(["umount", self.root], check=False, capture_output=True)
        if os.path.ismount(self.root):
            subprocess.run(["umount", "-l", self.root], check=False)
        self.image.unlink(missing_ok=True)


def usable(work: Path) -> str:
    """Why there can be no loop mounts; "" if there can."""
    if os.geteuid():
        return "loop mounts need root"
    try:
        probe = Disk(work, "probe", 4 * MIB, "ext4")
    except (subprocess.SubprocessError, OSError) as e:
        return f"no loop mounts here: {getattr(e, 'stderr', None) or e}"
    probe.clean_up()
    return ""


@pytest.fixture(scope="session")
def loop_mounts(tmp_path_factory) -> None:
    why = usable(tmp_path_factory.mktemp("loop"))
    if why:
        pytest.skip(why)


@pytest.fixture
def disks(tmp_path, loop_mounts):
    """Makes file systems: disks(size=48 MiB, kind="ext4", ...)."""
    made = []

    def make(size: int = 48 * MIB, kind: str = "ext4", options: str = "",
             make: tuple[str, ...] = ()) -> Disk:
        made.append(Disk(tmp_path, f"disk{len(made)}", size, kind, options, make))
        return made[-1]

    yield make
    for disk in made:
        disk.clean_up()
