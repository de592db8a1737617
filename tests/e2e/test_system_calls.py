# SPDX-License-Identifier: MIT
"""How many system calls more fixed pieces of work make under the library: upper bounds, so that a
regression shows at once, whatever else the machine is doing."""

from concurrent.futures import ThreadPoolExecutor

import counted
import hosts

SIZES = {"hundreds": 1100, "single": 12, "collections": 5}
# About a third above what was counted, for each upsert of one record (in which Chroma asks for some
# 75 locks), each collection, and all hundreds with the one persist among them. write: threads of the
# engine wake each other, too. statx: the snapshot of the start is still pinned, for want of a
# guardian. openat, readlinkat: what is known for a second only, and strace is slow.
MOST = {
    "hundreds": {"clone3": 6, "close": 110, "fallocate": 4, "fdatasync": 9, "fcntl": 250,
                 "fstat": 120, "fstatfs": 6, "fsync": 8,
                 "getdents64": 6, "geteuid": 18, "getpid": 130, "gettid": 10, "lstat": 20,
                 "mmap": 30, "munmap": 15, "newfstatat": 260, "openat": 115, "prctl": 8,
                 "pread64": 1600, "prlimit64": 30, "pwrite64": 2600, "pwritev": 24,
                 "readlinkat": 45, "renameat2": 12, "rseq": 6, "rt_sigaction": 4,
                 "rt_sigprocmask": 700, "set_robust_list": 6, "stat": 50, "statfs": 2,
                 "statx": 2500, "sync_file_range": 24},
    "single": {"close": 3, "fcntl": 20, "fstat": 6, "getpid": 9, "newfstatat": 14, "openat": 3,
               "pread64": 20, "pwrite64": 14, "readlinkat": 3, "rt_sigprocmask": 18, "statfs": 1,
               "statx": 50, "write": 14},
    "collections": {"close": 24, "fcntl": 28, "fstat": 34, "geteuid": 7, "getpid": 28, "gettid": 1,
                    "lseek": 8, "mmap": 8, "munmap": 6, "newfstatat": 88, "openat": 26, "prctl": 1,
                    "pread64": 25, "prlimit64": 13, "pwrite64": 40, "readlinkat": 7,
                    "renameat2": 5, "rt_sigaction": 2, "rt_sigprocmask": 30, "statfs": 2,
                    "statx": 76},
}
UNITS = {**SIZES, "hundreds": 1}


def counts(where, shim):
    """Without and with the library."""
    env = hosts.environment({"CHROMASHIM_GUARD": "off", "CHROMASHIM_DURABILITY": "power"})
    where.mkdir()

    def count(directory, preload):
        directory.mkdir()
        return counted.count(hosts.python("venv"), directory, preload, SIZES.values(), env)

    with ThreadPoolExecutor() as both:
        plain, under = both.map(count, (where / "plain", where / "data"), ("", shim))
    assert plain["single"]["fcntl"] > 20 * SIZES["single"], plain  # the work was counted
    assert plain["hundreds"]["lseek"] > 1000, plain  # and there was a persist
    return plain, under


def test_counts(shim, strace, tmp_path):
    """Which of its connections Chroma takes, and so which pages SQLite reads again, differs from run to
    run, and so does which memory a path lies in. What the library itself costs is there each time:
    the least with it, over up to five runs, against the most without."""
    hosts.BY_NAME["python"].require()
    most, least, over = {}, {}, {}
    for attempt in range(5):
        plain, under = counts(tmp_path / str(attempt), shim)
        most = {work: plain[work] | most.get(work, plain[work]) for work in MOST}
        least = {work: under[work] & least.get(work, under[work]) for work in MOST}
        more = {work: {name: (n - most[work][name]) / UNITS[work] for name, n in least[work].items()}
                for work in MOST}
        over = {work: {name: n for name, n in calls.items() if n > MOST[work].get(name, 0.5)}
                for work, calls in more.items()}
        if not any(over.values()):
            break
    assert over == {work: {} for work in MOST}
