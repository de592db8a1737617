# SPDX-License-Identifier: MIT
"""Shared objects: what they import, and taking an export away."""

import struct
import subprocess
from pathlib import Path


def symbols(path: Path, option: str, without: str = "no version") -> set[str]:
    """Names in the dynamic symbol table; not those of the version `without`."""
    done = subprocess.run(["nm", "-D", option, str(path)], capture_output=True, text=True, check=True)
    found = (line.split()[-1].split("@") for line in done.stdout.splitlines() if line.strip())
    return {name for name, *version in found if without not in version}


def imports(path: Path) -> set[str]:
    return symbols(path, "--undefined-only")


def exports(path: Path, without: str = "no version") -> set[str]:
    return symbols(path, "--defined-only", without)


SHT_DYNSYM = 11


def without_symbol(library: str, name: str, copy: Path) -> Path:
    """A copy of a library in which the dynamic linker does not find `name`: its entry in the
    dynamic symbol table loses its name."""
    image = bytearray(Path(library).read_bytes())
    assert image[:6] == b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file"
    section_offset, = struct.unpack_from("<Q", image, 0x28)
    entry_size, count = struct.unpack_from("<HH", image, 0x3a)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, section_offset + i * entry_size)
               for i in range(count)]
    table = next(h for h in headers if h[1] == SHT_DYNSYM)
    strings = headers[table[6]]
    found = 0
    for at in range(table[4], table[4] + table[5], 24):
        start = strings[4] + struct.unpack_from("<I", image, at)[0]
        defined = struct.unpack_from("<H", image, at + 6)[0] != 0
        if defined and image[start:image.index(0, start)] == name.encode():
            struct.pack_into("<I", image, at, 0)
            found += 1
    assert found == 1, f"{name} is exported {found} times"
    copy.write_bytes(image)
    return copy
