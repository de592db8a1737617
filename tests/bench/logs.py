# SPDX-License-Identifier: MIT
"""What reading a long log takes, and what acts and ids cost an upsert.

    tests/bench/logs.py [--json] [--records N] [--pairs N]

First `log --stats`, `--sql`, `top` and `report` on a log of N records (ten million) that
build/bench/long_log makes, plain and compressed: seconds by the clock, of processors, and memory; all
of it is in the page cache. A machine that is busy shows in the first, not in the second.

Then upserts of Chroma in pairs that take turns: with the setting of the row, and without any acts
(CHROMASHIM_ACTS_SIZE=0). The ratio is that of each pair, of the time for the upserts, of the processor
time of the whole process, and of its system calls (strace, one pair).
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import BUILD, HOME, LIBRARY, ROOT, host

COMMAND, LONG_LOG = BUILD / "chromashim", BUILD / "bench" / "long_log"
PYTHON = ROOT / "build" / "venv" / "bin" / "python"
UPSERT = Path(__file__).with_name("upsert.py")
READERS = {
    "log --stats": ["log", "--stats"],
    "log --sql, by operation": ["log", "--sql", "SELECT op, count(*), sum(duration_ns) FROM ops GROUP BY op"],
    "log --sql, by path": ["log", "--sql", "SELECT path, count(*), sum(length) FROM ops GROUP BY path "
                           "ORDER BY 3 DESC LIMIT 10"],
    "log --sql, by minute": ["log", "--sql", "SELECT substr(time, 1, 16), count(*) FROM ops GROUP BY 1"],
    "top, first look": ["top", "--plain", "--count", "1", "--interval", "100ms"],
    "report": ["report", "--no-check", "-o", "/dev/null"],
}


def run(argv, **env):
    """Seconds, seconds of processors, KiB of memory, output."""
    begin = time.perf_counter()
    with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **env}) as child:
        output = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"logs: {argv} ended with {child.returncode}")
    return time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss, output


def readers(work, records):
    """A row for each, on the plain log and on the compressed one."""
    log = work / "long"
    log.mkdir()
    subprocess.run([LONG_LOG, log, str(records)], check=True, stdout=subprocess.DEVNULL)
    (log / "chroma.sqlite3").touch()
    for form in "plain", "compressed":
        if form == "compressed":
            subprocess.run([COMMAND, "log", "--compress", log], check=True, stdout=subprocess.DEVNULL)
        for name, words in READERS.items():
            best = min((run([COMMAND, *words, log]) for _ in range(3)), key=lambda r: r[1])
            yield {"work": name, "log": form, "records": records, "seconds": best[0],
                   "processor_seconds": best[1], "kibibytes": best[2]}
    shutil.rmtree(log)


def upsert(work, settings, tracer=()):
    """Seconds of the upserts, and of processors."""
    data = work / "upserts"
    env = {"CHROMASHIM_GUARD": "off", "CHROMASHIM_PREFLIGHT": "off", **settings}
    words = [*tracer, *(["-E", f"LD_PRELOAD={LIBRARY}"] if tracer else ["env", f"LD_PRELOAD={LIBRARY}"]),
             PYTHON, UPSERT, data, 1500, 384, 10]
    _, processor, _, output = run(words, **env)
    shutil.rmtree(data)
    return float(output), processor


def calls(work, settings):
    trace = work / "trace"
    upsert(work, settings, ("strace", "-f", "-c", "-U", "calls,name", "-o", trace))
    total = re.search(r"^\s*(\d+)\s+total", trace.read_text(), re.M)
    return int(total[1]) if total else 0


def costs(work, pairs):
    """Of acts, with each form of ids, against none."""
    without = {"CHROMASHIM_ACTS_SIZE": "0"}
    base = calls(work, without) if shutil.which("strace") else 0
    for name, settings in (("acts, no ids", {"CHROMASHIM_LOG_IDS": "off"}),
                           ("acts, ids as hashes", {"CHROMASHIM_LOG_IDS": "hash"}),
                           ("acts, ids as they are", {"CHROMASHIM_LOG_IDS": "on"})):
        wall, processor = [], []
        for n in range(pairs):
            order = [settings, without] if n % 2 else [without, settings]
            got = [upsert(work, each) for each in order]
            got = got if n % 2 else got[::-1]
            wall.append(got[0][0] / got[1][0])
            processor.append(got[0][1] / got[1][1])
        yield {"work": name, "pairs": pairs, "wall_ratio": statistics.median(wall),
               "processor_ratio": statistics.median(processor),
               "calls_ratio": calls(work, settings) / base if base else None}


def line(row):
    if "log" in row:
        return (f"{row['work']:<26}{row['log']:<12}{row['seconds']:>8.2f} s{row['processor_seconds']:>8.2f} s"
                f"{row['kibibytes'] / 1024:>8.0f} MiB")
    called = f"{row['calls_ratio']:>8.3f}" if row["calls_ratio"] else "       -"
    return f"{row['work']:<26}{row['wall_ratio']:>8.3f}{row['processor_ratio']:>8.3f}{called}  {row['pairs']} pairs"


def main():
    parser = argparse.ArgumentParser(prog="logs")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    rows = []
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, prefix="logs-") as work:
        for source in readers(Path(work), options.records), costs(Path(work), options.pairs):
            for row in source:
                rows.append(row)
                if not options.json:
                    print(line(row), flush=True)
    if options.json:
        json.dump({"host": host(), "rows": rows}, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
