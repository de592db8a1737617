# SPDX-License-Identifier: MIT
"""Acts that are made, with the library's own writer: for what a real load does not do on demand."""

import json
import os
import struct
import subprocess
from pathlib import Path

import hosts

COLLECTION = "0a1b2c3d-1111-2222-3333-444455556666"
SEGMENT = "ffeeddcc-1111-2222-3333-444455556666"
FILE, NAME_COLLECTION = 1, 4


def maker() -> Path:
    """The program that writes them."""
    path = hosts.BUILD / "bench/make_log"
    flags = (hosts.BUILD / "flags").read_text()
    settings = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    with hosts.building():
        if not path.exists():
            subprocess.run(
                ["make", "--no-print-directory", f"BUILD={os.path.relpath(hosts.BUILD, hosts.ROOT)}",
                 f"CC={flags.split()[0]}", f"WERROR={'1' if ' -Werror' in flags else ''}",
                 path.relative_to(hosts.ROOT)],
                cwd=hosts.ROOT, check=True, capture_output=True, env=settings)
    return path


def act(op, *, tid=1, offset=-1, length=0, result=0, arg=0, ms=0, kind=0, name="", text=b""):
    """A line for it."""
    text = text if isinstance(text, bytes) else text.encode()
    return (f"{op} {tid} {offset} {length} {result} {arg} {int(ms * 1e6)} {kind} "
            f"{name.encode().hex() or '-'} {text.hex() or '-'}\n")


def start(command):
    return act(3, text=command)


def thread(tid, name):
    return act(8, tid=tid, text=name)


def records(sequence, transaction, *, added=0, updated=0, upserted=0, deleted=0, ids=(), tid=1,
            collection=COLLECTION, hashed=False, more=False):
    count = added + updated + upserted + deleted
    text = struct.pack("<5IHBB", added, updated, upserted, deleted, 0, len(ids), 1 if hashed else 2, more)
    for one in ids:
        one = one if isinstance(one, bytes) else one.encode()
        text += bytes([2, len(one)]) + one
    return act(208, tid=tid, offset=sequence, length=sequence + count - 1, result=count,
               arg=transaction, kind=NAME_COLLECTION, name=collection, text=text)


def commit(transaction, ms, tid=1, pages=13):
    return act(129, tid=tid, offset=pages, length=4096 * pages, arg=transaction, ms=ms, kind=FILE,
               name="chroma.sqlite3")


def collection(change, text, transaction=1, which=COLLECTION):
    return act(210, result=change, arg=transaction, kind=NAME_COLLECTION, name=which, text=text)


def segment(transaction=1, collection_id=COLLECTION, segment_id=SEGMENT):
    return act(211, arg=transaction, kind=NAME_COLLECTION, name=collection_id, text=segment_id + "\0VECTOR")


def persist(op, ms=0, segment_id=SEGMENT, sync_ms=0):
    """144 begin, 145 commit, 146 rollback, 147 freeze"""
    return act(op, arg=1, ms=ms, kind=FILE, name=segment_id, offset=int(sync_ms * 1e6))


def end(number=0):
    return act(5, arg=number)


def make(directory, lines) -> None:
    """One process's acts in the store of a directory that has one."""
    subprocess.run([maker(), directory / ".chromashim", "acts"], input="".join(lines), text=True, check=True)


def told(done) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
