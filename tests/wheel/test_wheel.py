# SPDX-License-Identifier: MIT
"""The wheel: what is in it, what it needs, and that it is all that somebody needs who has pip and
no compiler. `make check-wheel`; CHROMASHIM_WHEELS names the folder with the one that was built."""

import email
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CHROMASHIM_WHEELS", ROOT / "build/wheel")).absolute()
CHROMA = ROOT / "build/venv/bin"
NEWEST = (2, 28)
LOAD = """
import chromadb, sys
c = chromadb.HttpClient(port=int(sys.argv[1])).get_or_create_collection("docs", embedding_function=None)
first = int(sys.argv[2])
for at in range(first, first + 2000, 100):
    c.upsert(ids=[f"r{i}" for i in range(at, at + 100)],
             embeddings=[[float(i), 1.0, 2.0] for i in range(at, at + 100)])
print(c.count())
"""
VERSION = re.search(r'CHROMASHIM_VERSION "(.*)"',
                    (ROOT / "include/chromashim.h").read_text(encoding="utf-8"))[1]


@pytest.fixture(scope="module")
def wheel():
    found = BUILD / f"chromashim-{VERSION}-py3-none-manylinux_2_28_{platform.machine()}.whl"
    assert found.is_file(), f"{found} is missing; run make wheel"
    return found


def environment(**more):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHROMASHIM", "PYTHON", "PIP_"))}
    return {**kept, "ANONYMIZED_TELEMETRY": "False", **more}


def run(*words, status=0, **how):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False,
                          timeout=120, **{"env": environment(), **how})
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module", params=["venv", "a venv with blanks"])
def venv(request, wheel, tmp_path_factory):
    """A new environment with the wheel alone in it; one of them in a path that LD_PRELOAD cannot say."""
    folder = tmp_path_factory.mktemp("wheel") / request.param
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "-q", "install", "--no-index", "--no-deps", wheel)
    return folder


