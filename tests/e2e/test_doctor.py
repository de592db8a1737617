# SPDX-License-Identifier: MIT
"""chromashim doctor: what is missing where a backend is started."""

import shutil
import subprocess

import pytest

import hosts

WRAPPERS = hosts.ROOT / "wrappers"
OPEN = """
import sqlite3, sys
import chromadb
chromadb.PersistentClient(sys.argv[1])
print("up", flush=True)
sys.stdin.read()
"""


def doctor(*words, cwd):
    return subprocess.run([hosts.COMMAND, "doctor", *map(str, words)], env=hosts.environment(),
                          cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def test_our_own_files(tmp_path):
    """Nothing is missing in what people are told to copy; and a folder is looked through."""
    for file, kind in ((WRAPPERS / "ecosystem.config.js", "pm2"),
                       (WRAPPERS / "systemd" / "chromashim@.service", "systemd"),
                       (WRAPPERS / "docker" / "compose.yaml", "compose")):
        done = doctor(file, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"{file} ({kind}): nothing is missing\n")
        shutil.copy(file, tmp_path)
    (tmp_path / "docker-compose.yml").write_text("services:\n  db:\n    image: chromadb/chroma\n")
    done = doctor(tmp_path, cwd=tmp_path)
    assert done.returncode == 1 and done.stdout.count("nothing is missing") == 3
    assert f"{tmp_path}/docker-compose.yml (compose): 4 things are missing\n" in done.stdout


def test_what_is_no_such_file(tmp_path):
    (tmp_path / "notes").write_text("none of these")
    assert doctor("notes", cwd=tmp_path).returncode == 12
    assert "'nothing'" in doctor("nothing", cwd=tmp_path).stderr
    assert doctor("4294967290", cwd=tmp_path).returncode == 12


@pytest.mark.parametrize("preloaded", [True, False], ids=["protected", "unprotected"])
def test_a_backend_that_runs(data, shim, preloaded):
    hosts.BY_NAME["python"].require()
    env = hosts.environment({"LD_PRELOAD": shim} if preloaded else {})
    with subprocess.Popen([hosts.python("venv"), "-c", OPEN, data], env=env, text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as backend:
        assert backend.stdout.readline() == "up\n"
        done = doctor(backend.pid, cwd=data.parent)
        everywhere = doctor(cwd=data.parent)
        backend.stdin.close()
    assert done.returncode == (0 if preloaded else 1)
    assert ("UNPROTECTED" in done.stdout) == (not preloaded)
    assert str(data) in done.stdout and done.stdout in everywhere.stdout
