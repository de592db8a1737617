# SPDX-License-Identifier: MIT
"""Random SQL, one transaction at a time, for tests of what happens below SQLite.

    random_sql.py DIRECTORY LIBRARY SEED COUNT

LIBRARY is "apsw" (SQLite built like Chroma's: freed pages keep their content) or "sqlite3" (the
distribution's). Works on chroma.sqlite3 in DIRECTORY, which Chroma has made, in COUNT transactions: DDL, VACUUM, overflow
pages, freelist reuse, ROLLBACK, cache spill, auto_vacuum, journal modes, page sizes, ATTACH. Before
each one, and in the middle of some, it says on stdout where it is, as JSON, and waits for a line:
"go", or "pin" to ask libchromashim.so for a snapshot first.

    {"at": "idle" | "open", "spilled": may the database have been written?, "doing": what comes}
"""

import ctypes
import json
import random
import sys
from pathlib import Path
from typing import Any, Callable

ALWAYS = 2  # CHROMASHIM_SNAPSHOT_ALWAYS


def connect(library: str, path: Path) -> Callable[..., list]:
    if library == "apsw":
        import apsw

        db = apsw.Connection(str(path))
        db.set_busy_timeout(30000)
    else:
        import sqlite3

        db = sqlite3.connect(path, timeout=30, isolation_level=None)
    return lambda sql, *values: list(db.execute(sql, values))


