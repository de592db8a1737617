# SPDX-License-Identifier: MIT
"""Power cuts without a disk: the recorded order of a run's writes, with what was not synced lost.

What real Chroma and the shim do to a directory is recorded (recording.py). Disk replays it
and knows what is on the disk for certain (synced) and what may be: names that were not synced in
the order in which they were made, and each page of a file as it was at any moment since its last
sync. crash() makes one of these states. Two models:

    ordered     as ext4 and XFS: names and sizes become durable in one order, and with any sync
    weak        each directory and each file by itself, when that one is synced (what POSIX says)

Half of the states are looked at with the id of another boot, as after a power cut, and half in the
same boot: so is the image of a disk, such as a volume's snapshot, on a machine that goes on. In both
a page of a file may be torn.

What a failure names is kept: the state, and the recording, of which the state is made again with

    replay.py RECORDING SEED CUT MODEL PLACE TARGET

Stores into shared maps are not seen, nor that a sync brings them to the disk, so those pages hold
what write() put there. For what a roll-back heeds of an undo file's header (reach, counter) that is
the oldest state that is possible; its `complete`, which is synced, is written by a call.
"""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import boots
import hosts
import kills
import power
from recording import CALLS, Event, Recording

PAGE = 4096
MODELS = ("ordered", "weak")
BATCHES = 14  # of a recording: three persists and the first, which makes the segment
SESSION = 50  # cuts of one recording

# ---- the disk


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)  # as it is on the disk for certain
    pending: list[tuple[int, Event]] = field(default_factory=list)
    directory: bool = False
    changed: float = 0
    mode: int = 0o600

    def sync(self) -> None:
        for _, e in self.pending:
            apply(self.data, e)
        self.pending.clear()


def apply(data: bytearray, e: Event) -> None:
    if e.kind == "size":
        del data[e.size:]
        data.extend(bytes(e.size - len(data)))
    else:
        if len(data) < e.offset:
            data.extend(bytes(e.offset - len(data)))
        data[e.offset:e.offset + len(e.data)] = e.data


class Disk:
    """What a directory is on the disk for certain, and what may be there."""

    def __init__(self, model: str) -> None:
        self.weak = model == "weak"
        self.files: dict[int, File] = defaultdict(File)
        self.names: dict[str, int] = {}  # for certain
        self.pending: list[tuple[int, Event]] = []  # changes of names
        self.torn: list[str] = []  # by the last crash()
        self.count = 0

    def play(self, e: Event) -> None:
        self.count += 1
        if e.kind in ("write", "size"):
            self.files[e.file].pending.append((self.count, e))
            self.files[e.file].changed = e.time
        elif e.kind == "sync":
            self.files[e.file].sync()
            if not self.weak:
                self.settle(self.pending)
        elif e.kind == "sync-directory":
            self.settle([p for p in self.pending
                         if not self.weak or os.path.dirname(p[1].path) == e.path])
        elif e.kind != "ack":
            if e.kind == "mkdir":
                self.files[e.file].directory = True
            if e.kind == "create":
                self.files[e.file].mode = e.mode
            self.files[e.file].changed = e.time
            self.pending += [(self.count, half) for half in self.halves(e)]

    def halves(self, e: Event) -> list[Event]:
        """To another directory: each of the two knows its own half, if nothing is ordered."""
        if not self.weak or e.kind != "rename" or \
                os.path.dirname(e.path) == os.path.dirname(e.second):
            return [e]
        return [Event("link", e.time, file=e.file, path=e.second),
                Event("unlink", e.time, path=e.path)]

    def settle(self, changes: list[tuple[int, Event]]) -> None:
        for _, e in changes:
            rename(self.names, e)
        gone = {id(e) for _, e in changes}
        self.pending = [p for p in self.pending if id(p[1]) not in gone]

    def crash(self, rng: random.Random, target: Path) -> str:
        """Makes what a power cut now may leave. Returns what was chosen."""
        names, until = dict(self.names), rng.choice([0, self.count, rng.uniform(0, self.count)])
        if not self.weak and self.pending:
            until = rng.choice([0, self.count, rng.choice(self.pending)[0]])
        limits: dict[str, float] = defaultdict(
            lambda: rng.choice([0, self.count, rng.uniform(self.count - 200, self.count)])
            if self.weak else until)
        for number, e in self.pending:
            if number <= limits[os.path.dirname(e.path)]:
                rename(names, e)
        way = rng.choice(["none", "all", "mixed", "mixed", "mixed"])
        made: dict[int, Path] = {}
        self.torn.clear()
        for path in sorted(names):
            self.put(names[path], target / path, way, until, rng, made)
        return f"{len(self.pending)} names, {way} of the data, torn: {' '.join(self.torn) or 'none'}"

    def put(self, number: int, path: Path, way: str, until: float, rng: random.Random,
            made: dict[int, Path]) -> None:
        file = self.files[number]
        if not path.parent.exists():
            return  # its directory is not there
        if file.directory:
            path.mkdir(mode=0o700)
        elif number in made:
            os.link(made[number], path)
        else:
            if way == "mixed":
                way = rng.choice(["none", "all", "pages", "pages"])
            if way == "pages" and file.pending and \
                    (".chromashim" not in path.parts or path.suffix == ".undo"):
                self.torn.append(path.name)
            path.write_bytes(torn(file, way, until, rng))
            path.chmod(file.mode)
            os.utime(path, (file.changed, file.changed))
            made[number] = path


