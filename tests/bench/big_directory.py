# SPDX-License-Identifier: MIT
"""A large Chroma directory in a minute: real Chroma makes a collection, and this multiplies it.

    big_directory.py DIRECTORY MEGABYTES [DIMENSION [WORDS]]

The rows go through Chroma's own tables and its full-text index, the index files are written as
hnswlib writes them. Only the graph is made up: its links lead to random elements. DIMENSION is of the vectors, WORDS how many a document
has.
"""

import pickle
import random
import sqlite3
import struct
import sys
import uuid
from pathlib import Path

import numpy as np

import chromadb
from chromadb.config import Settings

M, BATCH = 16, 2000
DIMENSION = int(sys.argv[3]) if len(sys.argv) > 3 else 384
WORD_COUNT = int(sys.argv[4]) if len(sys.argv) > 4 else 80
STRIDE = 4 + 8 * M + 4 * DIMENSION + 8
RECORD = STRIDE + 420 + WORD_COUNT * 32  # bytes of it all, about
WORDS = [f"{a}{b}" for a in ("ab", "chro", "dat", "in", "ma", "quer", "ve", "re") for b in
         ("sa", "ma", "base", "dex", "trix", "y", "ctor", "cord", "ding", "ted", "s")]


def begin(where: Path) -> tuple[str, str, str]:
    """(collection, VECTOR segment, METADATA segment)"""
    client = chromadb.PersistentClient(str(where), settings=Settings(anonymized_telemetry=False))
    one = client.create_collection("big", metadata={"hnsw:sync_threshold": 100,
                                                    "hnsw:batch_size": 50})
    one.add(ids=[f"r{n}" for n in range(100)], documents=["d"] * 100,
            embeddings=np.random.rand(100, DIMENSION).astype(np.float32))
    del client, one
    db = sqlite3.connect(where / "chroma.sqlite3")
    found = dict(db.execute("SELECT scope, id FROM segments"))
    collection = db.execute("SELECT id FROM collections").fetchone()[0]
    db.close()
    return collection, found["VECTOR"], found["METADATA"]


def write_rows(where: Path, segment: str, ids: list[str]) -> None:
    rng = random.Random(3)
    db = sqlite3.connect(where / "chroma.sqlite3", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    first = db.execute("SELECT max(id) FROM embeddings").fetchone()[0] + 1
    mark = db.execute("SELECT max(seq_id) FROM max_seq_id").fetchone()[0]
    for start in range(0, len(ids), BATCH):
        rows = [(first + start + k, i, " ".join(rng.choices(WORDS, k=WORD_COUNT)))
                for k, i in enumerate(ids[start:start + BATCH])]
        db.executemany("INSERT INTO embeddings (id, segment_id, embedding_id, seq_id) "
                       "VALUES (?, ?, ?, ?)", [(n, segment, i, mark) for n, i, _ in rows])
        db.executemany("INSERT INTO embedding_metadata (id, key, string_value) VALUES "
                       "(?, 'chroma:document', ?)", [(n, d) for n, _, d in rows])
        db.executemany("INSERT INTO embedding_metadata (id, key, int_value) VALUES (?, 'n', ?)",
                       [(n, n) for n, _, _ in rows])
        db.executemany("INSERT INTO embedding_fulltext_search (rowid, string_value) VALUES (?, ?)",
                       [(n, d) for n, _, d in rows])
    db.execute("COMMIT")
    db.close()


def write_index(where: Path, ids: list[str]) -> None:
    rng = np.random.default_rng(4)
    count = len(ids)
    header = list(struct.unpack("<iQQQQQQiIQQQdQ", (where / "header.bin").read_bytes()))
    old = header[3]
    header[2] = header[3] = old + count
    element = np.dtype([("n", "<u2"), ("flag", "u1"), ("x", "u1"), ("links", "<u4", 2 * M),
                        ("vector", "<f4", DIMENSION), ("label", "<u8")])
    assert element.itemsize == STRIDE == header[4]
    with open(where / "data_level0.bin", "r+b") as f:
        f.truncate(old * STRIDE)
        f.seek(old * STRIDE)
        for start in range(0, count, BATCH):
            some = np.zeros(min(BATCH, count - start), element)
            some["n"] = 2 * M
            some["links"] = rng.integers(0, old + count, (len(some), 2 * M))
            some["vector"] = rng.random((len(some), DIMENSION), dtype=np.float32)
            some["label"] = np.arange(old + 1 + start, old + 1 + start + len(some))
            f.write(some.tobytes())
    with open(where / "length.bin", "r+b") as f:
        f.truncate(4 * old)
        f.seek(0, 2)
        f.write(bytes(4 * count))
    upper = struct.pack("<II", 4 + 4 * M, 0) + bytes(4 * M)  # one in 16 is on the level above
    with open(where / "link_lists.bin", "ab") as f:
        f.write(b"".join(upper if n % 16 == 0 else bytes(4) for n in range(count)))
    (where / "header.bin").write_bytes(struct.pack("<iQQQQQQiIQQQdQ", *header))
    path = where / "index_metadata.pickle"
    with open(path, "rb") as f:
        maps = pickle.load(f)
    assert maps["total_elements_added"] == old
    for k, i in enumerate(ids):
        maps["id_to_label"][i] = old + 1 + k
        maps["label_to_id"][old + 1 + k] = i
    maps["total_elements_added"] = old + count
    with open(path, "wb") as f:
        pickle.dump(maps, f, protocol=3)


def make(where: Path, megabytes: int) -> None:
    _, vectors, metadata = begin(where)
    rng = random.Random(5)
    ids = [str(uuid.UUID(int=rng.getrandbits(128))) for _ in range(megabytes * 1_000_000 // RECORD)]
    write_rows(where, metadata, ids)
    write_index(where / vectors, ids)


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
