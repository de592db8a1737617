# SPDX-License-Identifier: MIT
"""Kills real Chroma in its persists, for as long as one likes.

    tests/torture.py [N] [--host NAME] [--durability power|process] [--cuts C] [--pm2 P] [--moments S]
                     [--days D] [--wipes W] [--replicas R] [--no-pins] [--without] [--seed S]

N kills (1000) of each host that is installed, or of the one named, then C power cuts (N / 5) on ext4
and on XFS, as root, and as many from a recorded order of writes, and P cycles (50) of
stop, restart and kill -9 by pm2, S seconds (300) of load on each host any moment of which comes
back, D ordinary days (200) of each release of Chroma, of which no line needs an answer, W machines
(200) wiped under load that come back from their replica alone, R faults (40) of each kind of line
and place while replicas are sent, and a death and an I/O error at every call of a workload with
pins held. --without leaves the shim out: that is what Chroma alone makes of the same. The
exit status is 1 if anything broke; what did stays in a directory whose name is printed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "e2e"), str(Path(__file__).resolve().parent)]

# What is preloaded by hand starts no guardian.
os.environ.setdefault("CHROMASHIM_GUARD", "off")

import hosts  # noqa: E402
import kills  # noqa: E402
import pm2  # noqa: E402
import power  # noqa: E402
import replay  # noqa: E402


def installed(host: hosts.Host) -> bool:
    return all((hosts.BUILD / path).exists() for path in (host.needs, f"{host.driver}/bin/python"))


def tell(what: str, tally: power.Tally, seed: int) -> int:
    print(f"{what}: {tally}, seed {seed}")
    for text in tally.broken:
        print(f"  {text}")
    return len(tally.broken)


def cut_power(host: hosts.Host, options: argparse.Namespace) -> int:
    cuts = options.kills // 5 if options.cuts is None else options.cuts
    preload = "" if options.without else str(hosts.SHIM)
    ways = {f"{host.name} on {kind}":
            (power.missing(),
             lambda path, kind=kind: power.PowerCuts(host, path, preload, kind, options.seed))
            for kind in ("ext4", "xfs")}
    ways[f"{host.name}, recorded writes"] = (
        replay.missing(), lambda path: replay.Replay(host, path, preload, options.seed))
    broken = 0
    for what, (missing, harness) in ways.items() if cuts else ():
        if missing:
            print(f"{what}: no power cuts: {missing}")
            continue
        directory = Path(tempfile.mkdtemp(prefix=f"chromashim-power-{host.name}-"))
        found = tell(what, harness(directory).run(cuts), options.seed)
        if not found:  # else what it names is kept
            shutil.rmtree(directory)
        broken += found
    return broken


def cycle_pm2(count: int) -> int:
    """Stop, restart, reload and kill -9 by pm2 under load."""
    if not pm2.PM2.exists():
        print("pm2: not installed")
        return 0
    directory = Path(tempfile.mkdtemp(prefix="chromashim-pm2-"))
    manager = pm2.Pm2(directory / "chroma_data")
    begin = time.monotonic()
    try:
        manager.start()
        load = pm2.cycles(manager, count, 0.5)
        wrong = load.wrong()
    finally:
        manager.close()
    print(f"pm2: {count} cycles, {len(load.acknowledged)} acknowledged records compared, "
          f"{len(wrong)} wrong, {load.refused} calls refused; {time.monotonic() - begin:.0f} s")
    if wrong:
        print(f"  {wrong[:10]}, kept in {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def restart_late(count: int) -> int:
    """Restarts by pm2 of a service whose child needs 8 s to end."""
    if not pm2.PM2.exists():
        return 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chromashim-late-") as directory:
        said = pm2.late_restarts(Path(directory), count, 8)
    refused = said.count("another process works on")
    print(f"pm2: {count} restarts with a stop of 8 s, a snapshot at each: {refused} refused; "
          f"{time.monotonic() - begin:.0f} s")
    return refused


def kill_guardians(seconds: int) -> int:
    """A snapshot a second while the guardian is killed at random: as in the tests, for longer."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s",
                           str(hosts.ROOT / "tests/e2e/test_guardian.py"), "-k", "killed_under"],
                          env={**os.environ, "CHROMASHIM_GUARDIAN_SECONDS": str(seconds)},
                          check=False)
    return done.returncode != 0


