# SPDX-License-Identifier: MIT
"""What snapshots cost: how long the backend is held up, their size, restoring them, throughput.

    make bench-snapshots BENCH_ARGS="[--json] [--sizes 100,1000,5000] [--beside 220,2000]
                                     [--rounds N] [--pairs N] [--only beside]"

A real backend upserts all the time; beside it a snapshot is taken, or one of the usual ways of
copying the directory runs, in turns. "Held up" is by how much the longest upsert in that time was
longer than the median of those before; "pin" is what chromashim itself measured. Medians of the
rounds. A size for which there is no room is left out, and said.

"Beside": the same directory (vectors of 768 dimensions) by chromashim and by restic (apt-get install
restic), cp and tar | zstd, in turns: the first snapshot, the next one while a backend has changed
300 records, restoring. Ratios within one round, and their medians.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import bench

COMMAND = bench.BUILD / "chromashim"
BUSY = bench.ROOT / "tests/bench/busy.py"
UPSERT = bench.ROOT / "tests/bench/upsert.py"
CALM = 1.5  # seconds before each
PATIENCE = 120
MB = 1 << 20
HOURS = 10
SLOT = struct.Struct("=IiQQIIQQQQ")  # of include/chromashim_pin.h, up to held_ns
SLOTS_AT, SLOT_SIZE, HELD = 4096, 480, (2, 3)
GOAL_PIN, GOAL_THROUGHPUT = 1.0, 0.97  # milliseconds, ratio
GOAL_FIRST, GOAL_NEXT, GOAL_RESTORE, GOAL_MEMORY = 1.0, 150, 1.5, 64  # ratio, ms, ratio, MiB
BIG = bench.ROOT / "tests/bench/big_directory.py"
CHANGED = 300
CHANGER = """
import sys, chromadb, numpy as np
from chromadb.config import Settings
c = chromadb.PersistentClient(sys.argv[1], settings=Settings(anonymized_telemetry=False))
c = c.get_collection("big")
ids, rng = c.get(limit=100_000, include=[])["ids"], np.random.default_rng(1)
c.query(query_embeddings=rng.random((1, 768), dtype=np.float32), n_results=1)
print("ready", flush=True)
for n, line in enumerate(sys.stdin):
    if "new" in line:
        some = [f"new-{n}-{k}" for k in range(%d)]
    else:
        some = [ids[k] for k in rng.choice(len(ids), %d, replace=False)]
    c.upsert(ids=some, embeddings=rng.random((len(some), 768), dtype=np.float32),
             documents=["a few words in it"] * len(some))
    print("done", flush=True)
""" % (CHANGED, CHANGED)


class Backend:
    """busy.py under the shim, and its upserts."""

    def __init__(self, data, megabytes, pause=0.0):
        env = {**os.environ, "LD_PRELOAD": str(bench.LIBRARY), "CHROMASHIM_GUARD": "off"}
        self.child = subprocess.Popen([sys.executable, str(BUSY), str(data), str(megabytes), "384",
                                       str(pause)],
                                      env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)
        if self.child.stdout.readline() != "ready\n":
            sys.exit("bench: the backend did not start")
        self.upserts = []
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.child.stdout:
            self.upserts.append(tuple(map(float, line.split())))

    def around(self, work):
        """Runs it. Returns the seconds that it took, and by how many ms upserts were longer."""
        time.sleep(CALM)
        usual = [end - begin for begin, end in self.upserts[-20:]]
        began = time.monotonic()
        work()
        took = time.monotonic() - began
        time.sleep(0.3)
        met = [end - begin for begin, end in list(self.upserts)
               if end > began and begin < began + took]
        held = max(met, default=took) - statistics.median(usual or [0])
        return took, max(0.0, held) * 1000

    def stop(self):
        self.child.stdin.close()
        self.child.wait(60)


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def insist(*words):
    """Until it gets through: SQLite's own tools give up when the backend is busy."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return run(*words)
        except RuntimeError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise


def size_of(path):
    return sum(p.stat().st_blocks * 512 for p in path.rglob("*") if p.is_file())


