# SPDX-License-Identifier: MIT
"""Library, command and store of different versions: nobody harms anything, and each says so. And stores
of all released versions, in tests/stores, are read by this one."""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

import hosts
import pin_reader
import torn

OWN = re.search(r'CHROMASHIM_VERSION "(.*)"', (hosts.ROOT / "include/chromashim.h").read_text())[1]
OLDER, NEWER = "0.0.9", "9.1.0"
STORES = sorted((hosts.ROOT / "tests/stores").glob("*.tar.xz"))


def tree(data: Path) -> dict:
    """All there is to see of a directory, but when it was read."""
    found = {}
    for path in [data, *data.rglob("*")]:
        st = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(st.st_mode) else ""
        found[str(path)] = (st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns, content)
    return found


def is_of(path: Path, version: str) -> bytes:
    """The file as one of another version, of as many digits."""
    mark = b"chromashim-version "
    binary = path.read_bytes()
    assert binary.count(mark + OWN.encode() + b"\0") == 1
    return binary.replace(mark + OWN.encode() + b"\0", mark + version.encode() + b"\0")


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """package(version): a folder with library and command of that version."""
    def make(version: str) -> Path:
        folder = tmp_path_factory.mktemp("package")
        for path in (hosts.SHIM, hosts.COMMAND):
            (folder / path.name).write_bytes(is_of(path, version))
            (folder / path.name).chmod(0o755)
        return folder

    return make


def run(command: Path, *words, env=None):
    return subprocess.run([str(command), *map(str, words)], capture_output=True, text=True, check=False,
                          timeout=60, env=hosts.environment(env))


@pytest.fixture
def newer(data, actors):
    """A directory whose store is of a format that only a newer one knows."""
    torn.make(data)
    actor = actors().sqlite(data)
    actor.do("db.execute('INSERT INTO t VALUES (1)')")
    actor.stop()
    identity = data / ".chromashim/identity"
    text = identity.read_text()
    assert f"\nversion {OWN}\n" in text
    identity.write_text(text.replace("chromashim-store 1\n", "chromashim-store 2\n")
                        .replace(f"version {OWN}", f"version {NEWER}"))
    return data


SAID = f"was made by a newer chromashim ({NEWER}), and this is {OWN}"


VERBS = ["status", "log", "snapshot list", "snapshot create", "restore --to latest -y", "recover -y", "guard",
         "snapshot prune --keep-last=1", "report -o /dev/null", "check --repair"]


def test_an_older_command_leaves_a_newer_store_alone(newer, chromashim):
    before = tree(newer)
    for verb in VERBS:
        done = chromashim(*verb.split(), newer)
        assert done.returncode == (3 if verb.startswith("check") else 1), (verb, done)
        assert done.stderr.count(SAID) == 1, (verb, done.stderr)
        assert tree(newer) == before, verb


def test_check_judges_the_directory_all_the_same(newer, chromashim):
    before = tree(newer)
    done = chromashim("check", newer)
    assert done.stderr.count(SAID) == 1 and "it is left out" in done.stderr
    assert done.stdout
    assert tree(newer) == before


def test_a_backend_goes_on_and_says_so_once(newer, actors):
    before = tree(newer / ".chromashim")
    actor = actors().sqlite(newer)
    actor.do("db.execute('INSERT INTO t VALUES (2)')")
    torn.overwrite(actor, newer)
    actor.sqlite(newer)
    said = actor.lines()
    assert len(said) == 1 and "UNPROTECTED" in said[0], said
    assert f"made by a newer chromashim ({NEWER}; this library is {OWN}), and is left alone" in said[0]
    assert tree(newer / ".chromashim") == before
    closed = actors(env={"CHROMASHIM_ON_FAILURE": "closed"})
    assert closed.fails(f"os.open({str(newer / 'chroma.sqlite3')!r}, os.O_RDWR)")


