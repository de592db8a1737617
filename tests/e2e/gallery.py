# SPDX-License-Identifier: MIT
"""The gallery of damage: directories that real Chroma made, ways to damage them, and what real
Chroma says of them."""

import json
import math
import os
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import hosts
import kills

LOAD = Path(__file__).with_name("formats_load.py")
ASK = Path(__file__).with_name("gallery_ask.py")
FAULTS = hosts.BUILD / "libchromashim-faults.so"
ACT = Path(__file__).with_name("gallery_act.py")


def call(host: hosts.Host, target: str, *words: str) -> str:
    return hosts.chroma(host.driver, LOAD, target, *words)


def work(host: hosts.Host, data: Path, *words: str) -> str:
    """load or dump, through a server if the host is one."""
    if not host.server:
        return call(host, str(data), *words)
    server = hosts.Server(host, data)
    try:
        answer = call(host, server.address, *words)
        server.stop()
        return answer
    finally:
        server.clean_up()


def ask(host: hosts.Host, data: Path) -> dict[str, Any]:
    """What the client gives (gallery_ask.py), or {"error": TEXT}."""
    if not host.server:
        return told(host.driver, str(data))
    server = hosts.Server(host, data)
    try:
        return told(host.driver, server.address)
    finally:
        server.clean_up()


def told(driver: str, target: str) -> dict[str, Any]:
    done = hosts.attempt(driver, ASK, target)
    if done.returncode == -signal.SIGSEGV:
        return {"error": "Segmentation fault"}
    if done.returncode:
        return {"error": f"status {done.returncode}: {done.stderr}"}
    return json.loads(done.stdout)


class Line:
    """A line of Chroma, a healthy directory of its, and what is in it."""

    def __init__(self, host: hosts.Host, directory: Path) -> None:
        self.host, self.data = host, directory / "data"
        self.data.mkdir()
        work(host, self.data, "load")
        whole = ask(host, Path(shutil.copytree(self.data, directory / "whole")))
        assert not whole.get("error") and not whole["missed"], whole
        self.records: dict[str, dict[str, Any]] = whole["records"]

    def ask(self, data: Path) -> dict[str, Any]:
        return ask(self.host, data)


def segment(data: Path, name: str = "space-cosine") -> Path:
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        found = db.execute("SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection "
                           "WHERE c.name = ? AND s.scope = 'VECTOR'", (name,)).fetchone()[0]
    db.close()
    return data / found


def check(chromashim, data: Path) -> set[str]:
    """The codes of all damage."""
    result = json.loads(chromashim("check", "--full", "--json", data).stdout)
    return {f["code"] for f in result["findings"] if f["severity"] == "damage"}


def same_vector(name: str, mine: list[float], theirs: list[float]) -> bool:
    """Bit by bit, but where Chroma normalises what it is given, and stretches it again."""
    if name in ("space-cosine", "queue-only"):
        return all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(mine, theirs))
    return mine == theirs


def float32(values: list[float]) -> list[float]:
    return list(struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values)))


Damage = Callable[[Path], None]


def sql(text: str) -> Damage:
    def run(data: Path) -> None:
        db = sqlite3.connect(data / "chroma.sqlite3")
        db.executescript(text)
        db.close()
    return run


def cut(name: str, size: int, collection: str = "space-cosine") -> Damage:
    return lambda data: os.truncate(segment(data, collection) / name, size)


def remove(name: str) -> Damage:
    return lambda data: (segment(data) / name).unlink()


def overwrite(name: str, offset: int, content: bytes) -> Damage:
    def run(data: Path) -> None:
        path = data / name if (data / name).exists() else segment(data) / name
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(content)
    return run


def wrong_label(data: Path) -> None:
    """A pickle that two ids share a label in, as after a failed apply."""
    path = segment(data, "space-l2") / "index_metadata.pickle"
    content = bytearray(path.read_bytes())
    at = content.index(b"space-l2-150")
    other = content.index(b"space-l2-151")
    content[at:at + 12], content[other:other + 12] = content[other:other + 12], content[at:at + 12]
    path.write_bytes(content)


def page_of(data: Path, table: str, leaf: int = 2) -> int:
    """A leaf page in the middle of a table, by dbstat or by walking its root."""
    content = (data / "chroma.sqlite3").read_bytes()
    db = sqlite3.connect(data / "chroma.sqlite3")
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
    db.close()
    page = content[(root - 1) * 4096:root * 4096]
    while page[0] == 5:  # interior of a table
        cells = struct.unpack_from(f">{struct.unpack_from('>H', page, 3)[0]}H", page, 12)
        root = struct.unpack_from(">I", page, cells[min(leaf, len(cells) - 1)])[0]
        page = content[(root - 1) * 4096:root * 4096]
    return root


