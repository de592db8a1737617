# SPDX-License-Identifier: MIT
"""check and export on what nobody made by accident: clear words, bounded time and memory."""

import json
import os
import random
import resource
import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

import hosts
from gallery import cut, overwrite, segment, sql, work
from test_formats import copy  # noqa: F401

pytestmark = pytest.mark.memory

TERA = 17 * 10**12
MEMORY = 256 << 20
SECONDS = 30


def bounded(*words: object) -> subprocess.CompletedProcess:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = subprocess.run([str(hosts.COMMAND), *map(str, words)], capture_output=True, text=True,
                          timeout=SECONDS, check=False, env=hosts.environment(), preexec_fn=limit,
                          errors="replace")
    assert done.returncode >= 0, (words, done.stderr)
    assert "Cannot allocate memory" not in done.stderr, done.stderr
    return done


def both(data: Path) -> tuple[dict, subprocess.CompletedProcess]:
    told = bounded("check", "--full", "--json", data)
    assert told.returncode in (0, 1, 2, 3) and told.stderr == "", told.stderr
    given = bounded("export", data)
    assert given.returncode in (0, 1, 3, 12), given.stderr
    for line in given.stdout.splitlines():
        json.loads(line)
    if given.returncode in (1, 12):
        assert given.stderr.startswith("chromashim: "), given.stderr
    return json.loads(told.stdout), given


def header_field(offset: int, value: int) -> Callable[[Path], None]:
    return overwrite("header.bin", offset, struct.pack("<Q", value))


def replace(name: str, by: Callable[[Path], None]) -> Callable[[Path], None]:
    def run(data: Path) -> None:
        path = data / name if "sqlite" in name else segment(data) / name
        path.unlink()
        by(path)
    return run


def segment_link(data: Path) -> None:
    where = segment(data)
    away = data.with_name("away")
    where.rename(away)
    where.symlink_to(away)


def deep_json(data: Path) -> None:
    sql("UPDATE embeddings_queue SET operation = 2, metadata = '{\"a\":' || replace(hex(zeroblob("
        "200000)), '00', '[') || '1'; DELETE FROM max_seq_id")(data)