def test_nothing_in_it_is_newer_than_glibc_2_28(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as z:
        names = [n for n in z.namelist() if n.endswith(("scripts/chromashim", ".so"))]
        z.extractall(tmp_path, names)
    assert len(names) == 2
    for name in names:
        table = run("objdump", "-T", tmp_path / name).stdout
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", table)}
        assert versions and max(versions) <= NEWEST, (name, max(versions))
        needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-dW", tmp_path / name).stdout)
        assert set(needed) <= {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"}, name


def test_auditwheel_calls_it_so(wheel):
    said = run(ROOT / "build/venv-wheel/bin/auditwheel", "show", wheel).stdout
    assert f'"manylinux_2_28_{platform.machine()}"' in said


def test_its_parts_have_one_version_and_a_bill(wheel):
    info = f"chromashim-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as z:
        assert email.message_from_bytes(z.read(f"{info}/METADATA"))["Version"] == VERSION
        bill = json.loads(z.read(f"{info}/sboms/chromashim.spdx.json"))
        names = z.namelist()
    linked = {line.split()[0]: line.split()[-1] for line in
              (ROOT / "wrappers/wheel/sources").read_text(encoding="utf-8").splitlines()
              if line and line[0] != "#"}
    have = {p["name"]: p.get("checksums", [{}])[0].get("checksumValue") for p in bill["packages"]}
    assert bill["spdxVersion"] == "SPDX-2.3" and linked.items() <= have.items()
    for place in ("man/man1/chromashim.1", "man/man5/chromashim.conf.5",
                  "bash-completion/completions/chromashim", "zsh/site-functions/_chromashim"):
        assert f"chromashim-{VERSION}.data/data/share/{place}" in names


def test_a_second_build_is_the_same(wheel, tmp_path):
    """Elsewhere, with another clock and nothing of the first one's but the sources."""
    tree = tmp_path / "elsewhere"
    tree.mkdir()
    files = run("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0")[:-1]
    for name in filter(lambda n: n.startswith(("Makefile", "include", "shim", "wrappers")), files):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
        (tree / name).chmod((ROOT / name).stat().st_mode)
    (tree / "build").mkdir()
    (tree / "build/venv-wheel").symlink_to(ROOT / "build/venv-wheel")
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).stdout.strip()
    done = subprocess.run(["wrappers/wheel/build", "build/wheel"], cwd=tree, check=False, text=True,
                          capture_output=True, timeout=900,
                          env=environment(SOURCE_DATE_EPOCH=epoch, CCACHE_DISABLE="1",
                                          WHEEL_SOURCES=str(ROOT / "build/wheel/sources")))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tree / "build/wheel" / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_command_says_what_is_in_it(venv):
    said = run(venv / "bin/chromashim", "--version", "-v").stdout
    assert said.startswith(f"chromashim {VERSION}\n")
    for line in (ROOT / "wrappers/wheel/sources").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            assert " ".join(line.split()[:2]) in said


def test_the_module_finds_its_own(venv):
    """Not what is in PATH, and without a variable."""
    python = venv / "bin/python"
    said = run(python, "-c", "import chromashim; print(*chromashim.installed(), sep='\\n')",
               env=environment(PATH="/usr/bin:/bin")).stdout
    assert said == f"{venv}/libexec/chromashim/libchromashim.so\n{venv}/bin/chromashim\n"
    assert run(python, "-m", "chromashim", "--version").stdout == f"chromashim {VERSION}\n"
    assert run(python, "-m", "chromashim", "nonsense", status=2).stderr.startswith("chromashim: ")


def test_into_a_folder_of_its_own(wheel, tmp_path):
    target = tmp_path / "target"
    run(sys.executable, "-m", "pip", "-q", "install", "--no-index", "--target", target, wheel)
    said = run(sys.executable, "-m", "chromashim", "run", "--dir", tmp_path, "--", "sh", "-c",
               "echo $LD_PRELOAD", env=environment(PYTHONPATH=str(target)), cwd=tmp_path).stdout
    assert said.strip() == f"{target}/libexec/chromashim/libchromashim.so"


class Server:
    """`chromashim run -- chroma run --path ./chroma_data`, as the README has it."""

    def __init__(self, venv, folder):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.said = folder / "said"
        with open(self.said, "wb") as log:
            self.child = subprocess.Popen(
                [venv / "bin/chromashim", "run", "--", "chroma", "run", "--path", "./chroma_data",
                 "--port", str(self.port)], cwd=folder, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment(PATH=f"{venv}/bin:{CHROMA}:{os.environ['PATH']}", HOME=str(folder)))
        for _ in range(600):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(self.said.read_text(encoding="utf-8"))

    def load(self, first):
        return int(run(CHROMA / "python", "-c", LOAD, self.port, first).stdout)

    def end(self, how):
        os.kill(self.child.pid, how)
        return self.child.wait(60)


def test_run_load_kill_start_check_restore(venv, tmp_path):
    command = venv / "bin/chromashim"
    server = Server(venv, tmp_path)
    assert server.load(0) == 2000
    maps = Path(f"/proc/{server.child.pid}/maps").read_text(encoding="utf-8")
    assert f"{venv}/libexec/chromashim/libchromashim.so" in maps
    assert run(command, "status", "--check", cwd=tmp_path).stdout.startswith("CHROMASHIM OK")
    server.end(signal.SIGKILL)
    server = Server(venv, tmp_path)
    assert server.load(2000) == 4000
    made = run(command, "snapshot", "create", "-d", "by hand", cwd=tmp_path).stdout
    assert server.load(4000) == 6000
    server.end(signal.SIGTERM)
    run(command, "check", "--full", cwd=tmp_path)
    exported = run(command, "export", cwd=tmp_path).stdout
    assert len(exported.splitlines()) == 6000
    run(command, "restore", f"--to={re.search('[0-9]+', made)[0]}", "-o", "back", cwd=tmp_path)
    assert len(run(command, "export", "back", cwd=tmp_path).stdout.splitlines()) == 4000


def test_an_upgrade_under_a_running_backend(venv, wheel, tmp_path):
    """pip puts new files there; the backend keeps the one it has, and goes on."""
    server = Server(venv, tmp_path)
    assert server.load(0) == 2000
    run(venv / "bin/python", "-m", "pip", "-q", "install", "--no-index", "--no-deps", "--force-reinstall", wheel)
    said = run(venv / "bin/chromashim", "status", cwd=tmp_path).stdout
    assert "the library's file was replaced since it started: a restart brings the new one" in said
    assert server.load(2000) == 4000
    server.end(signal.SIGKILL)
    server = Server(venv, tmp_path)
    assert "replaced" not in run(venv / "bin/chromashim", "status", cwd=tmp_path).stdout
    assert server.load(4000) == 6000
    server.end(signal.SIGTERM)
    run(venv / "bin/chromashim", "check", "--full", cwd=tmp_path)
