# SPDX-License-Identifier: MIT
"""`chromashim run` put the library in front; whether it arrived in who has the directory open."""

import os
import subprocess
import time

import pytest

import hosts
from test_run_guardian import guardians, wait_until

CODE = """
import os, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1] + "/chroma.sqlite3")
c.execute("create table if not exists t(x)")
c.execute("insert into t values(1)")
c.commit()
if "leave" in sys.argv:
    os.spawnv(os.P_WAIT, "/bin/true", ["true"])
print("up", flush=True)
sys.stdin.read()
"""
PLAIN = """
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	char c;
	int fd = open(argv[1], argc > 2 ? O_RDONLY : O_RDWR | O_CREAT, 0600);
	puts("up"), fflush(stdout);
	return fd < 0 || read(0, &c, 1) < 0;
}
"""
LAUNCHER = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	unsetenv("LD_PRELOAD");
	if (argv[1][0])
		setenv("LD_PRELOAD", argv[1], 1);
	return argc > 2 ? execvp(argv[2], argv + 2) : 1;
}
"""
TOLD = "UNPROTECTED: process"


@pytest.fixture
def launch(data):
    """A command under `run`, until it is up and was looked at; what it says on its stderr."""
    started = []

    def go(*command, seconds=2.0, env=None, want=None):
        data.mkdir(exist_ok=True)
        (data / "chroma.sqlite3").touch()
        errors = open(data.parent / f"errors-{len(started)}", "w+", encoding="utf-8")
        child = subprocess.Popen([hosts.COMMAND, "run", "--dir", data, "--", *map(str, command)],
                                 env=hosts.environment({"CHROMASHIM_GUARD": "on", **(env or {})}),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        started.append(child)
        assert child.stdout.readline() == b"up\n", (data.parent / "errors-0").read_text()
        end = time.monotonic() + seconds

        def said():
            errors.seek(0)
            return errors.read()

        while time.monotonic() < end and not (want and want in said()):
            time.sleep(0.1)
        return said()

    yield go
    for child in started:
        child.communicate(timeout=20)
    wait_until(lambda: not guardians(data))


def compiled(tmp_path, text, *options):
    source, program = tmp_path / "plain.c", tmp_path / "plain"
    source.write_text(text)
    if subprocess.run(["cc", *options, "-o", program, source], check=False).returncode:
        pytest.skip("nothing can be linked so here")
    return program


def python(data, *more):
    return [hosts.python("venv"), "-c", CODE, data, *more]


def launcher(tmp_path):
    """One in the middle that is static, so that the library cannot keep LD_PRELOAD in it."""
    return "sh", "-c", '"$@"; :', "sh", compiled(tmp_path, LAUNCHER, "-static")


def test_preload_is_lost(launch, data, tmp_path, chromashim):
    said = launch(*launcher(tmp_path), "", *python(data), seconds=15, want=TOLD)
    assert said.count(TOLD) == 1 and "LD_PRELOAD was lost" in said and str(data) in said
    log = (data / ".chromashim/guard.log").read_text()
    assert log.count(TOLD) == 1
    assert "without the shim" in chromashim("status", data).stdout


def test_event(launch, data, tmp_path):
    hook, out = tmp_path / "hook", tmp_path / "events"
    hook.write_text(f'#!/bin/sh\necho "$1" >>{out}\n')
    hook.chmod(0o755)
    launch(*launcher(tmp_path), "", *python(data), seconds=15, want=TOLD,
           env={"CHROMASHIM_HOOK": str(hook)})
    wait_until(lambda: "backend.unprotected" in out.read_text())


def test_static_program(launch, data, tmp_path):
    """`sh` is no trouble; what it starts is."""
    program = compiled(tmp_path, PLAIN, "-static")
    said = launch("sh", "-c", '"$@"; :', "sh", program, data / "chroma.sqlite3", seconds=15,
                  want=TOLD)
    assert "linked statically" in said and said.count(TOLD) == 1


def test_another_library_of_that_name(launch, data, tmp_path):
    """It is loaded, and is not ours."""
    (tmp_path / "empty.c").write_text("int nothing;")
    fake = tmp_path / "libchromashim.so"
    subprocess.run(["cc", "-shared", "-o", fake, tmp_path / "empty.c"], check=True)
    said = launch(*launcher(tmp_path), fake, *python(data), seconds=15, want=TOLD)
    assert said.count(TOLD) == 1


@pytest.mark.skipif(os.getuid() != 0, reason="no root to give a program other rights")
def test_program_that_gains_rights(launch, data, tmp_path):
    program = compiled(tmp_path, PLAIN)
    os.chown(program, -1, 12345)
    program.chmod(0o2755)
    said = launch("sh", "-c", '"$@"; :', "sh", program, data / "chroma.sqlite3", seconds=15,
                  want=TOLD)
    assert said.count(TOLD) == 1 and "set-group-ID" in said


@pytest.mark.parametrize("how", [
    [],
    ["sh", "-c", '"$@"; :', "sh"],
    ["nice", "sh", "-c", 'unset LD_PRELOAD; exec "$@"', "sh"],
    ["env", "-i"],
], ids=["itself", "child", "unset", "env -i"])
def test_no_false_alarm(launch, data, how):
    assert "UNPROTECTED" not in launch(*how, *python(data, "leave"))


def test_no_false_alarm_for_who_only_reads(launch, data, tmp_path):
    program = compiled(tmp_path, PLAIN, "-static")
    assert TOLD not in launch("sh", "-c", '"$@"; :', "sh", program, data / "chroma.sqlite3", "r")


def test_a_notebook_beside_it(launch, data):
    """It was not started by `run`, and nothing was lost between."""
    hosts.BY_NAME["python"].require()
    launch(*python(data), seconds=0)
    notebook = subprocess.Popen(
        [hosts.python("venv"), "-c", "import chromadb, sys\n"
         "chromadb.PersistentClient(sys.argv[1]).get_or_create_collection('books')", data],
        env=hosts.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    errors = data.parent / "errors-0"
    try:
        wait_until(lambda: TOLD in errors.read_text(), 60)
    finally:
        notebook.kill()
        notebook.wait()
    said = errors.read_text()
    assert f"{TOLD} {notebook.pid} " in said and "started beside the backend" in said, said
    assert "LD_PRELOAD was lost" not in said