def snapshots(data):
    done = subprocess.run([str(COMMAND), "snapshot", "list", str(data), "--json"],
                          capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else []


def pin_milliseconds(data):
    """What the newest pin says of itself; None if it was copied without one."""
    try:
        state = (data / ".chromashim/pins/state").read_bytes()
    except FileNotFoundError:
        return None
    slots = [SLOT.unpack_from(state, at) for at in range(SLOTS_AT, len(state), SLOT_SIZE)]
    pins = [(slot[2], slot[-1]) for slot in slots if slot[0] in HELD]
    return max(pins)[1] / 1e6 if pins else None


def ways(data, out):
    """name -> what makes the copy."""
    sqlite = ["sqlite3", f"file:{data}/chroma.sqlite3?mode=ro", ".timeout 60000"]
    known = {
        "chromashim": lambda: run(COMMAND, "snapshot", "create", data, "--no-wait", "-q"),
        "sqlite3 .backup": lambda: insist(*sqlite, f".backup {out}/copy.db"),
        "VACUUM INTO": lambda: insist(*sqlite, f"VACUUM INTO '{out}/copy.db'"),
        "tar -czf": lambda: subprocess.run(
            ["tar", "-czf", f"{out}/copy.tgz", "--exclude=.chromashim", "-C", data, "."],
            capture_output=True, check=False),
    }
    if subprocess.run(["stat", "-f", "-c", "%T", data], capture_output=True, text=True,
                      check=False).stdout.strip() in ("xfs", "btrfs"):
        known["cp --reflink"] = lambda: run("cp", "-a", "--reflink=always", data, f"{out}/copy")
    return known


def clear(out):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)


def held_up(home, megabytes, rounds, only=None):
    """Lines: way, seconds, ms held up, ms of the pin, bytes."""
    data, out = home / "data", home / "out"
    backend = Backend(data, megabytes)
    found = {}
    try:
        for _ in range(rounds):
            for name, work in ways(data, out).items():
                if only and name not in only:
                    continue
                clear(out)
                try:
                    took, held = backend.around(work)
                except RuntimeError as error:
                    print(f"  {megabytes:>6} MB  {name}: {error}", flush=True)
                    continue
                pin = pin_milliseconds(data) if name == "chromashim" else None
                found.setdefault(name, []).append((took, held, pin, size_of(out)))
                if name == "chromashim":
                    run(COMMAND, "guard", data, "--once", "-q")
    finally:
        backend.stop()
    for name, values in found.items():
        took, held, pin, size = zip(*values)
        yield {"way": name, "megabytes": megabytes, "seconds": statistics.median(took),
               "held_up_ms": statistics.median(held), "bytes": statistics.median(size),
               "pin_ms": statistics.median(pin) if all(pin) else None}


def restore(home):
    """The newest snapshot, beside a plain copy of the same."""
    data, out = home / "data", home / "out"
    clear(out)
    size = (data / "chroma.sqlite3").stat().st_size
    for name, words in (
            ("chromashim restore", [COMMAND, "restore", data, "--to", "latest", "-o", out / "r", "-y"]),
            ("cp -r, sync", ["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', out / "r",
                             out / "copy"])):
        began = time.monotonic()
        run(*words)
        yield {"way": name, "bytes": size, "seconds": time.monotonic() - began}


def growth(home):
    """Ten snapshots, some upserts in between, as an hour of light use makes them."""
    data = home / "hours"
    shutil.rmtree(data, ignore_errors=True)
    backend, sizes, tars = Backend(data, 100, 0.5), [], 0
    try:
        for _ in range(HOURS):
            count = len(backend.upserts)
            while len(backend.upserts) < count + 5:
                time.sleep(0.05)
            run(COMMAND, "snapshot", "create", data, "-q", "--no-verify")
            sizes.append(size_of(data / ".chromashim/snapshots"))
            clear(home / "out")
            ways(data, home / "out")["tar -czf"]()
            tars += size_of(home / "out")
    finally:
        backend.stop()
    return {"first": sizes[0], "all": sizes[-1], "tars": tars,
            "data": size_of(data) - size_of(data / ".chromashim")}


