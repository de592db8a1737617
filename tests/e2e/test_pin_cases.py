# SPDX-License-Identifier: MIT
"""Pins in the less ordinary cases: persists under way, files that go, and what makes a pin break.

Each script copies the directory when it pins; whatever it writes afterwards, what is pinned must be
that copy, byte for byte, in the eyes of tests/pin_reader.py.
"""

import json
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

import hosts
import oplog_reader
import pin_reader

pytestmark = pytest.mark.memory

PRELUDE = """
    import ctypes, os, resource, shutil, signal, sqlite3, subprocess, sys, uuid
    from pathlib import Path
    data = Path(sys.argv[1])
    shim = ctypes.CDLL(None)
    shim.chromashim_protect_begin.restype = ctypes.c_uint64
    shim.chromashim_protect_snapshot.restype = ctypes.c_int64
    shim.chromashim_protect_snapshot.argtypes = [ctypes.c_uint64]
    shim.chromashim_protect_end.argtypes = [ctypes.c_uint64, ctypes.c_int]
    NAMES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin",
             "index_metadata.pickle"]
    db = sqlite3.connect(data / "chroma.sqlite3", isolation_level=None)

    def fill(rows=2000):
        db.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y BLOB)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((i, os.urandom(200)) for i in range(rows)))
        db.execute("COMMIT")

    def copy(name):
        copies = data.parent / "copies"
        copies.mkdir(exist_ok=True)
        for command in (["cp", "-r", data, copies / name],
                        ["rm", "-r", copies / name / ".chromashim"]):
            subprocess.run(command, check=True, env={**os.environ, "CHROMASHIM": "off"})

    def pin():
        return shim.chromashim_protect_snapshot(shim.chromashim_protect_begin(b"work", 2))

    def protect(name):
        assert pin() > 0
        copy(name)

    def segment(number=7):
        path = data / str(uuid.UUID(int=number))
        path.mkdir()
        return path

    def persist(path, between=lambda n: None):
        for n, name in enumerate(NAMES[:4]):
            mode = "r+b" if (path / name).exists() else "wb"
            with open(path / name, mode, buffering=0) as f:
                for block in range(3):
                    f.seek(block * 4096)
                    f.write(os.urandom(4096))
                    between(n * 3 + block)
                if mode == "r+b":
                    f.seek(0, 2)
                    f.write(os.urandom(5000))
        with open(path / NAMES[4], "wb", buffering=0) as f:
            f.write(os.urandom(6000))
            between(12)
            f.write(b".")
"""


@pytest.fixture
def script(tmp_path, shim, data):
    """Runs a script under the shim; further ones go on from there."""
    def run(body: str, status: int = 0, **env: str) -> subprocess.CompletedProcess:
        file = tmp_path / "script.py"
        file.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(body), encoding="utf-8")
        done = subprocess.run(
            [hosts.python("venv"), file, data], capture_output=True, text=True, timeout=120,
            check=False, env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_SNAPSHOTS": "off",
                                                **env}))
        assert done.returncode == status, done.stderr
        return done

    return run


def pins(data: Path) -> dict[int, dict]:
    return pin_reader.pins(data / ".chromashim")


def held(data: Path) -> list[int]:
    return sorted(id for id, pin in pins(data).items() if pin["state"] == "held")


def same(data: Path, id: int, name: str) -> None:
    copy = data.parent / "copies" / name
    files = [p for p in copy.rglob("*") if p.is_file() and ".chromashim" not in p.parts]
    assert files
    for path in files:
        relative = str(path.relative_to(copy))
        if "/" in relative or relative == "chroma.sqlite3":
            there = pin_reader.read(data, data / ".chromashim", id, relative)
            assert there == path.read_bytes(), relative


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_persist_under_way_counts_as_it_was_before(script, data, durability):
    script("""
        fill()
        path = segment()
        persist(path)
        for i in range(3):
            copy(f"before{i}")
            persist(path, lambda n: n in (1, 6, 12) and pin())
        persist(path)
        db.execute("UPDATE t SET y = randomblob(200)")
    """, CHROMASHIM_DURABILITY=durability)
    assert len(held(data)) == 9
    for n, id in enumerate(held(data)):
        same(data, id, f"before{n // 3}")


def test_a_persist_that_was_pinned_and_then_undone(script, data):
    """The old pickle comes back from undo/, while pins/ has a link to it: it is not emptied."""
    script("""
        fill()
        path = segment()
        persist(path)
        copy("before")
        persist(path, lambda n: n == 12 and pin() and os.kill(os.getpid(), signal.SIGKILL))
    """, status=-signal.SIGKILL)
    script("""
        db.execute("SELECT count(*) FROM t").fetchone()
        path = next(data.glob("*-*-*-*-*"))
        persist(path)
        persist(path)
    """)
    id, = held(data)
    same(data, id, "before")


