# SPDX-License-Identifier: MIT
"""Machines that are wiped under load, and come back elsewhere from the replica alone: real Chroma
opens what is restored with what a model says was there at the moment of its snapshot. Then they write
on, send to the same replica, and are wiped again.

    wipes.py WIPES EVERY [RATE]    machines that take turns; prints the table
"""

import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gallery
import hosts
from loads import nanoseconds
from moments_load import replay

LOAD = Path(__file__).with_name("moments_load.py")
ROUNDS = 12  # wipes of one replica, then a new one is begun
AT_ONCE = 6


class Broken(AssertionError):
    """A promise that was not kept."""


class Machine:
    """One after the other, in a place of its own each: what outlives it is replica/ and key."""

    def __init__(self, work: Path, seed: int, every: str, rate: str = "0") -> None:
        self.work, self.rng, self.every = work, random.Random(seed), every
        self.settings = {"CHROMASHIM_EVERY": every, "CHROMASHIM_REPLICA_RATE": rate,
                         "CHROMASHIM_REPLICA": str(work / "replica")}
        (work / "replica").mkdir(parents=True)
        self.number, self.data, self.log = 0, work / "data-0", work / "calls-0"
        self.data.mkdir()
        self.log.touch()
        self.running: list[subprocess.Popen] = []

    def command(self, *words: Any, bare: bool = False) -> str:
        env = {"PATH": os.environ["PATH"]} if bare else hosts.environment(self.settings)
        done = subprocess.run([str(hosts.COMMAND), *map(str, words)], env=env, text=True, check=False,
                              capture_output=True, timeout=300)
        if done.returncode:
            raise Broken(f"{words}: {done.stdout}{done.stderr}")
        return done.stdout

    def there(self) -> set[str]:
        return {p.name for p in (self.work / "replica/snapshots").glob("0*")}

    def live(self, seconds: float) -> None:
        """Works for so long after the first of its own snapshots is there, and is wiped."""
        before = self.there()
        load = self.start([str(hosts.python("venv")), str(LOAD), str(self.data),
                           str(self.rng.randrange(1 << 30)), str(self.log)],
                          {"LD_PRELOAD": str(hosts.SHIM), "CHROMASHIM_GUARD": "off"})
        if load.stdout.readline() != "ready\n":
            raise Broken("the load does not start")
        if not (self.work / "key").exists():
            self.command("replica", "keygen", "-o", self.work / "key", self.data)
        self.start([str(hosts.COMMAND), "guard", "-q", str(self.data)], {})
        threading.Thread(target=self.feed, args=(load,), daemon=True).start()
        deadline = time.monotonic() + 120
        while self.there() == before:
            if time.monotonic() > deadline:
                raise Broken("nothing was sent in two minutes")
            time.sleep(0.05)
        time.sleep(seconds)
        self.wipe()

    def start(self, words: list[str], env: dict[str, str]) -> subprocess.Popen:
        self.running.append(subprocess.Popen(
            words, env=hosts.environment({**self.settings, **env}), start_new_session=True, text=True,
            bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        return self.running[-1]

    @staticmethod
    def feed(load: subprocess.Popen) -> None:
        with contextlib.suppress(OSError, ValueError):
            while load.poll() is None:
                print(3, file=load.stdin, flush=True)
                if not load.stdout.readline():
                    return
                time.sleep(0.1)

    def kill(self) -> None:
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.running:
            process.wait()
        self.running = []

    def wipe(self) -> None:
        self.kill()
        self.wiped_at = time.time_ns()
        shutil.rmtree(self.data)

    def calls(self) -> list[dict[str, Any]]:
        """What was begun, with an end where that was answered; the last line may be cut off."""
        found: list[dict[str, Any]] = []
        for text in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if "end" in line:
                    found.pop()
                found.append(line)
        return found

    def come_back(self) -> tuple[float, int]:
        """The seconds before the wipe that are lost, and how many answered calls were made in them."""
        newest = json.loads(self.command("replica", "list", "--json", "--from", self.work / "replica",
                                         "--key", self.work / "key", bare=True))[-1]
        if newest["state"] != "there":
            raise Broken(f"{newest}")
        out = self.work / f"data-{self.number + 1}"
        self.command("restore", "--from", self.work / "replica", "--to", "latest", "-o", out, "--key",
                     self.work / "key", bare=True)
        moment, calls = nanoseconds(newest["time"]), self.calls()
        first = sum(1 for c in calls if c.get("end", 1 << 63) <= moment)
        last = sum(1 for c in calls if c["begin"] < moment)
        copy = Path(shutil.copytree(out, self.work / "asked"))
        answer = gallery.ask(hosts.BY_NAME["python"], copy)
        shutil.rmtree(copy)
        states = [replay(calls[:n]) for n in range(first, last + 1)]
        if "error" in answer or len(answer["missed"]) > 1 or answer["records"] not in states:
            raise Broken(f"{out} is not what it was at {newest['time']}: {answer.get('error')} "
                         f"{answer.get('missed')}; {first} to {last} of {len(calls)} calls")
        self.number += 1
        self.data, self.log = out, self.work / f"calls-{self.number}"
        state = answer["records"]
        self.log.write_text(json.dumps({"begin": 0}) + "\n" + json.dumps(
            {"begin": 0, "end": 0, "make": list(state), "set": state}) + "\n", encoding="utf-8")
        self.command("replica", "keygen", "--use", self.work / "key", self.data)
        self.command("replica", "takeover", self.data)
        return ((self.wiped_at - moment) / 1e9,
                sum(1 for c in calls if moment < c.get("end", 0) <= self.wiped_at))

    def clean_up(self) -> None:
        self.kill()


def wipe(work: Path, wipes: int, every: float, rate: str, seed: int) -> list[tuple[float, int]]:
    """So many, on as many replicas as that takes."""
    rng, found = random.Random(seed), []
    while len(found) < wipes:
        place = work / f"replica-{len(found)}"
        machine = Machine(place, rng.randrange(1 << 30), f"{every:g}s", rate)
        try:
            for _ in range(min(ROUNDS, wipes - len(found))):
                machine.live(rng.uniform(0, 2 * every))
                found.append(machine.come_back())
                print("lost %.2f s, %d calls" % found[-1], file=sys.stderr, flush=True)
        finally:
            machine.clean_up()
        shutil.rmtree(place)
    return found


def table(found: list[tuple[float, int]]) -> str:
    gaps, calls = [g for g, _ in found], [n for _, n in found]
    return (f"{len(found)} wipes; seconds lost: median {statistics.median(gaps):.1f}, "
            f"max {max(gaps):.1f}; answered calls lost: median {statistics.median(calls):g}, "
            f"max {max(calls)}")


def main() -> int:
    wipes, every, rate = int(sys.argv[1]), float(sys.argv[2]), (sys.argv[3:] or ["0"])[0]
    seed, broken, found = int.from_bytes(os.urandom(3), "little"), [], []
    work = Path(tempfile.mkdtemp(prefix="chromashim-wipes-"))

    def run(number: int) -> None:
        try:
            found.extend(wipe(work / str(number), wipes // AT_ONCE, every, rate, seed + number))
        except Exception as e:  # pylint: disable=broad-except
            broken.append(f"{number}: {e}")

    threads = [threading.Thread(target=run, args=(n,)) for n in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"every {every:g} s, rate {rate}: {table(found) if found else 'nothing'}; seed {seed}")
    for text in broken:
        print(f"  {text}; kept in {work}")
    if not broken:
        shutil.rmtree(work)
    return len(broken)


if __name__ == "__main__":
    sys.exit(main())