def rename(names: dict[str, int], e: Event) -> None:
    if e.kind == "unlink":
        names.pop(e.path, None)
    elif e.kind == "exchange":
        assert os.path.dirname(e.path) == os.path.dirname(e.second)
        if e.path in names and e.second in names:
            names[e.path], names[e.second] = names[e.second], names[e.path]
    elif e.kind == "rename":
        names.pop(e.path, None)
        names[e.second] = e.file
    else:
        names[e.path] = e.file


def torn(file: File, way: str, until: float, rng: random.Random) -> bytearray:
    """Each page as it was at some moment since the last sync."""
    data = bytearray(file.data)
    if way == "none" or not file.pending:
        return data
    numbers = [number for number, _ in file.pending]
    # What was written after a truncation that is not on the disk is in blocks that no one knows.
    last = next((n for n, e in file.pending if e.kind == "size" and n > until), numbers[-1] + 1)
    moments: dict[int, int] = defaultdict(
        lambda: last if way == "all" else rng.choice([0, last, rng.choice(numbers)]))
    for number, e in file.pending[:bisect(numbers, last - 1)]:
        if e.kind == "size":
            apply(data, e)
            continue
        at = 0
        while at < len(e.data):
            page, inside = divmod(e.offset + at, PAGE)
            part = e.data[at:at + PAGE - inside]
            if number < moments[page] or moments[page] == last:
                apply(data, Event("write", e.time, offset=e.offset + at, data=part))
            at += len(part)
    return data


# ---- the harness