@contextlib.contextmanager
def everything_on(data):
    """A guardian beside it, and one snapshot that it hydrates and verifies."""
    over, guards = threading.Event(), []

    def work():
        while not (data / "chroma.sqlite3").exists() and not over.wait(0.05):
            pass
        over.wait(1)
        guards.append(subprocess.Popen([COMMAND, "guard", data, "-q"], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL))
        subprocess.run([COMMAND, "snapshot", "create", data, "--no-wait", "-q"],
                       capture_output=True, check=False)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for guard in guards:
            guard.terminate()
            guard.wait()


def throughput(home, pairs):
    """Ratios of alternating pairs, with everything on to without the shim."""
    argv, ratios = [sys.executable, UPSERT, home / "upsert", 12000, 384, 100], []
    for number in range(pairs):
        seconds = {}
        for shimmed in (False, True) if number % 2 else (True, False):
            shutil.rmtree(home / "upsert", ignore_errors=True)
            with everything_on(home / "upsert") if shimmed else contextlib.nullcontext():
                seconds[shimmed] = (bench.SHIM if shimmed else bench.PLAIN).run(argv)
        ratios.append(seconds[False] / seconds[True])
    low, middle, high = bench.quartiles(ratios)
    return {"ratio": middle, "ratio_low": low, "ratio_high": high, "pairs": pairs}


@contextlib.contextmanager
def xfs(home):
    """A small XFS that can clone files, or why there is none."""
    image, at = home / "xfs.img", home / "xfs"
    at.mkdir(parents=True, exist_ok=True)
    try:
        with open(image, "wb") as file:
            file.truncate(2 << 30)
        subprocess.run(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(image)], check=True,
                       capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(at)], check=True,
                       capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  cp --reflink is left out: no XFS here ({error})")
        yield None
        return
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=False)
        image.unlink()


