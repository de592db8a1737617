# SPDX-License-Identifier: MIT
"""Where people run it: odd paths, mounts, other users, other file systems, and programs into which
nothing can be preloaded. What is off is said."""

import os
import sqlite3
import pwd
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

import hosts
from test_run_directory import load, make, run  # noqa: F401

NOBODY = pwd.getpwnam("nobody")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and be others")


def in_namespace(script, *args):
    """A shell in a mount namespace of its own: nothing of it stays."""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-eu", "-c", script,
                           "sh", *map(str, args)], env=hosts.environment({"CHROMASHIM_GUARD": "off"}),
                          capture_output=True, text=True, timeout=120, check=False)
    if any(line.startswith(("unshare:", "mount:")) for line in done.stderr.splitlines()):
        pytest.skip(f"no mounts here: {done.stderr.strip()[:200]}")
    return done


@pytest.mark.parametrize("name", ["a b", "dä ta 数据", "it's"])
def test_odd_and_relative_paths(run, tmp_path, name):  # noqa: F811
    command = load("venv", f"./{name}", 5)
    done = run("--dir", f"./{name}", "--", *command, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "1.5.9 5\n", done.stderr
    assert (tmp_path / name / ".chromashim/oplog").is_dir()
    done = run("--dir", name, "--", *command, cwd=tmp_path)
    assert done.stdout == "1.5.9 10\n" and f"chromashim: {name}: fine" in done.stderr


def test_a_symbolic_link(run, tmp_path, data):  # noqa: F811
    link = tmp_path / "link"
    link.symlink_to(data)
    done = run("--dir", link, "--", *load("venv", link, 5))
    assert done.returncode == 0 and done.stdout == "1.5.9 5\n", done.stderr
    assert (data / ".chromashim/oplog").is_dir() and link.is_symlink()
    assert run("--check-only", "--dir", link).returncode == 0


def test_a_store_that_cannot_be_made_is_foretold(run, tmp_path, data):  # noqa: F811
    """--check-only knows it as the start does: unprotected, or not started where that is refused."""
    (tmp_path / "file").write_text("")
    for store in tmp_path / "file", tmp_path / "file/below", tmp_path / "not/there":
        for closed in [], ["--set", "CHROMASHIM_ON_FAILURE=closed"]:
            words = ["--set", f"CHROMASHIM_STORE={store}", *closed, "--dir", data]
            trial, start = run("--check-only", *words), run(*words, "--", "true")
            assert trial.returncode == (1 if closed else 3), trial.stderr
            assert start.returncode == (1 if closed else 0), start.stderr
            for done in trial, start:
                assert "cannot write to the store" in done.stderr
    assert run("--check-only", "--set", f"CHROMASHIM_STORE={tmp_path / 'new'}", "--dir", data).returncode == 0


@root_only
def test_a_mount_point(data):
    done = in_namespace("""
        mount -t tmpfs none "$1"; cd /
        run() { "$2" run --dir "$1" -- "$3" -c "$4" "$1" 5; }
        run "$@"; run "$@"
        "$2" snapshot create "$1" >/dev/null
        "$2" restore "$1" --to latest -y >/dev/null
        run "$@"
    """, data, hosts.COMMAND, hosts.python("venv"), load("venv", data)[2])
    assert done.stdout == "1.5.9 5\n1.5.9 10\n1.5.9 15\n", done.stderr


@root_only
def test_a_read_only_root(data):
    """All but the data is read-only, as in a hardened container."""
    done = in_namespace("""
        mount -t tmpfs none "$1"
        mount -o remount,bind,ro /
        "$2" run --dir "$1" -- sh -c 'touch /nothing 2>/dev/null && exit 9; echo x >"$0"/note' "$1"
        "$2" log "$1" | grep -c note
    """, data, hosts.COMMAND)
    assert done.returncode == 0 and int(done.stdout) > 0, done.stderr


@root_only
def test_a_read_only_directory(data):
    make("venv", data)
    done = in_namespace("""
        mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"
        "$2" run --dir "$1" -- echo never
    """, data, hosts.COMMAND)
    assert done.returncode == 1 and not done.stdout
    assert "Read-only file system" in done.stderr and "writes at every start" in done.stderr


@root_only
def test_another_user(run, tmp_path):  # noqa: F811
    # Not below the tests' own directory, which others may not enter.
    base = Path("/dev/shm") / f"chromashim-{os.getpid()}"
    data = base / "data"
    shutil.rmtree(base, ignore_errors=True)
    try:
        data.mkdir(parents=True)
        command = base / "bin"
        command.mkdir()
        shutil.copy(hosts.COMMAND, command)
        shutil.copy(hosts.SHIM, command)
        other = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []}
        words = [command / "chromashim", "run", "--no-guard", "--dir", data, "--", "echo", "on"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", **other,
                              env=hosts.environment())
        assert done.returncode == 1 and not done.stdout, done.stderr
        assert "It belongs to root: start this as that user" in done.stderr

        os.chown(data, NOBODY.pw_uid, NOBODY.pw_gid)
        done = run("--dir", data, "--", "echo", "on")
        assert done.returncode == 0 and "belongs to nobody, and this is root" in done.stderr
        assert (data / ".chromashim").stat().st_uid == NOBODY.pw_uid
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", **other,
                              env=hosts.environment())
        assert done.returncode == 0 and done.stdout == "on\n"
        assert done.stderr.startswith(f"chromashim: {data}: still no Chroma data in it")
        assert done.stderr.count("\n") == 1
    finally:
        shutil.rmtree(base, ignore_errors=True)


