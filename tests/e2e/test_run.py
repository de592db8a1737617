# SPDX-License-Identifier: MIT
"""`chromashim run`: the command does not notice, settings, and what cannot be started."""

import json
import os
import shutil
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hosts

PYTHON = "/usr/bin/python3"
# What a process can know of how it was started.
LOOK = """
import json, os, signal
status = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "pid": os.getpid(), "ppid": os.getppid(), "session": os.getsid(0), "group": os.getpgrp(),
    "signals": [status[k].strip() for k in ("SigBlk", "SigIgn")],
    # The library's own are high and close-on-exec.
    "descriptors": sorted(int(f) for f in os.listdir("/proc/self/fd") if int(f) < 100),
    "umask": status.get("Umask"), "preload": os.environ.get("LD_PRELOAD"),
    "settings": {k: v for k, v in os.environ.items() if k.startswith("CHROMASHIM")},
}))
"""


@pytest.fixture
def run(tmp_path, chromashim):
    """chromashim run ... in a directory of its own, without a guardian."""
    def start(*arguments, env=None, **how):
        settings = hosts.environment({"CHROMASHIM_GUARD": "off", **(env or {})})
        return chromashim("run", *arguments, env=settings, cwd=tmp_path, **how)

    return start


def look(run, *options, env=None, **how) -> dict:
    done = run(*options, "--", PYTHON, "-I", "-S", "-c", LOOK, env=env, **how)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.fast
def test_the_command_does_not_notice(tmp_path, data):
    """Same pid and parent, session, signals, umask; no descriptor more."""
    words = [PYTHON, "-I", "-S", "-c", LOOK]

    def start(prefix):
        def prepare():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.umask(0o027)

        child = subprocess.Popen([*prefix, *words], stdout=subprocess.PIPE, preexec_fn=prepare,
                                 cwd=tmp_path, text=True, stderr=subprocess.DEVNULL,
                                 env=hosts.environment({"CHROMASHIM_GUARD": "off"}))
        seen = json.loads(child.communicate(timeout=30)[0])
        assert seen.pop("pid") == child.pid
        return seen

    plain = start([])
    under = start([str(hosts.COMMAND), "run", "--dir", str(data), "--"])
    assert under.pop("preload") == str(hosts.SHIM.resolve())
    assert under.pop("settings")["CHROMASHIM_DIR"] == str(data)
    del plain["preload"], plain["settings"]
    assert under == plain


def test_a_closed_pipe_is_a_signal_again(run):
    """Python ignores SIGPIPE by itself, so another program has to tell."""
    words = ["sh", "-c", "grep SigIgn /proc/self/status"]
    plain = subprocess.run(words, capture_output=True, text=True, check=True)
    assert run("--", *words).stdout == plain.stdout


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_status(run, status):
    assert run("--", "sh", "-c", f"exit {status}").returncode == status


def test_killed_by_a_signal(run):
    assert run("--", "sh", "-c", "kill -9 $$").returncode == -signal.SIGKILL


