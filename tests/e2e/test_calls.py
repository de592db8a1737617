# SPDX-License-Identifier: MIT
"""Every spelling of every call: the op log agrees with strace, and the files with a run without
the shim. calls.c makes the calls."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import elf
import tracer
import witness

pytestmark = pytest.mark.usefixtures("strace")

# libc does these in threads of its own, where strace sees a pwrite or fsync.
ASYNCHRONOUS = ["aio_write", "aio_write64", "aio_fsync", "aio_fsync64", "lio_listio", "lio_listio64"]

# Left out of the table one by one; those that other calls of calls.c would hide are not here.
LEFT_OUT = ["open64", "openat64", "__open64_2", "creat64", "mkstemp64", "write", "pwrite64", "writev",
            "pwritev64v2", "sendfile64", "copy_file_range", "splice", "ftruncate64", "truncate64",
            "fallocate64", "posix_fallocate64", "fsync", "fdatasync", "rename", "renameat2", "unlink",
            "unlinkat", "remove", "rmdir", "mkdir", "linkat", "symlink", "mknod", "fchmod", "fchown",
            "futimens", "fsetxattr", "fcntl64", "flock", "lockf64", "dup2", "fopen64", "fdopen",
            "dprintf", "syscall", "mmap64", "close"]


@pytest.fixture(scope="module")
def program(compiled) -> Path:
    return compiled("calls")


@pytest.fixture(scope="module")
def names(program) -> list[str]:
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name not in ASYNCHRONOUS]


def tree(directory: Path) -> dict[str, tuple]:
    """Everything below a directory but the store: type, mode, content."""
    found = {}
    for parent, directories, files in os.walk(directory):
        directories[:] = [d for d in directories if d != tracer.STORE]
        for name in directories + files:
            path = Path(parent, name)
            status = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) \
                else os.readlink(path) if path.is_symlink() else ""
            found[str(path.relative_to(directory))] = (oct(status.st_mode), status.st_nlink, content)
    return found


def run(program: Path, names: list[str], work: Path, preload: str) -> witness.Testimony:
    data = work / "chroma_data"
    data.mkdir(exist_ok=True)
    done = witness.run([program, data, *names], data, work, preload, {"CHROMASHIM_DIR": str(data)})
    assert done.status == 0, done.errors
    return done


@pytest.mark.fast
def test_all_calls(program, names, tmp_path, shim):
    plain = tmp_path / "plain"
    plain.mkdir()
    subprocess.run([program, plain, *names], check=True, stdout=subprocess.DEVNULL)
    done = run(program, names, tmp_path, shim).check(at_least=500)
    assert tree(tmp_path / "chroma_data") == tree(plain)
    assert done.kinds() >= {"open", "write", "sendfile", "copy_file_range", "splice", "truncate",
                            "fallocate", "fsync", "fdatasync", "sync_file_range", "syncfs", "rename",
                            "unlink", "rmdir", "mkdir", "link", "symlink", "mknod", "chmod", "chown",
                            "utime", "setxattr", "removexattr", "lock", "flock", "mmap", "clone"}


def test_results_are_the_same_on_an_unprotected_directory(program, names, tmp_path, shim):
    plain, other = tmp_path / "plain", tmp_path / "other"
    for directory, env in ((plain, {}), (other, {"LD_PRELOAD": shim})):
        directory.mkdir()
        subprocess.run([program, directory, *names], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, **env})
    assert tree(other) == tree(plain)
    assert not (other / tracer.STORE).exists()


def test_streams_behave_as_without(compiled, tmp_path, shim):
    """Random use of stdio: every result, every position and all files are the same."""
    program, rounds = compiled("streams"), "200"
    for seed in range(20):
        told = []
        for directory, env in ((tmp_path / f"plain-{seed}", {}), (tmp_path / f"data-{seed}", {
                "LD_PRELOAD": shim, "CHROMASHIM_DIR": str(tmp_path / f"data-{seed}"),
                "CHROMASHIM_SINGLE_WRITER": "off"})):  # a file is written through two streams
            directory.mkdir()
            done = subprocess.run([program, directory, str(seed), rounds], env={**os.environ, **env},
                                  capture_output=True, text=True, check=True)
            told.append((done.stdout, tree(directory)))
        assert told[0] == told[1], f"seed {seed}"


def test_streams_are_recorded(compiled, tmp_path, shim):
    data = tmp_path / "chroma_data"
    data.mkdir()
    done = witness.run([compiled("streams"), data, "99", "200", "seen"], data, tmp_path, shim,
                       {"CHROMASHIM_DIR": str(data)})
    assert done.status == 0, done.errors
    done.check(at_least=500)


BY_NUMBER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    print(libc.syscall(*arguments), ctypes.get_errno(), flush=True)
os.chdir(sys.argv[1])
file = os.open("file", os.O_RDWR | os.O_CREAT)
path = os.open("file", os.O_PATH)
times = (ctypes.c_long * 4)(1000, 5, 2000, 6)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
call(452, path, b"", 0o640, AT_EMPTY_PATH) # fchmodat2
print(oct(os.stat("file").st_mode))
call(452, AT_FDCWD, b"file", 0o600, 0)
call(452, AT_FDCWD, b"file", 0o604, AT_SYMLINK_NOFOLLOW)
call(452, AT_FDCWD, b"file", 0o600, 0x40)
call(utimensat := {"x86_64": 280, "aarch64": 88}[os.uname().machine], file, None, times, 0)
print(os.stat("file").st_mtime_ns, oct(os.stat("file").st_mode))
call(utimensat, file, None, times, AT_SYMLINK_NOFOLLOW)
call(utimensat, AT_FDCWD, b"file", None, 0)
"""


def test_calls_by_number_take_what_the_kernel_takes(data, tmp_path, shim):
    """libc's functions of these names take less."""
    told = []
    for directory, env in ((data, {"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}),
                           (tmp_path / "plain", {})):
        directory.mkdir(exist_ok=True)
        told.append(subprocess.run([sys.executable, "-S", "-c", BY_NUMBER, directory], check=True,
                                   env={**os.environ, **env}, capture_output=True, text=True).stdout)
    assert told[0] == told[1]
    assert (data / tracer.STORE).exists()


@pytest.mark.parametrize("name", ASYNCHRONOUS)
def test_asynchronous_calls(program, name, tmp_path, shim):
    done = run(program, [name], tmp_path, shim)
    seen = sorted((e.path, e.offset, e.length) for tid, events in done.strace.threads.items()
                  for e in events if e.kind == "write" and tid in done.strace.same_process)
    logged = sorted((r["path"], r["offset"], r["length"]) for r in done.log.records
                    if r["op"] == "aio_write")
    assert logged == seen
    if "fsync" in name:
        assert {"fsync", "fdatasync"} & done.log.ops()
    else:
        assert logged


@pytest.mark.parametrize("name", LEFT_OUT)
def test_one_entry_point_less_is_noticed(program, name, tmp_path, shim):
    """Without an entry point the log and strace must not agree; else the comparison is blind."""
    blind = elf.without_symbol(shim, name, tmp_path / "libblind.so")
    assert run(program, [name], tmp_path, str(blind)).differences()
