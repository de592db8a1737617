# SPDX-License-Identifier: MIT
"""The gallery of what people do around a backend: a cell is a release, a load, a state and an act.

Real Chroma works under the library, in one of four states (ended by itself, killed in a persist,
with a snapshot pinned, both); then somebody does something that is none of Chroma's business (see
around_acts.py); then it is started again. Every acknowledged record and vector is compared with a
model, and every verified snapshot with the moments that there were. The outcome of a cell is one of

    right     what must be there is there
    refused   something was refused, in words
    said      something is missing, and `run`, `check` or the library names it
    WRONG     something is missing, and nobody says so
    broken    it does not start, and nobody says why

    around.py [--like TEXT] [--every N] [--part K/N]     the whole matrix, and a table of it
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Optional

import around_load
import hosts

LOADER = Path(__file__).with_name("around_load.py")
FAULTS = hosts.BUILD / "libchromashim-faults.so"
RELEASES = {"1.5": "venv", "0.6": "venv-0.6"}
STATES = ("nothing", "undo", "pin", "both")
LOADS = around_load.LOADS
PIN = around_load.PIN
PHASE = 2  # steps that make one persist
MORE = 3  # steps after the new start: one persist at least
USER = 65534
TIMEOUT = 120
# A full disk is none of the cells' business, and a guardian comes when they call it.
QUIET_ENV = {"CHROMASHIM_BALLAST": "0", "CHROMASHIM_WARN_FULL": "0", "CHROMASHIM_MIN_FREE": "0",
             "CHROMASHIM_GUARD": "off"}

# What names a loss, or what keeps it from being made good.
TOLD = re.compile("UNPROTECTED|not protected|aside|another directory|belongs to|permission", re.I)

Said = tuple[str, Any]


class Runner:
    """A process that has Chroma imported, and forks one for each job."""

    def __init__(self, release: str, preload: list[Path], env: dict[str, str], work: Path) -> None:
        self.errors = open(work / f"said-{time.monotonic_ns()}", "w+b", buffering=0)
        settings = hosts.environment({**QUIET_ENV, **env})
        if preload:
            settings["LD_PRELOAD"] = ":".join(map(str, preload))
        self.process = subprocess.Popen(
            [str(hosts.python(RELEASES[release])), str(LOADER)], env=settings, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            start_new_session=True)

    def start(self, job: dict[str, Any]) -> int:
        self.heard = self.errors.seek(0, os.SEEK_END)
        print(json.dumps(job), file=self.process.stdin, flush=True)
        return int(self.line().split()[1])

    def line(self) -> str:
        text = self.process.stdout.readline()
        assert text, "the loader is gone"
        return text.rstrip("\n")

    def finish(self) -> tuple[list[Said], int]:
        """What the child says, and the signal that ended it."""
        said: list[Said] = []
        while True:
            word, rest = self.line().split(" ", 1)
            if word == "ended":
                return said, int(rest) & 127
            said.append((word, json.loads(rest)))

    def do(self, job: dict[str, Any]) -> tuple[list[Said], int]:
        self.start(job)
        return self.finish()

    def words(self) -> list[str]:
        """What the library said since the job began."""
        self.errors.seek(self.heard)
        text = self.errors.read().decode(errors="replace")
        return [line for line in text.splitlines() if line.startswith("chromashim: ")]

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()


class Lost(Exception):
    """The cell's outcome is known: (outcome, detail)."""


@dataclass
class Act:
    """What somebody does. Its functions are called with the site; see around_acts.py."""

    name: str
    before: Optional[Callable[["Site"], None]] = None  # of Chroma's work
    after: Optional[Callable[["Site"], None]] = None  # between it and the new start
    backup: bool = False  # some work is done before `before`
    env: dict[str, str] = field(default_factory=dict)  # of the work
    job: dict[str, Any] = field(default_factory=dict)  # the same; see around_load.py
    preload: tuple[str, ...] = ()  # programs of the tests, compiled as libraries
    start_env: dict[str, str] = field(default_factory=dict)  # of the new start
    start_job: dict[str, Any] = field(default_factory=dict)
    working: Optional[Callable[["Site", int], None]] = None  # while it works, with its pid
    pins_stay: bool = True  # else the act takes the store with it
    states: tuple[str, ...] = STATES
    needs: tuple[str, ...] = ()  # programs
    as_root: bool = False
    may_fail: str = ""  # why something may be refused, or missing and said

    @property
    def number(self) -> int:
        return zlib.crc32(self.name.encode())


