# SPDX-License-Identifier: MIT
"""Threads, children of every kind, signals, allocators, closed descriptors: nothing is lost,
nothing breaks."""

import subprocess
from pathlib import Path

import pytest

import hosts
import witness

JEMALLOC = "libjemalloc.so.2"


def written(data: Path, name: str) -> str:
    return (data / name).read_text()


def processes(done: witness.Testimony) -> set[int]:
    return {r["pid"] for r in done.log.records if r["op"] in witness.KINDS}


THREADS = """
    import os, sys, threading
    root = sys.argv[1]
    shared = os.open(root + "/shared", os.O_RDWR | os.O_CREAT)

    def work(n):
        for i in range(200):
            os.pwrite(shared, b"x" * n, 100 * n)
            f = os.open(f"{root}/own-{n}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(f, b"line")
            os.close(f)
            if i % 20 == 0:
                os.rename(f"{root}/own-{n}", f"{root}/old-{n}-{i}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
"""


def test_threads(testify, data):
    testify(THREADS, data).check(at_least=8 * 600)


def test_fork(testify, data):
    done = testify("""
        import os, sys
        root = sys.argv[1]
        f = os.open(root + "/before", os.O_RDWR | os.O_CREAT)
        os.write(f, b"parent")
        for n in range(5):
            child = os.fork()
            if not child:
                os.write(f, b"child")
                with open(f"{root}/child-{n}", "w") as g:
                    g.write("1")
                if not os.fork():
                    os.write(f, b"grandchild")
                    os._exit(0)
                os.wait()
                os._exit(0)
            os.write(f, b"parent")
            assert os.waitpid(child, 0)[1] == 0
        os.write(f, b"end")
    """, data).check(at_least=5 * 5 + 3)
    assert len(processes(done)) == 11


def test_fork_while_threads_write(testify, data):
    testify("""
        import os, sys, threading
        root = sys.argv[1]
        f = os.open(root + "/file", os.O_RDWR | os.O_CREAT)
        stop = threading.Event()

        def work(n):
            while not stop.is_set():
                os.pwrite(f, b"x", n)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(3)]
        [t.start() for t in threads]
        for n in range(20):
            child = os.fork()
            if not child:
                os.pwrite(f, b"child", 100 + n)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        [t.join() for t in threads]
    """, data).check(at_least=60)


def test_exit_without_farewell(testify, data):
    testify("""
        import os, sys
        with open(sys.argv[1] + "/file", "w", buffering=1) as f:
            for n in range(300):
                f.write("line\\n")
            os._exit(7)
    """, data, status=7).check(at_least=301)
    assert written(data, "file").count("\n") == 300


def test_subprocess(testify, data):
    """CPython's own vfork path, with close_fds, while another thread writes."""
    done = testify("""
        import os, subprocess, sys, threading
        root = sys.argv[1]
        f = os.open(root + "/file", os.O_RDWR | os.O_CREAT)
        stop = threading.Event()

        def work():
            while not stop.is_set():
                os.pwrite(f, b"thread", 50)
                os.close(os.dup(f))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for n in range(15):
            subprocess.run(["/bin/sh", "-c", f"echo {n} >> '{root}/out'"], close_fds=True, check=True)
            subprocess.run(["/bin/echo", "kept"], pass_fds=(f,), stdout=f, check=True)
            os.pwrite(f, b"parent", n)
        stop.set()
        thread.join()
        os.write(f, b"the end")
    """, data).check(at_least=75)
    assert written(data, "out").split() == [str(n) for n in range(15)]
    assert len(processes(done)) == 31


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(testify, data, method):
    done = testify("""
        import multiprocessing, os, sys

        def work(n):
            with open(f"{sys.argv[1]}/file-{n}", "w") as f:
                f.write(str(n))
            os.rename(f"{sys.argv[1]}/file-{n}", f"{sys.argv[1]}/done-{n}")
            return n

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[2])
            with context.Pool(2) as pool:
                assert pool.map(work, range(12), 1) == list(range(12))
                pool.close()
                pool.join()
            with open(sys.argv[1] + "/parent", "w") as f:
                f.write("1")
    """, data, method).check(at_least=12 * 3 + 2)
    assert len(processes(done)) >= 2