def test_a_persist_undone_long_after_is_not_somebody_elses_write(script, data, chromashim):
    """Chroma before 1.0 persists within its transaction, which may be rolled back seconds later."""
    script("""
        import time
        fill()
        db.execute("CREATE TABLE collections (id, name)")
        path = segment()
        persist(path)
        protect("before")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE t SET y = zeroblob(200) WHERE x = 1")
        persist(path)
        time.sleep(2.3)
        db.execute("ROLLBACK")
    """)
    id, = held(data)
    same(data, id, "before")
    copy = data.parent / "copies" / "before"
    assert all(p.read_bytes() == (copy / p.relative_to(data)).read_bytes()
               for p in data.glob("*-*-*-*-*/*"))
    done = chromashim("restore", data, "--to", id, "-o", data.parent / "out", "-y", "--force")
    assert "without the shim" not in done.stderr and done.returncode in (0, 3), done.stderr


def test_files_that_are_removed_or_replaced(script, data):
    script("""
        fill()
        path = segment()
        persist(path)
        protect("one")
        db.close()  # what is in use is not taken away
        os.replace(path / "length.bin", data / "elsewhere")
        (path / "length.bin").write_bytes(b"new")
        (data / "other").write_bytes(b"from elsewhere")
        os.replace(data / "other", path / "header.bin")
        os.truncate(path / "data_level0.bin", 100)
        (path / "index_metadata.pickle").write_bytes(b"new.")
        protect("two")
        shutil.rmtree(path)
    """)
    one, two = held(data)
    same(data, one, "one")
    same(data, two, "two")


REPLACES = {
    "emptied and written": "shutil.copyfile(other, file)",
    "O_TRUNC": "os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))",
    "truncate by path": "os.truncate(file, 5000)",
    "unlinked and made": "os.unlink(file); shutil.copyfile(other, file)",
    "renamed over": "os.replace(other, file)",
    "renamed away": "os.rename(file, data / 'old'); shutil.copyfile(other, file)",
    "backup into": "sqlite3.connect(other).backup(sqlite3.connect(file))",
    "copy_file_range": """
with open(other, "rb") as a, open(file, "r+b") as b:
    os.copy_file_range(a.fileno(), b.fileno(), other.stat().st_size)""",
    "an empty WAL": "Path(f'{file}-wal').touch()",
    "an empty journal": "Path(f'{file}-journal').touch()",
    "another WAL": "Path(f'{file}-wal').write_bytes(b'x' * 5000)",
    "times and mode": "os.utime(file, (1, 1)); file.chmod(0o600); os.chown(file, -1, -1)",
    "a second name": "os.link(file, data / 'second')",
    "copied tree": "shutil.copytree(data.parent / 'copies' / 'before', data, dirs_exist_ok=True)",
    "removed tree": "shutil.rmtree(next(data.glob('*-*-*-*-*')))",
    "renamed tree": "next(data.glob('*-*-*-*-*')).rename(data / 'elsewhere')",
}


@pytest.mark.parametrize("how", REPLACES)
def test_what_a_script_replaces_is_kept(script, data, chromashim, how):
    """Under the library, with the database closed: the snapshot that was meant for it is whole."""
    done = script("""
    fill(300)
    db.execute("CREATE TABLE collections (id, name)")
    persist(segment())
    db.execute("PRAGMA user_version = 7")
    other = data.parent / "other.sqlite3"
    with sqlite3.connect(other) as o:
        o.execute("CREATE TABLE foreign_one (x)")
        o.executemany("INSERT INTO foreign_one VALUES (?)", [("x" * 900,)] * 300)
    o.close()
    protect("before")
    db.close()
    file = data / "chroma.sqlite3"
""" + textwrap.indent(REPLACES[how], " " * 4))
    assert "broken" not in done.stderr, done.stderr
    id, = held(data)
    same(data, id, "before")
    out = data.parent / "out"
    done = chromashim("restore", data, "--to", id, "-o", out, "-y", "--force")
    assert done.returncode in (0, 3), done.stderr
    for path in (data.parent / "copies" / "before").rglob("*"):
        if path.is_file() and ".chromashim" not in path.parts:
            assert (out / path.relative_to(data.parent / "copies" / "before")).read_bytes() == \
                path.read_bytes()


OWN = {
    "chroma.sqlite3": "db.execute('UPDATE t SET y = randomblob(200) WHERE x = 1')",
    "chroma.sqlite3-wal": "db.execute('UPDATE t SET y = randomblob(200) WHERE x = 1')",
    "data_level0.bin": "persist(path)",
}
MORE = {
    "nothing": "pass",
    "opened": "os.close(os.open(file, os.O_RDWR | os.O_CREAT))",
    "touched": "file.chmod(0o640)",
}


