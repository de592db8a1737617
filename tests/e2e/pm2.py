# SPDX-License-Identifier: MIT
"""Real pm2 that keeps a Chroma server under chromashim, and a load on that server."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import hosts

PM2 = hosts.BUILD / "npm-pm2" / "node_modules" / ".bin" / "pm2"
ECOSYSTEM = hosts.ROOT / "wrappers" / "ecosystem.config.js"
NAME = "chroma"
BATCH = 25
DIMENSIONS = 16


def processes() -> dict[int, tuple[str, int, list[str]]]:
    """All of them: state, parent, command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        found[int(entry.name)] = (state[0], int(state[1]), words)
    return found


def wait_until(true, seconds=40, what=""):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = true()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited in vain {what}")


class Pm2:
    """A pm2 of its own. Its home is short, since a socket's path is bounded."""

    def __init__(self, data: Path, changes: str = ""):
        self.home = Path(tempfile.mkdtemp(prefix="pm2-", dir="/tmp"))
        self.data = data
        self.port = hosts.free_port()
        self.config = self.home / "ecosystem.config.js"
        self.config.write_text(
            f"const config = require({json.dumps(str(ECOSYSTEM))});\n"
            f"Object.assign(config.apps[0], {{ {changes} }});\nmodule.exports = config;\n")
        self.env = hosts.environment({
            "CHROMASHIM_GUARD": "on",
            "PM2_HOME": str(self.home), "CHROMA_PATH": str(data), "CHROMA_PORT": str(self.port),
            "PATH": f"{hosts.BUILD / 'venv' / 'bin'}:{os.environ['PATH']}",
            "CHROMASHIM_BUILD": os.path.relpath(hosts.BUILD, hosts.ROOT),
            "CHROMASHIM_DURABILITY": "power", "NO_COLOR": "1", "PM2_DISABLE_VERSION_CHECK": "1"})

    def __call__(self, *words, check=True) -> str:
        done = subprocess.run([PM2, *map(str, words)], env=self.env, capture_output=True,
                              text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
                              cwd=self.data.parent)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self) -> None:
        self("start", self.config)
        self.wait_until_up()

    def state(self) -> dict:
        out = self("jlist")
        return json.loads(out[out.index("[{"):])[0]

    @property
    def pid(self) -> int:
        return self.state()["pid"]

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/heartbeat", timeout=5):
                return True
        except OSError:
            return False

    def wait_until_up(self, seconds=60) -> None:
        wait_until(self.is_up, seconds, f"for the server:\n{self.logs()[-3000:]}")

    def logs(self) -> str:
        return "".join(f.read_text(errors="replace") for f in sorted((self.home / "logs").glob("*"))
                       ) if (self.home / "logs").exists() else ""

    def backends(self) -> list[int]:
        return [pid for pid, (_, _, words) in processes().items() if str(self.port) in words]

    def guardians(self) -> list[int]:
        return [pid for pid, (_, _, words) in processes().items()
                if words[1:3] == ["guard", str(self.data)]]

    def zombies(self) -> list[int]:
        """Dead children of pm2, and of the backend."""
        god = int((self.home / "pm2.pid").read_text())
        return [pid for pid, (state, parent, _) in processes().items()
                if state == "Z" and parent in (god, *self.backends())]

    def close(self) -> None:
        self("delete", "all", check=False)
        self("kill", check=False)
        wait_until(lambda: not self.guardians(), 60, "for the guardian's end")
        shutil.rmtree(self.home, ignore_errors=True)