def test_run_starts_it_only_where_nothing_waits_to_be_undone(data, newer, chromashim, tmp_path):
    started = tmp_path / "started"
    words = ["--no-guard", "--dir", data, "--", "touch", started]
    shutil.rmtree(data / torn.SEGMENT)
    before = tree(data)
    done = chromashim("run", *words)
    assert done.returncode == 0 and started.exists(), done.stderr
    assert done.stderr.count(f"UNPROTECTED: the store '{data}/.chromashim' {SAID}") == 1
    started.unlink()
    done = chromashim("run", "--set", "CHROMASHIM_ON_FAILURE=closed", *words)
    assert done.returncode == 1 and "not started" in done.stderr and not started.exists()
    assert tree(data) == before
    (data / ".chromashim/undo").mkdir(exist_ok=True)
    (data / ".chromashim/undo/000007.undo").write_bytes(b"?" * 5000)
    before = tree(data)
    done = chromashim("run", *words)
    assert done.returncode == 1 and "has to be undone from it first" in done.stderr, done
    assert not started.exists() and tree(data) == before


def test_library_and_command_of_different_versions(data, package, actors, chromashim):
    torn.make(data)
    folder = package(OLDER)
    actor = actors(False, {"LD_PRELOAD": str(folder / hosts.SHIM.name)})
    actor.sqlite(data).do("db.execute('INSERT INTO t VALUES (1)')")
    said = chromashim("status", data).stdout
    assert f"its library is of chromashim {OLDER}, this command is {OWN}\n" in said
    assert "a restart by this command (chromashim run) brings its own" in said
    answer = json.loads(chromashim("status", "--json", data).stdout)
    assert answer["command_version"] == OWN and answer["store_version"] == OLDER
    assert answer["processes"][0]["library_version"] == OLDER
    assert answer["processes"][0]["library_file"] == "loaded"
    assert run(folder / "chromashim", "status", data).stdout.count("this command") == 0
    actor.kill()
    # The store says the newest that has used it, and the older one that comes again reads it.
    actors().sqlite(data).do("db.execute('INSERT INTO t VALUES (2)')")
    done = run(folder / "chromashim", "status", data)
    assert done.returncode == 0
    assert f"a newer chromashim has used it ({OWN}), and this command is {OLDER}" in done.stdout
    assert f"its library is of chromashim {OWN}, this command is {OLDER}: use the command" in done.stdout
    assert "this command" not in chromashim("status", data).stdout


def test_run_says_which_library_it_puts_in_front(data, package, chromashim):
    folder = package(OLDER)
    settings = ["run", "--no-guard", "--no-preflight", "--dir", data]
    said = f"the library put in front, '{folder / hosts.SHIM.name}', is of chromashim {OLDER}, and " \
           f"this command is {OWN}"
    for words in ([], ["-q"]):
        done = chromashim(*settings, *words, "--set", f"CHROMASHIM_LIBRARY={folder / hosts.SHIM.name}",
                          "--", "true")
        assert done.returncode == 0 and done.stderr.count(said) == 1, done.stderr
    assert "put in front" not in chromashim(*settings, "--", "true").stderr
    assert "put in front" not in run(folder / "chromashim", *settings, "--", "true").stderr


def test_an_upgrade_under_a_running_backend(data, tmp_path, actors, chromashim, package):
    """The package's file is renamed over: the backend keeps its own, and a restart brings the new one."""
    torn.make(data)
    library = tmp_path / "lib" / hosts.SHIM.name
    library.parent.mkdir()
    shutil.copy(package(OLDER) / hosts.SHIM.name, library)
    actor = actors(False, {"LD_PRELOAD": str(library)}).sqlite(data)
    actor.do("db.execute('INSERT INTO t VALUES (1)')")
    assert "library's file" not in chromashim("status", data).stdout
    shutil.copy(hosts.SHIM, tmp_path / "new")
    os.replace(tmp_path / "new", library)
    said = chromashim("status", data).stdout
    assert "the library's file was replaced since it started: a restart brings the new one" in said
    assert json.loads(chromashim("status", "--json", data).stdout)["processes"][0]["library_file"] == "replaced"
    torn.overwrite(actor, data)  # all of it works as before
    library.unlink()
    done = chromashim("status", data)
    assert "the library's file was removed since it started: install it again" in done.stdout
    assert "was removed, and the next start is unprotected" in chromashim("status", "--check", data).stdout
    actor.do("db.execute('INSERT INTO t VALUES (2)')")
    actor.kill()
    shutil.copy(hosts.SHIM, library)
    again = actors(False, {"LD_PRELOAD": str(library)}).sqlite(data)
    assert again.ask("db.execute('SELECT count(*) FROM t').fetchone()[0]") == 2
    assert torn.first(data) == "OOOO"  # the new one undoes what the old one was at
    answer = json.loads(chromashim("status", "--json", data).stdout)
    assert [p["library_version"] for p in answer["processes"]] == [OWN]


