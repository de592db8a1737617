# SPDX-License-Identifier: MIT
"""What strace says that a program did to a directory.

command() is the command line that runs a program under strace; Strace reads what strace wrote, as
Events, sorted by thread and, within a thread, by time.

What strace sees of the shim's own work (its store, /proc) is left out by path. Calls are given by
what they do, not by how they are spelled: open(2) and openat(2) are both `open`.
"""

import errno
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Iterable, Optional

STORE = ".chromashim"
HIDDEN = 512  # the shim's descriptors are at and above this number, no host's are
ANY = "*"  # a path that is not known

# Calls that change bytes, length, names, attributes or locks; the rest of the list is needed to
# understand those.
TRACED = """
    open openat openat2 creat open_by_handle_at
    write pwrite64 writev pwritev pwritev2 sendfile copy_file_range splice ioctl
    ftruncate truncate fallocate fsync fdatasync sync_file_range syncfs msync mmap
    rename renameat renameat2 unlink unlinkat rmdir mkdir mkdirat link linkat symlink symlinkat
    mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat
    utime utimes futimesat utimensat setxattr lsetxattr fsetxattr
    removexattr lremovexattr fremovexattr fcntl flock dup dup2 dup3
    lseek read readv chdir fchdir clone clone3 fork vfork
""".split()


@dataclass(frozen=True)
class Event:
    """One call. None stands for "not known on this side" and equals everything."""

    kind: str
    path: str  # relative to the directory, "." for itself
    second: str = ""  # the other name of rename, link and symlink
    offset: Optional[int] = None
    length: Optional[int] = None
    detail: Optional[str] = None  # type of a lock
    result: Optional[int] = None  # or -errno
    unfinished: bool = False

    def __str__(self) -> str:
        words = [self.kind, self.path]
        if self.second:
            words.append(f"-> {self.second}")
        for name in ("detail", "offset", "length"):
            value = getattr(self, name)
            if value is not None:
                words.append(f"{name}={value}")
        if self.unfinished:
            words.append("(unfinished)")
        elif self.result is not None:
            words.append(f"= {errno_name(self.result)}")
        return " ".join(words)

    def agrees(self, other: "Event") -> bool:
        return self.kind == other.kind and self.second == other.second and \
            (self.path == other.path or ANY in (self.path, other.path)) and \
            all(a is None or b is None or a == b
                for a, b in ((self.offset, other.offset), (self.length, other.length),
                             (self.detail, other.detail), (self.result, other.result)))


def errno_name(result: int) -> str:
    return errno.errorcode.get(-result, str(result)) if result < 0 else str(result)


Threads = dict[int, list[Event]]

# ---- running under strace ----


def command(argv: list[str], output: Path, preload: str = "", env: Optional[dict] = None,
            kill_on_exit: bool = False) -> list[str]:
    """The command line that runs argv under strace. strace itself is not shimmed."""
    words = ["strace", "-ff", "-y", "-v", "-s", "0", "--seccomp-bpf", "-o", str(output),
             "-e", "trace=" + ",".join("?" + name for name in TRACED),
             "-e", "signal=none"]
    if kill_on_exit:
        words.append("--kill-on-exit")
    settings = dict(env or {})
    if preload:
        settings["LD_PRELOAD"] = preload
    for name, value in settings.items():
        words += ["-E", f"{name}={value}"]
    return words + ["--"] + [str(a) for a in argv]


def tracees(strace_pid: int) -> list[int]:
    """The processes that strace has started, oldest first."""
    path = Path(f"/proc/{strace_pid}/task/{strace_pid}/children")
    return [int(pid) for pid in path.read_text().split()]


# ---- reading strace ----

CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\w+|\?)(?:<(.*?)>)?(?:\(deleted\))?(?: (E[A-Z0-9]+))?")
FD = re.compile(r"(-?\d+|AT_FDCWD)(?:<(.*?)>)?(?:\(deleted\))?$", re.S)
PLAIN_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\.\.\.)?$', re.S)
OPENERS = {"(": ")", "[": "]", "{": "}"}


