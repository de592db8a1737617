# SPDX-License-Identifier: MIT
"""What an operator hears of by itself: events of the guardian, and `status` for monitoring."""

import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import time

import pytest

import hosts
import torn
from test_guardian import Events, guardians, make_directory, touch_database  # noqa: F401
from test_guardian_clock import Days, clock  # noqa: F401
from test_pin_faults import wait_until_stopped
from test_whose_store import HOST, Backend



@pytest.fixture(autouse=True)
def any_disk(monkeypatch):
    """However full this machine's is."""
    monkeypatch.setenv("CHROMASHIM_WARN_FULL", "0")


class Teller(Backend):
    """Does what it is told: a row, or the beginning of a transaction."""
    source = HOST.replace('    c.execute("insert', '    c.execute("begin immediate" if line == "begin\\n" else "insert').replace(
        '(line,))', '() if line == "begin\\n" else (line,))')


def guard_once(chromashim, data, events, **env):
    return chromashim("guard", "--once", data, env=hosts.environment({**events.env, **env}))


def status(chromashim, data, *options):
    done = chromashim("status", "--check", *options, data)
    assert len(done.stdout.splitlines()) == 1 and " | protected=" in done.stdout, done.stdout
    return done.returncode, done.stdout


def kill(backend, number=signal.SIGKILL, in_the_middle=True):
    if in_the_middle:
        backend.child.stdin.write("begin\n")
        backend.child.stdin.flush()
        assert backend.child.stdout.readline() == "written\n"
        backend.write()
    backend.child.send_signal(number)
    backend.child.wait()


def test_crashes(tmp_path, data, chromashim, guardians):  # noqa: F811
    """Each is told once, whichever guardian there is; who is stopped between two calls has not
    crashed; three deaths in ten minutes are a loop."""
    events = Events(tmp_path)

    def backend():
        started = Teller(data)
        started.write()
        return started

    first = backend()
    guardian = guardians(data, "--follow", str(first.child.pid), env=events.env)
    guardian.wait_for("guarding")
    assert status(chromashim, data)[0] == 0, status(chromashim, data)
    kill(first)
    assert guardian.child.wait(30) == 0
    (crash,) = events.told("crash.found")
    assert f"process {first.child.pid} (" in crash["message"] and "middle of a write" in crash["message"]
    assert "1 crashes in the last" in status(chromashim, data)[1]
    kill(backend(), signal.SIGTERM, False)
    backend().stop()
    assert guard_once(chromashim, data, events).returncode == 0
    assert len(events.told("crash.found")) == 1 and not events.told("crash.loop")
    assert len(events.told("backend.ended")) == 1
    kill(backend())  # which no guardian has seen
    for _ in range(2):
        assert guard_once(chromashim, data, events).returncode == 0
    assert len(events.told("crash.found")) == 2
    (loop,) = events.told("crash.loop")
    assert "3 times within ten minutes" in loop["message"]
    code, line = status(chromashim, data)
    assert code == 2 and "crash loops" in line and "crashes=2" in line
    assert "crash" not in status(chromashim, data, "--since", "0")[1].split("|")[0]
    assert "crash.loop: the backend died 3 times" in chromashim("status", data).stdout


def test_what_was_done_about_a_crash(tmp_path, data, actors, chromashim):
    """A persist that is undone, by the command or by the library, and damage that is healed."""
    events = Events(tmp_path)
    torn.make(data)
    torn.tear(actors(), data)
    assert "was undone" in chromashim("check", "--repair", data).stdout
    assert guard_once(chromashim, data, events).returncode in (0, 1)
    (undone,) = events.told("persist.undone")
    assert torn.SEGMENT in undone["message"]
    torn.tear(actors(), data)
    actors().sqlite(data)  # the library undoes it
    for _ in range(2):
        guard_once(chromashim, data, events)
    assert len(events.told("persist.undone")) == 2
    assert "2 index writes undone" in status(chromashim, data)[1]