# ---- stores of released versions ----

@pytest.fixture(params=STORES, ids=lambda p: p.name.removesuffix(".tar.xz"))
def released(request, tmp_path):
    """(the directory, what is known of it)"""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path)
    known = request.param.with_name(request.param.name.replace(".tar.xz", ".json"))
    return tmp_path / "data", json.loads(known.read_text(encoding="utf-8"))


def test_there_is_a_store_of_this_version():
    assert f"{OWN}.tar.xz" in [p.name for p in STORES], "run tests/stores/make"


def test_what_is_read_of_a_released_store(released, chromashim):
    """Whatever only looks changes nothing."""
    data, known = released
    boot = uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip())

    def told(*words, status=0):
        done = chromashim(*words)
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout

    # Nothing of a pin is synced: after another boot it is lost, which the first look writes down.
    pinned = "pinned"
    if pin_reader.state(data / ".chromashim")["boot"] != boot:
        told("snapshot", "list", data)
        pinned = "broken"
    before = tree(data)
    answer = json.loads(told("status", "--json", data))
    assert answer["store_version"] == known["version"]
    assert answer["log"]["records"] == known["log_records"] and not answer["log"]["lost"]
    assert answer["log"]["damaged_slots"] == answer["log"]["unreadable_segments"] == 0
    snapshots = json.loads(told("snapshot", "list", "--json", data))
    assert [[s["id"], s["state"], s["description"]] for s in snapshots] == \
        [[id, pinned if state == "pinned" else state, text] for id, state, text in known["snapshots"]]
    verified = [number for number, state, _ in known["snapshots"] if state == "verified"]
    for number in verified:
        told("restore", "--to", number, "-n", data)
    acts = [json.loads(line) for line in told("log", "--acts", "--json", data).splitlines()]
    assert len(acts) == known["acts"]
    told("log", "--sql", "SELECT count(*) FROM ops", data)
    told("log", "--last-crash", data)
    told("report", "-o", data.parent / "report.html", data)
    checked = json.loads(told("check", "--json", data, status=known["check"]))
    assert sorted({f["code"] for f in checked["findings"]}) == known["findings"]
    assert tree(data) == before
    for number in verified:
        told("snapshot", "verify", number, data)  # which notes when


def records(chromashim, data):
    done = chromashim("export", data)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(r["embedding"][0] == int(r["id"].removeprefix("id-")) for r in found)
    return found


def test_a_released_store_is_taken_on(released, chromashim):
    """What waits in it is undone, it says the version that has it now, and what was kept comes back."""
    data, known = released
    level0 = data / known["segment"] / "data_level0.bin"
    assert hashlib.sha256(level0.read_bytes()).hexdigest() != known["level0"]
    done = chromashim("run", "--no-guard", "--dir", data, "--", "true")
    assert done.returncode == 0 and "undone" in done.stderr, done.stderr
    assert hashlib.sha256(level0.read_bytes()).hexdigest() == known["level0"]
    assert f"\nversion {OWN}\n" in (data / ".chromashim/identity").read_text()
    assert len(records(chromashim, data)) == known["records"]
    for number, _, description in known["snapshots"]:
        if description not in known["snapshot_records"]:
            continue
        done = chromashim("restore", "--to", number, "-y", data)
        assert done.returncode == 0, done.stderr
        assert len(records(chromashim, data)) == known["snapshot_records"][description]
    assert chromashim("check", data).returncode == 0
