# SPDX-License-Identifier: MIT
"""pack.py WHEELS OUT: packages for npm, of the wheels that are in WHEELS, into OUT: `chromashim`, and
for each platform one with its library and command, which the first names as optional. The same wheels
give the same bytes."""

import gzip
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CPUS = {"x86_64": "x64", "aarch64": "arm64"}
COMMON = {"license": "MIT", "description": "keeps the data of a Chroma vector database from being lost"}
README = """# chromashim

    npx chromashim run -- node server.js

starts a Node service, or whatever else has Chroma in it, under chromashim: index writes become atomic,
a second writer is refused, snapshots are taken, and everything is recorded. The command takes the
service's place: `node_modules/.bin/chromashim` in pm2's file, with `interpreter: "none"`.
`npx chromashim help` tells all. Linux with glibc 2.28 or later, x86-64 and aarch64.
"""


def write(path, files):
    """files: {name: (bytes, executable)}."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (text, runs) in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size, entry.mode, entry.mtime = len(text), 0o755 if runs else 0o644, 499162500
            archive.addfile(entry, io.BytesIO(text))
    with open(path, "wb") as out, gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed:
        packed.write(data.getvalue())
    print(path)


def package_json(**fields):
    return json.dumps({**fields, **COMMON}, indent=2).encode() + b"\n", False


def pack_platform(wheel, out):
    _, version, _, _, platform = wheel.stem.split("-")
    arch = platform.split("_", 3)[3]
    name = f"chromashim-linux-{CPUS[arch]}"
    base = f"chromashim-{version}"
    with zipfile.ZipFile(wheel) as z:
        files = {"bin/chromashim": (z.read(f"{base}.data/scripts/chromashim"), True),
                 "bin/libchromashim.so": (
                     z.read(f"{base}.data/data/libexec/chromashim/libchromashim.so"), True)}
        for member in z.namelist():
            if "/licenses/" in member or "/sboms/" in member or "/man/" in member:
                files["/".join(member.split("/")[-2:])] = (z.read(member), False)
    manuals = [n for n in files if n.startswith("man")]
    files["package.json"] = package_json(name=name, version=version, os=["linux"], cpu=[CPUS[arch]],
                                         libc=["glibc"], man=manuals)
    write(out / f"{name}-{version}.tgz", files)
    return name, version


def main():
    wheels, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    made = dict(pack_platform(w, out) for w in sorted(wheels.glob("chromashim-*-manylinux_2_28_*.whl")))
    if not made:
        sys.exit(f"npm: there is no wheel in '{wheels}': make wheel")
    version = max(made.values())
    write(out / f"chromashim-{version}.tgz", {
        "package.json": package_json(name="chromashim", version=version, os=["linux"],
                                     bin={"chromashim": "bin/chromashim"}, optionalDependencies=made),
        "README.md": (README.encode(), False),
        "bin/chromashim": ((HERE / "chromashim").read_bytes(), True)})


if __name__ == "__main__":
    main()