def test_posix_spawn(testify, data):
    done = testify("""
        import os, sys
        root = sys.argv[1]
        f = os.open(root + "/file", os.O_RDWR | os.O_CREAT)
        for n in range(5):
            child = os.posix_spawn("/bin/sh", ["sh", "-c", f"echo {n}; echo {n} >> '{root}/out'"],
                                   os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, f, 1)])
            assert os.waitpid(child, 0)[1] == 0
        child = os.posix_spawnp("echo", ["echo", "found"], {"PATH": "/bin:/usr/bin"},
                                file_actions=[(os.POSIX_SPAWN_DUP2, f, 1)])
        assert os.waitpid(child, 0)[1] == 0
        os.write(f, b"parent")
    """, data).check(at_least=5 * 3 + 3)
    assert len(processes(done)) == 7


def test_environment_stripped(testify, data):
    """Children that are given another environment are still under the shim."""
    done = testify("""
        import os, subprocess, sys
        root = sys.argv[1]
        script = ["/bin/sh", "-c", 'echo "$1" >> "$2"', "sh", "1", root + "/out"]
        subprocess.run(script, env={}, check=True)
        subprocess.run(script, env={"LD_PRELOAD": ""}, check=True)
        subprocess.run(script, env={"LD_PRELOAD": "/nonexistent.so", "A": "b"}, check=True,
                       stderr=subprocess.DEVNULL)
        subprocess.run(["env", "-i", *script], check=True)
        os.waitpid(os.posix_spawn(script[0], script, {}), 0)
        for call in (lambda: os.execve(script[0], script, {}),
                     lambda: os.execvpe("sh", script, {"PATH": "/bin"}),
                     lambda: os.execle("/bin/sh", *script, {})):
            child = os.fork()
            if not child:
                call()
            assert os.waitpid(child, 0)[1] == 0
    """, data).check(at_least=8 * 2)
    assert written(data, "out") == "1\n" * 8
    assert len(processes(done)) == 8


def test_other_settings_reach_children_untouched(testify, data):
    done = testify("""
        import os, subprocess, sys
        open(sys.argv[1] + "/file", "w").close()
        print(subprocess.run(["/usr/bin/env"], env={"A": "b"}, capture_output=True, text=True).stdout)
    """, data)
    names = {line.split("=")[0] for line in done.output.split()}
    assert "A" in names
    assert all(n in ("A", "LD_PRELOAD") or n.startswith("CHROMASHIM") for n in names)


def test_signal_handlers_that_write(compiled, data, tmp_path, shim, strace):
    done = witness.run([compiled("signals"), data], data, tmp_path, shim, {"CHROMASHIM_DIR": str(data)})
    assert done.status == 0, done.errors
    assert int(done.output.split()[0]) >= 100
    done.check(at_least=8000, ordered=False)


def test_signal_handlers_in_python(testify, data):
    testify("""
        import os, signal, sys
        f = os.open(sys.argv[1] + "/file", os.O_RDWR | os.O_CREAT)
        count = 0

        def handler(number, frame):
            global count
            count += 1
            with open(sys.argv[1] + "/handler", "a") as g:
                g.write(".")

        signal.signal(signal.SIGALRM, handler)
        # longer than a handler takes under strace, or the handlers pile up
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        while count < 20:
            os.pwrite(f, b"main", count)
        signal.setitimer(signal.ITIMER_REAL, 0)
    """, data).check(at_least=300)


@pytest.fixture(scope="module")
def jemalloc() -> str:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        if JEMALLOC in line:
            return line.split("=> ")[1]
    pytest.skip(f"{JEMALLOC} is missing; run wrappers/setup check")


