# SPDX-License-Identifier: MIT
"""What the end-to-end tests share. They need a built library and command in CHROMASHIM_BUILD."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import hosts  # noqa: E402
from actor import Actor  # noqa: E402
import witness  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than ten seconds")


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
    """Compiles a helper program of this directory, once."""
    done: dict[str, Path] = {}

    def compile_(name: str) -> Path:
        if name not in done:
            program = tmp_path_factory.mktemp("helpers") / name
            subprocess.run([os.environ.get("CC", "gcc"), "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g",
                            "-Wall", "-Wextra", "-Wno-unused-result", "-o", str(program),
                            str(HERE / f"{name}.c"), "-pthread"], check=True)
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
