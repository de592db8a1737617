# SPDX-License-Identifier: MIT
"""What chromashim does, in a minute: a real Chroma server under the shim is killed with kill -9 in
the middle of loading, starts again, and everything it had acknowledged is compared. Then the op
log tells what happened. Leaves its directory, build/demo, to look around in.

`make demo` sets up, builds, and runs this with the Python of build/venv.
"""

import os

os.environ["ANONYMIZED_TELEMETRY"] = "False"

import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import chromadb
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / os.environ.get("CHROMASHIM_BUILD", "build")
HOME = ROOT / "build" / "demo"
DATA = HOME / "chroma_data"
RECORDS, DIMENSIONS, BATCH = 5000, 768, 100
KILL_AFTER = 2700  # acknowledged records; the index is being written to disk every 1000
BOLD, DIM, GOOD, BAD, PLAIN = (
    ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m")
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("",) * 5)


def head(text):
    print(f"\n{BOLD}{text}{PLAIN}", flush=True)


def shown(text):
    print(f"  {text}", flush=True)


class Server:
    """`chromashim run -- chroma run`."""

    def __init__(self, number):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.log = HOME / f"server-{number}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [BUILD / "chromashim", "run", "--", ROOT / "build/venv/bin/chroma",
                 "run", "--path", DATA, "--port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self.client = self.connect()

    def connect(self):
        end = time.monotonic() + 60
        while True:
            try:
                return chromadb.HttpClient("127.0.0.1", self.port)
            except Exception as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    print(self.log.read_text(errors="replace")[-3000:])
                    sys.exit(f"demo: the server did not start: {error}")
                time.sleep(0.2)

    def stop(self, how):
        self.process.send_signal(how)
        self.process.wait(30)


def vectors(first):
    """The vectors of a batch: the same ones whenever they are asked for."""
    return np.random.default_rng(first).random((BATCH, DIMENSIONS), dtype=np.float32)


def ids(first):
    return [f"record-{n:05}" for n in range(first, first + BATCH)]


def load(collection, first, acknowledged):
    """Stores the batches from `first` on and notes each that the server has answered for."""
    for at in range(first, RECORDS, BATCH):
        collection.upsert(ids=ids(at), embeddings=vectors(at),
                          documents=[f"the text of {name}" for name in ids(at)])
        acknowledged.append(at)


def compare(collection, acknowledged):
    """How many acknowledged records are missing, and how many have another vector."""
    missing = different = 0
    for at in acknowledged:
        got = collection.get(ids=ids(at), include=["embeddings"])
        found = dict(zip(got["ids"], got["embeddings"]))
        for name, vector in zip(ids(at), vectors(at)):
            if name not in found:
                missing += 1
            elif not np.array_equal(np.asarray(found[name], dtype=np.float32), vector):
                different += 1
    return missing, different


def review(*arguments, last=None):
    """Shows what the command says."""
    command = [str(BUILD / "chromashim"), *arguments]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    arguments = [str(Path(a).relative_to(ROOT)) if a == str(DATA) else a for a in arguments]
    tail = f" | tail -n {last}" if last else ""
    print(f"{DIM}  $ chromashim {' '.join(arguments)}{tail}{PLAIN}")
    lines = (said.stdout + said.stderr).splitlines() or ["(nothing)"]
    for line in lines[-last:] if last else lines:
        print(f"  {line}")
    return said.returncode


def main():
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    begin = time.monotonic()

    head(f"1. Chroma {chromadb.__version__} starts: chromashim run -- chroma run")
    server = Server(1)
    shown(f"pid {server.process.pid}, port {server.port}, data in {DATA.relative_to(ROOT)}")
    killed = server.process.pid

    head(f"2. Loading {RECORDS} records of {DIMENSIONS} dimensions, "
         f"kill -9 somewhere past {KILL_AFTER}")
    collection = server.client.create_collection("demo")
    acknowledged = []

    def kill():
        while len(acknowledged) * BATCH < KILL_AFTER:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.2))
        os.kill(killed, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        load(collection, 0, acknowledged)
        lost = "nothing: loading was faster than the kill"
    except Exception as error:
        lost = f"{type(error).__name__} in the middle of batch {len(acknowledged) + 1}"
    killer.join()
    server.process.wait()
    shown(f"acknowledged: {len(acknowledged) * BATCH} records; then the client got {lost}")

    head("3. What the dead process did last: calls under way, writes, transactions")
    dead = ["log", str(DATA), "--pid", str(killed)]
    status = review("log", str(DATA), "--last-crash")
    status |= review(*dead, "--transactions", last=3)

    head("4. Chroma starts again on the same directory")
    server = Server(2)
    for line in server.log.read_text(errors="replace").splitlines():
        if line.startswith("chromashim: "):
            shown(line)
    collection = server.client.get_collection("demo")
    count = collection.count()
    missing, different = compare(collection, acknowledged)
    wanted = len(acknowledged) * BATCH
    good = not missing and not different and count >= wanted
    mark = f"{GOOD}all there{PLAIN}" if good else f"{BAD}NOT all there{PLAIN}"
    shown(f"{count} records; of the {wanted} acknowledged: {missing} missing, "
          f"{different} with another vector: {mark}")
    if count > wanted:
        shown(f"({count - wanted} more were stored, and the kill came before the answer)")
    at = acknowledged[len(acknowledged) // 2]
    near = collection.query(query_embeddings=vectors(at)[:5], n_results=1)["ids"]
    hits = sum(got == [name] for got, name in zip(near, ids(at)))
    shown(f"searching for 5 of them by vector finds {hits}")
    good = good and hits == 5
    load(collection, wanted, acknowledged)
    shown(f"the rest is loaded: {collection.count()} records")
    good = good and collection.count() == RECORDS

    head("5. Is it protected, and what is recorded?")
    status |= review("status", str(DATA))
    server.stop(signal.SIGINT)

    head("6. All that was done to the directory, by operation and by file")
    status |= review("log", str(DATA), "--stats")

    head("7. The last transactions")
    status |= review("log", str(DATA), "--transactions", last=10)

    head("Done" if good and not status else "NOT as promised")
    if status:
        shown("chromashim itself reported an error, see above")
    shown(f"{time.monotonic() - begin:.0f} s. The directory stays: "
          f"chromashim log {DATA.relative_to(ROOT)}")
    return 0 if good and not status else 1


if __name__ == "__main__":
    sys.exit(main())
