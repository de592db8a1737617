# SPDX-License-Identifier: MIT
"""However a file of a protected directory is reached, its changes are recorded under its name."""

import subprocess

import hosts
import tracer
import witness


def names(done):
    return {e.path for events in done.log.threads.values() for e in events}


def test_relative_paths(testify, data):
    done = testify("""
        import os
        with open("plain", "w") as f:
            f.write("1")
        os.mkdir("segment")
        with open("./segment/../segment//file", "w") as f:
            f.write("2")
        os.chdir("segment")
        os.rename("file", "../moved")
        os.unlink("../plain")
        os.chdir("/")
        open("tmp/../etc/hostname").close()
    """, data, cwd=data).check(at_least=7)
    assert names(done) >= {"plain", "segment", "segment/file"}


def test_symbolic_link_to_the_directory(testify, data, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(data)
    done = testify("""
        import os, sys
        link = sys.argv[2]
        with open(link + "/chroma.sqlite3", "wb") as f:
            f.write(b"x" * 100)
        os.mkdir(link + "/segment")
        with open(link + "/segment/file", "w") as f:
            f.write("1")
        with open(sys.argv[1] + "/segment/file", "a") as f:
            f.write("2")
        os.unlink(link + "/segment/file")
    """, data, link, named=False).check(at_least=6)
    assert names(done) == {"chroma.sqlite3", "segment", "segment/file"}


def test_symbolic_links_within(testify, data, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    done = testify("""
        import os, sys
        root, elsewhere = sys.argv[1:]
        os.mkdir(root + "/segment")
        os.symlink("segment", root + "/alias")
        os.symlink(elsewhere, root + "/out")
        with open(root + "/alias/file", "w") as f:
            f.write("inside")
        with open(root + "/out/file", "w") as f:
            f.write("outside, and not ours")
        os.symlink(root + "/segment/file", elsewhere + "/back")
        os.unlink(elsewhere + "/back")
    """, data, tmp_path / "elsewhere").check(at_least=5)
    assert names(done) == {"segment", "alias", "out", "segment/file"}


def test_link_from_outside_to_a_file(testify, data, tmp_path):
    testify("""
        import os, sys
        root, link = sys.argv[1:]
        open(root + "/file", "w").close()
        os.symlink(root + "/file", link)
        with open(link, "w") as f:
            f.write("through the link")
        os.truncate(link, 3)
        os.chmod(link, 0o600)
    """, data, tmp_path / "link")
    records = witness.recorded(data)
    assert [e.path for events in records.threads.values() for e in events if e.kind == "write"] == ["file"]
    assert {"truncate", "chmod"} <= records.ops()


def test_directory_descriptors(testify, data):
    done = testify("""
        import os, sys
        d = os.open(sys.argv[1], os.O_RDONLY)
        os.mkdir("segment", dir_fd=d)
        s = os.open("segment", os.O_RDONLY, dir_fd=d)
        f = os.open("file", os.O_RDWR | os.O_CREAT, dir_fd=s)
        os.write(f, b"1")
        os.rename("file", "moved", src_dir_fd=s, dst_dir_fd=d)
        os.write(f, b"2")
        os.link("moved", "second", src_dir_fd=d, dst_dir_fd=s)
        os.symlink("second", "third", dir_fd=s)
        os.chmod("second", 0o600, dir_fd=s)
        os.utime("second", dir_fd=s)
        os.unlink("moved", dir_fd=d)
        os.unlink("third", dir_fd=s)
        os.fchdir(s)
        os.unlink("second")
        os.rmdir("segment", dir_fd=d)
    """, data).check(at_least=12)
    assert {"segment/file", "moved", "segment/second", "segment/third"} <= names(done)


def test_renamed_directories(testify, data):
    done = testify("""
        import os, sys
        os.chdir(sys.argv[1])
        os.makedirs("old/deep")
        f = os.open("old/deep/file", os.O_RDWR | os.O_CREAT)
        d = os.open("old/deep", os.O_RDONLY)
        os.write(f, b"1")
        os.rename("old", "new")
        os.write(f, b"2")
        os.mkdir("old")
        os.close(os.open("other", os.O_RDWR | os.O_CREAT, dir_fd=d))
        with open("new/deep/file", "a") as g:
            g.write("3")
        os.rename("new/deep/file", "old/file")
        os.write(f, b"4")
        os.ftruncate(f, 1)
    """, data, cwd=data).check(at_least=12)
    assert {"old/deep/file", "new/deep/file", "new/deep/other", "old/file"} <= names(done)


def test_inherited_descriptors(testify, data):
    done = testify("""
        import subprocess, sys
        script = 'echo one >> "$1/x"; exec >> "$1/y"; echo two; /bin/echo three; echo four >&2'
        subprocess.run(["sh", "-c", script, "sh", sys.argv[1]], check=True)
        with open(sys.argv[1] + "/z", "wb") as f:
            subprocess.run(["/bin/echo", "five"], stdout=f, check=True)
            subprocess.run(["cat"], stdin=open("/etc/hostname"), stdout=f, check=True)
    """, data).check(at_least=7)
    assert (data / "y").read_text() == "two\nthree\n"
    assert len({r["pid"] for r in done.log.records if r["op"] in witness.KINDS}) >= 4


def test_unnamed_files(testify, data):
    done = testify("""
        import os, sys
        os.chdir(sys.argv[1])
        here = os.open(".", os.O_RDONLY)
        f = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
        os.write(f, b"1")
        os.link(f"/proc/self/fd/{f}", "named", src_dir_fd=here, dst_dir_fd=here)
        os.write(f, b"2")
        with open("named", "a") as g:
            g.write("3")
    """, data, cwd=data)
    assert (data / "named").read_text() == "123"
    ops = [r["op"] for r in done.log.records]
    assert ops.count("write") == 3 and "linkat" in ops


def test_odd_names(testify, data):
    done = testify(r"""
        import os, sys
        os.chdir(sys.argv[1])
        deep = "/".join(["d" * 200] * 6)
        os.makedirs(deep)
        for name in ("space d", "nl\nnl", "ünïcode", "<angle>", "b\\s", "q\"q", "-", ", ", "\udcff",
                     "l" * 255, deep + "/file"):
            with open(name, "w") as f:
                f.write("1")
            os.rename(name, name[:-1] + "'")
    """, data, cwd=data).check(at_least=30)
    assert "ünïcod'" in {e.second for events in done.log.threads.values() for e in events}


def test_several_directories(testify, data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    done = testify("""
        import os, sys
        a, b = sys.argv[1:]
        for root in a, b:
            with open(root + "/chroma.sqlite3", "wb") as f:
                f.write(b"x" * 100)
        fa, fb = (os.open(root + "/file", os.O_RDWR | os.O_CREAT) for root in (a, b))
        for i in range(20):
            os.pwrite(fa, b"a", i)
            os.pwrite(fb, b"bb", i)
        os.mkdir(b + "/segment")
    """, data, other, named=False).check(at_least=23)
    second = tracer.Strace(tracer.Root(other), str(hosts.ROOT)).read(tmp_path / "strace")
    assert witness.differences(second.threads, witness.recorded(other).threads) == []
    assert done.log.problems == []


def test_found_when_the_database_is_opened(testify, data):
    """Without being named, a directory is protected from the moment its database is opened."""
    done = testify("""
        import os, sqlite3, sys
        root = sys.argv[1]
        with open(root + "/early", "w") as f:
            f.write("nobody knows yet")
        db = sqlite3.connect(root + "/chroma.sqlite3")
        db.execute("create table t(x)")
        db.executemany("insert into t values (?)", [(i,) for i in range(100)])
        db.commit()
        with open(root + "/late", "w") as f:
            f.write("known")
        db.close()
    """, data, named=False)
    lines = done.differences()
    assert lines and all(" early " in line for line in lines)
    assert {"chroma.sqlite3", "chroma.sqlite3-journal", "late"} <= names(done)


def test_on_tmpfs(testify, data_in_memory):
    testify("""
        import os, sqlite3, sys
        root = sys.argv[1]
        db = sqlite3.connect(root + "/chroma.sqlite3")
        db.execute("create table t(x)")
        db.commit()
        with open(root + "/file", "w") as f:
            f.write("1")
        os.rename(root + "/file", root + "/moved")
    """, data_in_memory, named=False).check(at_least=10)


def test_a_directory_made_anew(testify, tmp_path):
    """Removed whole, as `reset` and impatient people do, and made again."""
    data = tmp_path / "chroma_data"
    data.mkdir()
    testify("""
        import os, shutil, sqlite3, sys
        root = sys.argv[1]
        for n in range(3):
            os.makedirs(root, exist_ok=True)
            db = sqlite3.connect(root + "/chroma.sqlite3")
            db.execute("create table t(x)")
            db.commit()
            db.close()
            if n < 2:
                shutil.rmtree(root)
    """, data, named=False)
    log = witness.recorded(data)
    assert log.problems == [] and "write" in {op.removeprefix("p") for op in log.ops()}


def test_switched_off(testify, data):
    done = testify("""
        import sys
        open(sys.argv[1] + "/chroma.sqlite3", "w").close()
    """, data, env={"CHROMASHIM": "off"})
    assert done.log.records == [] and not (data / tracer.STORE).exists()


def test_unprotected_directory_is_left_alone(testify, data, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    done = testify("""
        import os, sys
        with open(sys.argv[2] + "/file", "w") as f:
            f.write("1")
        os.rename(sys.argv[2] + "/file", sys.argv[2] + "/moved")
    """, data, other)
    assert not done.log.threads
    assert sorted(p.name for p in other.iterdir()) == ["moved"]


def test_store_is_private(testify, data):
    testify("""
        import os, sys
        os.umask(0)
        open(sys.argv[1] + "/file", "w").close()
    """, data)
    found = list((data / tracer.STORE).rglob("*"))
    assert found
    for path in [data / tracer.STORE, *found]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_command_is_never_shimmed(testify, data, shim):
    testify("open(__import__('sys').argv[1] + '/file', 'w').close()", data)
    before = sorted((data / tracer.STORE).rglob("*.oplog*"))
    done = subprocess.run([hosts.COMMAND, "log", data], capture_output=True, text=True, check=False,
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(data)}))
    assert done.returncode == 0, done.stderr
    assert sorted((data / tracer.STORE).rglob("*.oplog*")) == before