class Load(threading.Thread):
    """Upserts without a pause, whatever happens to the server; remembers what was acknowledged."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        import chromadb

        self.port, self.stopped = port, threading.Event()
        self.acknowledged: dict[str, float] = {}
        self.refused = 0
        self.settings = chromadb.Settings(anonymized_telemetry=False)

    def collection(self):
        import chromadb

        client = chromadb.HttpClient("127.0.0.1", self.port, settings=self.settings)
        return client.get_or_create_collection(
            "load", embedding_function=None,
            configuration={"hnsw": {"sync_threshold": 100, "batch_size": 50}})

    def run(self) -> None:
        collection, number = None, 0
        while not self.stopped.is_set():
            # Some are new, some are old ones with another value.
            batch = {f"r{(number * 7 + i) % 4000}": float(number) for i in range(BATCH)}
            try:
                collection = collection or self.collection()
                collection.upsert(ids=list(batch), embeddings=[[v] * DIMENSIONS for v in batch.values()],
                                  metadatas=[{"v": v} for v in batch.values()])
                self.acknowledged.update(batch)
            except Exception:  # whatever a dying server makes of it: not acknowledged
                self.refused += 1
                collection = None
                # What was not acknowledged may be there or not: its ids say nothing any more.
                for name in batch:
                    self.acknowledged.pop(name, None)
                time.sleep(0.05)
            number += 1

    def finish(self) -> None:
        self.stopped.set()
        self.join(60)

    def wrong(self) -> list[str]:
        """Acknowledged records that are missing or have another value."""
        got = self.collection().get(include=["metadatas", "embeddings"])
        found = {name: (m["v"], list(e)) for name, m, e in
                 zip(got["ids"], got["metadatas"], got["embeddings"])}
        return [name for name, value in self.acknowledged.items()
                if found.get(name) != (value, [value] * DIMENSIONS)]


ACTIONS = ("restart", "kill -9", "stop", "reload", "kill -9", "kill -9 twice")


def cycle(pm2: Pm2, action: str) -> None:
    """One action; the server is up again afterwards, and there is one of everything."""
    before = pm2.pid
    if action.startswith("kill"):
        os.kill(before, 9)
        if action.endswith("twice"):
            second = wait_until(lambda: pm2.pid not in (0, before) and pm2.pid)
            os.kill(second, 9)
            before = second
        wait_until(lambda: pm2.pid not in (0, before))
    elif action == "stop":
        pm2("stop", NAME)
        assert not pm2.backends(), "stopped, and yet there"
        pm2("start", NAME)
    else:
        pm2(action, NAME)
    pm2.wait_until_up()
    pid = pm2.pid
    assert pid != before
    assert pm2.backends() == [pid], f"after {action}: pm2 knows {pid}, there are {pm2.backends()}"
    assert "libchromashim" in Path(f"/proc/{pid}/maps").read_text(), f"after {action}: without shim"
    wait_until(lambda: len(pm2.guardians()) == 1, 40, f"for one guardian after {action}: {pm2.guardians()}")
    wait_until(lambda: not pm2.zombies(), 10, f"for no zombies after {action}")


def cycles(pm2: Pm2, count: int, pause: float = 1.0) -> Load:
    """`count` actions under load; the load is finished and the server is up."""
    load = Load(pm2.port)
    load.start()
    try:
        for number in range(count):
            wait_until(lambda before=len(load.acknowledged): len(load.acknowledged) > before
                       or len(load.acknowledged) > 3500, 60, "for the load to go on")
            time.sleep(pause)
            cycle(pm2, ACTIONS[number % len(ACTIONS)])
    finally:
        load.finish()
    return load


# Node ends at once, and its Python child needs its time: an ordinary restart of many services.
LATE_SERVICE = """
const child = require("child_process").spawn(process.argv[2], process.argv.slice(3),
                                             {stdio: "inherit"});
process.on("SIGINT", () => { child.kill("SIGINT"); process.exit(0); });
child.on("exit", () => process.exit(1));
"""
LATE_CHILD = """
import os, signal, sys, time
import chromadb
data, seconds, folder = sys.argv[1], float(sys.argv[2]), sys.argv[3]
stop = []
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
books = chromadb.PersistentClient(data).get_or_create_collection("books")
life = len([f for f in os.listdir(folder) if f.startswith("life.")])
assert books.count() == 10 * life, (books.count(), life)
while not os.path.exists(f"{folder}/go.{life}"):
    time.sleep(0.05)
books.add(ids=[f"{life}-{n}" for n in range(10)], embeddings=[[float(n), 1.0] for n in range(10)])
open(f"{folder}/life.{life}", "w").close()
while not stop:
    time.sleep(0.05)
time.sleep(seconds)
while not seconds and not os.path.exists(f"{folder}/end.{life}"):
    time.sleep(0.05)
"""


def has_snapshot(data: Path, records: int) -> bool:
    def ask(*words):
        done = subprocess.run([hosts.COMMAND, "snapshot", *words, "--json", data], check=False,
                              env=hosts.environment(), capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout) if done.stdout else {}

    newest = [str(s["id"]) for s in ask("list") or [] if s["state"] == "verified"][-2:]
    return any(ask("show", number).get("records") == records for number in newest)


def late_restarts(folder: Path, count: int, seconds: float) -> str:
    """Restarts of a service whose child ends `seconds` late (0: when the next one waits for it).
    Each life finds what the ones before have written, and a snapshot of their end, before it writes.
    What pm2 has kept of their output."""
    lives, data = folder / "lives", folder / "data"
    lives.mkdir()
    (folder / "service.js").write_text(LATE_SERVICE)
    (folder / "child.py").write_text(LATE_CHILD)
    words = ["node", folder / "service.js", hosts.python("venv"), folder / "child.py", data,
             seconds, lives]
    manager = Pm2(data, f"args: {json.dumps([str(word) for word in words])}, cwd: "
                        f"{json.dumps(str(folder))}, env: {{}}")
    manager.env["CHROMASHIM_DIR"] = str(data)

    def wait_for(true, what):
        wait_until(true, 120, f"for {what}:\n{manager.logs()}")

    try:
        manager("start", manager.config)
        for life in range(count + 1):
            if life:
                wait_for(lambda n=life: has_snapshot(data, 10 * n), f"a snapshot of stop {life}")
            (lives / f"go.{life}").touch()
            wait_for((lives / f"life.{life}").exists, f"life {life}")
            if life == count:
                break
            manager("restart", NAME)
            if not seconds:
                wait_for(lambda n=life: manager.logs().count("is still in use") > n, "its wait")
                (lives / f"end.{life}").touch()
        (lives / f"end.{count}").touch()
        assert manager.state()["pm2_env"]["status"] == "online"
        manager("stop", NAME)
        wait_for(lambda: not manager.guardians(), "the guardian's end")
        assert has_snapshot(data, 10 * (count + 1))
        return manager.logs()
    finally:
        for life in range(count + 1):  # nobody waits any more
            (lives / f"go.{life}").touch()
            (lives / f"end.{life}").touch()
        manager.close()
