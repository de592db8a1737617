# SPDX-License-Identifier: MIT
"""Replicas behind real servers, and lines that are cut."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import hosts
from test_replica import (SECRETS, check, chroma_made, listed, machine,  # noqa: F401
                          same, wait_for)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """OpenSSH's own server, with keys made for this: the URL's beginning, and ssh's configuration."""
    server = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not server or not shutil.which("sftp"):
        pytest.skip("sshd or sftp is missing; run wrappers/setup check")
    root, port = tmp_path_factory.mktemp("sshd"), free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / name)],
                       check=True)
    shutil.copy(root / "user.pub", root / "authorized")
    (root / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {root}/authorized\nPidFile none\nMaxStartups 100\n"
        "Subsystem sftp internal-sftp -P remove,rmdir,posix-rename,setstat,fsetstat\n",
        encoding="utf-8")
    (root / "ssh_config").write_text(
        f"Host *\n  IdentityFile {root}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking no\n  LogLevel ERROR\n", encoding="utf-8")
    Path("/run/sshd").mkdir(exist_ok=True) if os.geteuid() == 0 else None
    child = subprocess.Popen([server, "-D", "-e", "-f", str(root / "sshd_config")],
                             stderr=(root / "log").open("wb"))
    wait_for(lambda: answers(port), 20)
    yield port, root / "ssh_config"
    child.terminate()
    child.wait(10)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def webdav(tmp_path_factory):
    """rclone's WebDAV server, reached through rclone: its port, and where it keeps things."""
    if not shutil.which("rclone"):
        pytest.skip("rclone is missing; run wrappers/setup check")
    root, port = tmp_path_factory.mktemp("webdav"), free_port()
    child = subprocess.Popen(["rclone", "serve", "webdav", "--addr", f"127.0.0.1:{port}", str(root)],
                             stderr=subprocess.DEVNULL)
    wait_for(lambda: answers(port), 20)
    yield port, root
    child.terminate()
    child.wait(10)


class Cut:
    """A port in front of a server that ends its connections after so many bytes sent there."""

    def __init__(self, port):
        self.to, self.left, self.passed = port, None, 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listening.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.to))
                for a, b, up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self.pass_on, args=(a, b, up), daemon=True).start()

    def pass_on(self, source, sink, up):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if up:
                    self.passed += len(data)
                    if self.left is not None and self.passed > self.left:
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listening.close()


def reach(machine, kind, port, server):
    """The replica's name, by that port."""
    if kind == "sftp":
        user = getpass.getuser()
        machine.env["CHROMASHIM_REPLICA_SSH_CONFIG"] = str(server[1])
        return f"sftp://{user}@127.0.0.1:{port}{machine.place}"
    machine.env.update(RCLONE_CONFIG_DAV_TYPE="webdav", RCLONE_CONFIG="/dev/null",
                       RCLONE_CONFIG_DAV_URL=f"http://127.0.0.1:{port}")
    machine.place = server[1] / machine.root.name
    return f"rclone:dav:{machine.root.name}"


@pytest.fixture(params=["sftp", "webdav"])
def remote(request, machine):
    """A machine whose replica is behind a real server, with a place to cut the line."""
    server = request.getfixturevalue("sshd" if request.param == "sftp" else "webdav")
    cut = Cut(server[0])
    machine.replica = reach(machine, request.param, cut.port, server)
    yield machine, cut
    cut.close()


def test_servers(remote):
    """There and back by real servers; with OpenSSH's by an account that may remove nothing."""
    machine, _ = remote
    machine.snapshot()
    machine.change()
    machine.snapshot()
    assert [e["state"] for e in listed(machine)] == ["there", "there"]
    assert "0 damaged, 0 missing" in check(machine)
    assert same(machine.restore(), machine.data)
    for path in machine.files():
        content = path.read_bytes()
        assert not [word for word in SECRETS if word in content], path


@pytest.mark.parametrize("remote", ["sftp"], indirect=True)
def test_cut_off(remote):
    """The line is cut again and again, at other bytes each time: what is listed is there in full."""
    machine, cut = remote
    machine.run("snapshot", "create", machine.data)
    before = set()
    for number in range(12):
        cut.passed, cut.left = 0, 3000 + number * 45000
        done = machine.run("replica", "send", machine.data, status=None)
        cut.left = None
        there = {p.name for p in machine.files() if "snapshots" in p.parts}
        assert before <= there
        before = there
        if done.returncode == 0:
            break
        assert {e["state"] for e in listed(machine)} <= {"there"}, done.stderr
    assert done.returncode == 0 and number > 2
    assert [e["state"] for e in listed(machine)] == ["there"]
    assert "0 damaged, 0 missing" in check(machine)
    assert same(machine.restore(), machine.data)


@pytest.mark.parametrize("remote", ["webdav"], indirect=True)
def test_killed(remote):
    """At any moment, also in the middle of a file: the next one goes on, and what is listed is whole."""
    machine, _ = remote
    machine.run("snapshot", "create", machine.data)
    command = [str(hosts.COMMAND), "replica", "send", str(machine.data)]
    env = hosts.environment({"CHROMASHIM_REPLICA": machine.replica,
                             "CHROMASHIM_REPLICA_RATE": "400K", **machine.env})
    for number in range(8):
        child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        time.sleep(0.1 + number * 0.15)
        child.kill()
        child.wait()
        assert {e["state"] for e in listed(machine)} <= {"there"}
    machine.run("replica", "send", machine.data)
    assert "0 damaged, 0 missing" in check(machine)
    assert same(machine.restore(), machine.data)
