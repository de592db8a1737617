# SPDX-License-Identifier: MIT
"""The guardian in the course of days: snapshots by the clock, and which of them are kept."""

import json
import os
import sqlite3
import subprocess
import time
from datetime import datetime, timezone

import pytest

import hosts
from loads import listed, nanoseconds
from test_guardian import make_directory, touch_database


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A library that sets the clock on the wall forward, for LD_PRELOAD."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run([os.environ.get("CC", "gcc"), "-D_GNU_SOURCE", "-shared", "-fPIC", "-o",
                    str(library), str(hosts.ROOT / "tests/e2e/clock.c"), "-ldl"], check=True)
    return library


class Days:
    """The guardian called again and again while the days go by."""

    def __init__(self, chromashim, data, clock, **settings):
        self.chromashim, self.data, self.clock = chromashim, data, clock
        self.settings = {f"CHROMASHIM_{name}": value for name, value in settings.items()}
        # Days and weeks of the rules are the calendar's: always from a Saturday evening on.
        saturday = int(datetime(2026, 11, 28, 22, 40, tzinfo=timezone.utc).timestamp())
        self.seconds = int(saturday - time.time()) % (7 * 86400)

    def command(self, *words):
        env = hosts.environment({"LD_PRELOAD": str(self.clock), "TZ": "UTC",
                                 "CLOCK_OFFSET": str(self.seconds), **self.settings})
        return self.chromashim(*words, env=env)

    def go_on(self, hours, status=0):
        self.seconds += int(hours * 3600)
        touch_database(self.data, self.seconds)
        done = self.command("guard", "--once", self.data)
        assert done.returncode == status, done.stderr
        return done.stderr

    def ages(self):
        """Of what there is, in hours, the newest first."""
        now = time.time_ns() + self.seconds * 10**9
        return [(now - nanoseconds(s["time"])) / 3600e9
                for s in reversed(listed(self.chromashim, self.data)) if s["state"] == "verified"]


@pytest.mark.parametrize("settings, kept", [({}, 6), ({"KEEP": "last=2"}, 2)])
def test_all_of_the_last_hour(data, chromashim, clock, settings, kept):
    """Where no rules are given, or others."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="10m", **settings)
    for _ in range(9):
        days.go_on(1 / 6)
    ages = days.ages()
    assert len([age for age in ages if age < 0.95]) == kept, ages


def test_those_before_changes_stay_for_an_hour(data, chromashim, clock, shim):
    """Five changes of the schema, one after the other: the first can still be taken back."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h")
    days.seconds = 0
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)})
    for change in range(5):
        subprocess.run([str(hosts.python("venv")), "-c", "import sqlite3, sys\n"
                        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                        f"db.execute('CREATE TABLE t{change} (x)')\n"
                        f"db.execute('INSERT INTO t{change} VALUES (1)')",
                        str(data / "chroma.sqlite3")], check=True, env=env)
        assert days.command("guard", "--once", data).returncode == 0
    before = [s for s in listed(chromashim, data) if s["reason"] == "schema"]
    assert len(before) == 5 and all(s["state"] == "verified" for s in before), before


def test_a_clock_that_was_set_back(data, chromashim, clock):
    """Snapshots of a time that is still to come: the stop's is taken all the same, and alarms go by
    the others."""
    make_directory(data)
    days = Days(chromashim, data, clock)
    days.seconds = 700 * 86400
    assert days.command("snapshot", "create", data).returncode == 0
    days.seconds = 0
    assert "the clock was set back" in days.command("status", "--check", data).stdout
    assert days.command("snapshot", "create", data).returncode == 0
    days.seconds = 700 * 86400
    assert days.command("snapshot", "create", data).returncode == 0
    days.seconds = 100 * 86400
    assert "100.0 days old, which is too much" in days.command("status", data).stdout
    assert "the newest verified snapshot is 100.0 days old" in days.command("status", "--check", data).stdout

    host = ("import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/chroma.sqlite3')\n"
            "db.execute('UPDATE embeddings SET created_at = 1'); db.commit()")
    done = chromashim("run", "--dir", data, "--", hosts.python("venv"), "-c", host, data,
                      env=hosts.environment({"CHROMASHIM_GUARD": ""}))
    assert done.returncode == 0, done.stderr
    assert chromashim("guard", "--once", data).returncode == 0
    assert [s["reason"] for s in listed(chromashim, data)].count("stop") == 1