def measured(*words, **kwargs):
    """(seconds, MiB)"""
    begin = time.monotonic()
    child = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE, **kwargs)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{words[:3]}: {said.decode(errors='replace')}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def once_beside(data, out, found):
    """One round: each way once, and what it took into `found`."""
    store, restic = data / ".chromashim", ["restic", "-q", "-r", out / "restic"]
    env = {**os.environ, "RESTIC_PASSWORD": "x"}

    def note(name, *words, **kwargs):
        os.sync()
        took = measured(*words, **kwargs)
        found.setdefault(name, []).append(took)

    clear(out)
    shutil.rmtree(store, ignore_errors=True)
    has_restic = shutil.which("restic") is not None
    if has_restic:
        measured(*restic, "init", env=env)
        note("restic first", *restic, "backup", data, "--exclude", store, env=env)
    note("first", COMMAND, "snapshot", "create", data, "--no-verify", "-q")
    note("tar | zstd", "sh", "-c", 'tar -c --exclude=.chromashim -C "$0" . | zstd -q -1 -T0 >"$1"'
         ' && sync "$1"', data, out / "all.tar.zst")
    note("verify", COMMAND, "snapshot", "verify", "latest", data, "-q")
    note("restore", COMMAND, "restore", data, "--to", "latest", "-o", out / "restored", "-y", "-q")
    note("cp", "sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', out / "restored", out / "copy")
    if has_restic:
        note("restic restore", *restic, "restore", "latest", "--target", out / "r", env=env)


def next_beside(data, found):
    """A backend changes records, with a guardian that has a snapshot each nine minutes."""
    env = {**os.environ, "CHROMASHIM_GUARD": "off", "CHROMASHIM_EVERY": "9m"}
    shutil.rmtree(data / ".chromashim", ignore_errors=True)
    backend = subprocess.Popen([sys.executable, "-c", CHANGER, str(data)], text=True, bufsize=1,
                               env={**env, "LD_PRELOAD": str(bench.LIBRARY)},
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    guard = None
    try:
        if backend.stdout.readline() != "ready\n":
            sys.exit("bench: the backend did not start")
        guard = subprocess.Popen([str(COMMAND), "guard", str(data), "-q"], env=env)
        while not any(s["state"] in ("complete", "verified") for s in snapshots(data)):
            time.sleep(0.2)
        os.sync()
        for what in ("new", "changed"):
            print(what, file=backend.stdin, flush=True)
            backend.stdout.readline()
            os.sync()
            found.setdefault(f"next, {what}", []).append(
                measured(COMMAND, "snapshot", "create", data, "--no-verify", "-q"))
    finally:
        if guard:
            guard.terminate()
            guard.wait()
        backend.stdin.close()
        backend.wait()


def beside(home, megabytes, rounds):
    data, out, found = home / "data", home / "out", {}
    clear(home)
    subprocess.run([sys.executable, str(BIG), str(data), str(megabytes), "768", "8"], check=True)
    for _ in range(rounds):
        once_beside(data, out, found)
        next_beside(data, found)
    for name, values in found.items():
        seconds = [v[0] for v in values]
        line = {"way": name, "megabytes": megabytes, "seconds": statistics.median(seconds),
                "lowest": min(seconds), "highest": max(seconds),
                "mebibytes": max(v[1] for v in values)}
        print(f"  {megabytes:>6} MB  {name:<18}{line['seconds']:>9.3f} s ({line['lowest']:.3f} … "
              f"{line['highest']:.3f})  {line['mebibytes']:.0f} MiB", flush=True)
        yield line
    for name, other, goal in (("first", "restic first", GOAL_FIRST), ("restore", "cp", GOAL_RESTORE)):
        if other in found:
            ratios = [a[0] / b[0] for a, b in zip(found[name], found[other])]
            print(f"  {megabytes:>6} MB  {name} to {other}: {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f} … {max(ratios):.2f}), goal at most {goal}", flush=True)
            yield {"way": f"{name} to {other}", "megabytes": megabytes,
                   "ratio": statistics.median(ratios)}
    print(f"  {megabytes:>6} MB  goals: next at most {GOAL_NEXT} ms, memory {GOAL_MEMORY} MiB")


def show(line):
    pin = f"{line['pin_ms']:.3f} ms" if line["pin_ms"] is not None else ""
    print(f"  {line['megabytes']:>6} MB  {line['way']:<18}{line['seconds']:>9.3f} s"
          f"{line['held_up_ms']:>11.1f} ms   {pin:<12}", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="bench-snapshots")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    parser.add_argument("--sizes", default="100,1000,5000", help="megabytes, with commas between")
    parser.add_argument("--beside", default="220,2000", help="likewise, beside restic")
    parser.add_argument("--only", choices=["beside"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = bench.HOME / "snapshots"
    lines, result = [], {"schema_version": 1}
    try:
        for megabytes in map(int, filter(None, options.beside.split(","))):
            lines += beside(home, megabytes, options.rounds)
        if options.only:
            return
        print(f"  {'size':>9}  {'way':<18}{'takes':>11}{'held up':>14}   pin")
        for megabytes in map(int, options.sizes.split(",")):
            clear(home)
            if shutil.disk_usage(home).free < 4 * megabytes * MB:
                print(f"  {megabytes:>6} MB  left out: no room")
                continue
            for line in held_up(home, megabytes, options.rounds):
                show(line)
                lines.append(line)
            for line in restore(home):
                print(f"  {megabytes:>6} MB  {line['way']:<18}{line['seconds']:>9.3f} s"
                      f"{line['bytes'] / MB / line['seconds']:>9.0f} MB/s", flush=True)
                lines.append(line)
        clear(home)
        with xfs(home) as at:
            for line in held_up(at, 500, options.rounds, ("chromashim", "cp --reflink")) \
                    if at else ():
                show({**line, "way": f"{line['way']} (XFS)"})
                lines.append(line)
        result["growth"] = growth(home)
        g = result["growth"]
        print(f"  {HOURS} snapshots of {g['data'] / MB:.0f} MB: {g['all'] / MB:.0f} MB (the first "
              f"{g['first'] / MB:.0f}); as many tar -czf: {g['tars'] / MB:.0f} MB")
        result["throughput"] = t = throughput(home, options.pairs)
        print(f"  upserts with everything on to without the shim: {t['ratio']:.3f} "
              f"({t['ratio_low']:.3f} … {t['ratio_high']:.3f}), goal at least {GOAL_THROUGHPUT}")
        pins = [line["pin_ms"] for line in lines if line.get("pin_ms") is not None]
        if pins:
            print(f"  a pin takes {min(pins):.3f} to {max(pins):.3f} ms, goal at most {GOAL_PIN}")
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if options.json:
        print(json.dumps({**result, "lines": lines, "host": bench.host()}))


if __name__ == "__main__":
    main()
