# SPDX-License-Identifier: MIT
"""Builds the wheel (PEP 517), with nothing but Python's own library.

setuptools writes beside the sources, so that nobody but root could install from a directory of
root's, such as /usr/share/chromashim/python. This writes only where it is told to.
"""

import base64
import hashlib
import re
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "src"
NAME = "chromashim"
MODULES = ("database_protection.py", "recover_chromadb.py")
SCRIPTS = "[console_scripts]\nrecover_chromadb = recover_chromadb:main\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: chromashim\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def version() -> str:
    text = (SOURCE / NAME / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.*)"', text, re.MULTILINE).group(1)


def metadata() -> str:
    return (f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version()}\n"
            "Summary: Protected operations, snapshots and import for Chroma directories under "
            "chromashim\nLicense: MIT\nRequires-Python: >=3.9\n"
            "Description-Content-Type: text/markdown\n\n"
            + (HERE / "README.md").read_text(encoding="utf-8"))


def sources() -> dict:
    """Name in the wheel: path."""
    found = {name: SOURCE / name for name in MODULES}
    for path in sorted((SOURCE / NAME).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found[path.relative_to(SOURCE).as_posix()] = path
    return found


def write_wheel(directory: str, files: dict) -> str:
    """files: name in the wheel to its bytes. Gives the wheel's name."""
    info = f"{NAME}-{version()}.dist-info"
    files = {**files, f"{info}/METADATA": metadata().encode(), f"{info}/WHEEL": WHEEL.encode(),
             f"{info}/entry_points.txt": SCRIPTS.encode()}
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}"
        f",{len(data)}\n" for name, data in files.items()) + f"{info}/RECORD,,\n"
    name = f"{NAME}-{version()}-py3-none-any.whl"
    with zipfile.ZipFile(Path(directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in {**files, f"{info}/RECORD": record.encode()}.items():
            entry = zipfile.ZipInfo(member)  # of 1980: the same bytes whenever it is built
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
    return name


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {name: path.read_bytes() for name, path in sources().items()})


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return write_wheel(wheel_directory, {f"__editable__.{NAME}.pth": f"{SOURCE}\n".encode()})


def build_sdist(sdist_directory, config_settings=None):
    base = f"{NAME}-{version()}"
    with tarfile.open(Path(sdist_directory) / f"{base}.tar.gz", "w:gz") as archive:
        for name in ("backend.py", "pyproject.toml", "README.md"):
            archive.add(HERE / name, f"{base}/{name}")
        for name, path in sources().items():
            archive.add(path, f"{base}/src/{name}")
    return f"{base}.tar.gz"