def test_the_latest_is_the_one_taken_last(data, chromashim, clock, tmp_path):
    """Whatever the clock said: one of a time that is still to come would bring back what is old."""
    make_directory(data)
    days = Days(chromashim, data, clock)
    days.seconds = 700 * 86400
    assert days.command("snapshot", "create", data).returncode == 0
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute("CREATE TABLE later(x)")
    db.close()
    assert chromashim("snapshot", "create", data).returncode == 0
    last = listed(chromashim, data)[-1]
    assert chromashim("restore", "--to", "latest", "-o", tmp_path / "out", data).returncode == 0
    with sqlite3.connect(tmp_path / "out/chroma.sqlite3") as db:
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() == (1,)
    db.close()
    told = json.loads(chromashim("check", "--json", data).stdout)
    assert nanoseconds(told["newest_snapshot"]) // 10**9 == nanoseconds(last["time"]) // 10**9


def test_a_crash_of_the_future(data, chromashim, clock, shim):
    """It was not the last one: those that came after it are, whatever the clock said then."""
    make_directory(data)
    host = ("import os, signal, sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/chroma.sqlite3')\n"
            "db.execute('UPDATE embeddings SET created_at = 1'); db.commit()\n"
            "sys.argv[2:] and os.kill(os.getpid(), signal.SIGKILL)")
    for preload, words in (f"{clock}:{shim}", ["killed"]), (shim, []):
        env = hosts.environment({"LD_PRELOAD": preload, "CLOCK_OFFSET": str(700 * 86400)})
        subprocess.run([hosts.python("venv"), "-c", host, data, *words], env=env, check=False)
    assert chromashim("log", "--processes", data).stdout.count("death") == 1
    assert "did not end by itself" not in chromashim("check", data).stdout
    done = chromashim("run", "--dir", data, "--", "true")
    assert "last backend" not in done.stderr, done.stderr


@pytest.mark.parametrize("later, told", [(False, []), (True, [1])])
def test_a_first_look_after_the_clock_was_set_back(data, chromashim, clock, shim, later, told):
    """The newest crash alone is told then; one of a time still to come is not, nor hides another."""
    make_directory(data)
    script = ("import os, signal, sqlite3, sys\n"
              "db = sqlite3.connect(sys.argv[1])\n"
              "db.execute('UPDATE embeddings SET created_at = 1'); os.kill(os.getpid(), signal.SIGKILL)")
    died = []
    for preload in [f"{clock}:{shim}"] + [shim] * later:
        child = subprocess.Popen(
            [hosts.python("venv"), "-c", script, data / "chroma.sqlite3"],
            env=hosts.environment({"LD_PRELOAD": str(preload), "CHROMASHIM_GUARD": "off",
                                   "CLOCK_OFFSET": "432000"}))
        child.wait(30)
        died.append(child.pid)
    done = chromashim("guard", "--once", data)
    crashes = [line for line in (done.stdout + done.stderr).splitlines()
               if "crashed" in line or "was ended" in line]
    assert len(crashes) == len(told), crashes
    assert all(f"process {died[n]} " in line for n, line in zip(told, crashes)), crashes


@pytest.mark.slow
def test_thirty_days(data, chromashim, clock):
    """A snapshot every 6 h for 30 days, and none in between; what the rules say is kept."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", KEEP="last=3 hourly=8 daily=7 weekly=4")
    for day in range(30):
        hours = (6, 2, 4, 6, 6) if day % 5 == 0 else (6, 6, 6, 6)
        assert ["is taken" in days.go_on(h) for h in hours] == [h != 2 for h in hours]
    ages = days.ages()
    # The newest eight, two days of them; then one a day for a week, one a week for four.
    assert len(ages) <= 8 + 7 + 4
    assert all(abs(ages[n] - ages[0] - 6 * n) < 1 for n in range(8)), ages
    for day in range(7):
        assert any(24 * day - 1 < age < 24 * day + 30 for age in ages), (day, ages)
    for week in range(3):
        assert any(168 * week - 1 < age < 168 * (week + 1) + 30 for age in ages), (week, ages)
    assert all(s["state"] == "verified" for s in listed(chromashim, data))
    assert chromashim("snapshot", "verify", "--all", data, timeout=120).returncode == 0


@pytest.mark.slow
def test_by_hand_and_broken(data, chromashim, clock):
    """What somebody took stays for 90 days, a broken one for a week; then the rules count."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", KEEP="last=1")
    assert days.command("snapshot", "create", "-d", "before the upgrade", data).returncode == 0
    database = data / "chroma.sqlite3"
    good = database.read_bytes()
    with sqlite3.connect(database) as db:
        db.execute("DROP TABLE segments")
    assert "is broken: table-missing" in days.go_on(24)
    database.write_bytes(good)
    days.go_on(24)
    assert [s["id"] for s in listed(chromashim, data)] == [1, 2, 3]
    days.go_on(24 * 6)
    assert [s["id"] for s in listed(chromashim, data)] == [1, 4]
    days.go_on(24 * 79)
    assert [s["id"] for s in listed(chromashim, data)] == [1, 5]
    days.go_on(24 * 4)
    assert [s["id"] for s in listed(chromashim, data)] == [6]


