# SPDX-License-Identifier: MIT
"""The units, started by a real systemd: pid 1 of namespaces of its own, on an overlay of this
machine's root of which nothing stays. It has a network and a branch of the cgroup tree to itself."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

import hosts

SYSTEMD = "/lib/systemd/systemd"
# $1: a directory to work in, $2: what is installed, $3: a virtual environment with Chroma.
BOOT = r"""
set -eu
work=$1 root=$1/root system=$1/root/usr/lib/systemd/system
mkdir "$work/upper" "$root"
mount -t tmpfs tmpfs "$work/upper"
mkdir "$work/upper/files" "$work/upper/work"
mount -t overlay -o "lowerdir=/,upperdir=$work/upper/files,workdir=$work/upper/work" overlay "$root"

for place in sys run dev var/lib etc/systemd/system usr/lib/systemd/system-generators \
		usr/lib/systemd/system/sysinit.target.wants usr/lib/systemd/system/basic.target.wants \
		usr/lib/systemd/system/sockets.target.wants usr/lib/systemd/system/timers.target.wants; do
	mkdir -p "$root/$place"
	mount -t tmpfs -o mode=755 tmpfs "$root/$place"
done
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mkdir -p "$root/sys/fs/cgroup" "$root/dev/pts" "$root/opt/venv" "$root/opt/chroma/bin"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mkdir -m 1777 "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
while read -r name major minor; do
	mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<-END
	null 1 3
	zero 1 5
	full 1 7
	random 1 8
	urandom 1 9
END

cp -a "$2/." "$root/usr/local/"
mount --bind "$3" "$root/opt/venv"
sed '1s|.*|#!/opt/venv/bin/python|' "$3/bin/chroma" >"$root/opt/chroma/bin/chroma"
chmod 755 "$root/opt/chroma/bin/chroma"
: >"$root/etc/fstab"
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >"$root/etc/systemd/system/default.target"
# What the unit forbids shall not be tried at all.
for unit in chromashim@ chromashim-guard@; do
	mkdir "$root/etc/systemd/system/$unit.service.d"
	printf '[Service]\nSystemCallErrorNumber=kill\n' >"$root/etc/systemd/system/$unit.service.d/strict.conf"
done
ln -s ../systemd-journald.socket "$system/sockets.target.wants/"
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" %s --log-target=journal
""" % SYSTEMD
LOAD = """
import chromadb, sys
c = chromadb.HttpClient(port=8000).get_or_create_collection("docs", embedding_function=None)
first = int(sys.argv[1])
c.upsert(ids=[f"r{i}" for i in range(first, first + 500)],
         embeddings=[[float(i), 1.0] for i in range(first, first + 500)])
print(c.count())
"""
UNIT = "chromashim@docs"
DATA = "/var/lib/chromashim/docs"


def cgroup_mount():
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    return None


class Machine:
    """What systemd runs in. Nothing of it is left after close()."""

    def __init__(self, work: Path, installed: Path):
        self.cgroup = cgroup_mount() / f"chromashim-test-{os.getpid()}"
        self.cgroup.mkdir()
        self.outer = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child",
             "--cgroup", "--ipc", "--uts", "--net", "bash", "-c", BOOT, "boot", work, installed,
             hosts.python("venv").parent.parent.resolve()],
            preexec_fn=lambda: (self.cgroup / "cgroup.procs").write_text("0"),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.pid = 0

    def wait_until_up(self):
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children")

        def is_up():
            assert self.outer.poll() is None, self.outer.stdout.read()
            child = children.read_text().strip()
            if not child or SYSTEMD not in Path(f"/proc/{child}/cmdline").read_text():
                return False
            self.pid = int(child)
            return self("systemctl", "is-system-running", check=False) == "running"

        self.wait_for(is_up, "systemd")

    def wait_for(self, true, what, seconds=60):
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited in vain for {what}: {self.journal()}"
            time.sleep(0.2)

    def __call__(self, *words, check=True):
        assert self.pid
        done = subprocess.run(
            ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--cgroup", "--ipc", "--uts",
             "--net", "--root", "--wd", "env", "-i", "ANONYMIZED_TELEMETRY=False",
             "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *map(str, words)],
            capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr, self.journal())
        return done.stdout.strip()

    def journal(self):
        return self("journalctl", "--no-pager", "-o", "short-precise", check=False)[-20000:] if self.pid else ""

    def shows(self, unit, name):
        return self("systemctl", "show", "--value", f"--property={name}", unit)

    def load(self, first):
        """The number of records then."""
        self.wait_for(lambda: self("bash", "-c", ": </dev/tcp/127.0.0.1/8000 && echo up",
                                   check=False), "the server")
        return int(self("/opt/venv/bin/python", "-c", LOAD, first))

    def guardians(self):
        return self("pgrep", "-xc", "-f", ".*chromashim guard .*", check=False)

    def snapshots(self):
        return json.loads(self("chromashim", "snapshot", "list", "--json", DATA))

    def close(self):
        if self.pid:
            os.kill(self.pid, 9)
        self.outer.kill()
        self.outer.wait()
        for _ in range(50):
            try:
                for each in sorted(self.cgroup.rglob("*/"), reverse=True):
                    each.rmdir()
                self.cgroup.rmdir()
                return
            except OSError:
                time.sleep(0.1)


@pytest.fixture
def machine(tmp_path, installed):
    hosts.BY_NAME["server"].require()
    if os.geteuid() or not os.path.exists(SYSTEMD) or not cgroup_mount() or not shutil.which("nsenter"):
        pytest.skip("needs root, systemd, and a cgroup2 hierarchy")
    try:
        made = Machine(tmp_path, installed)
    except OSError as e:
        pytest.skip(f"no cgroup can be made here: {e}")
    try:
        made.wait_until_up()
        yield made
    finally:
        made.close()


@pytest.mark.slow
def test_service(machine):
    """It starts, is started again after kill -9, and stops; the backend is the unit's main process."""
    machine("systemctl", "start", UNIT)
    assert machine.load(0) == 500
    backend = machine.shows(UNIT, "MainPID")
    assert "/chroma" in machine("cat", f"/proc/{backend}/cmdline")
    assert "libchromashim.so" in machine("cat", f"/proc/{backend}/maps")
    assert machine("stat", "-c", "%U", f"/proc/{backend}") == "chromashim-docs"
    machine.wait_for(lambda: machine.guardians() == "1", "the guardian")

    machine("kill", "-9", backend)
    machine.wait_for(lambda: machine.shows(UNIT, "MainPID") not in ("0", backend), "the restart")
    assert machine.load(500) == 1000
    assert machine.shows(UNIT, "NRestarts") == "1", machine.journal()
    told = machine("chromashim", "log", "--last-crash", DATA)
    assert "; systemd: code=killed, status=9/KILL\n" in told.partition("Last:")[0], told

    machine("systemctl", "stop", UNIT)
    assert machine.shows(UNIT, "Result") == "success"
    machine.wait_for(lambda: machine.guardians() == "0", "the guardian's end")
    assert machine.snapshots()[-1]["state"] == "verified"
    assert "fine: " in machine("chromashim", "check", DATA)
    machine("systemctl", "start", UNIT)
    assert machine.load(0) == 1000


