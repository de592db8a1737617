# SPDX-License-Identifier: MIT
"""Limits of the library itself: one that is reached is said once, everywhere, and the host goes on.

With libchromashim-faults.so, which takes smaller ones from CHROMASHIM_BOUNDS."""

import json
import uuid

import pytest

import hosts
import torn
from actor import Actor
from test_guardian import Events

FAULTS = hosts.BUILD / "libchromashim-faults.so"
UUIDS = [str(uuid.UUID(int=n, version=4)) for n in range(60)]

DATABASES = """
opened = [db]
for name in "one", "two":
    os.mkdir(data + "-" + name)
    opened.append(sqlite3.connect(data + "-" + name + "/chroma.sqlite3"))
    opened[-1].execute("CREATE TABLE t(x)")
"""
PERSISTS = """
for segment in segments:
    with open(f"{data}/{segment}/data_level0.bin", "r+b", 0) as f:
        f.write(b"N" * 4096)
assert [open(f"{data}/{segment}/data_level0.bin", "rb").read(1) for segment in segments] == [b"N"] * 3
"""

# The bound, what the host does, what is said, and how it is said that it is unprotected by that.
REACHED = {
    "directories": ("directories=2", DATABASES, "more directories are open at once", 1),
    "locks": ("locks=2", DATABASES, "more databases are open than", 1),
    "groups": ("groups=2", PERSISTS, "more indexes are being written at once", 1),
    "descriptors": ("descriptors=5", PERSISTS, "all of the library's own descriptors are in use (1024)", 2),
    "names of neighbours": ("names=100", "for n in range(60): os.mkdir(f'{data}/upload-{n}')",
                            "half of the names of files", 0),
    "names": ("names=50", "for name in uuids: os.mkdir(f'{data}/{name}')", "all names of files", 1),
}


@pytest.fixture
def owner(data, request):
    """A process that has the directory open, with one of the limits so low."""
    segments = [torn.make(data, UUIDS[n]).name for n in range(3)]
    process = Actor(str(FAULTS), {"CHROMASHIM_BOUNDS": request.param})
    process.sqlite(data).do(f"data, segments, uuids = {str(data)!r}, {segments!r}, {UUIDS[3:]!r}; "
                            "db.execute('INSERT INTO t VALUES (1)'); db.commit()")
    yield process
    process.clean_up()


@pytest.mark.parametrize("owner, does, says, unprotected",
                         [pytest.param(*REACHED[name], id=name) for name in REACHED], indirect=["owner"])
def test_said_once_and_everywhere(data, tmp_path, owner, chromashim, does, says, unprotected):
    events = Events(tmp_path)

    def told():
        """By the metrics, status.json, and events."""
        done = chromashim("guard", "--once", data, env=hosts.environment({"CHROMASHIM_EVERY": "0", **events.env}))
        assert done.returncode == 0, done.stderr
        metrics = (data / ".chromashim/metrics.prom").read_text()
        line = next(line for line in metrics.splitlines() if line.startswith("chromashim_limit_reached{"))
        status = json.loads((data / ".chromashim/status.json").read_text())
        return line.endswith("} 1"), status["limit_reached"], len(events.told("backend.limit"))

    assert told() == (False, False, 0)
    owner.do(does)
    owner.do("db.execute('INSERT INTO t VALUES (2)'); db.commit()")
    said = owner.errors()
    assert said.count(says) == 1, said
    assert says in said and "UNPROTECTED" in said or not unprotected or "no fence" in said, said
    notes = chromashim("log", data, "--calls", "--op", "log.note", "--json").stdout
    assert notes.count(says) == 1, notes
    process, = json.loads(chromashim("status", data, "--json").stdout)["processes"]
    assert process["limit_reached"]
    assert "A LIMIT OF THE LIBRARY IS REACHED" in chromashim("status", data).stdout
    assert told() == (True, True, 1)
    event, = events.told("backend.limit")
    assert f"process {owner.pid} (" in event["message"]
    owner.stop()
    assert told() == (False, False, 1)


@pytest.mark.parametrize("owner", ["descriptors=5"], indirect=True)
def test_what_to_do_fits_the_limit(owner):
    owner.do(PERSISTS)
    said = owner.errors()
    assert "a crash before its end may break this collection. Write fewer indexes at once" in said
    assert "make room" not in said


@pytest.mark.parametrize("owner", ["groups=2"], indirect=True)
def test_a_directory_that_is_opened_later(data, owner, chromashim):
    """Its log says it from the beginning."""
    owner.do(PERSISTS)
    owner.do("""
os.mkdir(data + "-late")
late = sqlite3.connect(data + "-late/chroma.sqlite3")
late.execute("CREATE TABLE t(x)")
""")
    process, = json.loads(chromashim("status", f"{data}-late", "--json").stdout)["processes"]
    assert process["limit_reached"]