@dataclass
class Site:
    """A cell while it happens."""

    gallery: "Gallery"
    release: str
    load: str
    state: str
    act: Act
    directory: Path
    durability: str
    start: str  # "bare", "run", "exec"
    uid: int = 0
    steps: int = 0  # that are acknowledged
    under_way: bool = False  # one more may be there
    said: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    pins: dict[int, int] = field(default_factory=dict)  # number -> steps
    models: Optional[list[int]] = None  # steps: what it must be one of, else as acknowledged
    start_env: dict[str, str] = field(default_factory=dict)
    start_job: dict[str, Any] = field(default_factory=dict)

    tracers: list[subprocess.Popen] = field(default_factory=list)
    backup_steps: int = 0
    lost_before: str = ""  # by a start without the library

    def __post_init__(self) -> None:
        self.data = self.directory / "data"
        self.env = dict(self.act.env)
        self.start_env |= self.act.start_env
        self.start_job |= self.act.start_job

    # ---- the beginning

    def work(self, steps: int, library: bool = True, **more: Any) -> None:
        """Real Chroma does so many steps; `more` goes into the job."""
        runner = self.gallery.runner(
            self.release, [FAULTS, *map(self.gallery.library, self.act.preload)] if library else [],
            {"CHROMASHIM_DURABILITY": self.durability, **self.env} if library else {})
        job = {"verb": "work", "directory": str(self.data), "load": self.load, "first": self.steps,
               "steps": steps, "uid": self.uid, **more}
        pid = runner.start(job)
        if more.get("traced") or more.get("stops"):
            self.act.working(self, pid)
        said, killed = runner.finish()
        killed = killed or any(word == "killed" for word, _ in said)
        self.hear(said, killed)
        self.said += runner.words()
        if killed == signal.SIGALRM:
            raise Lost("broken", "it hangs")
        if library and not killed and self.steps != job["first"] + steps:
            self.refused.append(f"{job['first'] + steps - self.steps} steps of work")

    def hear(self, said: list[Said], killed: int) -> None:
        for word, what in said:
            if word == "ack":
                self.steps = what
            elif word == "pin" and what > 0:
                self.pins[what] = self.steps
            elif word == "pin":
                self.refused.append(f"a pin: {what}")
            elif word in ("refused", "error"):
                self.refused.append(what)
        self.under_way = bool(killed) or bool(self.refused)

    def crash(self) -> None:
        """A persist is cut off in its midst; where, is a number of writes."""
        self.work(PHASE, **self.for_work("kill"))
        if not self.undo_files():
            raise Lost("said" if self.said else "WRONG", "nothing would undo the persist")

    def for_work(self, fault: str = "") -> dict[str, Any]:
        job = dict(self.act.job)
        if self.state in ("pin", "both"):
            job["pin"] = self.steps
        if job.get("stops"):
            fault = "stop"
        if fault:
            job["fault"] = f"{fault}:{self.gallery.middle(self)}:segments"
        return job

    def undo_files(self) -> list[Path]:
        return list(self.store().glob("undo/*.undo"))

    def store(self) -> Path:
        return self.data / (self.env.get("CHROMASHIM_STORE") or ".chromashim")

    def command(self, *words: Any, uid: int = 0) -> subprocess.CompletedProcess:
        """chromashim, in the surroundings of the new start."""
        argv = [str(hosts.COMMAND), *map(str, words)]
        if uid:
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *argv]
        if self.start_job.get("boot"):
            mount = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
            argv = ["unshare", "--mount", "sh", "-c", mount, self.start_job["boot"], *argv]
        return subprocess.run(
            argv, env=hosts.environment({**QUIET_ENV, "HOME": "/tmp", **self.start_env}),
            cwd=self.data, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT,
            check=False)

    def segment(self) -> Path:
        return next(self.data.glob("????????-*-????????????/header.bin")).parent

    def clean_up(self) -> None:
        for tracer in self.tracers:
            tracer.wait(TIMEOUT)
        for path in (self.data, self.directory):
            if path.exists():
                shutil.rmtree(path.resolve())

    # ---- the new start

    def expected(self) -> list[list[Any]]:
        steps = self.models or [self.steps, *([self.steps + 1] if self.under_way else [])]
        return [[self.load, n] for n in steps]

    def look(self, more: int = MORE, library: bool = True, data: Optional[Path] = None) -> None:
        """Starts it again and compares. Raises Lost."""
        job = {"verb": "look", "directory": str(data or self.data), "models": self.expected(),
               "more": more, **({"uid": self.uid, **self.start_job} if library else {})}
        if library and self.start == "exec" and not self.start_job:
            said, words = self.execute(job)
        else:
            if library and self.start == "run":
                self.run_before(data or self.data)
            runner = self.gallery.runner(
                self.release,
                [hosts.SHIM, *map(self.gallery.library, self.act.preload)] if library else [],
                {"CHROMASHIM_DURABILITY": self.durability, **self.start_env} if library else {})
            said, _ = runner.do(job)
            words = runner.words()
        self.said += words
        found = dict(said)
        if "error" in found:
            raise Lost("broken", found["error"])
        which, told = found.get("found", [-1, "it is gone without a word"])
        if told:
            before = f"; before, without the library: {self.lost_before}" * bool(self.lost_before)
            raise Lost("WRONG", told + before)
        if data is None:
            self.steps, self.models = self.expected()[which][1], None
            self.hear(said, False)
        if more and not self.refused and "ack" not in found:
            raise Lost("broken", "no more writes")

    def run_before(self, data: Path) -> None:
        """What `run` does before the backend is there."""
        done = self.command("run", "--dir", data, "--", "true", uid=self.uid)
        self.said += (done.stdout + done.stderr).splitlines()
        if done.returncode:
            raise Lost("broken", f"run: {done.returncode}")

    def execute(self, job: dict[str, Any]) -> tuple[list[Said], list[str]]:
        """The whole of it: `chromashim run` with a backend of its own."""
        job.pop("uid")
        done = self.command("run", "--dir", job["directory"], "--",
                            hosts.python(RELEASES[self.release]), LOADER, json.dumps(job),
                            uid=self.uid)
        said = [(line.split(" ", 1)[0], json.loads(line.split(" ", 1)[1]))
                for line in done.stdout.splitlines() if " " in line]
        if not said:
            self.said += done.stderr.splitlines()
            raise Lost("broken", f"run: {done.returncode}")
        return said, [line for line in done.stderr.splitlines() if line.startswith("chromashim")]

    # ---- the pins

    def look_at_snapshots(self) -> None:
        done = self.command("guard", "--once", self.data, uid=self.uid)
        self.said += done.stderr.splitlines()
        done = self.command("snapshot", "list", "--json", self.data, uid=self.uid)
        if done.returncode not in (0, 10):
            self.said += done.stderr.splitlines()
            raise Lost("broken", f"snapshot list: {done.returncode}")
        listed = {one["id"]: one for one in json.loads(done.stdout or "[]")}
        for number, snapshot in listed.items():
            if snapshot["state"] == "verified":
                self.look_at_snapshot(number, snapshot["description"])
            elif snapshot.get("trouble"):
                self.said.append(f"snapshot {number} {snapshot['state']}: {snapshot['trouble']}")
        for number in self.pins.keys() - listed.keys() if self.act.pins_stay else ():
            if not any(f"snapshot {number}" in line for line in self.said):
                raise Lost("WRONG", f"snapshot {number} is gone without a word")

    def look_at_snapshot(self, number: int, description: str) -> None:
        out = self.directory / f"snapshot-{number}"
        done = self.command("restore", "--to", number, "-o", out, self.data)
        assert done.returncode == 0, done.stderr
        pinned = self.pins.get(number) if description == PIN else None
        moments = range(self.steps + 2) if pinned is None else [pinned]
        done = self.command("export", out)
        found = {}
        for line in done.stdout.splitlines():
            record = json.loads(line)
            found[record["id"]] = (around_load.np.float32(record["embedding"]),
                                   record.get("document"),
                                   (record.get("metadata") or {}).get("revision"))
        shutil.rmtree(out)
        if not found and pinned is None:
            return  # before the collection was there
        _, told = around_load.nearest(found, [around_load.model_of(self.load, n) for n in moments])
        if told:
            raise Lost("WRONG", f"snapshot {number} ({'by hand' if pinned is not None else 'auto'}) "
                       f"is verified, and has {told}")

    # ---- all of it

    def happen(self) -> None:
        act = self.act
        if act.backup:
            self.work(PHASE)
        if act.before:
            act.before(self)
        if self.state in ("undo", "both"):
            self.crash()
        else:
            self.work(PHASE, **self.for_work())
        if act.after:
            act.after(self)
        self.look()
        self.look(0, library=False, data=self.data)
        if self.state in ("pin", "both"):
            self.look_at_snapshots()

    def is_said(self) -> bool:
        """Do the library, `run` or `check` name it?"""
        if any(TOLD.search(line) for line in self.said):
            return True
        done = self.command("check", "--full", "--json", self.data, uid=self.uid)
        try:
            found = json.loads(done.stdout)["findings"]
        except ValueError:
            return False
        self.said += [f"check: {f['severity']}: {f['code']}" for f in found]
        return any(f["severity"] == "damage" for f in found)

    def outcome(self) -> tuple[str, str]:
        try:
            self.happen()
        except Lost as lost:
            outcome, detail = lost.args
            return ("said" if self.is_said() else outcome), detail
        if self.refused:
            return "refused", "; ".join(self.refused)
        return "right", ""