@pytest.mark.slow
def test_space_and_the_last_verified_one(data, chromashim, clock):
    """The limit on space holds; when all newer ones are broken, the last verified one stays."""
    make_directory(data)
    days = Days(chromashim, data, clock, EVERY="6h", KEEP="all", KEEP_SPACE="60K")
    for _ in range(20):
        days.go_on(6)
        chunks = data / ".chromashim" / "snapshots" / "chunks"
        used = sum(p.stat().st_size for p in chunks.rglob("*") if p.is_file())
        count = len(listed(chromashim, data))
        assert used <= 60 << 10 or count == 1, (used, count)
    kept = [s["id"] for s in listed(chromashim, data)]
    assert 2 <= len(kept) < 20 and kept[-1] == 20
    with sqlite3.connect(data / "chroma.sqlite3") as db:
        db.execute("DROP TABLE segments")
    for _ in range(5):
        assert "is broken: table-missing" in days.go_on(6)
    days.settings["CHROMASHIM_KEEP_SPACE"] = "1"
    days.go_on(6)
    found = listed(chromashim, data)
    assert [s["id"] for s in found if s["state"] == "verified"] == [20], found
    warned = days.command("status", "--check", data)
    days.seconds += 24 * 3600
    warned = days.command("status", "--check", data)
    assert warned.returncode == 1 and "the newest verified snapshot is" in warned.stdout


def test_what_would_be_lost_is_not_told_by_a_clock_that_was_set_back(data, chromashim, clock, shim, tmp_path):
    """What was written after a snapshot of a time that is still to come is not of before it."""
    make_directory(data)
    days = Days(chromashim, data, clock)
    for days.seconds in (0, 700 * 86400):
        assert days.command("snapshot", "create", data).returncode == 0
    host = ("import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/chroma.sqlite3')\n"
            "db.execute('UPDATE embeddings SET created_at = 1'); db.commit()")
    subprocess.run([str(hosts.python("venv")), "-c", host, str(data)], check=True,
                   env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}))
    days.seconds = 0

    def told():
        page = tmp_path / "report.html"
        assert chromashim("report", "-o", page, data).returncode == 0
        assert "<strong>what cannot be told, since" in page.read_text()
        lines = chromashim("log", "--last-crash", data).stdout.split("Snapshots: ")[1].splitlines()
        words = json.loads(chromashim("log", "--last-crash", "--json", data).stdout)["snapshots"]
        return (["cannot be told" in line for line in lines if "snapshot " in line],
                [snapshot["records_lost"] is None for snapshot in words])

    assert told() == ([True, False],) * 2
    assert chromashim("snapshot", "create", data).returncode == 0
    assert told() == ([True, True, False],) * 2


def test_the_last_backend_is_the_one_that_ran_last(data, chromashim, clock, tmp_path):
    """Also where the one before it ran while the clock was ahead."""
    make_directory(data)
    days = Days(chromashim, data, clock)
    host = ("import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/chroma.sqlite3')\n"
            "db.execute('UPDATE embeddings SET created_at = ?', (os.getpid(),)); db.commit(); print(os.getpid())")
    for days.seconds in (0, 700 * 86400, 0):
        done = days.command("run", "--dir", data, "--", hosts.python("venv"), "-c", host, data)
        pid = int(done.stdout)
    assert f"the last backend (pid {pid})" in chromashim("log", "--last-crash", data).stdout
    page = tmp_path / "report.html"
    assert chromashim("report", "-o", page, data).returncode == 0
    assert f"process {pid} (" in page.read_text().split("What ended it")[1].split("What was the last")[0]