HOSTILE = {
    "level 0 of 17 TB": cut("data_level0.bin", TERA),
    "link lists of 17 TB": cut("link_lists.bin", TERA),
    "lengths of 17 TB": cut("length.bin", TERA),
    "pickle of 17 TB": cut("index_metadata.pickle", TERA),
    "header of 17 TB": cut("header.bin", TERA),
    "database of 17 TB": lambda d: os.truncate(d / "chroma.sqlite3", TERA),
    "journal of 17 TB": lambda d: [(d / "chroma.sqlite3-journal").touch(),
                                   os.truncate(d / "chroma.sqlite3-journal", TERA)],
    "journal of garbage": lambda d: (d / "chroma.sqlite3-journal").write_bytes(
        bytes.fromhex("d9d505f920a163d7") + b"\xff" * 100000),
    "log of 17 TB": lambda d: [sql("PRAGMA journal_mode = wal")(d),
                               (d / "chroma.sqlite3-wal").touch(),
                               os.truncate(d / "chroma.sqlite3-wal", TERA)],
    "2^63 elements": header_field(20, 1 << 63),
    "2^64 - 1 elements": header_field(20, (1 << 64) - 1),
    "2^63 of capacity": header_field(12, 1 << 63),
    "stride 2^63": header_field(28, 1 << 63),
    "stride 0": header_field(28, 0),
    "labels at 2^63": header_field(36, 1 << 63),
    "M of 2^63": header_field(76, 1 << 63),
    "pickle that asks for 4 GB": overwrite("index_metadata.pickle", 2, b"X\xff\xff\xff\xff"),
    "pickle that asks for 2^63": overwrite("index_metadata.pickle", 2,
                                           b"\x8d" + struct.pack("<Q", 1 << 63)),
    "marks of 2^63 - 1": sql(f"UPDATE max_seq_id SET seq_id = {(1 << 63) - 1}"),
    "marks that are negative": sql("UPDATE max_seq_id SET seq_id = -5"),
    "marks that are text": sql("UPDATE max_seq_id SET seq_id = 'many'"),
    "queue rows at the end of numbers": sql(
        f"UPDATE embeddings_queue SET seq_id = {(1 << 63) - 1} WHERE seq_id = "
        "(SELECT max(seq_id) FROM embeddings_queue)"),
    "long names": sql("UPDATE collections SET name = hex(zeroblob(30000)) WHERE name = "
                               "'space-l2'; UPDATE segments SET id = hex(zeroblob(100000)) WHERE "
                               "rowid = (SELECT max(rowid) FROM segments)"),
    "segments that lead elsewhere": sql("UPDATE segments SET id = '../../../../etc' WHERE rowid = "
                                        "(SELECT max(rowid) FROM segments WHERE scope = 'VECTOR')"),
    "a dimension of 2^62": sql(f"UPDATE collections SET dimension = {1 << 62}"),
    "deep JSON": deep_json,
    "fifo as pickle": replace("index_metadata.pickle", os.mkfifo),
    "fifo as database": replace("chroma.sqlite3", os.mkfifo),
    "fifo as journal": lambda d: os.mkfifo(d / "chroma.sqlite3-journal"),
    "fifo as log": lambda d: [sql("PRAGMA journal_mode = wal")(d),
                              os.mkfifo(d / "chroma.sqlite3-wal")],
    "directory as database": replace("chroma.sqlite3", os.mkdir),
    "directory as pickle": replace("index_metadata.pickle", os.mkdir),
    "link to a device": replace("data_level0.bin", lambda p: p.symlink_to("/dev/zero")),
    "database that is a link": replace("chroma.sqlite3", lambda p: p.symlink_to("/etc/passwd")),
    "pickle that is a link": replace("index_metadata.pickle",
                                     lambda p: p.symlink_to("/etc/passwd")),
    "segment that is a link": segment_link,
    "link in a circle": replace("length.bin", lambda p: p.symlink_to(p.name)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One line is enough: the formats are the same."""
    host = hosts.BY_NAME["python"]
    host.require()
    data = tmp_path_factory.mktemp("hostile") / "data"
    data.mkdir()
    work(host, data, "load", "arrays")
    return host, data


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(copy, name):
    try:
        HOSTILE[name](copy)
    except OSError as e:
        pytest.skip(f"this file system cannot hold it: {e}")
    told, given = both(copy)
    assert "root:" not in json.dumps(told) + given.stdout + given.stderr


def test_random_damage(copy, tmp_path):
    """Any byte of any file may be anything."""
    rng = random.Random(17)
    files = sorted(p.relative_to(copy) for p in copy.rglob("*") if p.is_file())
    for round_ in range(12):
        data = Path(shutil.copytree(copy, tmp_path / f"r{round_}"))
        for _ in range(rng.choice((1, 5, 50))):
            path = data / rng.choice(files)
            size = path.stat().st_size
            with open(path, "r+b") as f:
                f.seek(rng.randrange(size + 1))
                f.write(rng.randbytes(rng.choice((1, 4, 100, 4096))))
                if rng.random() < 0.1:
                    f.truncate(rng.randrange(size + 1))
        both(data)
        shutil.rmtree(data)


def test_directory_that_changes(copy, tmp_path):
    """Files come, go, grow and shrink while they are read."""
    whole = {p.relative_to(copy): p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    where = segment(copy)
    stop = threading.Event()

    def change() -> None:
        rng = random.Random(4)
        while not stop.is_set():
            path = rng.choice(list(whole))
            try:
                match rng.randrange(5):
                    case 0:
                        (copy / path).unlink(missing_ok=True)
                    case 1:
                        os.truncate(copy / path, rng.randrange(len(whole[path]) + 1))
                    case 2:
                        (copy / path).write_bytes(whole[path])
                    case 3:
                        with open(copy / path, "ab") as f:
                            f.write(rng.randbytes(5000))
                    case 4:
                        where.rename(tmp_path / "aside")
                        time.sleep(0.002)
                        (tmp_path / "aside").rename(where)
            except OSError:
                pass
            time.sleep(0.001)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            both(copy)
    finally:
        stop.set()
        changer.join()