def test_healed(tmp_path, data, chromashim):
    events = Events(tmp_path)
    make_directory(data)
    with contextlib.closing(sqlite3.connect(data / "chroma.sqlite3")) as db:
        db.execute("DELETE FROM embedding_fulltext_search_docsize")
        db.commit()
    done = chromashim("recover", "-y", data)
    assert done.returncode == 0 and "healed" in done.stdout, done.stdout + done.stderr
    assert not events.told("recover.healed")
    guard_once(chromashim, data, events)
    (healed,) = events.told("recover.healed")
    assert "quarantine/" in healed["message"]
    assert "1 healings" in status(chromashim, data)[1]


def test_a_guardian_died(tmp_path, data, guardians, chromashim):  # noqa: F811
    events = Events(tmp_path)
    make_directory(data)
    first = guardians(data)
    first.wait_for("is verified")
    first.end(signal.SIGKILL)
    assert guard_once(chromashim, data, events).returncode == 0
    (died,) = events.told("guard.died")
    assert f"process {first.child.pid})" in died["message"]
    assert "1 guardians killed" in status(chromashim, data)[1]
    guard_once(chromashim, data, events)
    assert len(events.told("guard.died")) == 1


def test_a_guardian_is_stopped(data, guardians, chromashim):  # noqa: F811
    """It holds its lock, and its last word is that all is well."""
    make_directory(data)
    one = guardians(data)
    one.wait_for("is verified")
    one.child.send_signal(signal.SIGSTOP)
    wait_until_stopped(one.child)
    assert f"(kill -CONT {one.child.pid})" in status(chromashim, data)[1]
    assert "stopped" in chromashim("status", data).stdout
    one.child.send_signal(signal.SIGCONT)
    assert "stopped" not in status(chromashim, data)[1]


def test_age_of_the_newest_verified_one(tmp_path, data, chromashim, clock):  # noqa: F811
    """The guardian stopped, it comes by age alone; and the guardian tells it when nothing gets
    verified."""
    events = Events(tmp_path)
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", HOOK=str(events.program))
    days.settings["HOOK_OUT"] = str(events.out)
    days.go_on(6)

    def check(*options):
        done = days.command("status", "--check", *options, data)
        return [done.returncode, "the newest verified snapshot is" in done.stdout]

    assert check()[1] is False
    days.seconds += 14 * 3600
    assert check() == [1, True]
    assert check("--snapshot-age", "15h")[1] is False
    assert check("--snapshot-age", "13h") == [1, True]
    done = chromashim("status", "--check", "--snapshot-age", "soon", data)
    assert done.returncode == 2 and "'soon', which is no time" in done.stderr
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute("DROP TABLE segments")
    assert not events.told("snapshot.overdue")
    for _ in range(3):
        days.go_on(6)
    (late,) = events.told("snapshot.overdue")
    assert "the newest verified snapshot is" in late["message"]


def test_disk_that_fills_up(tmp_path, small_disk, chromashim, monkeypatch):
    """Idle or not: a warning from CHROMASHIM_WARN_FULL on, and worse when writes are refused."""
    monkeypatch.delenv("CHROMASHIM_WARN_FULL")
    data = small_disk / "data"
    events = Events(tmp_path)
    make_directory(data)
    no = {"CHROMASHIM_EVERY": "0"}
    guard_once(chromashim, data, events, **no)
    assert not events.told("disk.filling") and "full" not in status(chromashim, data)[1]
    (small_disk / "filler").write_bytes(bytes(20 << 20))
    for _ in range(2):
        guard_once(chromashim, data, events, **no)
    (filling,) = events.told("disk.filling")
    assert "% full (CHROMASHIM_WARN_FULL is 80 %)" in filling["message"]
    code, line = status(chromashim, data)
    assert code == 1 and "% full" in line and "disk=8" in line, line
    with contextlib.suppress(OSError), open(small_disk / "more", "wb", buffering=0) as more:
        while True:
            more.write(bytes(4096))
    code, line = status(chromashim, data)
    assert code == 2 and "new writes are refused" in line, line


