# SPDX-License-Identifier: MIT
"""After a death: what `log --last-crash` tells, and who undoes the persist that was cut off."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

import hosts
from test_run_directory import digest, load, make, run, segment  # noqa: F401

# Half of what hnswlib does in a persist, with the files open that it has open; then what the test
# says.
TEAR = """
import os, signal, sys
segment = sys.argv[1]
files = [os.open(f"{segment}/{name}", os.O_RDWR)
         for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")]
for fd in files[:3]:
    os.pwrite(fd, b"torn" * (os.fstat(fd).st_size // 4), 0)
"""
DIE = "os.kill(os.getpid(), signal.SIGKILL)\n"


def under_shim(data, script, *args, status=-9):
    done = subprocess.run([hosts.python("venv").resolve(), "-I", "-S", "-c", script, *args],
                          env=hosts.environment({"LD_PRELOAD": str(hosts.SHIM),
                                                 "CHROMASHIM_DIR": str(data)}),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr


@pytest.fixture
def torn(data):
    """A directory whose backend was killed in a persist; and what was there before."""
    make("venv", data)
    before = digest(data)
    under_shim(data, TEAR + DIE, str(segment(data)))
    assert digest(data) != before
    return data, before


def test_check_repair(torn, chromashim, data):
    _, before = torn
    now = digest(data)
    done = chromashim("check", "--repair", "-n", data)
    assert done.returncode == 2, done.stdout  # torn, and nothing was done about it
    assert f"segment {segment(data).name}: a persist that was cut off would be undone" in done.stdout
    assert digest(data) == now
    done = chromashim("check", "--repair", data)
    assert done.returncode == 0 and "was undone" in done.stdout, done.stdout + done.stderr
    assert digest(data) == before
    done = chromashim("check", "--repair", data)
    assert done.returncode == 0 and "nothing to undo" in done.stdout
    check = subprocess.run(load("venv", data), capture_output=True, text=True, check=True,
                           env=hosts.environment())
    assert check.stdout == "1.5.9 30\n"


def test_check_repair_with_a_process_in_the_way(torn, chromashim, data):
    now = digest(data)
    holder = open(data / "chroma.sqlite3", "rb")
    try:
        done = chromashim("check", "--repair", data)
        assert done.returncode == 14 and f"pid {os.getpid()}" in done.stderr
        assert digest(data) == now
    finally:
        holder.close()


def test_run_undoes_it_and_says_so(torn, run, data):  # noqa: F811
    done = run("--check-only", "--dir", data)
    assert "a persist that was cut off would be undone" in done.stderr
    with open(data / "chroma.sqlite3", "rb"):  # a reader is not in the way
        done = run("--dir", data, "--", *load("venv", data))
    assert done.returncode == 0 and done.stdout == "1.5.9 30\n", done.stderr
    assert "a persist that was cut off was undone" in done.stderr
    assert f"chromashim log --last-crash {data}" in done.stderr


def test_last_crash(torn, chromashim, data):
    done = chromashim("log", "--last-crash", data)
    assert done.returncode == 0, done.stderr
    assert "it did not end by itself" in done.stdout
    assert f"of segment {segment(data).name} had not finished; the next start" in done.stdout
    assert "data_level0.bin" in done.stdout.split("its last 10 seconds")[1]
    told = json.loads(chromashim("log", "--last-crash", "--json", data).stdout)
    assert told["ended"] in ("signal", "oom") and told["open_persists"] == [segment(data).name]
    chromashim("check", "--repair", data)
    assert "it was undone since" in chromashim("log", "--last-crash", data).stdout


def test_no_crash(run, chromashim, data):  # noqa: F811
    make("venv", data)
    run("--dir", data, "--", *load("venv", data, 3))
    done = chromashim("log", "--last-crash", data)
    assert done.returncode == 0 and "ended by itself" in done.stdout
    assert "did not" not in done.stdout and "persist" not in done.stdout
    under_shim(data, DIE.join(["import os, signal\nopen('%s/x', 'w').close()\n" % data, ""]))
    assert json.loads(chromashim("log", "--last-crash", "--json", data).stdout)["ended"] == "signal"


STOPPED = {
    "raise": ("signal.raise_signal(15)", -15, "stop", "SIGTERM"),
    "kill": ("os.kill(os.getpid(), 2)", -2, "stop", "SIGINT"),
    "handled": ("signal.signal(1, lambda *_: None); signal.raise_signal(1); os._exit(0)", 0,
                "exit", "by itself"),
    "blocked": ("signal.pthread_sigmask(0, [15]); os.kill(os.getpid(), 15); os._exit(0)", 0,
                "exit", "by itself"),
    "crash": ("signal.raise_signal(11)", -11, "signal", "did not end by itself"),
}


@pytest.mark.parametrize("how", STOPPED)
def test_stopped_by_a_signal_that_it_sends_itself(chromashim, data, how):
    """As servers do it when their graceful stop is over: a stop, no crash."""
    script, status, ended, word = STOPPED[how]
    make("venv", data)
    under_shim(data, "import os, signal, sys\nsignal.signal(2, signal.SIG_DFL)\n"
               "open(sys.argv[1] + '/x', 'w').close()\n" + script, str(data), status=status)
    told = json.loads(chromashim("log", "--last-crash", "--json", data).stdout)
    assert told["ended"] == ended or (how == "crash" and told["ended"] == "fault")
    if how != "crash":
        assert word in chromashim("log", "--last-crash", data).stdout.splitlines()[0]
    found = json.loads(chromashim("check", "--json", data).stdout)["findings"]
    assert ("died" in {f["code"] for f in found}) == (how == "crash")


def test_a_persist_that_an_exit_cut_off(chromashim, data):
    make("venv", data)
    under_shim(data, TEAR, str(segment(data)), status=0)
    done = chromashim("log", "--last-crash", data)
    assert "ended by itself" in done.stdout and "had not finished; the next start" in done.stdout


def test_a_call_under_way(chromashim, data):
    """A FIFO's reader never comes; killed while it waits."""
    script = f"""
import os, signal, threading
fd = os.open("{data}/chroma.sqlite3", os.O_RDWR | os.O_CREAT)
import fcntl
os.kill(os.getpid(), 9) if os.fork() == 0 else os.wait()
threading.Timer(0.3, lambda: os.kill(os.getpid(), 9)).start()
os.mkfifo("{data}/pipe")
os.open("{data}/pipe", os.O_WRONLY)
"""
    under_shim(data, script)
    done = chromashim("log", "--last-crash", data)
    assert "was under way" in done.stdout, done.stdout


def memory_group():
    """A control group of our own with a limit, of either version; or None."""
    name = f"chromashim-{uuid.uuid4().hex[:8]}"
    for root, limit in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
                        (Path("/sys/fs/cgroup"), "memory.max")):
        group = root / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(64 << 20))
            return group
        except OSError:
            group.rmdir()
    return None


def test_out_of_memory(chromashim, data):
    group = memory_group()
    if group is None:
        pytest.skip("no control group with a memory limit can be made here")
    try:
        under_shim(data, f"""
import os
open("{group}/cgroup.procs", "w").write(str(os.getpid()))
os.open("{data}/chroma.sqlite3", os.O_RDWR | os.O_CREAT)
eaten = [bytearray(os.urandom(1 << 20)) for _ in range(500)]
""")
    finally:
        group.rmdir()
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        pytest.skip("the kernel's log cannot be read here")
    told = json.loads(chromashim("log", "--last-crash", "--json", data).stdout)
    assert told["ended"] == "oom" and "Killed process" in told["kernel"] or "oom-kill" in told["kernel"]
    assert "for want of memory" in chromashim("log", "--last-crash", data).stdout
