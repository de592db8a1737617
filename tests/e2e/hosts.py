# SPDX-License-Identifier: MIT
"""Real hosts of Chroma, started with or without the shim, under strace or not."""

import contextlib
import fcntl
import functools
import json
import os
import random
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import pytest

import tracer

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("CHROMASHIM_BUILD", "build")).absolute()
SHIM = BUILD / "libchromashim.so"
COMMAND = BUILD / "chromashim"
WORKLOAD = Path(__file__).with_name("workload.py")
FORKSERVER = Path(__file__).with_name("forkserver.py")
# Python and Chroma as they are, whatever the environment of the tests says.
ENV = {"ANONYMIZED_TELEMETRY": "False", "PYTHONDONTWRITEBYTECODE": "1", "CHROMASHIM_LOG_SIZE": "",
       # With power durability some writes are made later than they are recorded.
       "CHROMASHIM_DURABILITY": "process",
       "CHROMASHIM_DIR": "", "CHROMASHIM_STORE": "", "CHROMASHIM": ""}
START_TIMEOUT = 60
FLOCK = "hhqqi4x"
NODE_SERVER = """
const { createRequire } = require("module");
const path = require("path").resolve(process.argv[1], "node_modules", "chromadb", "package.json");
const { arch } = process;
createRequire(path)(`chromadb-js-bindings-linux-${arch}-gnu`).cli(["chroma", ...process.argv.slice(2)]);
"""


def some(numbers: Sequence[int], every: int) -> Sequence[int]:
    """Each so-and-so-many-th, from a random one on; all with CHROMASHIM_THOROUGH=1, which
    tests/torture.py sets."""
    if os.environ.get("CHROMASHIM_THOROUGH") == "1":
        return numbers
    return numbers[random.randrange(every)::every]


def python(venv: str) -> Path:
    return BUILD / venv / "bin" / "python"


@contextlib.contextmanager
def building() -> Iterator[None]:
    """One worker at a time has something made in the build directory."""
    with open(BUILD / "tests.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def let_others_in(path: Path) -> None:
    """Another user gets to a test's directory: pytest keeps it, and those above it, private."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if directory.stat().st_uid == os.geteuid() and mode & 0o555 != 0o555:
            directory.chmod(mode | 0o555)


def environment(extra: Optional[dict[str, str]] = None) -> dict[str, str]:
    env = {**os.environ, **ENV, **(extra or {})}
    return {name: value for name, value in env.items() if value != ""}


class ForkServer:
    """One forkserver.py: runs programs one after the other."""

    def __init__(self, venv: str) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.child = subprocess.Popen([python(venv), FORKSERVER, str(theirs.fileno())],
                                          env=environment(), pass_fds=[theirs.fileno()],
                                          stdin=subprocess.DEVNULL)

    def run(self, words: list[str], env: dict[str, str],
            timeout: float) -> subprocess.CompletedProcess[str]:
        request = {"words": words, "env": env, "cwd": os.getcwd()}
        with open(os.devnull, encoding="ascii") as nothing, tempfile.TemporaryFile("w+") as output, \
                tempfile.TemporaryFile("w+") as errors:
            self.socket.settimeout(START_TIMEOUT)
            socket.send_fds(self.socket, [json.dumps(request).encode()],
                            [nothing.fileno(), output.fileno(), errors.fileno()])
            pid = int(self.socket.recv(100))
            self.socket.settimeout(timeout)
            try:
                status = int(self.socket.recv(100))
            except socket.timeout:
                os.kill(pid, signal.SIGKILL)
                self.socket.settimeout(None)
                self.socket.recv(100)
                raise
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(words, os.waitstatus_to_exitcode(status),
                                               output.read(), errors.read())


fork_server = functools.cache(ForkServer)


def attempt(venv: str, *words: object, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Runs Python with these words, without the library."""
    return fork_server(venv).run([str(word) for word in words], environment(), timeout)


def chroma(venv: str, *words: object, timeout: float = 180) -> str:
    """The same; gives its standard output."""
    done = attempt(venv, *words, timeout=timeout)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
    return done.stdout


@dataclass(frozen=True)
class Host:
    """A way to run Chroma. The driver is the virtual environment whose client talks to it."""

    name: str
    needs: str  # below the build directory
    driver: str
    server: bool
    node: bool = False
    setup: str = "run check"  # what wrappers/setup makes it by

    def require(self) -> None:
        for path in (self.needs, f"{self.driver}/bin/python"):
            if not (BUILD / path).exists():
                pytest.skip(f"{self.name}: {BUILD / path} is missing; run wrappers/setup {self.setup}")

    def serve(self, data: Path, port: int) -> list[str]:
        options = ["run", "--path", str(data), "--port", str(port), "--host", "127.0.0.1"]
        if self.node:
            return ["node", "-e", NODE_SERVER, str(BUILD / self.needs), *options]
        return [str(BUILD / self.needs / "bin" / "chroma"), *options]


HOSTS = [
    Host("server", "venv", "venv", server=True),
    Host("python", "venv", "venv", server=False),
    Host("python-0.6", "venv-0.6", "venv-0.6", server=False),
    Host("node", "npm", "venv", server=True, node=True),
]
if tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split("."))) >= (2, 39):
    HOSTS.append(Host("node-new", "npm-new", "venv", server=True, node=True))