@pytest.mark.slow
def test_what_trying_again_does_not_help(machine):
    machine("bash", "-c", "mkdir /etc/chromashim; echo BACKEND=nonsense >/etc/chromashim/docs.env")
    machine("systemctl", "start", UNIT, check=False)
    machine.wait_for(lambda: machine.shows(UNIT, "ActiveState") == "failed", "its end")
    assert machine.shows(UNIT, "NRestarts") == "0" and machine.shows(UNIT, "ExecMainStatus") == "127"


@pytest.mark.slow
def test_guard_by_timer(machine):
    """For a backend that is only preloaded: the guardian's work, once."""
    machine("systemctl", "start", UNIT)
    assert machine.load(0) == 500
    # There is one: nothing is done.
    machine("systemctl", "start", "chromashim-guard@docs")
    machine("systemctl", "stop", UNIT)
    machine.wait_for(lambda: machine.guardians() == "0", "the guardian's end")
    machine("bash", "-c", f"rm -rf {DATA}/.chromashim/snapshots")
    machine("systemctl", "start", "chromashim-guard@docs")
    assert machine.shows("chromashim-guard@docs", "Result") == "success"
    assert [s["state"] for s in machine.snapshots()] == ["verified"]
    machine("systemctl", "start", "chromashim-guard@docs.timer")
    assert machine.shows("chromashim-guard@docs.timer", "ActiveState") == "active"


# It says itself that it is ready, and names its directory in its code.
APP = """
import os, socket, sys, time
import chromadb
books = chromadb.PersistentClient("inner").get_or_create_collection(
    "books", embedding_function=None, configuration={"hnsw": {"sync_threshold": 100}})
if not books.count():
    books.add(ids=[str(n) for n in range(250)], embeddings=[[float(n), 1.0] for n in range(250)])
print("found", len(books.get(include=["embeddings"])["ids"]),
      books.query(query_embeddings=[[77.2, 1.0]], n_results=1)["ids"], flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
    s.connect(os.environ["NOTIFY_SOCKET"].replace("@", chr(0)))
    s.send(b"READY=1")
time.sleep(600)
"""
CONFIGURE = r"""
mkdir -p /etc/chromashim /etc/systemd/system/chromashim@.service.d
echo 'BACKEND=/opt/venv/bin/python /opt/chroma/app.py' >/etc/chromashim/docs.env
printf '[Service]\nType=notify\nLimitFSIZE=16M\n' >/etc/systemd/system/chromashim@.service.d/more.conf
printf '%s' "$1" >/opt/chroma/app.py
systemctl daemon-reload
"""


@pytest.mark.slow
def test_a_directory_in_the_code(machine):
    """Type=notify, with a limit to files, and all that the unit forbids: the look before the first
    open works there, and has healed the index when the service is ready again."""
    inner = f"{DATA}/inner"
    machine("bash", "-c", CONFIGURE, "configure", APP)
    machine("systemctl", "start", UNIT)
    machine("systemctl", "stop", UNIT)
    assert machine.shows(UNIT, "Result") == "success", machine.journal()
    machine.wait_for(lambda: machine.guardians() == "0", "the guardians' end")
    machine("bash", "-c", f"head -c 64 /dev/zero | tr '\\0' '\\377' | "
            f"dd of=$(ls {inner}/*/header.bin) conv=notrunc status=none")
    machine("systemctl", "start", UNIT)
    journal = machine.journal()
    assert journal.count("found 250 [['77']]") == 2, journal
    assert "healing it on a copy" in journal and "0 lost, 0 changed" in journal, journal
    machine("systemctl", "stop", UNIT)
    machine.wait_for(lambda: machine.guardians() == "0", "the guardians' end")
    assert "fine: " in machine("chromashim", "check", inner)
