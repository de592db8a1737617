# SPDX-License-Identifier: MIT
"""A second reader of pins, written from include/chromashim_pin.h and chromashim_undo.h alone.

    pins(store)                     what is pinned or broken, by number
    read(data, store, id, path)     a file as it was at that pin; None if there was none

Sums are verified when the package xxhash is there.
"""

import struct
import uuid
from pathlib import Path

try:
    import xxhash
except ImportError:
    xxhash = None

BLOCK = 4096
HEADER = struct.Struct("<QIIII16sQ9Q")
SLOT = struct.Struct("<IiQQIIQQQQ32s192s192s")
FILE = struct.Struct("<QIIQqQQqqqIIQQ128sQ")
SEGMENT = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin",
           "index_metadata.pickle"]
UNDO_NUMBER, UNDO_SEGMENT, UNDO_SIZES, UNDO_RECORDS = 48, 80, 120, 512
UNDO_RECORD = struct.Struct("<IHBBQII")
STATES = {0: "free", 1: "taking", 2: "held", 3: "broken"}


def text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode()


def state(store: Path) -> dict:
    raw = (store / "pins" / "state").read_bytes()
    h = HEADER.unpack_from(raw)
    assert raw[:8] == b"CHSSPINS" and h[1] == 2
    return {"boot": uuid.UUID(bytes=h[5]), "epoch": h[7], "next_id": h[8], "generation": h[9],
            "saved": h[11], "limit": h[12]}


def pins(store: Path) -> dict[int, dict]:
    raw = (store / "pins" / "state").read_bytes()
    found = {}
    for i in range(64):
        s = SLOT.unpack_from(raw, BLOCK + i * SLOT.size)
        if s[0]:
            found[s[2]] = {"state": STATES[s[0]], "error": s[1], "time": s[3], "wal": bool(s[5]),
                           "database_size": s[7], "wal_size": s[8], "held_ns": s[9],
                           "reason": text(s[10]), "description": text(s[11]),
                           "detail": text(s[12])}
    return found


def epochs(store: Path, path: str, id: int, suffix: str) -> list[tuple[int, Path]]:
    """The files of the epochs from `id` on, oldest first."""
    key = path.replace("/", ".")
    found = [(int(p.name.partition("-")[0]), p)
             for p in (store / "pins").glob(f"*-{key}{suffix}")]
    return sorted((n, p) for n, p in found if n >= id)


def check(block: bytes, number: int, block_sum: int) -> None:
    if xxhash:
        whole = bytes(block).ljust(BLOCK, b"\0")
        assert block_sum == xxhash.xxh3_64_intdigest(whole, seed=number) & 0xffffffff | 3


def groups(store: Path, id: int, segment: str) -> list[tuple[bytes, Path]]:
    """Undo files of the segment's persists that were under way, oldest first."""
    found = [(p.read_bytes(), p) for p in (store / "pins").glob(f"{id:08}-{segment}-*.undo")]
    return sorted(found, key=lambda f: struct.unpack_from("<Q", f[0], UNDO_NUMBER))


def undone(content: bytes, path: str, found: list[tuple[bytes, Path]]) -> bytes | None:
    """The file as it was at the start of the oldest of them."""
    file = SEGMENT.index(path.partition("/")[2])
    size, = struct.unpack_from("<q", found[0][0], UNDO_SIZES + 24 * file)
    if size < 0:
        return None
    out = bytearray((content or b"").ljust(size, b"\0")[:size])
    for raw, name in reversed(found):
        moved = name.with_name(f"{name.name.removesuffix('.undo')}.{file}.moved")
        if moved.exists():
            out[:] = moved.read_bytes()
        at = UNDO_RECORDS
        while at + UNDO_RECORD.size <= len(raw):
            ok, kind, index, _, offset, length, _ = UNDO_RECORD.unpack_from(raw, at)
            if not ok:
                break
            at += UNDO_RECORD.size
            if kind == 1 and index == file:
                out[offset:offset + length] = raw[at:at + length]
            at += (length + 7) & ~7
    return bytes(out[:size])


def read(data: Path, store: Path, id: int, path: str) -> bytes | None:
    found = groups(store, id, path.partition("/")[0]) if "/" in path else []
    content = saved(data, store, id, path)
    return undone(content, path, found) if found else content


def saved(data: Path, store: Path, id: int, path: str) -> bytes | None:
    """From pre-images, links and what is live."""
    wholes = epochs(store, path, id, ".whole")
    live = wholes[0][1] if wholes else data / path
    content = bytearray(live.read_bytes()) if live.exists() else None
    size = None
    done: set[int] = set()
    for epoch, pre in epochs(store, path, id, ".pre"):
        if wholes and epoch > wholes[0][0]:
            break  # the name is another file's by then
        raw = pre.read_bytes()
        h = FILE.unpack_from(raw)
        assert raw[:8] == b"CHSSPPRE" and text(h[14]) == path
        if size is None:
            size = h[4]
            if size < 0:
                return None
            content = content if content is not None else bytearray()
            content += bytes(max(0, size - len(content)))
        sums = struct.unpack_from(f"<{(h[4] + BLOCK - 1) // BLOCK if h[4] > 0 else 0}I", raw, h[12])
        for i, block_sum in enumerate(sums):
            if block_sum > 1 and i not in done and i * BLOCK < size:
                done.add(i)
                block = raw[h[13] + i * BLOCK:h[13] + min((i + 1) * BLOCK, h[4])]
                check(block, i, block_sum)
                content[i * BLOCK:i * BLOCK + len(block)] = block
    if content is None:
        return None
    return bytes(content[:size] if size is not None else content)
