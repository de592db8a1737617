# SPDX-License-Identifier: MIT
"""Directories that come and go in one process: each is protected, and each is given back."""

import shutil
import subprocess
from pathlib import Path

import pytest

import hosts
import torn
import witness


def hidden(owner) -> list[str]:
    """What the shim has open in a process, by its numbers out of the host's sight."""
    return [str(p.readlink()) for p in Path(f"/proc/{owner.pid}/fd").iterdir() if int(p.name) >= 200]


def test_a_thousand_one_after_the_other(tmp_path, actors):
    """As a server has it with a directory for each tenant: all have a log, and little stays open."""
    owner = actors()
    owner.do(f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.chdir({str(tmp_path)!r})
for i in range(1000):
    os.mkdir(str(i))
    db = sqlite3.connect(f"{{i}}/chroma.sqlite3")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE t(x)")
    db.close()
""", 120)
    assert not [line for line in owner.lines() if "UNPROTECTED" in line]
    assert len(owner.lines()) <= 1  # that the disk is nearly full
    assert all(any((tmp_path / f"{i}/.chromashim/oplog").iterdir()) for i in range(1000))
    assert len(hidden(owner)) <= 60
    # Each would set 64 MiB aside for a full disk.
    assert len(list(tmp_path.glob("*/.chromashim/ballast"))) <= 4
    torn.make(tmp_path / "last")
    torn.overwrite(owner, tmp_path / "last")
    owner.kill()
    assert torn.first(tmp_path / "last") == "NNNN"
    actors().sqlite(tmp_path / "last").do("db.execute('SELECT * FROM t')")
    assert torn.first(tmp_path / "last") == "OOOO"


def test_closed_is_free_for_others(data, actors):
    """Who has written and closed all is the writer no more; with a file open it stays it."""
    owner, other = actors().sqlite(data), actors().sqlite(data)
    owner.do("db.execute('CREATE TABLE t(x)')")
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (1)')")
    for process in (owner, other):
        process.do("db.close()")
    for writes, reads in ((other, owner), (owner, other)):
        writes.sqlite(data).do("db.execute('INSERT INTO t VALUES (1)')")
        reads.sqlite(data)
        assert "readonly" in reads.fails("db.execute('INSERT INTO t VALUES (1)')")
        reads.do("db.close()")
        writes.do("db.close()")


@pytest.mark.parametrize("collections", [0, 1])
def test_an_index_in_memory_keeps_the_right(data, actors, collections):
    """Chroma's own files stay open as long as it has an index: nobody writes beside it, also when
    its pool of connections is empty, as after ten idle minutes."""
    owner = actors().chroma(data)
    owner.do("c.upsert(**batch(0, 400)); c.query(query_embeddings=batch(0, 1)['embeddings'])"
             if collections else "pass", 60)
    other = actors().sqlite(data)
    assert "readonly" in other.fails("db.execute('CREATE TABLE more(x)')")
    owner.do("""
for fd in os.listdir("/proc/self/fd"):
    try:
        if os.readlink("/proc/self/fd/" + fd).endswith("/chroma.sqlite3"):
            os.close(int(fd))
    except OSError:
        pass
""")
    late = actors().sqlite(data)
    if collections:
        assert "readonly" in late.fails("db.execute('CREATE TABLE more(x)')")
    else:
        late.do("db.execute('CREATE TABLE more(x)')")


@pytest.mark.parametrize("left_open", [False, True])
def test_removed_and_made_anew(tmp_path, actors, chromashim, left_open):
    """By others, under the same path: the new one is protected, and the old one's things are gone."""
    owner, data = actors(), tmp_path / "same"
    for _ in range(12):
        torn.make(data)
        torn.overwrite(owner, data)
        owner.do("" if left_open else "os.close(level0); os.close(database)")
        shutil.rmtree(data)
    torn.make(data)
    torn.overwrite(owner, data)
    # One that is made by others later is known by its path, which the old one had, too.
    late = "22222222-3333-4444-8555-666666666666"
    torn.overwrite(owner, data, torn.make(data, late) / "data_level0.bin")
    (data / "notes").mkdir()
    owner.do(f"os.open({str(data / 'notes/new')!r}, os.O_RDWR | os.O_CREAT)")
    assert "notes/new" in chromashim("log", "--calls", data).stdout
    assert len(hidden(owner)) < (80 if left_open else 20)
    owner.kill()
    assert torn.first(data) == torn.first(data, late) == "NNNN"
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == torn.first(data, late) == "OOOO"


def test_two_hundred_at_once(tmp_path, actors):
    """Under the usual limit of 1024 descriptors, of which the host has one each."""
    owner = actors()
    owner.do(f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.chdir({str(tmp_path)!r})
held = []
for i in range(200):
    os.mkdir(str(i))
    held.append(sqlite3.connect(f"{{i}}/chroma.sqlite3"))
    held[-1].execute("PRAGMA synchronous = OFF")
    held[-1].execute("CREATE TABLE t(x)")
""", 120)
    assert not [line for line in owner.lines() if "UNPROTECTED" in line]
    assert all(any((tmp_path / f"{i}/.chromashim/oplog").iterdir()) for i in range(200))
    for i in (0, 100, 199):  # their locks are held
        other, without = actors().sqlite(tmp_path / f"{i}"), actors(False).sqlite(tmp_path / f"{i}")
        assert "readonly" in other.fails("db.execute('CREATE TABLE more(x)')")
        assert "locked" in without.fails("db.execute('CREATE TABLE more(x)')")
    owner.do("""
for i, db in enumerate(held):
    db.isolation_level = None
    db.execute("BEGIN")
    db.executemany("INSERT INTO t VALUES (?)", [(i,), (i + 1,), (i + 2,)])
    db.execute("COMMIT")
    db.execute("UPDATE t SET x = -x WHERE x = ?", (i + 1,))
    db.execute("DELETE FROM t WHERE x = ?", (i + 2,))
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN")
    db.execute("UPDATE t SET x = 0")
    db.execute("INSERT INTO t SELECT zeroblob(20000)")  # goes to the file before it is committed
""", 120)
    owner.kill()
    rows = actors().do(f"""
result = []
for i in range(200):
    db = sqlite3.connect(f"{str(tmp_path)}/{{i}}/chroma.sqlite3")
    result.append([x for x, in db.execute("SELECT x FROM t ORDER BY rowid")])
    db.close()
""", 120)
    assert rows == [[i, -i - 1] for i in range(200)]


def test_what_changed_nothing_leaves_nothing(data, actors):
    """A process that only reads has no log; one that is killed has it until the next one comes."""
    torn.make(data)
    oplog = data / ".chromashim/oplog"
    reads = "db.execute('SELECT * FROM t').fetchall()"
    killed = actors().sqlite(data)
    killed.do(reads)
    assert any(oplog.iterdir())
    killed.kill()
    assert any(oplog.iterdir())
    after = actors().sqlite(data)
    after.do(reads)
    assert len(list(oplog.iterdir())) == 1
    after.stop()
    assert not list(oplog.iterdir())


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.chdir({path!r})
for i in range(4):
    os.mkdir(str(i))
    db = sqlite3.connect(f"{{i}}/chroma.sqlite3")
    db.execute("CREATE TABLE t(x)")
    db.close()
import ctypes, select, socket
def by_number(flags):  # eventfd2
    fd = ctypes.CDLL(None).syscall(290 if os.uname().machine == "x86_64" else 19, 0, flags)
    if fd < 0:
        raise OSError
    return fd
def take_all():
    taken = []
    try:
        while True:
            taken.append({call})
    except OSError:
        for one in taken:
            one.close() if hasattr(one, "close") else os.close(one)
        return len(taken)
"""


@pytest.mark.parametrize("call", ["os.open('/dev/null', os.O_RDONLY)", "os.dup(0)",
                                  "open('/dev/null')", "socket.socket()", "select.epoll()",
                                  "os.eventfd(0)", "os.memfd_create('x')", "os.scandir('.')",
                                  "by_number(os.EFD_CLOEXEC)"])
def test_idle_directories_give_back_their_descriptors(tmp_path, actors, call):
    """When the host wants them; what comes back later is protected as before."""
    without = actors(False)
    without.do(FULL.format(path=str(tmp_path), call=call) + "count = take_all()")
    (tmp_path / "with").mkdir()
    owner = actors(env={"CHROMASHIM_WARN_FULL": "0"})
    owner.do(FULL.format(path=str(tmp_path / "with"), call=call) + "count = take_all()")
    assert int(without.ask("count")) - int(owner.ask("count")) <= 1  # the one that is kept
    owner.do("db = sqlite3.connect('2/chroma.sqlite3'); db.execute('INSERT INTO t VALUES (1)'); "
             "db.commit()")
    assert not owner.lines()
    other = actors().sqlite(tmp_path / "with/2")
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (2)')")


def test_a_server_that_is_full_accepts(tmp_path, actors):
    """The descriptor is taken before the connection: to have none is another error than to have none waiting."""
    owner = actors()
    owner.do(FULL.format(path=str(tmp_path), call="None") + """
listener = socket.create_server(("127.0.0.1", 0))
listener.setblocking(False)
while ctypes.CDLL(None).tmpfile():  # which nobody sees
    pass
""")
    assert owner.fails("listener.accept()").startswith("BlockingIOError")


def named(data, shim, *words, **more):
    done = subprocess.run([str(word) for word in words], text=True, check=False, timeout=60,
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}),
                          capture_output="stdout" not in more, **more)
    assert done.returncode == 0, done


