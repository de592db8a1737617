# SPDX-License-Identifier: MIT
"""Kills real Chroma in its persists, for as long as one likes.

    tests/torture.py [N] [--host NAME] [--durability power|process] [--cuts C] [--without] [--seed S]

N kills (1000) of each host that is installed, or of the one named, then C power cuts (N / 5) on ext4
and on XFS, as root. --without leaves the shim out: that is what Chroma alone makes of the same. The
exit status is 1 if anything broke; what did stays in a directory whose name is printed.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent / "e2e"), str(Path(__file__).resolve().parent)]

import hosts  # noqa: E402
import kills  # noqa: E402
import power  # noqa: E402


def installed(host: hosts.Host) -> bool:
    return all((hosts.BUILD / path).exists() for path in (host.needs, f"{host.driver}/bin/python"))


def cut_power(host: hosts.Host, options: argparse.Namespace) -> int:
    cuts = options.kills // 5 if options.cuts is None else options.cuts
    if cuts and power.missing():
        print(f"no power cuts: {power.missing()}")
        return 0
    broken = 0
    for kind in ("ext4", "xfs") if cuts else ():
        with tempfile.TemporaryDirectory(prefix=f"chromashim-power-{host.name}-") as directory:
            harness = power.PowerCuts(host, Path(directory),
                                      "" if options.without else str(hosts.SHIM), kind,
                                      options.seed)
            tally = harness.run(cuts)
        print(f"{host.name} on {kind}: {tally}, seed {options.seed}")
        for text in tally.broken:
            print(f"  {text}")
        broken += len(tally.broken)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", nargs="?", type=int, default=1000)
    parser.add_argument("--host", choices=list(hosts.BY_NAME))
    parser.add_argument("--durability", choices=["power", "process"], default="power")
    parser.add_argument("--cuts", type=int)
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
    return 1 if broken and not options.without else 0


if __name__ == "__main__":
    sys.exit(main())
