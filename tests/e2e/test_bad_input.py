# SPDX-License-Identifier: MIT
"""Damaged, foreign and missing input: clear words, the right exit status, no crash, and the backend
runs on."""

import json
import os
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import xxhash

import hosts
import oplog_reader
import tracer

pytestmark = pytest.mark.memory

OK, FAILED, USAGE, WARNINGS, NO_STORE, NO_TARGET, NO_SPACE = 0, 1, 2, 3, 10, 12, 13

WRITER = """
import os, sys
os.chdir(sys.argv[1])
with open("chroma.sqlite3", "wb", buffering=0) as f:
    for n in range(50):
        f.write(b"x" * n)
os.mkdir("segment")
os.rename("chroma.sqlite3", "segment/moved")
"""


def write(directory: Path, shim: str, **how) -> subprocess.CompletedProcess:
    """A little program that writes to the directory."""
    env = hosts.environment({"LD_PRELOAD": shim, "CHROMASHIM_DIR": str(directory)})
    return subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", WRITER, directory],
                          **{"env": env, "capture_output": True, "text": True, "check": True, **how})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, shim) -> Path:
    data = tmp_path_factory.mktemp("recorded") / "chroma_data"
    data.mkdir()
    write(data, shim)
    return data


@pytest.fixture
def copy(recorded, tmp_path) -> Path:
    data = tmp_path / "chroma_data"
    shutil.copytree(recorded, data)
    return data


def segment(data: Path) -> Path:
    found, = oplog_reader.segments(data)
    return found


def checked(told: subprocess.CompletedProcess, *statuses: int) -> None:
    """No crash, an expected status, and a reason if it is bad. (status has it in its answer.)"""
    assert told.returncode in statuses, (told.returncode, told.stderr)
    if told.returncode != OK and "status" not in told.args:
        assert told.stderr.startswith("chromashim: ") and len(told.stderr) < 2000, told.stderr
    assert "Sanitizer" not in told.stderr


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_readers_agree(recorded, chromashim):
    told = chromashim("log", "--calls", "--json", recorded)
    checked(told, OK)
    mine = [r for r in oplog_reader.read_store(recorded) if not r["op"].startswith("log.")]
    theirs = [r for r in json_lines(told.stdout) if not r["op"].startswith("log.")]
    assert [(r["op"], r["path"], r["length"], r["tid"]) for r in theirs if r["op"] == "write"] == \
        [(r["op"], r["path"], r["length"], r["tid"]) for r in mine if r["op"] == "write"]
    assert len(theirs) == len(mine)


def test_missing_segment(copy, chromashim):
    segment(copy).unlink()
    told = chromashim("log", copy)
    checked(told, OK, WARNINGS, NO_STORE)
    assert "pwrite" not in told.stdout
    shutil.rmtree(copy / tracer.STORE / "oplog")
    checked(chromashim("log", copy), OK, WARNINGS, NO_STORE)
    checked(chromashim("status", copy), OK, WARNINGS, NO_STORE)


@pytest.mark.parametrize("size", [0, 1, 100, 1376, 4095, 4096, 4097, 4096 + 64 * 5 + 13])
def test_truncated_segment(copy, chromashim, size):
    os.truncate(segment(copy), size)
    for command in (["log", "--calls"], ["log", "--calls", "--json"], ["log", "--stats"], ["log", "--transactions"]):
        told = chromashim(*command, copy)
        checked(told, WARNINGS)
        assert segment(copy).name in told.stderr
        if "--json" in command:
            json_lines(told.stdout)
    told = chromashim("status", copy)
    checked(told, OK, WARNINGS)
    assert re.search("unreadable|cut off", told.stdout)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4096 + 64 * 2 + 13])
def test_truncated_acts(copy, chromashim, size):
    """What acts lack is taken from the log of calls."""
    acts, = oplog_reader.segments(copy, "acts")
    os.truncate(acts, size)
    for command in (["log"], ["log", "--json"]):
        told = chromashim(*command, copy)
        checked(told, WARNINGS)
        assert acts.name in told.stderr
        if "--json" in command:
            json_lines(told.stdout)


def test_flipped_bits_in_the_header(copy, chromashim):
    path = segment(copy)
    image = path.read_bytes()
    for at in (0, 8, 12, 16, 20, 24, 32, 48, 56, 100, 400, 1376):
        damaged = bytearray(image)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        told = chromashim("log", copy)
        checked(told, WARNINGS)
        assert path.name in told.stderr