@pytest.mark.parametrize("more", MORE)
@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("name", OWN)
def test_a_write_from_outside_is_not_hidden_by_own_ones(script, data, chromashim, name, durability,
                                                        more):
    """In place, where nothing of the pin is saved: it is broken, whatever comes afterwards."""
    script(f"""
        fill()
        db.execute("CREATE TABLE collections (id, name)")
        path = segment()
        persist(path)
        persist(path)
        file = data / "{name}" if "sqlite" in "{name}" else path / "{name}"
        if "{name}".endswith("-wal"):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("UPDATE t SET y = randomblob(200) WHERE x < 100")

        def outside():
            before = file.stat().st_ctime_ns
            while file.stat().st_ctime_ns == before:  # the kernel's clock has ticks
                subprocess.run(["dd", "conv=notrunc", "status=none", "bs=1", "seek=14000",
                                f"of={{file}}"], input=b"from outside", check=True,
                               env={{**os.environ, "CHROMASHIM": "off"}})

        def copy_pins():
            subprocess.run(["{hosts.COMMAND}", "guard", "--once", data],
                           env={{**os.environ, "CHROMASHIM": "off", "CHROMASHIM_KEEP": "all"}})

        assert pin() > 0
        {OWN[name]}
        outside()
        {MORE[more]}
        {OWN[name]}
        copy_pins()
        assert pin() > 0  # of this one nothing is saved before
        outside()
        {MORE[more]}
        {OWN[name]}
        copy_pins()
    """, CHROMASHIM_DURABILITY=durability)
    found = json.loads(chromashim("snapshot", "list", data, "--json").stdout)
    assert len(found) == 2 and all("without the shim" in s["trouble"] for s in found), found


def test_many_segments_do_not_use_up_the_descriptors(script, data):
    """Under the usual limit; were they used up, persists would go on unprotected."""
    done = script("""
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        fill(100)
        paths = [segment(n) for n in range(1, 60)]
        for path in paths:
            persist(path)
        protect("before")
        for path in paths:
            persist(path)
    """)
    assert done.stderr == ""
    id, = held(data)
    same(data, id, "before")


def test_a_hot_journal_is_not_pinned(script, data):
    script("""
        fill()
        db.execute("PRAGMA cache_size = 5")
        db.execute("BEGIN")
        db.execute("UPDATE t SET y = randomblob(220)")
        os.kill(os.getpid(), signal.SIGKILL)
    """, status=-signal.SIGKILL)
    assert (data / "chroma.sqlite3-journal").stat().st_size > 0
    script("""
        assert pin() < 0
        db.execute("SELECT count(*) FROM t").fetchone()     # plays it back
        protect("after")
        db.execute("UPDATE t SET y = randomblob(250)")
    """)
    id, = held(data)
    same(data, id, "after")


BREAKS = """
    fill()
    first = pin()
    db.execute("UPDATE t SET y = zeroblob(200)")
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("SELECT count(*) FROM t WHERE y = zeroblob(200)").fetchone() == (2000,)
"""


def test_what_broke_leaves_its_room_and_serves_no_burst(script, data):
    script(BREAKS + """
    assert not list((data / ".chromashim" / "pins").glob("*.pre"))
    token = shim.chromashim_protect_begin(b"again", 1)
    assert shim.chromashim_protect_snapshot(token) > first
    """, CHROMASHIM_UNDO_SIZE="64K")
    (one, first), (two, second) = sorted(pins(data).items())
    assert (first["state"], second["state"]) == ("broken", "held")
    record, = [r for r in oplog_reader.read_store(data) if r["op"] == "snapshot.state"]
    assert record["arg"] == one and record["result"] < 0 and "UNDO_SIZE" in record["texts"]


def test_a_full_disk_breaks_the_pin_and_not_the_write(script, data, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", store], check=False,
                      capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = script(BREAKS.replace("    first = pin()", f"""
    first = pin()
    filler = Path({str(store)!r}) / "filler"
    size = os.statvfs(filler.parent).f_bavail * 4096 - 65536
    subprocess.run(["dd", "if=/dev/zero", f"of={{filler}}", f"bs={{size}}", "count=1"], check=True,
                   env={{**os.environ, "CHROMASHIM": "off"}}, stderr=subprocess.DEVNULL)"""),
                      CHROMASHIM_STORE=str(store / "own"), CHROMASHIM_DIR=str(data), CHROMASHIM_BALLAST="0",
                      CHROMASHIM_LOG_SIZE="1M")
        assert done.stderr.count("pinned is broken") == 1
        pin, = pin_reader.pins(store / "own").values()
        assert pin["state"] == "broken" and pin["error"] == 28
        assert not list(store.glob("own/pins/*.pre"))
    finally:
        subprocess.run(["umount", store], check=True)


def test_an_operation_ends_once(script, data):
    script("""
        fill(10)
        token = shim.chromashim_protect_begin(b"work", 0)
        assert shim.chromashim_protect_snapshot(token) == 0
        assert shim.chromashim_protect_end(token, 7) == 0
        assert shim.chromashim_protect_end(token, 7) == -22
        for _ in range(1000):                               # never ended
            last = shim.chromashim_protect_begin(b"work", 0)
        assert shim.chromashim_protect_snapshot(last) == 0
        assert shim.chromashim_protect_end(last, 0) == 0
    """)
    ended = [r for r in oplog_reader.read_store(data) if r["op"] == "protect.end"]
    assert [r["result"] for r in ended] == [7, 0]