# For tests that are skipped where it is not there.
EARLY = Host("python-1.0", "venv-1.0", "venv-1.0", server=False, setup="damages")
BY_NAME = {host.name: host for host in [*HOSTS, EARLY]}


def locks(path: Path) -> list[tuple[int, int]]:
    """Where a file has locks of others', and of which kind. Not from /proc/locks: that tells a lock
    twice, or not at all, when others come and go while it is read."""
    found = []
    with path.open() as file:
        parts = [(0, 2**63 - 1)]
        while parts:
            first, end = parts.pop()
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, first, end - first, 0)
            kind, _, at, length, _ = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
            if kind != fcntl.F_UNLCK:
                found.append((at, kind))
                after = at + length if length else end
                parts += [part for part in ((first, at), (after, end)) if part[0] < part[1]]
    return sorted(found)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Program:
    """A child of the tests, under strace if `trace` names where its output goes."""

    def __init__(self, argv: list, preload: str = "", env: Optional[dict[str, str]] = None,
                 trace: Optional[Path] = None, cwd: Optional[Path] = None, log: Any = None) -> None:
        self.trace = trace
        words = [str(a) for a in argv]
        settings = environment(env)
        if trace is not None:
            words = tracer.command(words, trace, preload)
        elif preload:
            settings["LD_PRELOAD"] = preload
        self.child = subprocess.Popen(words, env=settings, cwd=cwd, stdin=subprocess.DEVNULL,
                                      stdout=log or subprocess.DEVNULL,
                                      stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self) -> int:
        """Of the program itself, not of strace."""
        if self.trace is None:
            return self.child.pid
        for _ in range(500):
            started = tracer.tracees(self.child.pid)
            if started:
                return started[0]
            time.sleep(0.01)
        raise AssertionError("strace did not start the program")

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20) -> int:
        if self.child.poll() is None:
            os.kill(self.pid, number)
            try:
                self.child.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
                raise AssertionError(f"still running {timeout} s after signal {number}") from None
        return self.child.returncode

    def clean_up(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


class Server(Program):
    """A running server, up when the constructor returns."""

    def __init__(self, host: Host, data: Path, preload: str = "", trace: Optional[Path] = None,
                 env: Optional[dict[str, str]] = None, log: Optional[Path] = None) -> None:
        self.port = free_port()
        self.log_path = log or data.parent / f"{data.name}-server.log"
        with open(self.log_path, "a", encoding="utf-8") as output:
            super().__init__(host.serve(data, self.port), preload, env, trace, log=output)
        try:
            self.wait_until_up()
        except BaseException:
            self.clean_up()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.child.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{self.address}/api/v2/heartbeat", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)
        raise AssertionError(f"the server did not come up:\n{self.log_path.read_text()[-3000:]}")


def drive(driver: str, target: str, part: str, preload: str = "",
          trace: Optional[Path] = None) -> dict[str, Any]:
    """Runs a part of the workload in a process of its own."""
    if trace is None and not preload:
        return json.loads(chroma(driver, WORKLOAD, target, part))
    words = [str(python(driver)), str(WORKLOAD), target, part]
    env = environment()
    if trace is not None:
        words = tracer.command(words, trace, preload)
    else:
        env["LD_PRELOAD"] = preload
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{part}: exit {done.returncode}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout)


def live(host: Host, data: Path, preload: str = "", trace: Optional[Path] = None) -> dict[str, Any]:
    """The whole workload with a restart in the middle. trace: strace's files begin with it."""
    answers: dict[str, Any] = {}
    for part in ("life", "again"):
        output = trace.with_name(f"{trace.name}-{part}") if trace else None
        if not host.server:
            answers |= drive(host.driver, str(data), part, preload, output)
            continue
        server = Server(host, data, preload, output)
        try:
            answers |= drive(host.driver, server.address, part)
            server.stop()
        finally:
            server.clean_up()
    return answers
