# SPDX-License-Identifier: MIT
"""What the hosts import of libc is in the table, and so is every other spelling of it."""

import re
import subprocess
from pathlib import Path

import pytest

import elf
import hosts

TABLE = hosts.ROOT / "shim" / "preload" / "base" / "calls.def"

# What can change a file's bytes, length, name, links, attributes or locks, or what a descriptor
# means, in glibc 2.36 to 2.41.
FILE_CHANGING = """
    open open64 __open __open64 __open_2 __open64_2 openat openat64 __openat_2 __openat64_2
    openat2 creat creat64 open_by_handle_at mkstemp mkstemp64 mkostemp mkostemp64 mkstemps
    mkstemps64 mkostemps mkostemps64 tmpfile tmpfile64 memfd_create

    close __close close_range closefrom dup dup2 __dup2 dup3 fcntl __fcntl fcntl64 fclose fcloseall
    flock lockf lockf64

    write __write writev pwrite pwrite64 __pwrite64 pwritev pwritev64 pwritev2 pwritev64v2
    lseek __lseek lseek64
    fsync fdatasync sync syncfs sync_file_range msync
    ftruncate ftruncate64 truncate truncate64 fallocate fallocate64 posix_fallocate
    posix_fallocate64

    rename renameat renameat2 unlink unlinkat remove rmdir mkdir mkdirat link linkat symlink
    symlinkat readlink readlinkat __readlink_chk __readlinkat_chk
    mknod mknodat __xmknod __xmknodat mkfifo mkfifoat mkdtemp

    sendfile sendfile64 copy_file_range splice tee vmsplice
    mmap mmap64 munmap mremap madvise
    aio_write aio_write64 aio_fsync aio_fsync64 aio_return aio_return64 lio_listio lio_listio64
    syscall ioctl

    fopen fopen64 _IO_fopen freopen freopen64 fdopen fopencookie _IO_fclose
    fwrite fwrite_unlocked fputs fputs_unlocked fputc fputc_unlocked putc putc_unlocked _IO_putc
    putw fputws fputwc fprintf vfprintf dprintf vdprintf __fprintf_chk __vfprintf_chk __dprintf_chk
    __vdprintf_chk fflush fflush_unlocked _IO_fflush __overflow __woverflow setvbuf

    chmod fchmod fchmodat lchmod chown fchown lchown fchownat utime utimes lutimes futimes futimesat
    utimensat futimens setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr

    fork __fork _Fork vfork __vfork clone __clone posix_spawn posix_spawnp pidfd_spawn pidfd_spawnp
    execve execveat fexecve execv execvp execvpe execl execlp execle system popen _exit _Exit
    quick_exit
""".split()

LINE = re.compile(r"^(CALL|SAME|LATE|VARIADIC|SQLITE|LEFT)\((.*)$", re.M)


def table() -> dict[str, str]:
    """Name to the kind of its line."""
    found = {}
    for kind, rest in LINE.findall(TABLE.read_text(encoding="utf-8")):
        words = re.split(r",\s*|\)", rest)
        found[words[0] if kind in ("VARIADIC", "LEFT") else words[1]] = kind
    return found


def libraries_of(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    return [Path(p) for p in re.findall(r"=> (/\S+)", done.stdout)]


def of_python(venv: str) -> list[Path]:
    """The interpreter, its libraries and extension modules, and what pip has installed."""
    if not hosts.python(venv).exists():
        pytest.skip(f"{hosts.python(venv)} is missing; run wrappers/setup run check")
    code = "import sys, sysconfig; print(sys.executable); print(sysconfig.get_config_var('DESTSHARED'))"
    done = subprocess.run([hosts.python(venv), "-c", code], capture_output=True, text=True, check=True)
    program, modules = (Path(line).resolve() for line in done.stdout.split())
    packages = (hosts.BUILD / venv / "lib").resolve()
    found = [program, *libraries_of(program), *modules.glob("*.so"), *packages.rglob("*.so*")]
    for name in ("_sqlite3", "_ctypes"):
        for module in modules.glob(f"{name}.*.so"):
            found += libraries_of(module)
    return found


def of_node() -> list[Path]:
    done = subprocess.run(["node", "-p", "process.execPath"], capture_output=True, text=True,
                          check=False)
    found = [Path(done.stdout.strip())] if done.returncode == 0 else []
    for tree in ("npm", "npm-new"):
        found += (hosts.BUILD / tree).resolve().rglob("*.node")
    if not found:
        pytest.skip("neither node nor its Chroma is here; run wrappers/setup check")
    return found + [library for each in found for library in libraries_of(each)]


def objects(paths: list[Path]) -> list[Path]:
    """Without libc itself, and each once."""
    keep = {}
    for path in paths:
        path = path.resolve()
        if path.is_file() and not re.match(r"(libc|ld-linux.*|libm)\.so", path.name) and \
                path.read_bytes()[:4] == b"\x7fELF":
            keep[path] = None
    return list(keep)


@pytest.mark.parametrize("host, least", [("venv", 60), ("venv-0.6", 60), ("node", 4)])
def test_host_imports_are_in_the_table(host, least):
    known, changing = table(), set(FILE_CHANGING)
    found = objects(of_node() if host == "node" else of_python(host))
    assert len(found) >= least
    missing, used = {}, set()
    for path in found:
        names = elf.imports(path) & changing
        used |= names
        if names - known.keys():
            missing[path.name] = sorted(names - known.keys())
    assert not missing
    assert {"open64", "write", "unlink", "rename", "fcntl64"} & used


def test_every_file_changing_call_is_decided():
    libc = elf.exports(libc_path())
    assert not [name for name in FILE_CHANGING if name in libc and name not in table()]


def libc_path() -> Path:
    return next(p for p in libraries_of(Path("/bin/sh").resolve()) if p.name.startswith("libc.so"))


def test_other_spellings_are_decided():
    """Where libc has another name for a call in the table, that name is in the table, too."""
    known = table()
    missing = set()
    for name in elf.exports(libc_path(), without="GLIBC_PRIVATE"):
        plain = re.sub(r"^(__libc_|_IO_|__)", "", name)
        plain = re.sub(r"(_chk|_2|64|64_2|_unlocked|_nocancel)$", "", plain)
        if plain in known and known[plain] != "LEFT" and name not in known:
            missing.add(name)
    assert not missing


# Met elsewhere: before they run (fork, exec), by their libc function alone, or they change no file.
NOT_BY_NUMBER = """
    clone fork vfork execve execveat mremap sync tee vmsplice lseek
""".split()


def test_every_file_changing_system_call_is_in_the_gate():
    gate = (TABLE.parents[1] / "calls" / "gate.def").read_text(encoding="utf-8")
    in_gate = set(re.findall(r"^GATE\((\w+)", gate, re.M))
    numbers = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-xc", "/dev/null"],
                             capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"#define SYS_(\w+) ", numbers))
    changing = named & {*FILE_CHANGING, "pwrite64", "fchmodat2", "setxattrat", "file_setattr"}
    assert len(changing) > 50
    assert not changing - in_gate - set(NOT_BY_NUMBER)


@pytest.mark.fast
def test_library_keeps_to_the_table(shim):
    exported = {name for name, kind in table().items() if kind != "LEFT"}
    api = {name for name in elf.exports(Path(shim)) if name.startswith("chromashim_")}
    assert elf.exports(Path(shim)) == exported | api
