# SPDX-License-Identifier: MIT
"""pack.py OUT ARCH: the wheel of what is in OUT/ARCH, and its bill of materials (SPDX). Prints its
path. Nothing but Python's own library; the same files give the same bytes."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "python"))
import backend  # noqa: E402  pylint: disable=wrong-import-position

NAME = backend.NAME
PLATFORM = "manylinux_2_28"
# Where each goes below the environment's own directory.
SHARED = {"chromashim.1": "share/man/man1/chromashim.1",
          "chromashim.conf.5": "share/man/man5/chromashim.conf.5",
          "chromashim": "share/bash-completion/completions/chromashim",
          "_chromashim": "share/zsh/site-functions/_chromashim"}


def when():
    return time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"]))


def sources():
    for line in (HERE / "sources").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line.split()


def package(identity, name, version, licence, origin, checksum=None):
    return {"SPDXID": f"SPDXRef-{identity}", "name": name, "versionInfo": version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "sourceInfo": origin,
            "licenseConcluded": licence, "licenseDeclared": licence, "copyrightText": "NOASSERTION",
            **({"checksums": [{"algorithm": "SHA256", "checksumValue": checksum}]} if checksum else {})}


def materials(version, arch, files):
    """SPDX 2.3: what is linked statically, from which file, and by which compiler."""
    zig = subprocess.run([os.environ["CHROMASHIM_ZIG"], "version"], capture_output=True, text=True,
                         check=True).stdout.strip()
    packages = [package("chromashim", NAME, version, "MIT", "the source tree")]
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                  "relatedSpdxElement": "SPDXRef-chromashim"}]
    for name, its_version, licence, origin, file, checksum in sources():
        packages.append(package(name, name, its_version, licence, f"{file} of {origin}", checksum))
        relations.append({"spdxElementId": "SPDXRef-chromashim", "relationshipType": "STATIC_LINK",
                          "relatedSpdxElement": f"SPDXRef-{name}"})
    packages.append(package("zig", "zig", zig, "MIT", f"the package ziglang {zig}; clang, headers "
                            "and symbols of glibc 2.28"))
    relations.append({"spdxElementId": "SPDXRef-zig", "relationshipType": "BUILD_TOOL_OF",
                      "relatedSpdxElement": "SPDXRef-chromashim"})
    sums = "".join(sorted(hashlib.sha256(data).hexdigest() for _, data in files))
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
            "name": f"{NAME}-{version}-{arch}",
            "documentNamespace": f"urn:chromashim:{hashlib.sha256(sums.encode()).hexdigest()}",
            "creationInfo": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", when()),
                             "creators": ["Tool: wrappers/wheel/pack.py"]},
            "packages": packages, "relationships": relations}


def licences(built):
    """The texts of what is linked: their licences want to be given along."""
    for name, path in (("zstd", "zstd/LICENSE"), ("nettle", "nettle/COPYING.LESSERv3"),
                       ("xxhash", "xxhash/LICENSE"), ("libbsd", "libbsd/COPYING"),
                       ("libsodium", "libsodium/LICENSE")):
        yield name, (built / path).read_bytes()


def contents(out, arch):
    """[(name in the wheel, bytes)]; what is in scripts/ becomes executable."""
    version = backend.version()
    data, info = f"{NAME}-{version}.data", f"{NAME}-{version}.dist-info"
    files = [(name, path.read_bytes()) for name, path in backend.sources().items()]
    files += [(f"{data}/scripts/chromashim", (out / arch / "chromashim").read_bytes()),
              (f"{data}/data/libexec/chromashim/libchromashim.so", (out / arch / "libchromashim.so").read_bytes())]
    files += [(f"{data}/data/{place}", (out / arch / "docs" / name).read_bytes())
              for name, place in SHARED.items()]
    files += [(f"{info}/licenses/{name}", text) for name, text in licences(
        Path(os.environ.get("WHEEL_SOURCES") or ROOT / "build/wheel/sources"))]
    bill = json.dumps(materials(version, arch, files), indent=1).encode()
    wheel = (f"Wheel-Version: 1.0\nGenerator: chromashim\nRoot-Is-Purelib: false\n"
             f"Tag: py3-none-{PLATFORM}_{arch}\n")
    return files + [(f"{info}/METADATA", backend.metadata().encode()), (f"{info}/WHEEL", wheel.encode()),
                    (f"{info}/entry_points.txt", backend.SCRIPTS.encode()),
                    (f"{info}/sboms/chromashim.spdx.json", bill)]


def main():
    out, arch = Path(sys.argv[1]), sys.argv[2]
    version = backend.version()
    files = contents(out, arch)
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(d).digest()).rstrip(b'=').decode()},{len(d)}\n"
        for name, d in files)
    record_name = f"{NAME}-{version}.dist-info/RECORD"
    path = out / f"{NAME}-{version}-py3-none-{PLATFORM}_{arch}.whl"
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for name, text in [*files, (record_name, (record + f"{record_name},,\n").encode())]:
            entry = zipfile.ZipInfo(name, when()[:6])
            runs = ".data/scripts/" in name or name.endswith(".so")
            entry.external_attr = (0o100755 if runs else 0o100644) << 16
            entry.create_system, entry.compress_type = 3, zipfile.ZIP_DEFLATED
            wheel.writestr(entry, text)
    part.rename(path)
    print(path)


if __name__ == "__main__":
    main()