def test_sigterm_reaches_the_command(tmp_path):
    child = subprocess.Popen(
        [hosts.COMMAND, "run", "--", PYTHON, "-I", "-S", "-c",
         "import signal, sys\nsignal.signal(15, lambda *a: sys.exit(42))\n"
         "print('up', flush=True)\nsignal.pause()"],
        env=hosts.environment({"CHROMASHIM_GUARD": "off"}), cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout.readline() == "up\n"
    child.terminate()
    assert child.wait(20) == 42
    child.stdout.close()


def test_ctrl_c_at_a_terminal(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ.update(CHROMASHIM_GUARD="off")
        os.execv(hosts.COMMAND, [str(hosts.COMMAND), "run", "-q", "--", "sh", "-c",
                                 "trap 'exit 33' INT; tty; echo up; while :; do sleep 0.1; done"])
    said = b""
    while b"up" not in said:
        said += os.read(terminal, 1000)
    assert b"/dev/pts/" in said
    os.write(terminal, b"\x03")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 33
    os.close(terminal)


def test_no_such_program(run, tmp_path):
    done = run("--", "no-such-program")
    assert done.returncode == 127 and "there is no program 'no-such-program'" in done.stderr
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    done = run("--", "./plain")
    assert done.returncode == 126 and "cannot execute './plain'" in done.stderr
    (tmp_path / "lost").write_text("#!/no/such/interpreter\n")
    (tmp_path / "lost").chmod(0o755)
    assert run("--", "./lost").returncode == 127
    (tmp_path / "bare").write_text("echo from a shell; exit 3\n")
    (tmp_path / "bare").chmod(0o755)
    done = run("--", "./bare")
    assert done.returncode == 3 and done.stdout == "from a shell\n"
    assert run().returncode == 2
    assert run("--set", "FENCE=on", "--", "true").returncode == 2
    assert run("--on-damage=maybe", "--", "true").returncode == 2


def test_what_is_preloaded_stays(run):
    before = "/lib/x86_64-linux-gnu/libm.so.6"
    if not Path(before).exists():
        pytest.skip(f"{before} is missing")
    seen = look(run, env={"LD_PRELOAD": before})
    assert seen["preload"] == f"{hosts.SHIM.resolve()}:{before}"
    seen = look(run, env={"LD_PRELOAD": str(hosts.SHIM)})
    assert seen["preload"] == str(hosts.SHIM)


@pytest.mark.fast
def test_ours_is_in_front_whatever_is_named(run, tmp_path):
    """A library that is gone, another version, a link, a name alone: compared, not read."""
    ours = hosts.SHIM.resolve()
    (tmp_path / "lib").mkdir()
    other = tmp_path / "lib/libother.so"
    shutil.copy(ours, other)
    (tmp_path / "link.so").symlink_to(ours)
    math = "/lib/x86_64-linux-gnu/libm.so.6"
    for before in ("/gone/libchromashim.so", "libchromashim.so", str(other), f"{tmp_path}/$LIB/libother.so",
                   str(tmp_path / "link.so"), f"{math}:{tmp_path}/link.so", f"/gone/libchromashim.so {math}"):
        done = run("--", "sh", "-c", "echo $LD_PRELOAD; LD_PRELOAD= grep -c libchromashim /proc/$$/maps",
                   env={"LD_PRELOAD": before})
        preload, mapped = done.stdout.split()
        assert preload == (f"{ours}:{math}" if math in before else str(ours)), before
        assert int(mapped) > 0, before
        said = "libother" in before or "gone" in before or before[0] == "l"
        assert ("LD_PRELOAD named" in done.stderr) == said, before


def test_a_child_with_another_libc_starts(run, tmp_path):
    """It gets the preload with its environment, and would die of a missing symbol."""
    if not shutil.which("musl-gcc"):
        pytest.skip("musl-gcc is missing")
    (tmp_path / "m.c").write_text('#include <stdio.h>\nint main(void){FILE *f=fopen("made","w");'
                                  'fputs("x",f);fclose(f);puts("up");return 0;}\n')
    subprocess.run(["musl-gcc", "m.c", "-o", "m"], cwd=tmp_path, check=True)
    done = run("--", "sh", "-c", "./m")
    assert done.stdout == "up\n" and done.returncode == 0 and "UNPROTECTED" in done.stderr
    assert (tmp_path / "made").read_text() == "x"


def test_settings_survive_a_launcher_that_drops_them(run):
    done = run("--set", "CHROMASHIM_BALLAST=3M", "--", "python3", "-c",
               "import os, subprocess; subprocess.run(['/bin/sh', '-c', 'echo $CHROMASHIM_BALLAST'], "
               "env={'LD_PRELOAD': os.environ['LD_PRELOAD']})")
    assert done.stdout == "3M\n"


# ---- settings ----

def test_precedence(run, data):
    store = data / ".chromashim"
    store.mkdir(mode=0o700)
    (store / "chromashim.conf").write_text(
        "# mine\nCHROMASHIM_WAIT = 1s\nCHROMASHIM_BALLAST = 1M # small\nCHROMASHIM_LOG_SQL = off\n")
    options = ["--dir", data, "--set", "CHROMASHIM_WAIT=3s"]
    env = {"CHROMASHIM_BALLAST": "2M", "CHROMASHIM_WAIT": "2s"}
    seen = look(run, *options, env=env)["settings"]
    assert seen["CHROMASHIM_WAIT"] == "3s"
    assert seen["CHROMASHIM_BALLAST"] == "2M"
    assert seen["CHROMASHIM_LOG_SQL"] == "off"
    assert "CHROMASHIM_FENCE" not in seen
    lines = run("--print-config", *options, env=env).stdout.splitlines()
    told = {line.split(" = ")[0]: line for line in lines if not line.startswith("#")}
    assert "# option:" in told["CHROMASHIM_WAIT"] and " 3s" in told["CHROMASHIM_WAIT"]
    assert "# environment:" in told["CHROMASHIM_BALLAST"]
    assert f"# {store}/chromashim.conf:4:" in told["CHROMASHIM_LOG_SQL"]
    assert "# default:" in told["CHROMASHIM_FENCE"]


def test_a_settings_file_with_a_mistake(run, tmp_path, data):
    file = tmp_path / "my.conf"
    file.write_text("CHROMASHIM_WAIT = 1s\nCHROMASHIM_LOG_SIZE = lots\n")
    done = run("--config", file, "--dir", data, "--", "true")
    assert done.returncode == 2
    assert f"{file}:2: CHROMASHIM_LOG_SIZE: 'lots' is not a size such as 256M" in done.stderr
    assert run("--config", tmp_path / "none.conf", "--", "true").returncode == 2
    (data / ".chromashim").mkdir()
    (data / ".chromashim/chromashim.conf").write_text("CHROMASHIM_DIR = /elsewhere\n")
    done = run("--dir", data, "--", "true")
    assert done.returncode == 2 and "cannot be set in the store itself" in done.stderr
    done = run("--", "true", env={"CHROMASHIM_FENCE": "maybe"})
    assert done.returncode == 2 and "CHROMASHIM_FENCE is 'maybe', which is not on or off" in done.stderr


def test_a_settings_file_that_others_could_have_written(run, data):
    """It names a library to load and a program to call."""
    (data / ".chromashim").mkdir()
    file = data / ".chromashim/chromashim.conf"
    file.write_text("CHROMASHIM_WAIT = 7s\n")
    file.chmod(0o664)
    done = run("--dir", data, "--", "sh", "-c", "echo .$CHROMASHIM_WAIT")
    assert done.stdout == ".\n" and f"'{file}' is not used" in done.stderr
    file.chmod(0o644)
    assert run("--dir", data, "--", "sh", "-c", "echo .$CHROMASHIM_WAIT").stdout == ".7s\n"
    if os.geteuid() == 0:
        os.chown(file, 65534, 65534)
        assert "is not used" in run("--dir", data, "--", "true").stderr


# ---- which directory ----

@pytest.mark.parametrize("command, env, directory", [
    (["true", "--path", "./a b"], {}, "./a b"),
    (["true", "--path=ä/"], {}, "ä"),
    (["chroma", "run"], {}, "./chroma"),
    (["chroma", "run", "chroma.yaml"], {}, "/srv/da ta"),
    (["true"], {"PERSIST_DIRECTORY": "p"}, "p"),
    (["true"], {"CHROMA_PERSIST_PATH": "q", "PERSIST_DIRECTORY": "p"}, "q"),
    (["true", "--path", "x"], {"CHROMASHIM_DIR": "y:z"}, "y"),
    (["true"], {}, "./chroma_data"),
    (["env", "-C", "there", "true", "--path", "x"], {}, "there/x"),
    (["env", "A=b", "--chdir=there", "chroma", "run"], {}, "there/./chroma"),
    (["env", "-C", "there", "true", "--path", "/x"], {}, "/x"),
    (["env", "true", "-C", "there", "--path", "x"], {}, "x"),
    (["uv", "run", "--directory", "there", "true", "--path", "x"], {}, "there/x"),
    (["env", "-C", "there", "true"], {"CHROMASHIM_DIR": "y"}, "y"),
])
def test_directory(run, tmp_path, command, env, directory):
    (tmp_path / "chroma.yaml").write_text('port: 8000\npersist_path: "/srv/da ta"  # here\n')
    done = run("--print-config", "--", *command, env=env)
    assert done.stdout.splitlines()[0].startswith(f"# data directory: {directory} (")


def test_a_directory_that_no_backend_uses(run, data):
    words = ["--dir", data, "--", hosts.python("venv"), "-c", ""]
    assert run(*words).stderr == f"chromashim: {data}: no Chroma data in it yet\n"
    again = run(*words).stderr
    assert "still no Chroma data in it, although a backend has run here" in again
    assert again.count("\n") == 1 and "--dir" in again


def test_a_new_directory_is_made_and_protected(run, tmp_path):
    done = run("--dir", "new/one", "--", "sh", "-c", "echo hi >new/one/file")
    assert done.returncode == 0 and "is not there yet" in done.stderr
    assert (tmp_path / "new/one/.chromashim/oplog").is_dir()
    assert not (tmp_path / "other").exists()
    assert run("--check-only", "--dir", "other").returncode == 0
    assert not (tmp_path / "other").exists()
