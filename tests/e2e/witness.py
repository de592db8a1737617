# SPDX-License-Identifier: MIT
"""A second opinion on what a program did to a directory: strace, beside the op log.

run() runs a program under strace; recorded() reads the op log. Both sides come out as Events
(tracer.py); differences() compares them one by one.
"""

import difflib
import os
import signal
import subprocess
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import oplog_reader
from tracer import Event, Root, Strace, Threads, command

# ---- reading the op log ----

KINDS = {
    "openat": "open", "creat": "open", "mkstemp": "open", "open_by_handle_at": "open",
    "pwrite": "write", "writev": "write", "pwritev": "write", "ioctl.ficlone": "clone",
    "ftruncate": "truncate", "renameat": "rename", "renameat2": "rename", "mkdirat": "mkdir",
    "linkat": "link", "symlinkat": "symlink", "mknodat": "mknod",
}
SAME = """open write sendfile copy_file_range splice aio_write truncate fallocate fsync fdatasync
    sync_file_range syncfs msync mmap rename unlink rmdir mkdir link symlink mknod chmod chown utime
    setxattr removexattr lock flock""".split()
KINDS.update({name: name for name in SAME})
WITH_OFFSET = {"write", "copy_file_range", "splice", "fallocate", "sync_file_range", "mmap", "lock"}
WITH_LENGTH = WITH_OFFSET | {"sendfile", "truncate", "msync"}
AT_REMOVEDIR = 0x200
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
LOCK_TYPES = ("read", "write", "unlock")


def log_event(record: dict) -> Optional[Event]:
    """The event of a record, None if it stands for no file-changing call."""
    kind = KINDS.get(record["op"])
    if record["op"] == "unlinkat":
        kind = "rmdir" if record["length"] & AT_REMOVEDIR else "unlink"
    if kind is None or kind == "open" and record["op"] not in ("creat", "mkstemp") and not record["arg"] & WRITING:
        return None
    return Event(
        kind,
        record["path"] or "",
        (record["path2"] or "") if kind in ("rename", "link") else "",
        offset=record["offset"] if kind in WITH_OFFSET and record["offset"] >= 0 else None,
        length=record["length"] if kind in WITH_LENGTH else None,
        detail=LOCK_TYPES[record["arg"] & 0xff] if kind == "lock" else None,
        result=record["result"],
        unfinished=record["in_flight"])


@dataclass
class Log:
    records: list[dict]
    threads: Threads
    problems: list

    def ops(self) -> set[str]:
        return {record["op"] for record in self.records}


def recorded(directory: Path) -> Log:
    """What the op log of the directory says."""
    problems: list = []
    records = list(oplog_reader.read_store(directory, problems))
    # Segments of a process follow each other; clocks are anchored anew in each.
    records.sort(key=lambda r: (os.path.basename(r["segment"]), r["time"], r["slot"]))
    threads: Threads = defaultdict(list)
    for record in records:
        event = log_event(record)
        if event is not None:
            threads[record["tid"]].append(event)
    return Log(records, threads, problems)


# ---- comparing ----

LOCK_KINDS = {"lock", "flock"}
RESERVED = 0x40000001


def without_results_of_maps(event: Event) -> Event:
    return replace(event, result=None) if event.kind == "mmap" and (event.result or 0) >= 0 else event


def without_the_fence(event: Event) -> list[Event]:
    """The shim keeps SQLite's RESERVED byte between transactions: it unlocks around it. So no side
    says anything of unlocking that byte."""
    if event.detail != "unlock" or event.offset is None or not event.path.endswith("chroma.sqlite3"):
        return [event]
    end = event.offset + event.length if event.length else None
    if event.offset > RESERVED or end is not None and end <= RESERVED:
        return [event]
    parts = []
    if event.offset < RESERVED:
        parts.append(replace(event, length=RESERVED - event.offset))
    if end is None or end > RESERVED + 1:
        parts.append(replace(event, offset=RESERVED + 1,
                             length=end - RESERVED - 1 if end is not None else 0))
    return parts


def side(threads: Threads, locks: bool) -> Threads:
    out = {}
    for tid, events in threads.items():
        kept = [without_results_of_maps(part) for e in events if locks or e.kind not in LOCK_KINDS
                for part in without_the_fence(e)]
        if kept:
            out[tid] = kept
    return out