def split_arguments(text: str) -> list[str]:
    """Splits at the commas that are not within brackets, quotes or <the path of a descriptor>."""
    parts, depth, start, i = [], [], 0, 0
    while i < len(text):
        c = text[i]
        if c == '"':
            i += 1
            while i < len(text) and text[i] != '"':
                i += 2 if text[i] == "\\" else 1
        elif c == "<" and text[i:i + 2] != "<<" and i and (text[i - 1].isdigit() or
                                                           text[i - 1] == "D"):
            i = text.find(">", i)
            if i < 0:
                break
        elif text[i:i + 2] == "<<":
            i += 1
        elif c in OPENERS:
            depth.append(OPENERS[c])
        elif depth and c == depth[-1]:
            depth.pop()
        elif c == "," and not depth:
            parts.append(text[start:i].strip())
            start = i + 1
        i += 1
    parts.append(text[start:].strip())
    return parts


def plain(text: str) -> str:
    """Undoes strace's escapes."""
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1").decode(
        errors="surrogateescape")


def unquote(text: str) -> Optional[str]:
    match = PLAIN_PATH.match(text)
    return plain(match[1]) if match else None


def number(text: str) -> int:
    """A number as strace prints it; products and sums of shifts do not occur where it is used."""
    return int(text, 0) if not re.fullmatch(r"0[0-7]+", text) else int(text, 8)


@dataclass
class Root:
    """The protected directory, and how paths lead to it."""

    directory: Path

    def __post_init__(self) -> None:
        self.real = os.path.realpath(self.directory)

    def relative(self, absolute: Optional[str]) -> Optional[str]:
        """The path within the directory; None if it is not in it, or in the store."""
        if absolute is None or not absolute.startswith("/"):
            return None
        head, tail = os.path.split(os.path.normpath(absolute))
        path = os.path.join(os.path.realpath(head), tail)
        if path != self.real and not path.startswith(self.real + "/"):
            path = os.path.realpath(path)  # a symbolic link to the directory itself
        if path == self.real:
            return "."
        if not path.startswith(self.real + "/"):
            return None
        name = path[len(self.real) + 1:]
        if STORE in name.split("/"):
            return None
        if re.search(r"(^|/)#\d+$", name):  # an unnamed file goes by its directory
            return os.path.dirname(name) or "."
        return name


@dataclass
class Strace:
    """What one or more strace -ff files say about the directory."""

    root: Root
    cwd: str
    threads: Threads = field(default_factory=lambda: defaultdict(list))
    parents: dict[int, int] = field(default_factory=dict)  # thread -> who started it
    same_process: set[int] = field(default_factory=set)  # threads that are no process of their own
    calls: int = 0

    def process_of(self, tid: int) -> int:
        while tid in self.same_process:
            tid = self.parents[tid]
        return tid

    def read(self, prefix: Path) -> "Strace":
        for file in sorted(prefix.parent.glob(prefix.name + ".*")):
            tid = int(file.suffix[1:])
            with open(file, encoding="latin-1") as lines:
                Thread(self, tid).read(lines)
        return self


