# SPDX-License-Identifier: MIT
"""A directory with one segment, all of whose level 0 is O, and persists of it that are torn.

    make(data)
    tear(actors(), data)            dies when 8192 bytes of it have become N
    assert first(data) == "NNNN"    and so it stays, unless a start undoes it
"""

import sqlite3
from pathlib import Path

from actor import Actor, Failed

SEGMENT = "11111111-2222-3333-4444-555555555555"
SIZE = 100000
FILES = {"data_level0.bin": b"O" * SIZE, "header.bin": bytes(100), "length.bin": bytes(400),
         "index_metadata.pickle": b"x.", "link_lists.bin": b""}


def make(data: Path, segment: str = SEGMENT) -> Path:
    """Makes the database, if there is none, and the segment, whose directory it gives."""
    (data / segment).mkdir(parents=True)
    db = sqlite3.connect(data / "chroma.sqlite3")
    db.execute("CREATE TABLE IF NOT EXISTS t(x)")
    db.commit()
    db.close()
    for name, content in FILES.items():
        (data / segment / name).write_bytes(content)
    return data / segment


def overwrite(actor: Actor, data: Path, path: Path | None = None) -> None:
    """The first half of a persist, as far as the disk; `path` is the spelling of level 0."""
    path = path or data / SEGMENT / "data_level0.bin"
    actor.do(f"""
database = os.open({str(data / 'chroma.sqlite3')!r}, os.O_RDWR)
level0 = os.open({str(path)!r}, os.O_RDWR)
os.pwrite(level0, b"N" * 8192, 0)
os.ftruncate(level0, {SIZE})  # what has been held back goes out
""")


def tear(actor: Actor, data: Path, path: Path | None = None) -> None:
    overwrite(actor, data, path)
    try:
        actor.do("os.kill(os.getpid(), 9)")
    except Failed:
        actor.clean_up()
    assert first(data) == "NNNN"


def first(data: Path, segment: str = SEGMENT) -> str:
    with (data / segment / "data_level0.bin").open("rb") as f:
        return f.read(4).decode()