def test_a_named_one_is_left_alone_by_who_has_no_part_in_it(data, tmp_path, shim):
    """Each child of a backend is told of it; few of them have anything to do with it."""
    torn.make(data)
    for words in (["true"], ["sh", "-c", "echo x >file; mv file other; cat other; rm other"],
                  ["sh", "-c", f"cat {tmp_path}/none 2>/dev/null; ls / >/dev/null; cd {tmp_path}"]):
        named(data, shim, *words, cwd=tmp_path)
    assert not (data / ".chromashim").exists()


HOW_IT_IS_MET = {
    "relative": "os.chdir(root); os.mkdir('new')",
    "by a link": "os.mkdir(link + '/new')",
    "by a link that is relative": "os.chdir(os.path.dirname(link)); os.mkdir('link/./new')",
    "by another name": "os.mkdir(root + '/../chroma_data/new')",
    "by a descriptor": "os.mkdir('new', dir_fd=os.open(root, os.O_RDONLY))",
    "after reading by a link": "os.chdir(link); open('chroma.sqlite3').close(); os.mkdir('new')",
    "renamed into it": "os.mkdir('/tmp/' + own); os.rename('/tmp/' + own, link + '/new')",
    "made by a child": "os.system('cd ' + link + ' && mkdir new')",
    "after a fork": "os.fork() and os.wait() or os.mkdir(link + '/new')",
}