class Thread:
    def __init__(self, strace: Strace, tid: int) -> None:
        self.strace, self.tid, self.cwd = strace, tid, strace.cwd
        self.descriptors: dict[int, str] = {}  # what was opened last, for /proc/self/fd
        self.positions: dict[int, int] = {}  # as told by the lseek just before
        self.own: set[int] = set()  # descriptors of the shim itself, before they are moved up
        self.appending: set[int] = set()  # descriptors that write at the end, wherever they are
        self.maps: dict[int, tuple[int, str]] = {}  # writable shared ones: start -> size, path

    def read(self, lines: Iterable[str]) -> None:
        pending = ""
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith(("---", "+++")) or not line:
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", line)
            if resumed:
                line, pending = pending + resumed[1], ""
            if line.endswith("<unfinished ...>"):
                pending = line.removesuffix("<unfinished ...>").rstrip()
                continue
            self.line(line)
        if pending:
            self.line(pending.rstrip(", ") + ") = ?")

    def line(self, line: str) -> None:
        match = CALL.match(line)
        if not match:
            if re.match(r"(\w|\?)+\(", line):  # cut off by the death of the thread
                return
            raise ValueError(f"strace line not understood: {line!r}")
        name, arguments, result, self.result_path, failure = match.groups()
        if failure and failure.startswith("ERESTART"):
            return  # it will be seen again
        self.strace.calls += 1
        value: Optional[int]
        if result == "?":
            value = None
        elif failure:
            value = -getattr(errno, failure)
        else:
            value = number(result)
        if value is None and name.startswith("syscall_"):
            return  # the registers of a thread that is dying
        parse = getattr(self, "do_" + name, None) or getattr(self, "do_" + FAMILY.get(name, ""), None)
        if parse is None:
            raise ValueError(f"no reading for {line!r}")
        found = parse(name, split_arguments(arguments), value)
        if found is not None:
            self.strace.threads[self.tid].append(
                replace(found, result=value, unfinished=value is None))
        if self.result_path and value is not None:
            self.descriptors[value] = plain(self.result_path)
        if name != "lseek":
            self.positions.clear()

    # -- paths and descriptors

    def of_the_shim(self, directory: str) -> bool:
        """Relative to a directory that the shim keeps open: a segment's file in its own hands."""
        match = FD.match(directory)
        return bool(match) and match[1].isdigit() and int(match[1]) >= HIDDEN

    def fd(self, text: str) -> Optional[str]:
        match = FD.match(text)
        if match and match[1].isdigit() and int(match[1]) in self.own:
            return None
        return self.strace.root.relative(plain(match[2])) if match and match[2] else None

    def at(self, directory: str, path: str) -> Optional[str]:
        name = unquote(path)
        if name is None:
            return None
        match = FD.match(directory)
        if self.of_the_shim(directory):
            return None
        base = plain(match[2]) if match and match[2] else self.cwd
        if name == "":  # AT_EMPTY_PATH
            return self.strace.root.relative(base)
        link = re.match(r"/proc/self/fd/(\d+)$", name)
        if link:
            return self.strace.root.relative(self.descriptors.get(int(link[1])))
        return self.strace.root.relative(os.path.join(base, name))

    def path(self, path: str) -> Optional[str]:
        return self.at("AT_FDCWD", path)

    def named(self, first: Optional[str], text: str) -> Optional[str]:
        """None for a file that is given by its descriptor and has no name."""
        return None if text == '""' or text.startswith('"/proc/self/fd/') else first

    # -- families

    def opened(self, path: Optional[str], flags: str, value: Optional[int]) -> Optional[Event]:
        words = set(flags.split("|"))
        if value is not None and value >= 0:
            (self.appending.add if "O_APPEND" in words else self.appending.discard)(value)
            self.own.discard(value)
        if path is None or not words & {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"}:
            return None
        return Event("open", path)

    def do_open(self, _name, a, value):
        return self.opened(self.path(a[0]), a[1], value)

    def do_openat(self, _name, a, value):
        if a[1].startswith('"/proc/self/fd/') and a[2] == "O_RDWR|O_CLOEXEC":
            return None  # the shim itself, for locks that last
        event = self.opened(self.at(a[0], a[1]), a[2], value)
        if value is not None and value >= 0 and self.of_the_shim(a[0]):
            self.own.add(value)
        return event

    def do_openat2(self, _name, a, value):
        match = re.search(r"flags=([A-Z_|]+)", a[2])
        return self.opened(self.at(a[0], a[1]), match[1] if match else "", value)

    def do_creat(self, _name, a, value):
        return self.opened(self.path(a[0]), "O_WRONLY|O_CREAT|O_TRUNC", value)

    def do_open_by_handle_at(self, _name, a, value):
        mount = self.fd(a[0])  # strace does not tell which file it was
        return self.opened(mount and ANY, a[2], value)

    def data(self, kind, path, offset=None, length=None):
        return None if path is None else Event(kind, path, offset=offset, length=length)

    def do_write(self, name, a, _value):
        length = number(a[2]) if name == "write" else vector_length(a[1])
        fd = int(FD.match(a[0])[1])
        offset = None if fd in self.appending else self.positions.get(fd)
        return self.data("write", self.fd(a[0]), offset, length)

    def do_pwrite64(self, _name, a, _value):
        return self.data("write", self.fd(a[0]), number(a[3]), number(a[2]))

    def do_pwritev(self, _name, a, _value):
        offset = number(a[3])
        return self.data("write", self.fd(a[0]), None if offset < 0 else offset,
                         vector_length(a[1]))

    def do_sendfile(self, _name, a, _value):
        return self.data("sendfile", self.fd(a[0]), length=number(a[3]))

    def do_copy_file_range(self, _name, a, _value):
        return self.data("copy_file_range", self.fd(a[2]), pointed(a[3]), number(a[4]))

    def do_splice(self, _name, a, _value):
        return self.data("splice", self.fd(a[2]), pointed(a[3]), number(a[4]))

    def do_ioctl(self, _name, a, _value):
        return self.data("clone", self.fd(a[0])) if a[1].startswith("FICLONE") or \
            "BTRFS_IOC_CLONE" in a[1] else None

    def do_ftruncate(self, _name, a, _value):
        return self.data("truncate", self.fd(a[0]), length=number(a[1]))

    def do_truncate(self, _name, a, _value):
        return self.data("truncate", self.path(a[0]), length=number(a[1]))

    def do_fallocate(self, _name, a, _value):
        return self.data("fallocate", self.fd(a[0]), number(a[2]), number(a[3]))

    def do_fsync(self, name, a, _value):
        return self.data(name, self.fd(a[0]))

    def do_sync_file_range(self, name, a, _value):
        return self.data(name, self.fd(a[0]), number(a[1]), number(a[2]))

    def do_mmap(self, name, a, value):
        path = self.fd(a[4])
        if path is None or "MAP_SHARED" not in a[3] or "PROT_WRITE" not in a[2]:
            return None
        if value is not None and value > 0:
            self.maps[value] = number(a[1]), path
        # The result is an address, which the log need not keep.
        return replace(self.data("mmap", path, number(a[5]), number(a[1])))

    def do_msync(self, name, a, _value):
        at = number(a[0])
        for start, (size, path) in self.maps.items():
            if start <= at < start + size:
                return self.data("msync", path, None, number(a[1]))
        return None

    def do_lseek(self, _name, a, value):
        # Asking for the position is no sign of where a write goes: a file may be appended to.
        if value is not None and value >= 0 and (a[1], a[2]) != ("0", "SEEK_CUR"):
            self.positions = {int(FD.match(a[0])[1]): value}

    def do_read(self, _name, _a, _value):
        return None  # it moves the position, that is all

    def two(self, kind, first, second):
        names = [name for name in (first, second) if name is not None]
        return Event(kind, *names) if names else None

    def do_rename(self, _name, a, _value):
        return self.two("rename", self.path(a[0]), self.path(a[1]))

    def do_renameat(self, _name, a, _value):
        return self.two("rename", self.at(a[0], a[1]), self.at(a[2], a[3]))

    def do_link(self, _name, a, _value):
        return self.two("link", self.path(a[0]), self.path(a[1]))

    def do_linkat(self, _name, a, _value):
        return self.two("link", self.named(self.at(a[0], a[1]), a[1]), self.at(a[2], a[3]))

    def do_symlink(self, _name, a, _value):
        path = self.path(a[1])
        return None if path is None else Event("symlink", path)

    def do_symlinkat(self, _name, a, _value):
        path = self.at(a[1], a[2])
        return None if path is None else Event("symlink", path)

    def name(self, kind, path):
        return None if path is None else Event(kind, path)

    def do_unlink(self, name, a, _value):
        return self.name(name, self.path(a[0]))

    def do_unlinkat(self, _name, a, _value):
        return self.name("rmdir" if "AT_REMOVEDIR" in a[2] else "unlink", self.at(a[0], a[1]))

    def do_mkdirat(self, name, a, _value):
        return self.name(name.removesuffix("at"), self.at(a[0], a[1]))

    def do_chmod(self, _name, a, _value):
        return self.name("chmod", self.path(a[0]))

    def do_fchmod(self, _name, a, _value):
        return self.name("chmod", self.fd(a[0]))

    def do_fchmodat(self, _name, a, _value):
        return self.name("chmod", self.at(a[0], a[1]))

    def do_chown(self, _name, a, _value):
        return self.name("chown", self.path(a[0]))

    def do_fchown(self, _name, a, _value):
        return self.name("chown", self.fd(a[0]))

    def do_fchownat(self, _name, a, _value):
        return self.name("chown", self.at(a[0], a[1]))

    def do_utime(self, _name, a, _value):
        return self.name("utime", self.path(a[0]))

    def do_utimensat(self, _name, a, _value):
        return self.name("utime", self.fd(a[0]) if a[1] == "NULL" else self.at(a[0], a[1]))

    def do_setxattr(self, _name, a, _value):
        return self.name("setxattr", self.path(a[0]))

    def do_fsetxattr(self, _name, a, _value):
        return self.name("setxattr", self.fd(a[0]))

    def do_removexattr(self, _name, a, _value):
        return self.name("removexattr", self.path(a[0]))

    def do_fremovexattr(self, _name, a, _value):
        return self.name("removexattr", self.fd(a[0]))

    def do_fcntl(self, _name, a, _value):
        path = self.fd(a[0])
        if a[1] == "F_SETFL" and "O_APPEND" in a[2]:
            self.appending.add(int(FD.match(a[0])[1]))
        if path is None or a[1] not in ("F_SETLK", "F_SETLKW", "F_OFD_SETLK", "F_OFD_SETLKW"):
            return None
        fields = dict(re.findall(r"(l_\w+)=(-?\w+)", a[2]))
        if fields.get("l_whence") != "SEEK_SET":
            return Event("lock", path, detail=LOCKS[fields["l_type"]])
        return Event("lock", path, offset=number(fields["l_start"]), length=number(fields["l_len"]),
                     detail=LOCKS[fields["l_type"]])

    def do_dup3(self, _name, a, value):
        if value is not None and value >= 0:
            appends = int(FD.match(a[0])[1]) in self.appending
            (self.appending.add if appends else self.appending.discard)(value)

    def do_flock(self, _name, a, _value):
        return self.name("flock", self.fd(a[0]))

    def do_chdir(self, name, a, value):
        if value == 0:
            new = unquote(a[0]) if name == "chdir" else plain(FD.match(a[0])[2])
            self.cwd = os.path.join(self.cwd, new or "")

    def do_clone(self, name, a, value):
        if value is not None and value > 0:
            self.strace.parents[value] = self.tid
            if name.startswith("clone") and "CLONE_THREAD" in ",".join(a):
                self.strace.same_process.add(value)


LOCKS = {"F_RDLCK": "read", "F_WRLCK": "write", "F_UNLCK": "unlock"}

FAMILY = {
    "dup": "dup3", "dup2": "dup3",
    "writev": "write", "readv": "read", "pwritev2": "pwritev", "fdatasync": "fsync", "syncfs": "fsync",
    "renameat2": "renameat", "rmdir": "unlink", "mkdir": "unlink", "mknod": "unlink",
    "mknodat": "mkdirat", "fchmodat2": "fchmodat", "lchown": "chown", "utimes": "utime",
    "futimesat": "utimensat", "lsetxattr": "setxattr", "lremovexattr": "removexattr",
    "fchdir": "chdir", "clone3": "clone", "fork": "clone", "vfork": "clone",
}


def vector_length(text: str) -> Optional[int]:
    sizes = re.findall(r"iov_len=(\d+)", text)
    return sum(map(int, sizes)) if sizes and "..." not in text.replace('"..."', "").replace(
        '""...', "") else None


def pointed(text: str) -> Optional[int]:
    """[100] or [100 => 200] or NULL"""
    match = re.match(r"\[(-?\d+)", text)
    return int(match[1]) if match else None
