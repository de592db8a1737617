# SPDX-License-Identifier: MIT
"""The log of acts in trouble, as the log of calls is tried: no descriptors, other users, a store that
goes, rotation while it is read. The backend goes on, and what is missing is counted."""

import os
import pwd
import shutil
import subprocess
import textwrap

import pytest

import hosts
import oplog_reader
import tracer
from test_acts import acts, of
from test_acts_log import PUT, counts, folder, queue  # noqa: F401  pylint: disable=unused-import

pytestmark = pytest.mark.memory


NO_DESCRIPTOR = """
    import errno, resource
    db.execute("PRAGMA journal_mode = MEMORY")
    db.execute("PRAGMA synchronous = OFF")
    put(1, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    for i in range(3000):
        put(1, 1, 10)
    for fd in held:
        os.close(fd)
    for i in range(3000):
        put(1, 2, 10)
"""


def test_no_descriptor_is_left(queue, shim, chromashim):  # noqa: F811
    """No segment can be made meanwhile; afterwards it goes on, and what is missing is counted."""
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", textwrap.dedent(PUT) + textwrap.dedent(NO_DESCRIPTOR), queue],
                   env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_ACTS_SIZE": "4M"}), check=True, timeout=60)
    told = of(list(oplog_reader.read_acts(queue, [])), "records")
    lost = max(h["lost"] for h in oplog_reader.headers(queue, "acts"))
    assert (told[0]["added"], told[-1]["last"], told[-1]["upserted"]) == (1, 6001, 1)
    assert [r["upserted"] for r in told].count(1) > 1000
    firsts = [r["first"] for r in told]
    missing = firsts[-1] - firsts[0] + 1 - len(firsts)
    assert 0 < missing <= lost
    done = chromashim("log", queue)
    assert done.returncode == 3 and "no file descriptor" in done.stderr


def test_root_and_a_user(queue, shim):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("needs root")
    nobody = pwd.getpwnam("nobody")
    hosts.let_others_in(queue)
    for path in (queue, queue / "chroma.sqlite3"):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    words = ["/usr/bin/python3", "-I", "-S", "-c", textwrap.dedent(PUT) + "put(1, 0)", queue]
    env = hosts.environment({"LD_PRELOAD": shim})
    for user in None, nobody.pw_uid, None, nobody.pw_uid:
        subprocess.run(words, env=env, check=True, timeout=30, **({"user": user} if user else {}))
    assert counts(acts(queue)) == [(1, 0, 0, 0)] * 4
    for path in (folder(queue), *folder(queue).iterdir()):
        assert path.stat().st_uid == nobody.pw_uid and not path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("what", ["acts", "."])
def test_removed_under_the_backend(queue, shim, what):  # noqa: F811
    script = textwrap.dedent(PUT) + textwrap.dedent("""
        db.execute("PRAGMA synchronous = OFF")
        put(1, 0)
        print("ready", flush=True)
        sys.stdin.readline()
        for i in range(4000):
            put(1, 1, 10)
    """)
    with subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", script, queue], text=True,
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_ACTS_SIZE": "1M"}),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        shutil.rmtree(queue / tracer.STORE / what)
        _, errors = process.communicate("\n", 60)
    assert process.returncode == 0, errors
    for _ in range(2):
        subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", textwrap.dedent(PUT) + "put(2, 2)", queue],
                       env=hosts.environment({"LD_PRELOAD": shim}), check=True, timeout=30)
    assert counts(acts(queue))[-4:] == [(0, 0, 1, 0)] * 4


def test_rotated_away_while_it_is_read(queue, shim, chromashim):  # noqa: F811
    script = textwrap.dedent(PUT) + textwrap.dedent("""
        db.execute("PRAGMA synchronous = OFF")
        for i in range(12000):
            put(1, 1, 10)
    """)
    with subprocess.Popen(["/usr/bin/python3", "-I", "-S", "-c", script, queue],
                          env=hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_ACTS_SIZE": "1M"})) as process:
        read = 0
        while process.poll() is None:
            for words in (["log"], ["log", "--processes"], ["log", "--sql", "SELECT count(*) FROM records"]):
                done = chromashim(*words, queue)
                if done.returncode == 10 and not read:
                    break  # it has not begun
                assert (done.returncode, done.stderr) == (0, "")
                read += 1
    assert process.returncode == 0 and read > 3
    assert of(acts(queue), "records")[-1]["last"] == 12000