@pytest.mark.parametrize("how", HOW_IT_IS_MET)
def test_a_named_one_is_met(data, tmp_path, shim, how):
    """By its first call that may change something: it is recorded as if from the start."""
    torn.make(data)
    (tmp_path / "link").symlink_to(data)
    code = HOW_IT_IS_MET[how].replace("/tmp/", f"{tmp_path}/")
    named(data, shim, hosts.python("venv"), "-S", "-c",
          f"import os; root, link, own = {str(data)!r}, {str(tmp_path / 'link')!r}, str(os.getpid()); {code}")
    assert "new" in {r["path2"] if r["op"].startswith("rename") else r["path"]
                     for r in witness.recorded(data).records if r["op"] in ("mkdir", "mkdirat", "rename")}


def test_a_named_one_is_met_through_what_was_inherited(data, shim):
    """A backend's children write its log there."""
    torn.make(data)
    with (data / "backend.log").open("w") as log:
        named(data, shim, "sh", "-c", "echo x", stdout=log)
    assert [r["length"] for r in witness.recorded(data).records if r["op"] == "write"] == [2]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_named_one_is_undone_at_the_start(data, shim, actors, elsewhere):
    """What a crash has left, before anything of it can be looked at."""
    torn.make(data)
    owner = actors(env={"CHROMASHIM_STORE": str(data) + "-store"} if elsewhere else {})
    torn.overwrite(owner, data)
    owner.kill()
    assert torn.first(data) == "NNNN"
    named(data, shim, "true")
    assert torn.first(data) == "OOOO"
    log = set((data / ".chromashim/oplog").iterdir()) if not elsewhere else ()
    named(data, shim, "true")
    assert elsewhere or set((data / ".chromashim/oplog").iterdir()) == log
