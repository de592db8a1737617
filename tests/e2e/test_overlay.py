# SPDX-License-Identifier: MIT
"""On overlayfs, where a map does not keep a file's locks: descriptors do, and all is as elsewhere."""

import os
import subprocess
from pathlib import Path

import pytest

import hosts
import torn


@pytest.fixture
def merged(tmp_path) -> Path:
    """The root of an overlay."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    if os.geteuid():
        pytest.skip("mounts need root")
    words = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", words, tmp_path / "merged"],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no overlay here: {done.stderr.strip()}")
    yield tmp_path / "merged"
    subprocess.run(["umount", "-l", tmp_path / "merged"], check=False)


def held(owner) -> set[str]:
    """Lock files that a process keeps open by descriptors."""
    links = (p.readlink().name for p in Path(f"/proc/{owner.pid}/fd").iterdir())
    return {name for name in links if name.endswith(".lock")}


def test_one_writer(merged, actors):
    data = merged / "data"
    torn.make(data)
    owner = actors().sqlite(data)
    owner.do("db.execute('INSERT INTO t VALUES (1)')")
    assert held(owner) == {"alive.lock", "writer.lock"}
    assert not owner.lines()
    other, without = actors().sqlite(data), actors(False).sqlite(data)
    assert "readonly" in other.fails("db.execute('INSERT INTO t VALUES (2)')")
    assert "locked" in without.fails("db.execute('INSERT INTO t VALUES (2)')")
    owner.do("os.closerange(100, 100000)")  # what a host does not know
    assert "readonly" in actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES (2)')")
    owner.kill()
    assert not actors().sqlite(data).fails("db.execute('INSERT INTO t VALUES (2)')")


@pytest.mark.parametrize("forks", [False, True])
def test_alive(merged, actors, forks):
    """What a living process is at is not undone, and what a dead one left is, whoever came of it."""
    data = merged / "data"
    torn.make(data)
    owner = actors()
    torn.overwrite(owner, data)
    if forks:
        owner.do("""
child = os.fork()
if not child:
    os.setsid()
    os.pause() if hasattr(os, "pause") else __import__("signal").pause()
""")
    assert held(owner) >= {"alive.lock"}
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "NNNN"
    child = owner.ask("child") if forks else 0
    owner.kill()
    actors().sqlite(data).do("db.execute('SELECT * FROM t')")
    assert torn.first(data) == "OOOO"
    if child:
        os.kill(child, 9)


@pytest.mark.parametrize("marked", [True, False])
def test_data_in_the_container_itself_is_said(tmp_path, marked):
    """A root of overlayfs over this machine's, as a container's is; on a volume, or in no container, it
    is nobody's trouble."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    root = tmp_path / "merged"
    script = f"""
        mount -t tmpfs tmpfs {tmp_path}/upper && mkdir {tmp_path}/upper/u {tmp_path}/upper/w || exit 77
        mount -t overlay overlay -o lowerdir=/,upperdir={tmp_path}/upper/u,workdir={tmp_path}/upper/w {root} || exit 77
        mount -t proc proc {root}/proc && mkdir -p {root}/inside {root}/volume && cp {hosts.COMMAND} {hosts.SHIM} {root}/usr/bin/
        mount -t tmpfs tmpfs {root}/volume
        {"touch" if marked else "rm -f"} {root}/.dockerenv
        rm -f {root}/run/.containerenv
        for place in inside volume; do
            chroot {root} /usr/bin/chromashim run --dir /$place -- true 2>&1 | sed "s/^/$place: /"
        done"""
    env = {k: v for k, v in hosts.environment().items() if k != "KUBERNETES_SERVICE_HOST"}
    done = subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                          capture_output=True, text=True, check=False, env=env, timeout=60)
    if os.geteuid() or done.returncode == 77:
        pytest.skip(f"no overlay over the root here: {done.stderr.strip()}")
    said = [line for line in done.stdout.splitlines() if "THE DATA IS IN THE CONTAINER" in line]
    assert len(said) == marked, done.stdout + done.stderr
    assert not marked or (said[0].startswith("inside: ") and "'/inside'" in said[0])