def page_lost(table: str) -> Damage:
    """A page that the disk gives back as zeros."""
    return lambda data: overwrite("chroma.sqlite3", (page_of(data, table) - 1) * 4096,
                                bytes(4096))(data)


# ---- faults that the kernel gives, without the shim


@dataclass(frozen=True)
class Fault:
    """What strace does to calls on one file, of the segment or of the directory."""

    file: str
    calls: str
    inject: str

    def words(self, data: Path) -> tuple[str, ...]:
        is_database = self.file.startswith("chroma.")
        path = (data if is_database else segment(data, "space-l2")) / self.file
        return ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), "-e",
                f"trace={self.calls}", "-e", f"inject={self.calls}:{self.inject}")


@dataclass(frozen=True)
class Under(hosts.Host):
    """A host that is started by other words."""

    words: tuple[str, ...] = ()

    def serve(self, data: Path, port: int) -> list[str]:
        return [*self.words, *super().serve(data, port)]


@dataclass
class Acted:
    status: int
    acknowledged: list[str]
    text: str  # what the user sees: the client's error, and the server's


class Actor:
    """A process that has Chroma imported, and forks the ones that a fault meets."""

    def __init__(self, driver: str) -> None:
        self.process = subprocess.Popen(
            [str(hosts.python(driver)), str(ACT)], env=hosts.environment(), text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def act(self, target: str, verb: str, words: tuple[str, ...], output: Path) -> Acted:
        """words: strace and its options, or none."""
        print(target, verb, output, file=self.process.stdin, flush=True)
        pid = self.process.stdout.readline().split()[1]
        tracer = subprocess.Popen([*words, "-p", pid]) if words else None
        while tracer and "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            assert tracer.poll() is None, "strace is gone"
            time.sleep(0.005)
        print("go", file=self.process.stdin, flush=True)
        status = os.waitstatus_to_exitcode(int(self.process.stdout.readline().split()[1]))
        if tracer:
            tracer.wait(30)
        text = output.read_text(errors="replace") if output.exists() else ""
        if status == -11:
            text += "Segmentation fault"  # as every shell and supervisor says
        return Acted(status, re.findall(r"^ack (.*)$", text, re.M), text)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


actors: dict[str, Actor] = {}


def stop_actors() -> None:
    while actors:
        actors.popitem()[1].stop()


def act(host: hosts.Host, data: Path, verb: str, fault: Optional[Fault] = None) -> Acted:
    """Real Chroma does something, and the fault meets it; in a server if the host is one."""
    words, output = fault.words(data) if fault else (), data.with_name(f"{data.name}-said")
    if host.driver not in actors:
        actors[host.driver] = Actor(host.driver)
    actor = actors[host.driver]
    if not host.server:
        return actor.act(str(data), verb, words, output)
    log = data.with_name(f"{data.name}-server.log")
    try:
        server = hosts.Server(Under(**vars(host), words=words), data, log=log)
    except AssertionError:  # it did not come up
        return Acted(1, [], log.read_text(errors="replace"))
    try:
        acted = actor.act(server.address, verb, (), output)
    finally:
        server.clean_up()
    acted.text += log.read_text(errors="replace")
    return acted


class Killed:
    """Real Chroma killed at a point of its writing (see shim/preload/place/faults.h).

    The library only counts, kills, and keeps pre-images: with forget() the directory is as without
    it.
    """

    def __init__(self, host: hosts.Host, work: Path, point: int) -> None:
        self.host, self.work, self.data = host, work, work / "killed"
        self.data.mkdir()
        self.batches = 0
        for line in self.load(str(FAULTS), 0, f"fault=kill:{point}"):
            if line.startswith("ack"):
                self.batches = int(line.split()[1])

    def load(self, preload: str, *words: object) -> list[str]:
        loader = kills.Loader(self.host.driver, preload,
                              {"CHROMASHIM_DURABILITY": "process", "CHROMASHIM_BALLAST": "0"},
                              self.work / "killed.log")
        try:
            loader.send(self.data, *words)
            return loader.finish()
        finally:
            loader.stop()

    def forget(self) -> None:
        shutil.rmtree(self.data / ".chromashim")

    def verify(self) -> str:
        """Every acknowledged record, every vector bit by bit; what real Chroma says without us."""
        return self.load("", self.batches, self.batches + 1, "only")[0]


TORN = {"level0-short", "links-short", "persist-torn"}


def killed_in_a_persist(chromashim, work: Path, point: int, undo: bool) -> Killed:
    """How many calls come before it differs from run to run: the first point that tears one."""
    for at in range(point, point + 1500, 100):
        (work / str(at)).mkdir()
        killed = Killed(hosts.BY_NAME["python"], work / str(at), at)
        if not undo:
            killed.forget()
        if check(chromashim, killed.data) & TORN:
            return killed
    raise AssertionError(f"no point from {point} on tears a persist")