@pytest.mark.parametrize("order", ["{jemalloc}:{shim}", "{shim}:{jemalloc}", "{shim} {jemalloc}"])
def test_beside_jemalloc(testify, data, shim, jemalloc, order):
    preload = order.format(shim=shim, jemalloc=jemalloc)
    done = testify(THREADS + """
    import subprocess
    subprocess.run(["/bin/sh", "-c", 'echo "$LD_PRELOAD" > "$1"', "sh", root + "/child"], check=True)
    assert "jemalloc" in open("/proc/self/maps").read()
    """, data, preload=preload).check(at_least=8 * 600)
    assert written(data, "child").strip().replace(" ", ":") == preload.replace(" ", ":")
    assert done.errors == ""


CLOSERS = {
    "closerange": "os.closerange(3, 1 << 20)",
    "close_range": "ctypes.CDLL(None).close_range(3, 0xffffffff, 0)",
    "closefrom": "ctypes.CDLL(None).closefrom(3)",
    "loop": "for fd in range(3, 70000):\n            try:\n                os.close(fd)\n"
            "            except OSError:\n                pass",
    "proc": "for fd in os.listdir('/proc/self/fd'):\n            if int(fd) > 2:\n"
            "                try:\n                    os.close(int(fd))\n"
            "                except OSError:\n                    pass",
    "dup2": "for fd in range(3, 5000):\n            os.dup2(0, fd)",
    "syscall": "ctypes.CDLL(None).syscall(436, 3, 0xffffffff, 0)",
}


@pytest.mark.parametrize("closer", CLOSERS)
def test_closing_all_descriptors(testify, data, closer):
    testify(f"""
        import ctypes, os, sys
        root = sys.argv[1]
        f = os.open(root + "/first", os.O_RDWR | os.O_CREAT)
        os.write(f, b"1")
        {CLOSERS[closer]}
        try:
            os.write(f, b"closed")
        except OSError:
            pass
        for n in range(50):
            with open(root + "/second", "a") as g:
                g.write("2")
        os.rename(root + "/second", root + "/third")
        if not os.fork():
            with open(root + "/child", "w") as g:
                g.write("3")
            os._exit(0)
        os.wait()
    """, data).check(at_least=105)
    assert written(data, "third") == "2" * 50


def test_descriptors_of_the_shim_are_out_of_sight(testify, data):
    """Numbers go up one by one, and no child inherits what it was not given. (The shim's own in
    ls are high.)"""
    done = testify("""
        import os, subprocess, sys
        first = os.open("/dev/null", os.O_RDONLY)
        fds = [os.open(f"{sys.argv[1]}/{n}", os.O_WRONLY | os.O_CREAT) for n in range(20)]
        assert fds == list(range(first + 1, first + 21)), fds
        print(subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True,
                             text=True).stdout)
    """, data).check(at_least=20)
    assert [fd for fd in done.output.split() if int(fd) < 256] == ["0", "1", "2", "3"]


def test_many_descriptors(testify, data):
    testify("""
        import os, resource, sys
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        fds = []
        try:
            while True:
                fds.append(os.open(f"{sys.argv[1]}/file", os.O_WRONLY | os.O_CREAT))
        except OSError:
            pass
        assert len(fds) > 1000
        for fd in fds[::50]:
            os.write(fd, b"x")
        for fd in fds:
            os.close(fd)
        with open(sys.argv[1] + "/last", "w") as f:
            f.write("1")
    """, data).check(at_least=1050)


def test_status_tells_a_live_process(data, shim, chromashim):
    script = "import sys; f = open(sys.argv[1] + '/chroma.sqlite3', 'w'); print('up', flush=True); input()"
    with subprocess.Popen([hosts.python("venv").resolve(), "-I", "-S", "-c", script, data], text=True,
                          env=hosts.environment({"LD_PRELOAD": shim}), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == "up\n"
        alive = chromashim("status", data)
        child.communicate("\n")
    dead = chromashim("status", data)
    assert str(child.pid) in alive.stdout
    assert alive.stdout != dead.stdout
    assert chromashim("status", "--json", data).stdout.startswith("{")