def explain(tid: int, seen: list[Event], logged: list[Event]) -> list[str]:
    def text(event):
        return f"{event.kind} {event.path} {event.second}"

    matcher = difflib.SequenceMatcher(None, [text(e) for e in seen], [text(e) for e in logged],
                                      autojunk=False)
    lines = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            lines += [f"thread {tid}, call {a + i}: {e} was recorded as {logged[c + i]}"
                      for i, e in enumerate(seen[a:b]) if not e.agrees(logged[c + i])]
            continue
        lines += [f"thread {tid}, call {a + i}: not recorded: {e}" for i, e in enumerate(seen[a:b])]
        lines += [f"thread {tid}, record {c + i}: did not happen: {e}"
                  for i, e in enumerate(logged[c:d])]
    return lines


def differences(seen: Threads, logged: Threads, locks: bool = True, ordered: bool = True) -> list[str]:
    """What is in one and not in the other, one line each. Empty: they agree.

    locks=False leaves record locks and flock out: the shim may ask for another lock than its
    caller. ordered=False is for signal handlers: their calls come between a record and its call.
    """
    seen, logged = side(seen, locks), side(logged, locks)
    lines = []
    for tid in sorted(set(seen) | set(logged)):
        a, b = seen.get(tid, []), logged.get(tid, [])
        if not ordered:
            a, b = sorted(a, key=str), sorted(b, key=str)
        if len(a) != len(b) or not all(x.agrees(y) for x, y in zip(a, b)):
            lines += explain(tid, a, b) or [f"thread {tid}: order differs"]
    return lines


def differences_after_kill(seen: Threads, logged: Threads, locks: bool = True) -> list[str]:
    """As differences(), when all was killed: each thread may have had one call in flight.

    A record is claimed before its call and finished after it, so the last call of a thread may
    be seen done and recorded as in flight, or recorded as in flight and not seen at all.
    """
    seen, logged = side(seen, locks), side(logged, locks)
    lines = []
    for tid in sorted(set(seen) | set(logged)):
        a, b = seen.get(tid, []), logged.get(tid, [])
        done = [e for e in b if not e.unfinished]
        flying = [e for e in b if e.unfinished]
        # One record; it is two events where an unlocking goes around the fence.
        if flying and (b[-len(flying):] != flying or len({e.kind for e in flying}) > 1 or
                       len(flying) > (2 if flying[0].detail == "unlock" else 1)):
            lines.append(f"thread {tid}: {len(flying)} calls in flight: {'; '.join(map(str, flying))}")
        sure = [e for e in a if not e.unfinished]
        late = sure[len(done):]
        if len(late) <= len(flying) and all(x.agrees(y) for x, y in zip(late, flying)):
            del sure[len(done):]
        if len(sure) != len(done) or not all(x.agrees(y) for x, y in zip(sure, done)):
            # A call that was cut off by the kill may still have been finished and recorded.
            if len(a) == len(done) and all(x.agrees(y) for x, y in zip(a, done)):
                continue
            lines += explain(tid, sure, done)
    return lines


# ---- all of it together ----


@dataclass
class Testimony:
    """A program's run: how it ended, what strace saw, what was recorded."""

    status: int
    output: str
    errors: str
    strace: Strace
    log: Log

    def differences(self, **how) -> list[str]:
        return differences(self.strace.threads, self.log.threads, **how)

    def check(self, at_least: int = 1, **how) -> "Testimony":
        """Both agree, and there was something to agree on."""
        found = self.differences(**how)
        assert not found, f"{len(found)} differences:\n" + "\n".join(found[:40])
        assert not self.log.problems
        total = sum(map(len, self.strace.threads.values()))
        assert total >= at_least, f"only {total} calls on the directory"
        return self

    def kinds(self) -> set[str]:
        return {e.kind for events in self.strace.threads.values() for e in events}


def run(argv: list, directory: Path, work: Path, preload: str, env: Optional[dict] = None,
        cwd: Optional[Path] = None, timeout: float = 120) -> Testimony:
    """Runs a program under strace and the shim; directory is the protected one."""
    prefix = work / "strace"
    for old in work.glob("strace.*"):
        old.unlink()
    with subprocess.Popen(command(argv, prefix, preload, env), cwd=cwd, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as child:
        try:
            output, errors = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            output, errors = child.communicate()
            raise AssertionError(f"{argv} did not end in {timeout} s\n{output}\n{errors}") from None
    strace = Strace(Root(directory), str(cwd or os.getcwd())).read(prefix)
    return Testimony(child.returncode, output, errors, strace, recorded(directory))