def record(host: hosts.Host, directory: Path, preload: str, env: dict[str, str],
           batches: int = BATCHES) -> list[Event]:
    """Real Chroma upserts some batches under strace, and is killed."""
    trace, data = directory / "trace", directory / "recorded"
    data.mkdir()
    words = ["strace", "-f", "-y", "-x", "-ttt", "-s", str(64 << 20), "--seccomp-bpf", "-e",
             "signal=none", "-e", "raw=read", "-e", "trace=" + ",".join("?" + c for c in CALLS),
             "-o", str(trace)]
    if preload:
        words += ["-E", f"LD_PRELOAD={preload}"]
    with open(directory / "stderr.log", "a", encoding="utf-8") as errors:
        child = subprocess.Popen([*words, str(hosts.python(host.driver)), str(kills.LOADER)],
                                 env=hosts.environment(env), text=True, stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    try:
        print(data, 0, file=child.stdin, flush=True)
        chroma = int(child.stdout.readline().split()[1])
        for line in child.stdout:
            if line == f"ack {batches}\n":
                break
        else:
            raise AssertionError((directory / "stderr.log").read_text(errors="replace"))
        os.kill(chroma, signal.SIGSTOP)  # so that no call is under way when it dies
        time.sleep(0.3)
        os.kill(chroma, signal.SIGKILL)
        child.stdin.close()
        child.wait(kills.TIMEOUT)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    events = Recording(data).read(trace)
    complete(events, data)
    trace.unlink()
    shutil.rmtree(data)
    return events


def complete(events: list[Event], data: Path) -> None:
    """Played to their end, the changes must give what is there now: none was missed."""
    disk = Disk("ordered")
    for e in events:
        disk.play(e)
    disk.settle(list(disk.pending))
    files = {p.relative_to(data): p for p in data.rglob("*") if p.is_file()}
    for path, file in files.items():
        disk.files[disk.names[str(path)]].sync()
        if path.parts[0] != ".chromashim":  # there are maps
            assert disk.files[disk.names[str(path)]].data == file.read_bytes(), path
    assert {n for n in disk.names if not disk.files[disk.names[n]].directory} == set(map(str, files))


def unsynced_pickles(events: list[Event]) -> list[int]:
    """After which of the events something of a pickle is written and not synced."""
    pickles, written, found = set(), set(), []
    for number, e in enumerate(events):
        if e.kind in ("create", "rename") and (e.second or e.path).endswith(kills.FILES[-1]):
            pickles.add(e.file)
        elif e.kind == "write" and e.file in pickles:
            written.add(e.file)
        elif e.kind == "sync":
            written.discard(e.file)
        if written:
            found.append(number)
    return found


def moments(events: list[Event]) -> dict[str, list[int]]:
    """Where to cut: after which of the events, by what was going on."""
    found: dict[str, list[int]] = defaultdict(list)
    groups, moved, files, born = set(), set(), set(), set()
    since, made = 10 ** 6, False
    found["pickle"] = unsynced_pickles(events)
    for number, e in enumerate(events):
        name = os.path.basename(e.path)
        if e.kind == "create" and name in kills.FILES:
            files.add(e.file)
            made = made or name == kills.FILES[-1]
        if e.kind == "create" and name.endswith(".undo"):
            groups.add(e.path)
            born.add(e.file)
        elif e.kind in ("link", "rename") and (e.second or e.path).endswith(".moved"):
            moved.add(e.second or e.path)
        elif e.kind in ("unlink", "rename"):  # renamed, it is kept as the last one's
            if e.path in groups:  # 0.6: its transaction is over, and the undo file may be there
                found["end"] += [number - 1, number]
                groups.discard(e.path)
                since = 0
            moved.discard(e.path)
        since += 1
        found["whenever"].append(number)
        if groups or e.file in files:
            found["persist"].append(number)
        if moved:
            found["data"].append(number)
        if e.file in born:  # its undo file is about to reach the disk for the first time
            found["birth"].append(number)
            born -= {e.file} if e.kind in ("sync", "unlink") else set()
        if files and not made:
            found["creation"].append(number)
        if since < 40:
            found["commit"].append(number)
        elif since < 200:
            found["purge"].append(number)
    return found


def random_of(seed: int, cut: int) -> random.Random:
    """Each cut its own, so that it can be played again alone."""
    return random.Random(f"cut {seed} {cut}")


class Replay:
    """Records a run and examines what power cuts in it may leave. preload "": without the shim."""

    def __init__(self, host: hosts.Host, directory: Path, preload: str, seed: int) -> None:
        self.host, self.directory, self.preload, self.seed = host, directory, preload, seed
        self.boot = boots.make(directory / "boot_id")
        self.boots = ["", f"boot={self.boot}"] if boots.possible(self.boot) else [""]
        self.tally, self.recording = power.Tally(), ""
        self.env = {"CHROMASHIM_DURABILITY": "power", "CHROMASHIM_BALLAST": "0"}
        self.unsure = power.unsure(host)

    def run(self, cuts: int) -> power.Tally:
        while self.tally.cuts < cuts:
            self.session(min(SESSION, cuts - self.tally.cuts))
        text = (self.directory / "stderr.log").read_text(errors="replace")
        assert "cannot be preloaded" not in text, text
        if not self.tally.broken:
            assert "damaged" not in text, text
        self.tally.rolled_back = text.count("it was undone")
        return self.tally

    def session(self, cuts: int) -> None:
        events = record(self.host, self.directory, self.preload, self.env)
        found = moments(events)
        first = next(n for n, e in enumerate(events) if e.kind == "ack")
        chosen: dict[int, list[tuple[int, str, str]]] = defaultdict(list)
        for number in range(self.tally.cuts, self.tally.cuts + cuts):
            moment = sorted(found)[(number // len(MODELS) + self.seed) % len(found)]
            rng = random.Random(f"place {self.seed} {number}")
            place = rng.choice([n for n in found[moment] if n > first])
            chosen[place].append((number, MODELS[number % len(MODELS)], moment))
        broken, self.recording = len(self.tally.broken), f"recording-{self.tally.cuts}"
        loader = kills.Loader(self.host.driver, self.preload, self.env,
                              self.directory / "stderr.log")
        try:
            self.replay(events, chosen, loader)
        finally:
            loader.stop()
        if len(self.tally.broken) > broken:
            (self.directory / self.recording).write_bytes(pickle.dumps(events))

    def replay(self, events: list[Event], chosen: dict[int, list[tuple[int, str, str]]],
               loader: kills.Loader) -> None:
        disks = {model: Disk(model) for model in MODELS}
        acknowledged = 0
        for number, e in enumerate(events):
            for disk in disks.values():
                disk.play(e)
            if e.kind == "ack":
                acknowledged = e.size
            for cut, model, moment in chosen.get(number, ()):
                target = self.directory / f"cut-{cut}"
                target.mkdir()
                boot = random.Random(f"boot {self.seed} {cut}").choice(self.boots)
                what = disks[model].crash(random_of(self.seed, cut), target)
                self.examine(loader, target, acknowledged, boot, f"cut {cut} {model} {number}, "
                             f"{moment}, {'another' if boot else 'same'} boot, {what}")

    def examine(self, loader: kills.Loader, target: Path, acknowledged: int, boot: str,
                what: str) -> None:
        least, log = max(0, acknowledged - self.unsure), self.directory / "stderr.log"
        said = log.stat().st_size
        kept = target.with_name(f"{target.name}-kept")
        shutil.copytree(target, kept)
        alarm = self.preload and undo_damaged(kept)
        loader.send(target, least, acknowledged + 1, "only", boot)
        answer = loader.finish()[0]
        self.tally.cuts += 1
        self.tally.acknowledged += acknowledged
        if answer.startswith("verified") and alarm:
            answer = f"{alarm}; but {answer}"
        if answer.startswith("verified"):
            shutil.rmtree(kept)
        else:
            words = log.read_bytes()[said:].decode(errors="replace").strip()
            self.tally.broken.append(f"{what}, {acknowledged} batches: {answer}\n"
                                     f"  said: {words[-400:] or 'nothing'}\n"
                                     f"  kept: {kept}, {self.recording}")
        shutil.rmtree(target)


def undo_damaged(data: Path) -> str:
    """What check says of undo files: a power cut may tear one, which is no damage."""
    done = subprocess.run([hosts.COMMAND, "check", "--json", data], capture_output=True, text=True,
                          env=hosts.environment(), check=False)
    return " ".join(f["code"] + ": " + f["detail"] for f in json.loads(done.stdout)["findings"]
                    if f["code"] == "undo-damaged")


def missing() -> str:
    """Why there can be no replay here, or ""."""
    if not shutil.which("strace"):
        return "strace is missing"
    tried = subprocess.run(["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "true"],
                           capture_output=True, text=True, check=False)
    return f"strace does not work here: {tried.stderr.strip()}" if tried.returncode else ""


def main(recording: str, seed: str, cut: str, model: str, place: str, target: str) -> None:
    disk, directory = Disk(model), Path(target)
    directory.mkdir()
    for e in pickle.loads(Path(recording).read_bytes())[:int(place) + 1]:
        disk.play(e)
    print(disk.crash(random_of(int(seed), int(cut)), directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