class Work:
    def __init__(self, directory: Path, library: str, seed: int) -> None:
        self.directory = directory
        self.sql = connect(library, directory / "chroma.sqlite3")
        self.rng = random.Random(seed)
        self.tables = 0
        self.cache = 2000
        self.set_cache()
        self.journal = "delete"

    # -- talking

    def say(self, at: str, doing: str) -> None:
        spilled = at == "open" and self.cache < 100
        print(json.dumps({"at": at, "spilled": spilled, "doing": doing, "journal": self.journal}),
              flush=True)
        if sys.stdin.readline().strip() == "pin":
            print(json.dumps({"pinned": self.pin()}), flush=True)

    @staticmethod
    def pin() -> int:
        shim = ctypes.CDLL(None)
        shim.chromashim_protect_begin.restype = ctypes.c_uint64
        shim.chromashim_protect_snapshot.restype = ctypes.c_int64
        token = ctypes.c_uint64(shim.chromashim_protect_begin(b"random", ALWAYS))
        number = shim.chromashim_protect_snapshot(token)
        shim.chromashim_protect_end(token, 0)
        return number

    # -- what may be done in a transaction

    def all(self, schema: str = "main") -> list[str]:
        return [row[0] for row in self.sql(
            f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table' AND name GLOB 't[0-9]*'")]

    def blob(self) -> bytes:
        size = self.rng.choice([10, 100, 500, 3000, 5000, 20000, 60000])
        return self.rng.randbytes(self.rng.randrange(size))

    def create(self) -> None:
        self.tables += 1
        name = f"t{self.tables}"
        self.sql(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, k INT, v BLOB)")
        if self.rng.random() < 0.6:
            self.sql(f"CREATE INDEX i{self.tables} ON {name} (k)")
        self.fill(name)

    def drop(self) -> None:
        if len(self.all()) > 3:
            self.sql(f"DROP TABLE {self.rng.choice(self.all())}")

    def alter(self) -> None:
        name = self.rng.choice(self.all())
        self.sql(f"ALTER TABLE {name} ADD COLUMN c{self.rng.randrange(10 ** 9)} DEFAULT 'x'")

    def fill(self, name: str = "") -> None:
        name = name or self.rng.choice(self.all())
        for _ in range(self.rng.choice([1, 5, 40])):
            self.sql(f"INSERT INTO {name} (k, v) VALUES (?, ?)", self.rng.randrange(100), self.blob())

    def change(self) -> None:
        self.sql(f"UPDATE {self.rng.choice(self.all())} SET v = ?, k = k + 1 WHERE k % ? = 0",
                 self.blob(), self.rng.choice([2, 5, 11, 31]))

    def remove(self) -> None:
        self.sql(f"DELETE FROM {self.rng.choice(self.all())} WHERE k % ? = ?",
                 self.rng.choice([1, 2, 3, 7]), 0)

    def savepoint(self) -> None:
        self.sql("SAVEPOINT s")
        self.change()
        self.remove()
        if self.rng.random() < 0.6:
            self.sql("ROLLBACK TO s")
        self.sql("RELEASE s")

    def attached(self) -> None:
        if "other" in [row[1] for row in self.sql("PRAGMA database_list")]:
            self.sql("INSERT INTO other.o (v) VALUES (?)", self.blob())
            self.fill()

    # -- and what may not

    def vacuum(self) -> None:
        self.sql("VACUUM")

    def auto_vacuum(self) -> None:
        self.sql(f"PRAGMA auto_vacuum = {self.rng.choice(['NONE', 'FULL', 'INCREMENTAL'])}")
        self.say("idle", "vacuum")
        self.vacuum()

    def incremental(self) -> None:
        self.sql("PRAGMA incremental_vacuum(20)")

    def page_size(self) -> None:
        if self.journal != "wal":
            self.sql(f"PRAGMA page_size = {self.rng.choice([1024, 4096, 4096, 8192, 65536])}")
            self.vacuum()

    def journal_mode(self) -> None:
        mode = self.rng.choice(["delete", "delete", "truncate", "persist", "wal", "wal"])
        self.journal = self.sql(f"PRAGMA journal_mode = {mode}")[0][0]

    def checkpoint(self) -> None:
        mode = self.rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        try:
            self.sql(f"PRAGMA wal_checkpoint({mode})")
        except Exception as error:  # after some VACUUMs SQLite says so, with or without the shim
            if "database table is locked" not in str(error):
                raise

    def cache_size(self) -> None:
        self.cache = self.rng.choice([10, 10, 2000])
        self.set_cache()

    def set_cache(self) -> None:
        """A large one never spills, however large the transaction: say() counts on it."""
        self.sql(f"PRAGMA cache_size = {self.cache}")
        self.sql(f"PRAGMA cache_spill = {'ON' if self.cache < 100 else 'OFF'}")

    def attach(self) -> None:
        if "other" in [row[1] for row in self.sql("PRAGMA database_list")]:
            self.sql("DETACH other")
            return
        self.sql(f"ATTACH '{self.directory / 'other.db'}' AS other")
        self.sql("CREATE TABLE IF NOT EXISTS other.o (v BLOB)")

    # -- together

    def start(self) -> None:
        """Something to work on."""
        self.say("idle", "start")
        self.sql("BEGIN")
        self.create()
        self.create()
        self.sql("COMMIT")

    def step(self) -> None:
        rng = self.rng
        if rng.random() < 0.25:
            alone = rng.choice([self.vacuum, self.auto_vacuum, self.incremental, self.page_size,
                                self.journal_mode, self.journal_mode, self.checkpoint,
                                self.cache_size, self.cache_size, self.attach])
            self.say("idle", alone.__name__)
            alone()
            return
        parts = rng.choices([self.create, self.drop, self.alter, self.fill, self.change, self.remove,
                             self.savepoint, self.attached],
                            weights=[2, 1, 1, 5, 4, 4, 2, 2], k=rng.choice([1, 1, 2, 4]))
        ending = "ROLLBACK" if rng.random() < 0.25 else "COMMIT"
        self.say("idle", " ".join([*(p.__name__ for p in parts), ending]))
        self.sql("BEGIN")
        for part in parts:
            part()
            if rng.random() < 0.2:
                self.say("open", part.__name__)
        self.sql(ending)


def main() -> None:
    directory, library, seed, count = sys.argv[1:]
    work: Any = Work(Path(directory), library, int(seed))
    work.start()
    for _ in range(int(count)):
        work.step()
    work.say("idle", "end")


if __name__ == "__main__":
    main()