def any_moment(seconds: int, seed: int) -> int:
    """Snapshots of a random load, each restored and compared with a model: as in the tests, for
    longer, and also on servers."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s",
                           str(hosts.ROOT / "tests/e2e/test_moments.py")],
                          env={**os.environ, "CHROMASHIM_MOMENTS_SECONDS": str(seconds),
                               "CHROMASHIM_MOMENTS_SEED": str(seed)}, check=False)
    return done.returncode != 0


def live_on(days: int) -> int:
    """Days with stops, restarts, containers, readers and upgrades: as in the tests, for longer."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s",
                           str(hosts.ROOT / "tests/e2e/test_ordinary_days.py")],
                          env={**os.environ, "CHROMASHIM_TEST_DAYS": str(days)}, check=False)
    return done.returncode != 0


def lose_machines(wipes: int) -> int:
    """Machines wiped under load, each restored from its replica alone."""
    done = subprocess.run([sys.executable, str(hosts.ROOT / "tests/e2e/wipes.py"), str(wipes), "10"],
                          check=False)
    return done.returncode != 0


def fail_replicas(rounds: int) -> int:
    """Lines and places that fail while replicas are sent: as in the tests, in so many ways each."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q",
                           str(hosts.ROOT / "tests/e2e/test_replica_faults.py"),
                           str(hosts.ROOT / "tests/e2e/test_replica_ways.py")],
                          env={**os.environ, "CHROMASHIM_REPLICA_FAULTS": str(rounds)}, check=False)
    return done.returncode != 0


def fail_persists() -> int:
    """Persists that die at every one of their steps, of which the tests take each third."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q",
                           str(hosts.ROOT / "tests/e2e/test_persist_faults.py")],
                          env={**os.environ, "CHROMASHIM_THOROUGH": "1"}, check=False)
    return done.returncode != 0


def fail_everywhere() -> int:
    """A death and an I/O error at every call of a workload with pins held: hours."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-s",
                           str(hosts.ROOT / "tests/e2e/test_pin_faults.py")],
                          env={**os.environ, "CHROMASHIM_PIN_FAULTS": "all"}, check=False)
    return done.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", nargs="?", type=int, default=1000)
    parser.add_argument("--host", choices=[host.name for host in hosts.HOSTS])
    parser.add_argument("--durability", choices=["power", "process"], default="power")
    parser.add_argument("--cuts", type=int)
    parser.add_argument("--pm2", type=int, default=50, help="cycles of pm2")
    parser.add_argument("--guardian", type=int, default=120, help="seconds of killing guardians")
    parser.add_argument("--moments", type=int, default=300,
                        help="seconds of load, of which any moment comes back")
    parser.add_argument("--days", type=int, default=200,
                        help="ordinary days of which no line needs an answer")
    parser.add_argument("--wipes", type=int, default=200,
                        help="machines lost, which come back from their replica")
    parser.add_argument("--replicas", type=int, default=40,
                        help="faults of each kind while replicas are sent")
    parser.add_argument("--pins", action=argparse.BooleanOptionalAction, default=True,
                        help="every call with pins held dies and fails, once each")
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    broken = 0
    for host in hosts.HOSTS:
        if (options.host or host.name) != host.name or not installed(host):
            continue
        directory = Path(tempfile.mkdtemp(prefix=f"chromashim-torture-{host.name}-"))
        begin = time.monotonic()
        with kills.Kills(host, directory, "" if options.without else str(hosts.SHIM),
                         options.durability, options.seed) as harness:
            tally = harness.run(options.kills)
        print(f"{host.name}: {tally}; {time.monotonic() - begin:.0f} s, seed {options.seed}")
        for text in tally.broken:
            print(f"  {text}")
        if tally.broken and not options.without:
            print(f"  kept in {directory}")
        else:
            shutil.rmtree(directory)
        broken += len(tally.broken)
        broken += 0 if host.server else cut_power(host, options)
    if options.pm2 and not options.without and not options.host:
        broken += cycle_pm2(options.pm2)
        broken += restart_late(options.pm2)
    if options.guardian and not options.without and not options.host:
        broken += kill_guardians(options.guardian)
    if options.moments and not options.without and not options.host:
        broken += any_moment(options.moments, options.seed)
    if options.days and not options.without and not options.host:
        broken += live_on(options.days)
    if options.wipes and not options.without and not options.host:
        broken += lose_machines(options.wipes)
    if options.replicas and not options.without and not options.host:
        broken += fail_replicas(options.replicas)
    if options.pins and not options.without and not options.host:
        broken += fail_everywhere() + fail_persists()
    return 1 if broken and not options.without else 0


if __name__ == "__main__":
    sys.exit(main())
