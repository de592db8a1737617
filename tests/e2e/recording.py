# SPDX-License-Identifier: MIT
"""All that a program does to a directory, with the data, as strace records it: a list of Events."""

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Optional

CALLS = """open openat creat write pwrite64 writev pwritev pwritev2 ftruncate truncate fallocate
    fsync fdatasync sync syncfs msync rename renameat renameat2 link linkat unlink unlinkat mkdir
    mkdirat rmdir symlink symlinkat dup dup2 dup3 fcntl lseek read clone clone3 fork vfork
    copy_file_range sendfile splice""".split()
LINE = re.compile(r"(\d+)\s+(\d+\.\d+) (?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$", re.S)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
AT = re.compile(r'(?:AT_FDCWD|\d+)<([^>]*)>, "((?:[^"\\]|\\.)*)"')
RESULT = re.compile(r"\)\s+= (0x[0-9a-f]+|-?\d+|\?)[^=]*$")


@dataclass
class Event:
    """A change, or "ack": what was acknowledged. Paths are those within the directory."""

    kind: str
    time: float
    file: int = -1  # number of the file
    path: str = ""
    second: str = ""
    offset: int = 0
    size: int = 0
    data: bytes = b""
    mode: int = 0o600


def unescape(text: str) -> bytes:
    """A string of strace -x: either all in hexadecimal, or with C's escapes."""
    if text.startswith("\\x"):
        return bytes.fromhex(text.replace("\\x", ""))
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1") if "\\" in text \
        else text.encode("latin-1")


@dataclass
class Open:
    """An open file description: descriptors that were duplicated share it."""

    file: int
    append: bool
    position: int = 0


