# SPDX-License-Identifier: MIT
"""The guardian that `chromashim run` starts: detached, one for a directory, gone soon after."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import hosts
from test_run_directory import load, make  # noqa: F401


def guardians(data) -> list[int]:
    """Pids of the guardians of this directory."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if process.name.isdigit() and words[1:2] == [b"guard"] and words[2] == bytes(data):
            found.append(int(process.name))
    return found


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture
def start(data):
    """A backend under `chromashim run` that lives until its stdin is closed."""
    started = []

    def go(*options, env=None):
        child = subprocess.Popen(
            [hosts.COMMAND, "run", "--dir", data, *options, "--", hosts.python("venv"), "-c",
             load("venv", data)[2] + "sys.stdout.flush(); sys.stdin.read()", data, "3"],
            env=hosts.environment({"CHROMASHIM_GUARD": "on", **(env or {})}), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout.readline().startswith("1.5.9"), child.stderr.read()
        return child

    yield go
    for child in started:
        child.kill()
        child.communicate()
    wait_until(lambda: not guardians(data))


def test_it_is_detached_and_ends_with_the_backend(start, data):
    child = start()
    wait_until(lambda: guardians(data))
    guard, = guardians(data)
    status = dict(line.split(":\t") for line in
                  Path(f"/proc/{guard}/status").read_text().splitlines() if ":\t" in line)
    assert int(status["PPid"]) != child.pid
    assert os.getsid(guard) != os.getsid(child.pid)
    assert not [c for c in Path(f"/proc/{child.pid}/task").glob("*/children")
                if str(guard) in c.read_text().split()]
    opened = {os.readlink(f"/proc/{guard}/fd/{n}") for n in range(3)}
    assert opened == {"/dev/null", f"{data}/.chromashim/guard.log"}
    wait_until(lambda: "guarding" in (data / ".chromashim/guard.log").read_text())
    # By its name a backend that is started again knows it: it is in nobody's way.
    assert Path(f"/proc/{guard}/comm").read_text() == "chromashim\n"
    # Nobody who reads the backend's output waits for the guardian.
    child.communicate("", timeout=20)
    assert child.returncode == 0
    wait_until(lambda: not guardians(data))
    assert (data / ".chromashim/status.json").exists()


def test_no_second_one_while_the_first_begins(data, tmp_path):
    """The backend writes before the guardian of `run` has its lock: that may take long."""
    library = tmp_path / "libchromashim.so"  # with no command beside it
    shutil.copy(hosts.SHIM, library)
    (data / ".chromashim/guard.lock").mkdir(parents=True)
    done = subprocess.run(
        [hosts.COMMAND, "run", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={library}", "--",
         hosts.python("venv"), "-c", "import sqlite3, sys\n"
         "sqlite3.connect(sys.argv[1] + '/chroma.sqlite3').execute('CREATE TABLE t(x)')", data],
        env=hosts.environment({"CHROMASHIM_GUARD": "on"}), capture_output=True, text=True,
        timeout=60, check=False)
    assert done.returncode == 0 and "guardian" not in done.stderr, done.stderr


@pytest.mark.parametrize("how", [["--no-guard"], []], ids=["option", "environment"])
def test_none(start, data, how):
    start(*how, env={} if how else {"CHROMASHIM_GUARD": "off"})
    time.sleep(0.5)
    assert guardians(data) == []


CODE = """
import os, sys, sqlite3
c = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3")
c.execute("create table if not exists t(x)")
c.execute("insert into t values(1)")
c.commit()
print("up", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def code(tmp_path, shim):
    """A program with its directory in its code: without `run`, or under one that knows of another."""
    started = []

    def go(data, *before, env=None, plain=False):
        data.mkdir(exist_ok=True)
        child = subprocess.Popen(
            [*before, hosts.python("venv"), "-c", CODE, data], cwd=tmp_path,
            env=hosts.environment({"CHROMASHIM_GUARD": "on",
                                   **({} if plain else {"LD_PRELOAD": shim}), **(env or {})}),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append((child, data))
        assert child.stdout.readline() == "up\n", child.stderr.read()
        return child

    yield go
    for child, data in started:
        if child.poll() is None:
            child.kill()
            child.communicate()
        wait_until(lambda d=data: not guardians(d))


def test_the_library_starts_one(code, tmp_path):
    """Each directory has its own; it is seen neither as a child nor by its descriptors."""
    data = tmp_path / "in-code"
    child = code(data)
    guard, = guardians(data)
    assert not Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert Path(f"/proc/{guard}/stat").read_text().rsplit(")")[-1].split()[1] != str(child.pid)
    wait_until(lambda: {os.readlink(f"/proc/{guard}/fd/{n}") for n in range(3)} ==
               {"/dev/null", f"{data}/.chromashim/guard.log"})
    assert child.communicate("", timeout=20)[1] == "" and child.returncode == 0
    wait_until(lambda: not guardians(data))
    assert len(list((data / ".chromashim/snapshots").glob("*.manifest"))) == 1, "that of the stop"


def test_the_library_starts_none(code, tmp_path, shim):
    """Where none is wanted; and where there is no command it says so, once, and goes on."""
    code(tmp_path / "unwanted", env={"CHROMASHIM_GUARD": "off"})
    assert guardians(tmp_path / "unwanted") == []
    alone = tmp_path / "alone.so"
    shutil.copy(shim, alone)
    child = code(tmp_path / "without", env={"LD_PRELOAD": str(alone)})
    assert child.communicate("", timeout=20)[1].count("no guardian could be started") == 1


def test_it_stays_for_the_last(code, tmp_path, chromashim):
    """The one that was followed ends before another one that has the directory open."""
    data = tmp_path / "shared"
    first = code(data, hosts.COMMAND, "run", "--dir", data, "--", plain=True)
    guard, = guardians(data)
    with open(data / "chroma.sqlite3", "rb") as database:
        second = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[database.fileno()])
    first.communicate("", timeout=20)
    time.sleep(2.5)
    assert guardians(data) == [guard]
    second.communicate("", timeout=20)
    wait_until(lambda: not guardians(data))
    assert "(stop) is taken" in (data / ".chromashim/guard.log").read_text()


@pytest.mark.parametrize("place", ["state", "tmp"])
def test_run_without_a_name(code, tmp_path, place):
    """`run` knows of no directory, until the program was started once; of a service without a home
    that can be written, too."""
    env = {"XDG_STATE_HOME": str(tmp_path / "state")} if place == "state" else {
        "XDG_STATE_HOME": "", "HOME": "/proc/none"}
    child = code(tmp_path / "one", hosts.COMMAND, "run", "--", plain=True, env=env)
    assert len(guardians(tmp_path / "one")) == 1
    assert "no data directory is named" in child.communicate("", timeout=20)[1]
    # The next start of the same command knows it, and looks at it before.
    wait_until(lambda: not guardians(tmp_path / "one"))
    child = code(tmp_path / "one", hosts.COMMAND, "run", "--", plain=True, env=env)
    told = child.communicate("", timeout=20)[1]
    assert "no data directory" not in told and f"{tmp_path / 'one'}: " in told
    for kept in Path(f"/tmp/chromashim-{os.geteuid()}").glob("*"):
        if kept.is_file() and kept.read_bytes() == os.fsencode(tmp_path / "one"):
            kept.unlink()


def test_restarts_at_once(start, data):
    """kill -9 and start: one guardian at work at a time, and none too many at the end."""
    for _ in range(3):
        child = start()
        child.kill()
        child.communicate()
    child = start()
    wait_until(lambda: len(guardians(data)) == 1)
    words = Path(f"/proc/{guardians(data)[0]}/cmdline").read_bytes().split(b"\0")
    assert words[3:5] == [b"--follow", str(child.pid).encode()]
    child.communicate("")
    wait_until(lambda: not guardians(data))


def test_its_death_is_not_noticed(start, data):
    child = start()
    wait_until(lambda: guardians(data))
    os.kill(guardians(data)[0], signal.SIGKILL)
    time.sleep(0.2)
    assert child.poll() is None
    assert child.communicate("")[0] == "" and child.returncode == 0


def test_many_short_processes(data, shim):
    """Each opens the directory and ends: there is one guardian at most, and soon none."""
    data.mkdir(exist_ok=True)
    short, most = CODE.replace("sys.stdin.read()", ""), 0
    env = hosts.environment({"CHROMASHIM_GUARD": "on", "LD_PRELOAD": shim})
    for _ in range(50):
        done = subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", short, data], env=env,
                              capture_output=True, text=True, check=True)
        assert done.stderr == ""
        most = max(most, len(guardians(data)))
    wait_until(lambda: not guardians(data))
    assert most <= 2, "one that goes and one that comes"
