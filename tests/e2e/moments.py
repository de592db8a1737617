# SPDX-License-Identifier: MIT
"""Any moment back: snapshots by the clock and by hand while real Chroma works at random, guardians
are killed, and the backend ends without a word; each that is promised is what a model says."""

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

import gallery
import hosts
from loads import listed, nanoseconds
from moments_load import replay

LOAD = Path(__file__).with_name("moments_load.py")
GOOD = ("complete", "verified")


class Broken(AssertionError):
    """A promise that was not kept."""


class Moments:
    def __init__(self, host: hosts.Host, work: Path, chromashim: Any, seed: int) -> None:
        self.host, self.work, self.chromashim, self.seed = host, work, chromashim, seed
        self.rng, self.data, self.log = random.Random(seed), work / "data", work / "calls.json"
        self.log.touch()
        self.guard: Optional[subprocess.Popen] = None
        self.server: Any = None
        self.child: Optional[subprocess.Popen] = None
        self.since = 0  # what is older belongs to another course of things
        self.restarts = self.kills = self.asked = self.compared = self.returned = 0

    # ---- the load

    def start(self) -> None:
        self.restarts += 1
        target, preload = str(self.data), str(hosts.SHIM)
        if self.host.server:
            self.server = hosts.Server(self.host, self.data, preload)
            target, preload = self.server.address, ""
        self.child = subprocess.Popen(
            [str(hosts.python(self.host.driver)), str(LOAD), target,
             str(self.seed + self.restarts), str(self.log)],
            env=hosts.environment({"LD_PRELOAD": preload, "CHROMASHIM_GUARD": "off"}), text=True,
            bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.expect("ready")

    def expect(self, word: str) -> None:
        line = self.child.stdout.readline()
        if line != f"{word}\n":
            raise Broken(f"the load: {line} {self.child.stderr.read()[-2000:]}")

    def end(self) -> None:
        self.child.stdin.close()
        self.child.wait(30)
        if self.server:
            self.server.clean_up()
            self.server = None

    def watch(self) -> None:
        """Another guardian, the one before killed."""
        if self.guard:
            self.guard.send_signal(signal.SIGKILL)
            self.guard.wait()
            self.kills += 1
        env = {"CHROMASHIM_EVERY": "1s", "CHROMASHIM_KEEP": "all"}
        self.guard = subprocess.Popen([str(hosts.COMMAND), "guard", str(self.data), "-q"],
                                      env=hosts.environment(env), stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)

    def stop_guard(self) -> None:
        if self.guard:
            self.guard.terminate()
            self.guard.wait(60)
        self.guard = None

    def run(self, seconds: float, calls: int = 10) -> None:
        """Calls; now and then a pin by hand, a death of the guardian, an end of the backend."""
        self.start()
        self.watch()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            print(calls, file=self.child.stdin, flush=True)
            if self.rng.random() < 0.5:  # beside them
                self.chromashim("snapshot", "create", self.data, "--no-wait", "-q")
            self.expect("done")
            if self.rng.random() < 0.04:
                self.watch()
            if self.rng.random() < 0.02:
                self.end()
                self.start()
        self.end()
        self.stop_guard()
        done = self.chromashim("guard", self.data, "--once", "-q", timeout=600,
                               env=hosts.environment({"CHROMASHIM_KEEP": "all"}))
        assert done.returncode == 0, done.stderr

    # ---- the model

    def calls(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        ended = [line for line in lines if "end" in line]
        assert len(lines) == 2 * len(ended)  # none was under way at an end
        return ended

    def states_at(self, moment: int) -> list[dict[str, Any]]:
        """One, or two where a call was under way."""
        calls = self.calls()
        first = sum(1 for c in calls if c["end"] <= moment)
        last = sum(1 for c in calls if c["begin"] < moment)
        return [replay(calls[:n]) for n in range(first, last + 1)]

    def now(self) -> dict[str, Any]:
        return replay(self.calls())

    # ---- the promises

    def ask(self, data: Path) -> dict[str, Any]:
        answer = gallery.ask(self.host if not self.host.server else hosts.BY_NAME["python"], data)
        # After deletions hnswlib leaves one in some ten thousand out of reach, without the library
        # as well (1 of 17 355 records of this load); the vectors themselves are compared.
        if "error" in answer or len(answer["missed"]) > 1:
            raise Broken(f"{data}: {answer.get('error') or answer['missed']}")
        return answer["records"]

    def is_between(self, one: dict[str, Any]) -> bool:
        """Chroma before 1.0 makes a collection in several transactions: then there is one without
        its segments, and the snapshot says so and promises nothing."""
        moment = nanoseconds(one["time"])
        return (one["trouble"] or "").startswith("segment-row-missing") and any(
            c["begin"] < moment < c["end"] and ("make" in c or "drop" in c) for c in self.calls())

    def snapshots(self) -> list[dict[str, Any]]:
        found = [s for s in listed(self.chromashim, self.data)
                 if nanoseconds(s["time"]) > self.since and not self.is_between(s)]
        wrong = [s for s in found if s["state"] not in GOOD]
        if wrong:
            raise Broken(f"not good: {wrong[:3]}")
        return found

    def bring_back(self, one: dict[str, Any]) -> None:
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        done = self.chromashim("restore", "--to", str(one["id"]), "-o", out, "-y", "-q", self.data)
        if done.returncode:
            raise Broken(f"restore of {one}: {done.stderr}")
        found, states = self.ask(out), self.states_at(nanoseconds(one["time"]))
        self.returned += 1
        if found not in states:
            raise Broken(f"snapshot {one['id']} is none of {len(states)} states: "
                         f"{[differences(found, s) for s in states]}")

    def go_back(self, one: dict[str, Any]) -> None:
        """In place: from now on the model is what it was then."""
        state = self.states_at(nanoseconds(one["time"]))
        done = self.chromashim("restore", "--to", str(one["id"]), "-y", "-q", self.data)
        if done.returncode:
            raise Broken(f"restore in place of {one}: {done.stderr}")
        copy = self.work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        found = self.ask(Path(shutil.copytree(self.data, copy)))
        if found not in state:
            raise Broken(f"restored in place: {[differences(found, s) for s in state]}")
        self.since = time.time_ns()
        self.log.write_text(json.dumps({"begin": 0}) + "\n" + json.dumps(
            {"begin": 0, "end": 0, "make": list(found), "set": found}) + "\n", encoding="utf-8")

    def compare(self, before: dict[str, Any], after: Optional[dict[str, Any]] = None) -> None:
        """diff --records against the model; `after` None: now."""
        span = f"{before['id']}..{after['id'] if after else 'now'}"
        done = self.chromashim("snapshot", "diff", span, "--records", "--json", self.data)
        if done.returncode:
            raise Broken(f"diff {span}: {done.stderr}")
        found = {(c["collection"], c["id"], c["change"]) for c in json.loads(done.stdout)
                 if c["kind"] == "record"}
        ends = self.states_at(nanoseconds(after["time"])) if after else [self.now()]
        right = [changes(a, b) for a in self.states_at(nanoseconds(before["time"])) for b in ends]
        self.compared += max(map(len, right))
        if found not in right:
            raise Broken(f"diff {span}: {[list(found ^ r)[:5] for r in right]}")

    def bring_records(self, one: dict[str, Any]) -> None:
        """What was deleted and changed comes back; whatever is newer stays."""
        states, now = self.states_at(nanoseconds(one["time"])), self.now()
        copy = self.work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data, copy)
        names = sorted(set(states[0]) & set(states[-1]))
        for name in names:
            done = self.chromashim("restore", "--to", str(one["id"]), "--collection", name,
                                   "--where-deleted", "--where-changed", "-y", "-q", copy)
            if done.returncode:
                raise Broken(f"restore --collection {name} of {one['id']}: {done.stderr}")
        found = self.ask(copy)
        right = [{**now, **{n: {**now.get(n, {}), **s[n]} for n in names if n in now or s[n]}}
                 for s in states]
        self.asked += sum(len(s) for s in states[0].values())
        if found not in right:
            raise Broken(f"records of {one['id']}: {[differences(found, r) for r in right]}")

    def clean_up(self) -> None:
        if self.guard:
            self.guard.kill()
            self.guard.wait()
        if self.child and self.child.poll() is None:
            self.child.kill()
        if self.server:
            self.server.clean_up()


def changes(before: dict[str, Any], after: dict[str, Any]) -> set[tuple[str, str, str]]:
    found = set()
    for name in before.keys() | after.keys():
        a, b = before.get(name, {}), after.get(name, {})
        found |= {(name, i, "deleted") for i in a.keys() - b.keys()}
        found |= {(name, i, "added") for i in b.keys() - a.keys()}
        found |= {(name, i, "changed") for i in a.keys() & b.keys() if a[i] != b[i]}
    return found


def differences(found: dict[str, Any], right: dict[str, Any]) -> Any:
    return sorted(found), sorted(right), sorted(changes(right, found))[:6]