@dataclass
class Cell:
    release: str
    load: str
    state: str
    act: Act

    def __str__(self) -> str:
        return f"{self.act.name}/{self.state}/{self.load}/{self.release}"

    @property
    def number(self) -> int:
        """Chooses among ways that every cell could take."""
        return zlib.crc32(str(self).encode())


class Gallery:
    """Runners and beginnings, made once."""

    def __init__(self, work: Path, library: Callable[[str], Path]) -> None:
        self.work_directory, self.library = work, library
        self.runners: dict[tuple, Runner] = {}
        self.middles: dict[tuple, int] = {}
        self.count = 0

    def runner(self, release: str, preload: list[Path], env: dict[str, str]) -> Runner:
        key = (release, *preload, *sorted(env.items()))
        if key not in self.runners:
            self.runners[key] = Runner(release, preload, env, self.work_directory)
        return self.runners[key]

    def base(self, release: str) -> Path:
        """A directory that Chroma made without the library."""
        path = self.work_directory / f"base-{release}"
        if not path.exists():
            said, _ = self.runner(release, [], {}).do({"verb": "make", "directory": str(path)})
            assert said[-1][0] == "done", said
        return path

    def middle(self, site: Site) -> int:
        """Two thirds of the writes that this persist has, without anything being done around it."""
        key = (site.release, site.load, site.durability, site.steps)
        if key not in self.middles:
            data = self.work_directory / "-".join(map(str, ("count", *key)))
            shutil.copytree(self.base(site.release), data)
            runner = self.runner(site.release, [FAULTS], {"CHROMASHIM_DURABILITY": site.durability})
            job = {"verb": "work", "directory": str(data), "load": site.load}
            if site.steps:
                runner.do({**job, "first": 0, "steps": site.steps})
            runner.do({**job, "first": site.steps, "steps": PHASE, "fault": "count"})
            counted = next(line for line in runner.words() if "faults: " in line)
            self.middles[key] = max(1, int(counted.split(" writes")[0].split()[-1]) * 2 // 3)
            shutil.rmtree(data)
        return self.middles[key]

    def play(self, cell: Cell, keep: bool = False) -> tuple[str, str, Site]:
        self.count += 1
        directory = self.work_directory / f"cell-{self.count}"
        directory.mkdir()
        os.chmod(directory, 0o755)
        number = cell.number
        site = Site(self, cell.release, cell.load, cell.state, cell.act, directory,
                    durability=("power", "power", "process")[number % 3],
                    start=("bare", "run", "bare", "exec")[number // 3 % 4])
        shutil.copytree(self.base(cell.release), site.data)
        outcome, detail = site.outcome()
        if not keep:
            site.clean_up()
        return outcome, detail, site

    def stop(self) -> None:
        for runner in self.runners.values():
            runner.stop()


@contextlib.contextmanager
def gallery(work: Path, library: Callable[[str], Path]) -> Iterator[Gallery]:
    one = Gallery(work, library)
    try:
        yield one
    finally:
        one.stop()


# ---- the whole matrix


def cells(like: str = "", releases: tuple[str, ...] = tuple(RELEASES)) -> list[Cell]:
    import around_acts
    every = [Cell(release, load, state, act) for release in releases for act in around_acts.ACTS
             for state in act.states for load in LOADS]
    return [cell for cell in every if like in str(cell)]


def compiled(work: Path) -> Callable[[str], Path]:
    def library(name: str) -> Path:
        path = work / f"{name}.so"
        if not path.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", str(path),
                            str(LOADER.with_name(f"{name}.c")), "-ldl"], check=True)
        return path
    return library


LETTERS = {"right": ".", "refused": "r", "said": "s", "WRONG": "W", "broken": "B", "ERROR": "E"}
BAD = ("WRONG", "broken", "ERROR")


class Table:
    """The outcomes of all cells."""

    def __init__(self, show: bool) -> None:
        self.show, self.lock = show, threading.Lock()
        self.outcomes: dict[tuple[str, str], str] = {}
        self.tally: Counter = Counter()

    def add(self, cell: Cell, outcome: str, detail: str, site: Optional[Site]) -> None:
        with self.lock:
            self.tally[outcome] += 1
            place = (cell.act.name, cell.state)
            self.outcomes[place] = self.outcomes.get(place, "") + LETTERS[outcome]
            if outcome == "right" and not self.show:
                return
            print(f"{outcome:8} {cell} {detail}")
            if site:
                print(f"         {site.start}, {site.durability}, {site.data}")
                print("".join(f"         | {line}\n" for line in site.said), end="", flush=True)

    def print(self) -> None:
        print(f"{'':24}" + "".join(f"{state:12}" for state in STATES))
        for name in dict.fromkeys(act for act, _ in self.outcomes):
            print(f"{name:24}" + "".join(f"{self.outcomes.get((name, state), ''):12}"
                                         for state in STATES))
        print(f"{sum(self.tally.values())} cells: " +
              ", ".join(f"{n} {what}" for what, n in self.tally.most_common()))


def play_all(release: str, work: Path, options: argparse.Namespace, table: Table) -> None:
    part, parts = map(int, options.part.split("/"))
    work.mkdir()
    with gallery(work, compiled(work)) as one:
        for cell in cells(options.like, (release,)):
            if cell.number % options.every or cell.act.number % parts != part:
                continue
            try:
                outcome, detail, site = one.play(cell, options.keep)
            except Exception as error:  # the others go on
                outcome, detail, site = "ERROR", f"{type(error).__name__}: {error}", None
            table.add(cell, outcome, detail, site)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--like", default="", help="only cells with this in ACT/STATE/LOAD/RELEASE")
    parser.add_argument("--every", type=int, default=1, help="only one in so many")
    parser.add_argument("--part", default="0/1", help="K/N: the K-th of N parts")
    parser.add_argument("--show", action="store_true", help="also what was said")
    parser.add_argument("--keep", action="store_true", help="leave the directories there")
    options = parser.parse_args()
    table = Table(options.show)
    work = Path(tempfile.mkdtemp(prefix="around-"))
    os.chmod(work, 0o755)  # for other users
    threads = [threading.Thread(target=play_all, args=(release, work / release, options, table))
               for release in RELEASES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not options.keep:
        shutil.rmtree(work)
    table.print()
    return any(table.tally[outcome] for outcome in BAD)


if __name__ == "__main__":
    import around  # as the acts know it

    sys.exit(around.main())