def test_flipped_bits_in_records(copy, chromashim):
    """Only what was hit is lost, and that is said."""
    path = segment(copy)
    image = path.read_bytes()
    used = [n for n in range((len(image) - 4096) // 64)
            if any(image[4096 + 64 * n:4096 + 64 * n + 64])]
    before = len(json_lines(chromashim("log", "--calls", "--json", copy).stdout))
    rng = random.Random(5)
    for hits in (1, 3, len(used)):
        damaged = bytearray(image)
        for n in rng.sample(used, hits):
            damaged[4096 + 64 * n + rng.randrange(64)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        told = chromashim("log", "--calls", "--json", copy)
        checked(told, WARNINGS)
        assert before - 4 * hits <= len(json_lines(told.stdout)) < before
        assert "damaged" in told.stderr


def test_garbage_segment(copy, chromashim):
    path = segment(copy)
    rng = random.Random(6)
    good = path.read_bytes()
    path.write_bytes(rng.randbytes(50000))
    checked(chromashim("log", "--calls", copy), WARNINGS)
    path.write_bytes(good[:4096] + rng.randbytes(64 * 500))
    checked(chromashim("log", "--calls", copy), WARNINGS)
    packed = path.with_name(path.name + ".zst")
    path.unlink()
    packed.write_bytes(rng.randbytes(5000))
    checked(chromashim("log", "--calls", copy), WARNINGS)


def test_newer_version(copy, chromashim):
    path = segment(copy)
    image = bytearray(path.read_bytes())
    struct.pack_into("<I", image, 8, oplog_reader.VERSION + 1)
    seed = int.from_bytes(oplog_reader.MAGIC, "little")
    struct.pack_into("<Q", image, 1376, xxhash.xxh3_64_intdigest(bytes(image[:1376]), seed=seed))
    path.write_bytes(image)
    told = chromashim("log", copy)
    checked(told, WARNINGS, FAILED)
    assert "newer" in told.stderr or "version" in told.stderr


def test_unknown_operation_is_shown_by_number(copy, chromashim):
    path = segment(copy)
    image = bytearray(path.read_bytes())
    for n in range((len(image) - 4096) // 64):
        at = 4096 + 64 * n
        if struct.unpack_from("<H", image, at + 4)[0] in (36, 37):
            struct.pack_into("<H", image, at + 4, 9999)
            check = xxhash.xxh3_64_intdigest(bytes(image[at + 4:at + 64]), seed=n) & 0xffffffff or 1
            struct.pack_into("<I", image, at, check)
            break
    path.write_bytes(image)
    told = chromashim("log", "--calls", copy)
    checked(told, OK, WARNINGS)
    assert "9999" in told.stdout


def test_foreign_files_in_the_store(copy, chromashim):
    directory = segment(copy).parent
    (directory / "notes.txt").write_text("not a segment")
    (directory / "0000000000000000-1-000000.oplog").mkdir()
    (directory / "0000000000000001-1-000000.oplog").symlink_to("/etc/passwd")
    os.mkfifo(directory / "0000000000000002-1-000000.oplog")
    told = chromashim("log", copy)
    checked(told, OK, WARNINGS)
    assert "root:" not in told.stdout + told.stderr


def test_no_chroma_directory(tmp_path, chromashim):
    for command in ("log", "status"):
        told = chromashim(command, tmp_path)
        checked(told, NO_STORE, NO_TARGET)
        assert str(tmp_path) in told.stderr
        told = chromashim(command, tmp_path / "absent")
        checked(told, NO_TARGET, NO_STORE)
        assert "absent" in told.stderr
    (tmp_path / "file").write_text("1")
    checked(chromashim("log", tmp_path / "file"), NO_TARGET, NO_STORE, FAILED)


def test_usage(recorded, chromashim):
    for arguments in (["nonsense"], [], ["log", "--nonsense"], ["log", "--since", "yesterdayish", recorded],
                      ["log", recorded, recorded]):
        told = chromashim(*arguments)
        assert told.returncode == USAGE, arguments
        assert told.stderr and not told.stdout
    assert chromashim("--help").returncode == OK and chromashim("--version").returncode == OK


def test_help_of_every_command(chromashim):
    for name in re.findall(r"^  (\w+) ", chromashim("help").stdout, re.M):
        told = chromashim(name, "-q", "--help")
        assert told.returncode == OK and told.stdout == chromashim("help", name).stdout, name
    told = chromashim("run", "--print-config", "echo", "--help")
    assert told.returncode == OK and "CHROMASHIM_" in told.stdout


def test_output_that_nobody_reads(recorded):
    """| head, and a full disk."""
    done = subprocess.run(f"'{hosts.COMMAND}' log '{recorded}' | head -n 1; echo ${{PIPESTATUS[0]}}",
                          shell=True, executable="/bin/bash", capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("0", "141") and done.stderr == ""
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run([hosts.COMMAND, "log", recorded], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False)
    assert done.returncode == NO_SPACE and "No space left" in done.stderr


# ---- the backend, when its store cannot be used ----


def ran_unprotected(data: Path, done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0
    assert (data / "segment" / "moved").stat().st_size == sum(range(50))
    lines = [line for line in done.stderr.splitlines() if line.startswith("chromashim: ")]
    assert len(lines) >= 1 and len(lines) <= 3, done.stderr
    assert "unprotected" in done.stderr.lower() or "not protected" in done.stderr.lower()


def test_store_is_a_file(data, shim):
    (data / tracer.STORE).write_text("in the way")
    ran_unprotected(data, write(data, shim))
    assert (data / tracer.STORE).read_text() == "in the way"


def test_store_is_a_symbolic_link(data, tmp_path, shim):
    """It is not followed out of the directory."""
    (tmp_path / "elsewhere").mkdir()
    (data / tracer.STORE).symlink_to(tmp_path / "elsewhere")
    ran_unprotected(data, write(data, shim))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_log_directory_is_a_symbolic_link(data, tmp_path, shim):
    (tmp_path / "elsewhere").mkdir()
    (data / tracer.STORE).mkdir(mode=0o700)
    (data / tracer.STORE / "oplog").symlink_to(tmp_path / "elsewhere")
    ran_unprotected(data, write(data, shim))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_store_of_another_owner(data_in_memory, tmp_path, shim):
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    library = data_in_memory / "libchromashim.so"
    shutil.copy(shim, library)
    data = data_in_memory / "chroma_data"
    data.mkdir()
    (data / tracer.STORE).mkdir(mode=0o700)
    for path in (data_in_memory, data):
        path.chmod(0o755)
    os.chown(data, 65534, 65534)
    ran_unprotected(data, write(data, str(library), user=65534, group=65534, extra_groups=[], cwd="/"))


def test_store_removed_while_nothing_runs(copy, shim):
    shutil.rmtree(copy / tracer.STORE)
    shutil.rmtree(copy / "segment")
    write(copy, shim)
    assert oplog_reader.segments(copy)