def test_inodes_used_up(tmp_path, chromashim):
    small = tmp_path / "few"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=120", "tmpfs", small],
                             capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        data = small / "data"
        make_directory(data)
        assert "inodes" not in status(chromashim, data)[1]
        with contextlib.suppress(OSError):
            for n in range(120):
                (small / str(n)).touch()
        code, line = status(chromashim, data)
        assert code == 2 and "no inodes left, and new writes are refused" in line, line
        done = chromashim("run", "--dir", data, "--check-only", "--", "true")
        assert "the file system has no inodes left" in done.stderr, done.stderr
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_disk_of_a_store_elsewhere(data, small_disk, chromashim):
    env = hosts.environment({"CHROMASHIM_STORE": str(small_disk / "store"),
                             "CHROMASHIM_WARN_FULL": "80%"})
    make_directory(data)
    assert chromashim("snapshot", "create", data, env=env).returncode == 0
    assert "the store's disk" not in chromashim("status", "--check", data, env=env).stdout
    (small_disk / "filler").write_bytes(bytes(21 << 20))
    done = chromashim("status", "--check", data, env=env)
    assert done.returncode and re.search(r"the store's disk is [89]\d % full", done.stdout), done.stdout


def test_another_engine(tmp_path, data, shim, guardians, chromashim):  # noqa: F811
    from loads import Load
    events = Events(tmp_path)
    host = hosts.BY_NAME["python"]
    make_directory(data)
    engine = data / ".chromashim/engine"

    def run():
        load = Load(host, str(data), shim)
        load.wait_for(1)
        guardian = guardians(data, "--follow", str(load.child.pid), env=events.env)
        deadline = time.monotonic() + 30
        while not engine.exists() or "release 1.5.9" not in engine.read_text():
            assert time.monotonic() < deadline, guardian.said()
            time.sleep(0.1)
        load.stop()
        guardian.child.wait(30)

    run()
    assert not events.told("engine.changed")
    text = engine.read_text()
    assert f"packages {hosts.BUILD.resolve()}/venv/" in text or "site-packages" in text
    assert "python /" in text
    engine.write_text(text.replace("release 1.5.9", "release 1.4.0"))
    run()
    (changed,) = events.told("engine.changed")
    assert "is Chroma 1.5.9 now; at the last start it was 1.4.0" in changed["message"]


def test_wrong_directory_and_probes(tmp_path, data, chromashim):
    """A line in any case, since monitoring shows no other; a probe is ready whatever there is to
    warn of, and only where a protected process works."""
    for wrong in (tmp_path / "none", data):
        done = chromashim("status", "--check", wrong)
        assert done.returncode == 3 and done.stdout.startswith("CHROMASHIM UNKNOWN: ")
        done = chromashim("status", "--ready", wrong)
        assert done.returncode == 1 and done.stdout.startswith("not ready: ")
    backend = Backend(data)
    assert chromashim("status", "--ready", data).returncode == 0
    assert status(chromashim, data)[0] == 0, status(chromashim, data)
    second = subprocess.run(
        [str(hosts.python("venv")), "-c",
         f"import sqlite3; sqlite3.connect({str(data / 'chroma.sqlite3')!r}).execute('create table u(x)')"],
        env=hosts.environment({"LD_PRELOAD": str(hosts.SHIM), "CHROMASHIM_GUARD": "off"}),
        capture_output=True, check=False)
    assert second.returncode
    code, line = status(chromashim, data)
    assert code == 1 and "1 writers refused in the last" in line, line
    assert json.loads(chromashim("status", "--json", data).stdout)["alarms"][0]["level"] == "warning"
    done = chromashim("status", "--ready", data)
    assert done.returncode == 0 and f"process {backend.child.pid} works on" in done.stdout
    backend.stop()
    done = chromashim("status", "--ready", data)
    assert done.returncode == 1 and "no protected process works on" in done.stdout


def test_age_of_replicas(data, chromashim, clock):  # noqa: F811
    """One that has nothing is late as well; with a limit of one's own."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", REPLICA="/none/there")
    days.go_on(6, status=1)  # it was not sent

    def line(*options):
        done = days.command("status", "--check", *options, data)
        return done.stdout.split("|")[0]

    assert "replica" not in line()
    days.seconds += 23 * 3600
    assert "replica" not in line() and "replica" in line("--replica-age", "20h")
    days.seconds += 2 * 3600
    assert "nothing is in replica /none/there" in line()
    assert "replica       /none/there: nothing is there yet" in days.command("status", data).stdout
    status = json.loads((data / ".chromashim/status.json").read_text())
    assert [r["target"] for r in status["replicas"]] == ["/none/there"]
