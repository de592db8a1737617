# SPDX-License-Identifier: MIT
"""What the end-to-end tests share. They need a built library and command in CHROMASHIM_BUILD."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

# Who starts the tests in the background (nohup, a shell's &) may have it ignored, and so would all
# that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What is preloaded by hand starts no guardian, unless the test says so.
os.environ.setdefault("CHROMASHIM_GUARD", "off")

import hosts  # noqa: E402
from actor import Actor  # noqa: E402
import witness  # noqa: E402


class SaysAtOnce:
    """Names each test that fails when it fails, and why: a run may end before its summary."""

    def __init__(self, reporter):
        self.reporter = reporter

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.reporter.write_line(f"\nFAILED {report.nodeid} ({report.when})\n"
                                     f"{report.longreprtext[-1500:]}")


def pytest_collection_modifyitems(items):
    """The files that take longest come first: at the end nobody waits for one of them."""
    weights = Counter()
    for item in items:
        weights[item.path] += 20 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])


# Where the directories of tests are that are marked `memory`: what they try has nothing to do with
# the disk, and waiting for its syncs is half of their time.
MEMORY = Path("/dev/shm")
MEMORY_ROOM = 1 << 30


class TwoPlaces:
    """In the place of a TempPathFactory's mktemp(): on the disk or in memory, as the test is marked."""

    in_memory = False

    def __init__(self, factory, memory):
        self.on_disk = factory.mktemp
        self.memory = memory

    def __call__(self, basename, numbered=True):
        if not TwoPlaces.in_memory:
            return self.on_disk(basename, numbered)
        return Path(tempfile.mkdtemp(prefix=f"{basename}-", dir=self.memory))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    TwoPlaces.in_memory = item.get_closest_marker("memory") is not None


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory):
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < MEMORY_ROOM:
        yield tmp_path_factory
        return
    with tempfile.TemporaryDirectory(prefix="chromashim-tests-", dir=MEMORY) as memory:
        tmp_path_factory.mktemp = TwoPlaces(tmp_path_factory, Path(memory))
        yield tmp_path_factory


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(SaysAtOnce(config.pluginmanager.getplugin("terminalreporter")))


@pytest.fixture(scope="session")
def shim() -> str:
    """The library, for LD_PRELOAD."""
    assert hosts.SHIM.exists(), f"{hosts.SHIM} is missing; run make"
    return str(hosts.SHIM)


@pytest.fixture(scope="session")
def chromashim():
    """Runs the command: chromashim("log", directory) gives the finished process."""
    assert hosts.COMMAND.exists(), f"{hosts.COMMAND} is missing; run make"

    def run(*args, **how):
        how = {"capture_output": True, "text": True, "timeout": 60, "check": False,
               "env": hosts.environment(), **how}
        return subprocess.run([str(hosts.COMMAND), *map(str, args)], **how)

    return run


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """As with PREFIX=/usr/local: the paths in the files are real. The library is that of the build."""
    root = tmp_path_factory.mktemp("install")
    # Nothing is compiled anew while other tests use it: with the flags of the last time.
    flags = (hosts.BUILD / "flags").read_text()
    words = ["make", "--no-print-directory", f"BUILD={os.path.relpath(hosts.BUILD, hosts.ROOT)}",
             f"DESTDIR={root}", f"CC={flags.split()[0]}",
             f"WERROR={'1' if ' -Werror' in flags else ''}"]
    settings = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    for what in ("install", "uninstall"):
        with hosts.building():
            done = subprocess.run([*words, what], cwd=hosts.ROOT, capture_output=True, text=True,
                                  check=False, timeout=300, env=settings)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        if what == "install":
            yield root / "usr/local"
    assert not [p for p in root.rglob("*") if not p.is_dir()], "uninstall leaves nothing"


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips where there is no strace or it may not trace."""
    if not shutil.which("strace"):
        pytest.skip("strace is missing; run wrappers/setup check")
    tried = subprocess.run(["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"],
                           capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace does not work here: {tried.stderr.strip()}")


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """Compiles NAME.c and NAME_*.c of this directory, once: compiled("pinned", "-lsqlite3")."""
    done: dict[str, Path] = {}

    def compile_(name: str, *libraries: str) -> Path:
        if name not in done:
            program = tmp_path_factory.mktemp("helpers") / name
            subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g",
                            "-Wall", "-Wextra", "-Wno-unused-result",
                            "-Wno-missing-field-initializers", "-o", str(program),
                            str(HERE / f"{name}.c"), *map(str, HERE.glob(f"{name}_*.c")),
                            "-pthread", *libraries], check=True)
            done[name] = program
        return done[name]

    return compile_


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory to be protected, not yet made by Chroma."""
    path = tmp_path / "chroma_data"
    path.mkdir()
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB of its own."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def data_in_memory():
    """The same on tmpfs."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm is not writable")
    with tempfile.TemporaryDirectory(prefix="chromashim-", dir="/dev/shm") as path:
        yield Path(path)


@pytest.fixture
def testify(tmp_path, shim, strace):
    """Runs a Python script under the shim and strace: testify(script, directory, ...).

    The script's first argument is the directory, which is protected because the environment says
    so unless named=False. Every process may write, since what is tried is how calls are recorded.
    """
    def run(script: str, directory: Path, *args, named: bool = True, preload: str = shim,
            env: dict | None = None, cwd: Path | None = None, status: int = 0) -> witness.Testimony:
        file = tmp_path / "script.py"
        file.write_text(textwrap.dedent(script), encoding="utf-8")
        settings = {"CHROMASHIM_SINGLE_WRITER": "off",
                    **({"CHROMASHIM_DIR": str(directory)} if named else {}), **(env or {})}
        done = witness.run([hosts.python("venv").resolve(), "-I", "-S", file, directory, *args],
                           directory, tmp_path, preload, settings, cwd)
        assert done.status == status, done.errors
        return done

    return run


@pytest.fixture
def actors(shim):
    """Starts processes that are told what to do: actors(shimmed=True, env=None, venv="venv")."""
    started = []

    def start(shimmed: bool = True, env: dict | None = None, venv: str = "venv") -> Actor:
        actor = Actor(shim if shimmed else "", env, venv)
        started.append(actor)
        return actor

    yield start
    for actor in started:
        actor.clean_up()