class Recording:
    """Turns strace's output into Events. Knows descriptors by process, and files by number."""

    def __init__(self, root: Path) -> None:
        self.root = str(root) + "/"
        self.events: list[Event] = []
        self.files = 0
        self.names: dict[str, int] = {}
        self.sizes: dict[int, int] = defaultdict(int)
        self.processes: dict[str, dict[int, Open]] = defaultdict(dict)
        self.leader: dict[str, str] = {}
        self.begun: dict[str, str] = {}
        self.directories: set[str] = set()

    def read(self, trace: Path) -> list[Event]:
        with open(trace, encoding="latin-1") as lines:
            for line in lines:  # a thread may be seen at work before its making has returned
                if " clone" in line[:60] or "<... clone" in line[:60]:
                    self.thread(line)
        self.begun.clear()
        with open(trace, encoding="latin-1") as lines:
            for line in lines:
                match = LINE.match(line.rstrip("\n"))
                if match:
                    self.line(*match.groups())
        return self.events

    def thread(self, line: str) -> None:
        tid, *_ = line.split(None, 1)
        if "<unfinished" in line:
            self.begun[tid] = line
            return
        made = re.search(r"= (\d+)$", line.rstrip())
        if made and "CLONE_THREAD" in self.begun.pop(tid, "") + line:
            self.leader[made[1]] = self.leader.get(tid, tid)

    def line(self, tid: str, when: str, resumed: Optional[str], name: Optional[str],
             rest: str) -> None:
        if rest.endswith("<unfinished ...>"):
            self.begun[tid] = rest.removesuffix("<unfinished ...>").rstrip()
            return
        if resumed:
            rest = self.begun.pop(tid, "") + rest
        done = RESULT.search(rest[-200:])
        if not done or done[1] == "?" or int(done[1], 0) < 0:
            return
        call = getattr(self, f"do_{name or resumed}", None)
        if call is None:
            assert self.root not in rest, f"not understood: {rest[:300]}"
            return
        call(self.processes[self.leader.get(tid, tid)], rest, int(done[1], 0), float(when), tid)

    # -- what there is

    def inside(self, path: str) -> Optional[str]:
        path = os.path.normpath(path)
        return path[len(self.root):] if path.startswith(self.root) else None

    def paths(self, text: str) -> Iterator[Optional[str]]:
        for directory, name in AT.findall(text):
            yield self.inside(os.path.join(directory, unescape(name).decode()))

    def plain(self, text: str) -> Iterator[Optional[str]]:
        for name in STRING.findall(text):
            yield self.inside(unescape(name).decode())

    def either(self, text: str) -> list[Optional[str]]:
        return list(self.paths(text)) if "<" in text.split('"')[0] else list(self.plain(text))

    def add(self, kind: str, when: float, **fields: Any) -> None:
        self.events.append(Event(kind, when, **fields))

    def new(self, path: str, kind: str, when: float, mode: int = 0o600) -> int:
        self.files += 1
        self.names[path] = self.files
        self.add(kind, when, file=self.files, path=path, mode=mode)
        return self.files

    def of(self, process: dict[int, Open], text: str) -> Optional[Open]:
        number = re.match(r"\d+", text)
        opened = process.get(int(number[0])) if number else None
        assert opened or "<" + self.root not in text[:len(self.root) + 10], f"an unknown descriptor: {text[:300]}"
        return opened

    # -- calls

    def do_openat(self, process, text, value, when, _tid) -> None:
        path = self.either(text)[0]
        process.pop(value, None)
        if path is None:
            again = re.search(r'"/proc/self/fd/(\d+)"', text)
            if again and int(again[1]) in process:
                process[value] = Open(process[int(again[1])].file, False)
            return
        flags = re.search(r"O_[A-Z_|]+", text[text.rindex('"'):])[0].split("|")
        if path not in self.names:
            if "O_CREAT" not in flags:
                return  # a directory that was there before, or a file in /proc
            mode = re.search(r", (0[0-7]+)\)\s+=", text)
            self.new(path, "create", when, int(mode[1], 8) if mode else 0o600)
        file = self.names[path]
        if "O_TRUNC" in flags and self.sizes[file]:
            self.resize(file, 0, when)
        process[value] = Open(file, "O_APPEND" in flags)

    do_open = do_openat

    def do_creat(self, process, text, value, when, tid) -> None:
        self.do_openat(process, text[:text.rindex('"') + 1] + ", O_CREAT|O_TRUNC", value, when, tid)

    def write(self, opened: Open, offset: int, data: bytes, when: float) -> None:
        self.add("write", when, file=opened.file, offset=offset, data=data)
        self.sizes[opened.file] = max(self.sizes[opened.file], offset + len(data))

    def do_write(self, process, text, value, when, _tid) -> None:
        opened = self.of(process, text)
        if opened:
            if opened.append:
                opened.position = self.sizes[opened.file]
            self.write(opened, opened.position, self.data(text)[:value], when)
            opened.position += value
        elif text.startswith("1<") and '"ack ' in text:
            self.add("ack", when, size=int(re.search(r'"ack (\d+)', text)[1]))

    do_writev = do_write

    def do_pwrite64(self, process, text, value, when, _tid) -> None:
        opened = self.of(process, text)
        if opened:
            tail = text[text.rindex('"'):]
            offset = int(re.search(r", (\d+)\)\s+=", tail)[1])
            self.write(opened, offset, self.data(text)[:value], when)

    do_pwritev = do_pwrite64

    @staticmethod
    def data(text: str) -> bytes:
        return b"".join(unescape(part) for part in STRING.findall(text))

    def resize(self, file: int, size: int, when: float) -> None:
        self.add("size", when, file=file, size=size)
        self.sizes[file] = size

    def do_ftruncate(self, process, text, _value, when, _tid) -> None:
        opened = self.of(process, text)
        if opened:
            self.resize(opened.file, int(re.search(r", (\d+)\)", text)[1]), when)

    def do_truncate(self, _process, text, _value, when, _tid) -> None:
        path = self.either(text)[0]
        if path is not None:
            self.resize(self.names[path], int(re.search(r", (\d+)\)", text)[1]), when)

    def do_fallocate(self, process, text, _value, when, _tid) -> None:
        opened = self.of(process, text)
        if opened and "KEEP_SIZE" not in text:
            size = sum(map(int, re.search(r", (\d+), (\d+)\)", text).groups()))
            if size > self.sizes[opened.file]:
                self.resize(opened.file, size, when)

    def do_fsync(self, process, text, _value, when, _tid) -> None:
        number, path = re.match(r"(\d+)<([^>]*)>", text).groups()
        directory = self.inside(path) if path + "/" != self.root else ""
        if directory == "" or directory in self.directories:
            self.add("sync-directory", when, path=directory)
        elif int(number) in process:
            self.add("sync", when, file=process[int(number)].file)

    do_fdatasync = do_fsync

    def do_mkdir(self, _process, text, _value, when, _tid) -> None:
        path = self.either(text)[0]
        if path is not None:
            self.new(path, "mkdir", when)
            self.directories.add(path)

    do_mkdirat = do_mkdir

    def do_unlink(self, _process, text, _value, when, _tid) -> None:
        path = self.either(text)[0]
        if path is not None:
            self.add("unlink", when, file=self.names.pop(path), path=path)

    do_unlinkat = do_rmdir = do_unlink

    def do_rename(self, _process, text, _value, when, _tid) -> None:
        old, new = self.either(text)
        if old is None and new is None:
            return
        assert old is not None and new is not None, text
        self.add("rename", when, file=self.names[old], path=old, second=new)
        if "RENAME_EXCHANGE" in text:
            self.events[-1].kind = "exchange"
            self.names[old], self.names[new] = self.names[new], self.names[old]
        else:
            self.names[new] = self.names.pop(old)

    do_renameat = do_renameat2 = do_rename

    def do_link(self, process, text, _value, when, _tid) -> None:
        old, new = self.either(text)
        if new is None:
            return
        if old is None:  # by its descriptor
            file = process[int(re.search(r'/proc/self/fd/(\d+)"', text)[1])].file
        else:
            file = self.names[old]
        self.names[new] = file
        self.add("link", when, file=file, path=new)

    do_linkat = do_link

    def do_dup(self, process, text, value, _when, _tid) -> None:
        opened = self.of(process, text)
        process.pop(value, None)
        if opened:
            process[value] = opened

    do_dup2 = do_dup3 = do_dup

    def do_fcntl(self, process, text, value, when, tid) -> None:
        if "F_DUPFD" in text:
            self.do_dup(process, text, value, when, tid)

    def do_lseek(self, process, text, value, _when, _tid) -> None:
        opened = self.of(process, text)
        if opened:
            opened.position = value

    def do_read(self, process, text, value, _when, _tid) -> None:
        opened = process.get(int(text.split(",")[0], 16))  # raw: no data in the trace
        if opened:
            opened.position += value

    def do_clone(self, process, text, value, _when, _tid) -> None:
        if "CLONE_THREAD" not in text:
            self.processes[str(value)] = dict(process)

    do_clone3 = do_fork = do_vfork = do_clone
