#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A second reader of the op log, written from include/chromashim_oplog.h alone.

    read_store(path)      every record of a store (or of a data directory), in time order
    read_acts(path)       the same of its log of acts, what they say taken apart
    read_segment(path)    the same of one segment
    tests/oplog_reader.py PATH...   prints them as JSON Lines

It shares no code with the C reader, so what both agree on is what the format says. Slot checks are
verified when the package xxhash is there; compressed segments need zstandard or the zstd command.
"""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

try:
    import xxhash
except ImportError:
    xxhash = None
try:
    import zstandard
except ImportError:
    zstandard = None

SPECIFICATION = Path(__file__).resolve().parent.parent / "include" / "chromashim_oplog.h"
MAGIC = b"CHSOPLOG"
VERSION = 2
HEADER_SIZE, SLOT_SIZE, TEXT_BYTES = 4096, 64, 52
HEADER = struct.Struct("<8sIIIIIIIIIIQQQ16sQ256s1024sQQQQQQQQ")
HEADER_FIELDS = ("magic version endian header_size slot_size capacity sequence pid parent_pid uid "
                 "shim_version start_ticks anchor_monotonic anchor_realtime boot_id "
                 "protected_since program data_dir check claimed lost finished features refused life "
                 "dropped").split()
HEADER_CHECKED = 1376  # bytes before the field `check`
RECORD = struct.Struct("<IHBBQQIIqQqQ")
TEXT = struct.Struct("<IHBBI52s")
FREE = bytes(SLOT_SIZE)
OP_NAME, OP_TEXT = 1, 2
KIND_SQL = 2
TWO_NAMES = {"rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"}
FLAGS = {1: "stdio", 2: "syscall", 4: "cut", 8: "caller"}
CALLER = 8


def operations():
    """Number to printed name, from the list in the specification."""
    entry = re.compile(r'X\((\d+),\s*\w+,\s*"([^"]+)"\)')
    text = SPECIFICATION.read_text(encoding="utf-8")
    return {int(number): name for number, name in entry.findall(text)}


OPS = operations()


class Damage(Exception):
    """A segment, or a part of one, that cannot be read."""


def slot_check(slot, index):
    """None if there is nothing to compute it with."""
    if xxhash is None:
        return None
    return (xxhash.xxh3_64_intdigest(slot[4:], seed=index) & 0xffffffff) or 1


def slot_at(data, index):
    begin = HEADER_SIZE + index * SLOT_SIZE
    return data[begin:begin + SLOT_SIZE]


def decode(raw):
    return raw.decode("utf-8", "surrogateescape")


def load(path):
    """The bytes of a segment, decompressed."""
    data = Path(path).read_bytes()
    if not str(path).endswith(".zst"):
        return data
    if zstandard is not None:
        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as e:
            raise Damage(f"zstd: {e}") from e
    done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise Damage(f"zstd: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def read_header(data):
    if not data:
        raise Damage("empty")
    if len(data) < HEADER_SIZE:
        raise Damage("shorter than a header")
    h = dict(zip(HEADER_FIELDS, HEADER.unpack_from(data)))
    if h["magic"] != MAGIC:
        raise Damage("no op log")
    if h["endian"] != 0x01020304:
        raise Damage("of a machine with another byte order")
    if h["version"] > VERSION:
        raise Damage(f"version {h['version']} is newer than this reader")
    if xxhash is not None:
        seed = int.from_bytes(MAGIC, "little") ^ (h["life"] if h["version"] > 1 else 0)
        if xxhash.xxh3_64_intdigest(data[:HEADER_CHECKED], seed=seed) != h["check"]:
            raise Damage("header check")
    if h["header_size"] != HEADER_SIZE or h["slot_size"] != SLOT_SIZE:
        raise Damage("sizes in the header")
    for field in ("program", "data_dir"):
        h[field] = decode(h[field].split(b"\0", 1)[0])
    return h


def texts_after(data, index, count, slots):
    out = b""
    for part in range(count):
        at = index + 1 + part
        if at >= slots:
            break
        slot = slot_at(data, at)
        check, op, size, number, _, raw = TEXT.unpack(slot)
        if op != OP_TEXT or number != part or check == 0 or slot_check(slot, at) not in (None, check):
            break
        out += raw[:min(size, TEXT_BYTES)]
    return out


def parse(data, segment="", problems=None):
    """Header and records of a segment's bytes, in order of time."""
    problems = [] if problems is None else problems
    h = read_header(data)
    slots = min(h["capacity"], (len(data) - HEADER_SIZE) // SLOT_SIZE)
    if slots < h["capacity"]:
        problems.append((segment, f"truncated: {slots} of {h['capacity']} slots"))
    if h["lost"]:
        problems.append((segment, f"{h['lost']} records lost by then"))
    found, names = [], {}
    for index in range(slots):
        slot = slot_at(data, index)
        if slot == FREE:
            continue
        r = RECORD.unpack(slot)
        check, op, count = r[0], r[1], r[3]
        if op == 0 and check == 0:
            continue
        if check and slot_check(slot, index) not in (None, check):
            problems.append((segment, f"slot {index} is damaged"))
            continue
        if op == OP_TEXT:
            continue
        texts = texts_after(data, index, count, slots) if check else b""
        if op == OP_NAME:
            names[r[7]] = (r[11], decode(texts))
        found.append((index, r, texts))
    records = [as_dict(h, segment, names, *each) for each in found]
    records.sort(key=lambda r: (r["time"], r["slot"]))
    return h, records


def as_dict(h, segment, names, index, r, texts):
    check, op, flags, _, time, duration, tid, file, offset, length, result, arg = r
    name = OPS.get(op, f"op.{op}")
    caller = None
    if flags & CALLER and texts:
        size = texts[-1]
        caller, texts = decode(texts[-1 - size:-1]), texts[:-2 - size]
    kind, path = names.get(file, (0, f"#{file}" if file else None))
    second = names.get(arg, (0, f"#{arg}"))[1] if name in TWO_NAMES and arg else None
    return {
        "time": time - h["anchor_monotonic"] + h["anchor_realtime"],
        "pid": h["pid"], "tid": tid, "op": name,
        "path": None if kind == KIND_SQL else path, "path2": second,
        "sql": path if kind == KIND_SQL else None,
        "offset": offset, "length": length,
        "result": result if check else None, "duration": duration if check else None,
        "arg": arg, "flags": [word for bit, word in FLAGS.items() if flags & bit],
        "in_flight": check == 0, "texts": decode(texts), "caller": caller,
        "file": file, "segment": segment, "slot": index,
    }


def read_segment(path, problems=None):
    return parse(load(path), str(path), problems)[1]


def segments(path, folder="oplog"):
    """The segment files of a store, of the data directory around it, or the one file itself."""
    path = Path(path)
    if path.is_file():
        return [path]
    for directory in (path / folder, path / ".chromashim" / folder, path):
        if directory.is_dir():
            break
    plain = {p.name: p for p in directory.glob("*.oplog")}
    packed = {p.name[:-4]: p for p in directory.glob("*.oplog.zst")}
    return [each for _, each in sorted({**packed, **plain}.items())]


def read_store(path, problems=None, folder="oplog"):
    """Every record as a dict, in time order; what cannot be read is told to the list `problems`.

    time is ns since 1970; result and duration are None for a record in flight; path, path2 and sql
    are None where there is none; texts is one string. Records that tell names are among them.
    """
    problems = [] if problems is None else problems
    records = []
    for each in segments(path, folder):
        try:
            records += read_segment(each, problems)
        except (Damage, OSError) as e:
            problems.append((str(each), str(e)))
    records.sort(key=lambda r: r["time"])
    yield from records


COUNTS = struct.Struct("<IIIIIHBB")
COLLECTION = {1: "created", 2: "renamed", 3: "configured", 4: "deleted"}


def records_of(raw):
    """What the texts of a `records` say: counts, and ids as (operation, bytes)."""
    *counts, ids, form, more = COUNTS.unpack_from(raw)
    out = dict(zip(("added", "updated", "upserted", "deleted", "other"), counts))
    at, found = COUNTS.size, []
    while at < len(raw):
        operation, size = raw[at], raw[at + 1]
        found.append((operation, raw[at + 2:at + 2 + size]))
        at += 2 + size
    if len(found) != ids:
        raise Damage(f"{len(found)} ids of {ids}")
    return {**out, "form": ("none", "hash", "plain")[form], "more": bool(more), "ids": found}


def read_acts(path, problems=None):
    """Every act of a store or data directory in time order, as read_store(), with the names of
    collections as `collection` and their parts under names of their own."""
    for r in read_store(path, problems, "acts"):
        texts = r["texts"].encode("utf-8", "surrogateescape")
        if r["op"] in ("records", "records.purge", "collection", "segment"):
            r["collection"] = r.pop("path")
            r["transaction"] = r["arg"]
        if r["op"] in ("records", "records.purge"):
            r["first"], r["last"], r["count"] = r["offset"], r["length"], r["result"]
        if r["op"] == "records":
            r.update(records_of(texts))
        elif r["op"] == "collection":
            r["what"] = COLLECTION[r["result"]]
            r["name"], _, r["old_name"] = decode(texts).partition("\0")
        elif r["op"] == "segment":
            r["segment_id"], _, r["scope"] = decode(texts).partition("\0")
        yield r


def headers(path, folder="oplog"):
    """The headers of all readable segments of a store."""
    out = []
    for each in segments(path, folder):
        try:
            out.append({**read_header(load(each)), "segment": str(each)})
        except (Damage, OSError):
            pass
    return out


def main(paths):
    problems = []
    for path in paths:
        for record in read_store(path, problems):
            print(json.dumps(record))
    for where, what in problems:
        print(f"{where}: {what}", file=sys.stderr)
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
