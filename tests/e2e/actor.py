# SPDX-License-Identifier: MIT
"""Processes that do what a test tells them, one step at a time, and are never waited for too long.

    actor = Actor(shim)
    actor.do("db = sqlite3.connect(path)")
    assert actor.ask("1 + 1") == 2
"""

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

import hosts

PUPPET = Path(__file__).with_name("puppet.py")


class Failed(Exception):
    """What the step raised, as "Type: text"."""


class Hangs(Exception):
    """The step did not end in time."""


class Actor:
    """A Python with workload.py at hand, with or without the shim."""

    def __init__(self, preload: str = "", env: Optional[dict[str, str]] = None,
                 venv: str = "venv") -> None:
        # Not on the file system under test, which may be full.
        self.said = tempfile.TemporaryFile()
        settings = hosts.environment(env)
        if preload:
            settings["LD_PRELOAD"] = preload
        self.child = subprocess.Popen(
            [str(hosts.python(venv)), str(PUPPET)], env=settings,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
            start_new_session=True)
        self.rest = b""

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self, code: str) -> None:
        assert self.child.stdin
        self.child.stdin.write(json.dumps(code).encode() + b"\n")
        self.child.stdin.flush()

    def finish(self, timeout: float = 30) -> Any:
        """What the step left in `result`."""
        assert self.child.stdout
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while b"\n" not in self.rest:
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise Hangs(f"no answer in {timeout} s; it said:\n{self.errors()}")
                more = os.read(self.child.stdout.fileno(), 65536)
                if not more:
                    raise Failed(f"ended with {self.child.wait()}; it said:\n{self.errors()}")
                self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        good, answer = json.loads(line)
        if not good:
            raise Failed(answer)
        return answer

    def do(self, code: str, timeout: float = 30) -> Any:
        self.start(code)
        return self.finish(timeout)

    def ask(self, expression: str, timeout: float = 30) -> Any:
        return self.do(f"result = {expression}", timeout)

    def fails(self, code: str, timeout: float = 30) -> str:
        """The text of the error that the step ends with, "" if it does not."""
        try:
            self.do(code, timeout)
        except Failed as e:
            return str(e)
        return ""

    def chroma(self, target: Path | str, collection: str = "books") -> "Actor":
        """`client`, and `c`, a collection of it."""
        return self.do(f"""
from workload import *
client = connect({str(target)!r})
c = client.get_or_create_collection({collection!r}, metadata=METADATA)
""", 60) or self

    def sqlite(self, data: Path, timeout: float = 0) -> "Actor":
        """`db`, a connection to the database in data."""
        return self.do(f"db = sqlite3.connect({str(data / 'chroma.sqlite3')!r}, "
                       f"timeout={timeout}, isolation_level=None)") or self

    def errors(self) -> str:
        self.said.flush()
        return os.pread(self.said.fileno(), 1 << 20, 0).decode(errors="replace")

    def lines(self) -> list[str]:
        """What the shim said."""
        return [line for line in self.errors().splitlines() if line.startswith("chromashim: ")]

    def kill(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self) -> int:
        """Lets it end by itself."""
        assert self.child.stdin
        self.child.stdin.close()
        try:
            return self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Hangs("did not end") from None

    def clean_up(self) -> None:
        self.kill()
        for file in (self.child.stdin, self.child.stdout, self.said):
            try:
                if file:
                    file.close()
            except BrokenPipeError:
                pass