@root_only
def test_a_fuse_file_system(data, tmp_path):
    if not shutil.which("bindfs"):
        pytest.skip("bindfs is missing; run wrappers/setup check")
    mount = tmp_path / "mount"
    mount.mkdir()
    done = in_namespace("""
        bindfs "$1" "$5" 2>/dev/null || { echo "mount: no FUSE here" >&2; exit 1; }
        trap 'umount -l "$5"' EXIT
        "$2" run --dir "$5" -- "$3" -c "$4" "$5" 5
    """, data, hosts.COMMAND, hosts.python("venv"), load("venv", data)[2], mount)
    assert done.returncode == 0 and done.stdout == "1.5.9 5\n", done.stderr
    assert "is on FUSE: its locks are not relied on" in done.stderr


# ---- programs into which nothing can be preloaded ----

@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    where = tmp_path_factory.mktemp("programs")
    (where / "hello.c").write_text('#include <stdio.h>\nint main(void){puts("hello");return 5;}\n')

    def build(name, *flags):
        done = subprocess.run(["gcc", "-o", where / name, where / "hello.c", *flags], check=False,
                              capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot be compiled here: {done.stderr[:200]}")
        return where / name

    return build


def test_a_static_program(run, programs, tmp_path):  # noqa: F811
    program = programs("static", "-static")
    done = run("--", program, cwd=tmp_path)
    assert done.returncode == 5 and done.stdout == "hello\n"
    assert "UNPROTECTED" in done.stderr and "it is linked statically" in done.stderr
    done = run("--", program, cwd=tmp_path, env={"CHROMASHIM_ON_FAILURE": "closed"})
    assert done.returncode == 1 and not done.stdout and "not started" in done.stderr


def test_a_musl_program(run, programs, tmp_path):  # noqa: F811
    program = programs("musl", "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1")
    done = run("--check-only", "--", program, cwd=tmp_path)
    assert "it uses the C library musl" in done.stderr


def test_a_program_for_another_machine(run, programs, tmp_path):  # noqa: F811
    program = programs("other")
    image = bytearray(program.read_bytes())
    struct.pack_into("<H", image, 18, 8)  # e_machine: MIPS
    program.write_bytes(image)
    done = run("--", program, cwd=tmp_path)
    assert "it is built for machine 8" in done.stderr and done.returncode == 126


@root_only
def test_a_set_user_id_program(run, programs, tmp_path):  # noqa: F811
    program = programs("setuid")
    os.chown(program, NOBODY.pw_uid, NOBODY.pw_gid)
    program.chmod(0o4755)
    done = run("--", program, cwd=tmp_path)
    assert done.returncode == 5 and "it is set-user-ID" in done.stderr


@pytest.mark.parametrize("folder", ["a b", "a:b"])
def test_a_library_that_the_loader_cannot_name(run, tmp_path, folder):  # noqa: F811
    """LD_PRELOAD knows no quotes: the loader is told a link, in a place that nobody else can write."""
    (tmp_path / folder).mkdir()
    library = shutil.copy(hosts.SHIM, tmp_path / folder)
    (tmp_path / "home").mkdir()
    settings = {"CHROMASHIM_LIBRARY": str(library), "HOME": str(tmp_path / "home")}
    show = ["--", "sh", "-c", "echo $LD_PRELOAD; grep -c libchromashim /proc/self/maps"]
    for _ in range(2):
        done = run(*show, cwd=tmp_path, env=settings)
        link, maps = done.stdout.split("\n")[:2]
        assert link.startswith(str(tmp_path / "home/.local/state/chromashim/libchromashim-"))
        assert os.readlink(link) == str(library) and int(maps) > 1, done.stderr
    # A library of the same name elsewhere has a link of its own; one that leads elsewhere is put right.
    os.unlink(link)
    os.symlink("/nowhere", link)
    assert run(*show, cwd=tmp_path, env=settings).stdout.startswith(link)
    assert os.readlink(link) == str(library)
    # Where others can write it is not taken: then /tmp is, and if that cannot be had either, it is said.
    os.chmod(os.path.dirname(link), 0o777)
    used = run(*show, cwd=tmp_path, env=settings).stdout
    assert used.startswith(f"/tmp/chromashim-{os.geteuid()}/libchromashim-")
    os.unlink(used.split()[0])
    done = run("--", "echo", "on", cwd=tmp_path,
               env={"CHROMASHIM_LIBRARY": str(tmp_path / "none.so")})
    assert done.stdout == "on\n" and "libchromashim.so is not there" in done.stderr


# ---- verbs without a directory ----

def test_what_is_here_is_found(chromashim, tmp_path):
    """One is taken and named, of several none: each verb in the same way."""
    def ask(*verb):
        return chromashim(*verb, cwd=tmp_path, env=hosts.environment())

    def make(name):
        (tmp_path / name).mkdir()
        sqlite3.connect(tmp_path / name / "chroma.sqlite3").execute("create table t(x)").connection.close()

    (tmp_path / "other").mkdir()
    done = ask("check")
    assert done.returncode != 0 and "'./chroma_data'" in done.stderr
    make("my_db")
    for verb in (["check"], ["snapshot", "create", "--no-verify"], ["snapshot", "list"], ["export"]):
        assert "the data directory that is here is taken: './my_db'" in ask(*verb).stderr, verb
    make("chroma")
    done = ask("status")
    assert done.returncode == 2 and "./chroma\n" in done.stderr and "./my_db\n" in done.stderr
    make("chroma_data")
    assert "taken" not in ask("check").stderr


def test_full_disk_is_told_when_asked(chromashim, small_disk):
    sqlite3.connect(small_disk / "chroma.sqlite3").execute("create table t(x)").connection.close()
    assert "full" not in chromashim("status", "--check", small_disk).stdout
    (small_disk / "filler").write_bytes(bytes(21 << 20))
    done = chromashim("status", "--check", small_disk)
    assert done.returncode != 0 and "the disk is" in done.stdout and "full" in done.stdout


LAUNCHERS = {
    "setpriv": ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"],
    "runuser": ["env", "A=b", "runuser", "-u", "nobody", "--"],
    "sudo": ["nice", "sudo", "-Eu", "nobody"],
    "gosu": ["gosu", "nobody"],
}
AS_WHOM = """
import os, sqlite3, sys
os.stat(sys.argv[1])
with sqlite3.connect(sys.argv[1] + "/chroma.sqlite3") as db:
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
print(os.getuid())
"""


@root_only
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_root_makes_the_directory_for_the_user(run, tmp_path, launcher):  # noqa: F811
    words = LAUNCHERS[launcher]
    if not shutil.which(next(w for w in words if w in LAUNCHERS)):
        pytest.skip(f"no {launcher} here")
    hosts.let_others_in(tmp_path)
    data = tmp_path / "made" / "here"
    for _ in range(2):
        done = run("--dir", data, "--", *words, "/usr/bin/python3", "-c", AS_WHOM, data)
        assert done.stdout == f"{NOBODY.pw_uid}\n", done.stderr
        assert "belongs to" not in done.stderr
    for each in (data.parent, data, data / ".chromashim", data / ".chromashim/writer.lock"):
        assert each.stat().st_uid == NOBODY.pw_uid, each
    os.chown(data, 0, 0)
    done = run("--check-only", "--dir", data, "--", *words, "true")
    assert "belongs to" not in done.stderr  # the database is that user's
    os.chown(data / "chroma.sqlite3", 0, 0)
    done = run("--check-only", "--dir", data, "--", *words, "true")
    assert "belongs to root, and the backend will run as nobody" in done.stderr
    assert f"chown -R {NOBODY.pw_uid}:{NOBODY.pw_gid} " in done.stderr
