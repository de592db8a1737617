# SPDX-License-Identifier: MIT
"""Copies that went wrong: check says what happened, nothing is healed away, and what a name has hidden
comes back. And what one release writes and another refuses."""

import base64
import gzip
import json
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Callable

import pytest

import hosts
from gallery import check, segment, sql
from test_recover_gallery import compare, lines, recover  # noqa: F401

pytestmark = pytest.mark.memory

NAME = "space-l2"


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "7" * 64 +
                    f"\nsize {path.stat().st_size}\n")


def segment_not_downloaded(data: Path) -> None:
    for path in segment(data, NAME).iterdir():
        pointer(path)


def nothing_downloaded(data: Path) -> None:
    for path in [*data.glob("*/*"), data / "chroma.sqlite3"]:
        pointer(path)


def as_text(data: Path) -> None:
    for path in [*data.glob("*-*/*"), data / "chroma.sqlite3"]:
        path.write_bytes(re.sub(rb"(?<!\r)\n", b"\r\n", path.read_bytes()))


def without_returns(data: Path) -> None:
    """`tr -d '\\r'`: of few line feeds none had one before it."""
    path = data / "chroma.sqlite3"
    for name in ("embedding_fulltext_search_data", "embedding_metadata"):
        sql(f"DELETE FROM {name} WHERE rowid > 300")(data)
    sql("VACUUM")(data)
    content = path.read_bytes().replace(b"\r", b"")
    assert 64 <= content[:1 << 20].count(b"\n") < 2048
    path.write_bytes(content)


def as_utf8(data: Path) -> None:
    path = data / "chroma.sqlite3"
    path.write_text(path.read_bytes().decode(errors="replace"))


def in_capitals(data: Path) -> None:
    (data / "chroma.sqlite3").rename(data / "CHROMA.SQLITE3")


def half_downloaded(data: Path) -> None:
    (data / "chroma.sqlite3").rename(data / "chroma.sqlite3.part")


def set_aside(data: Path) -> None:
    (data / "chroma.sqlite3").rename(data / "old.db")


def compressed(data: Path) -> None:
    path = data / "chroma.sqlite3"
    (data / "chroma.sqlite3.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def archive(data: Path) -> None:
    """In place of the database."""
    packed = shutil.make_archive(str(data.with_name("packed")), "zip", data)
    shutil.move(packed, data / "chroma.sqlite3")


def in_a_cloud(name: str, place: str, content: bytes = b"") -> Callable[[Path], None]:
    """The place that is kept for a file, or for a directory, that was not downloaded."""
    def run(data: Path) -> None:
        path = data / name if name.startswith("chroma") else segment(data, NAME) / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        (path.parent / place.format(path.name)).write_bytes(content)
    return run


def web_page(data: Path) -> None:
    (data / "chroma.sqlite3").write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>\n")


def base64_text(data: Path) -> None:
    path = segment(data, NAME) / "data_level0.bin"
    path.write_bytes(base64.encodebytes(path.read_bytes()))


def from_latin1(data: Path) -> None:
    path = data / "chroma.sqlite3"
    path.write_text(path.read_bytes().decode("latin1"), encoding="utf-8")


def annexed(data: Path) -> None:
    path = segment(data, NAME) / "data_level0.bin"
    path.unlink()
    path.symlink_to("../.git/annex/objects/aa/bb/SHA256E-s1--1.bin/SHA256E-s1--1.bin")


def database_alone(data: Path) -> None:
    for path in data.glob("*-*-*"):
        shutil.rmtree(path)


COPIES: dict[str, tuple[Callable[[Path], None], str, str]] = {  # the finding, and a word of it
    "a segment not downloaded": (segment_not_downloaded, "not-downloaded", "git lfs pull"),
    "nothing downloaded": (nothing_downloaded, "not-downloaded", "git lfs pull"),
    "line ends converted": (as_text, "copied-as-text", "binary"),
    "CRs taken out": (without_returns, "copied-as-text", "each CR is gone"),
    "taken for UTF-8": (as_utf8, "copied-as-text", "binary"),
    "name in capitals": (in_capitals, "database-renamed", "CHROMA.SQLITE3"),
    "half downloaded": (half_downloaded, "database-renamed", "chroma.sqlite3.part"),
    "the database set aside": (set_aside, "database-renamed", "old.db"),
    "the database compressed": (compressed, "packed", "gunzip"),
    "an archive for the database": (archive, "packed", "ZIP archive"),
    **{f"{name or 'a directory'} in a cloud": (in_a_cloud(name, ".{}.icloud"), "not-downloaded", ".icloud: a place")
       for name in ("chroma.sqlite3", "chroma.sqlite3-journal", "chroma.sqlite3-wal", "data_level0.bin",
                    "header.bin", "length.bin", "link_lists.bin", "index_metadata.pickle", "")},
    "in iCloud, with what it writes": (in_a_cloud("data_level0.bin", ".{}.icloud", b"bplist00" + bytes(90)),
                                       "not-downloaded", "iCloud: brctl download"),
    "in Nextcloud": (in_a_cloud("data_level0.bin", "{}.nextcloud", b" "), "not-downloaded", "of Nextcloud"),
    "in ownCloud": (in_a_cloud("chroma.sqlite3", "{}.owncloud", b" "), "not-downloaded", "of ownCloud"),
    "a web page": (web_page, "not-downloaded", "download it again"),
    "in Base64": (base64_text, "copied-as-text", "base64 -d"),
    "from another encoding": (from_latin1, "copied-as-text", "UTF-8"),
    "a link of git-annex": (annexed, "not-downloaded", "git annex get"),
    "the database alone": (database_alone, "segments-left-behind", "whole directory"),
}


def state(data: Path) -> dict[str, bytes]:
    return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*")
            if p.is_file() and ".chromashim" not in p.parts}


@pytest.mark.parametrize("name", COPIES)
def test_copy_went_wrong(name, lines, chromashim, tmp_path):  # noqa: F811
    spoil, finding, word = COPIES[name]
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    spoil(data)
    before = state(data)
    done = chromashim("check", data)
    assert done.returncode == 2 and finding in done.stdout and word in done.stdout, done.stdout
    assert finding in check(chromashim, data)
    ran = chromashim("run", "--no-guard", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert ran.returncode == 1 and not ran.stdout, ran.stdout
    if (data / "chroma.sqlite3").exists() and finding != "segments-left-behind":
        assert chromashim("recover", "-y", data).returncode == 1
    assert state(data) == before


def test_one_too_deep_and_older(lines, chromashim, tmp_path):  # noqa: F811
    shutil.copytree(lines("python").data, tmp_path / "deep" / "chroma_db")
    done = chromashim("check", tmp_path / "deep")
    assert done.returncode == 3 and "directory-below: chroma_db" in done.stdout
    data = tmp_path / "deep" / "chroma_db"
    done = chromashim("check", segment(data, NAME))
    assert done.returncode == 3 and "directory-above" in done.stdout
    (tmp_path / "packed").mkdir()
    tar = shutil.make_archive(str(tmp_path / "packed" / "backup"), "gztar", data)
    done = chromashim("check", tmp_path / "packed")
    assert done.returncode == 3 and "archive-here: backup.tar.gz" in done.stdout
    for verb in ["check", "recover", "export"]:
        done = chromashim(verb, tar)
        assert done.returncode in (3, 12) and "compressed by gzip" in done.stderr, done.stderr
    done = chromashim("check", data / "chroma.sqlite3")
    assert done.returncode == 3 and "the directory that it is in" in done.stderr
    # What lies beside does not make an emptied directory one that may be begun anew.
    shutil.move(tar, data)
    (data / "chroma.sqlite3").unlink()
    assert "database-missing" in check(chromashim, data)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "chroma-embeddings.parquet").write_bytes(b"PAR1")
    done = chromashim("check", tmp_path / "old")
    assert done.returncode == 3 and "format-0.3" in done.stdout


@pytest.mark.parametrize("rename", [
    str.upper, "{}.drift-20260101".format, "{}.bak".format, "copy of {}".format, "backup/{}".format,
    lambda name: name.replace("-", ""), "old_index{:.0}".format, "old/index{:.0}".format],
    ids=["capitals", "drift", "bak", "copy", "below", "digits", "nameless", "nameless below"])
def test_segment_renamed(rename, lines, chromashim, tmp_path):  # noqa: F811
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    path = segment(data, NAME)
    (data / rename(path.name)).parent.mkdir(exist_ok=True)
    path.rename(data / rename(path.name))
    assert "segment-renamed" in check(chromashim, data)
    account = recover(chromashim, data)
    assert check(chromashim, data) == set()
    compare(line, account, data)


@pytest.mark.parametrize("where", ["{0}/{0}", "{0}/old", "{0} (1)", "backup/{0}"])
def test_segment_beside_an_empty_one(where, lines, chromashim, tmp_path):  # noqa: F811
    """Copied into itself one level too deep, or aside by a synchroniser."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    path = segment(data, NAME)
    path.rename(tmp_path / "index")
    path.mkdir()
    target = data / where.format(path.name)
    target.parent.mkdir(exist_ok=True)
    (tmp_path / "index").rename(target)
    assert "segment-renamed" in check(chromashim, data)
    exported = chromashim("export", data)
    assert exported.returncode == 0, exported.stderr
    account = recover(chromashim, data)
    assert check(chromashim, data) == set()
    compare(line, account, data)


def flat(path: Path) -> None:
    for file in path.iterdir():
        file.rename(path.parent / file.name)
    path.rmdir()


def files_in_capitals(path: Path) -> None:
    for file in path.iterdir():
        file.rename(path / file.name.upper())


def conflict(path: Path) -> None:
    (path / "data_level0.bin").rename(path / "data_level0.sync-conflict-20260101-120000-AB12CD3.bin")
    (path / "data_level0 (old).bin").write_bytes(b"shorter")
    (path / "index_metadata.pickle").rename(path / "index_metadata (conflicted copy).pickle")


@pytest.mark.parametrize("spoil", [flat, files_in_capitals, conflict])
def test_files_renamed(spoil, lines, chromashim, tmp_path):  # noqa: F811
    """A start puts them back, since that costs nothing."""
    line = lines("python")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    spoil(segment(data, NAME))
    assert check(chromashim, data) <= {"segment-renamed", "segment-file-renamed"} != set()
    exported = chromashim("export", data)
    assert exported.returncode == 0, exported.stderr
    ran = chromashim("run", "--no-guard", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert ran.returncode == 0 and "is whole again" in ran.stderr, ran.stderr
    assert check(chromashim, data) == set()
    answer = line.ask(data)
    assert "error" not in answer and not answer["missed"]
    assert answer["records"] == line.ask(Path(shutil.copytree(line.data, tmp_path / "as")))["records"]


def test_ids_of_another(lines, chromashim, tmp_path):  # noqa: F811
    """A directory whose ids are another collection's is not taken for the one that is missing."""
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    shutil.rmtree(segment(data, NAME))
    shutil.copytree(segment(data, "space-cosine"), data / "old_index")
    assert "segment-missing" in check(chromashim, data)


# ---- what is only half there: healed by who knows that there is no other copy


def zero_tail(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


HALVES: dict[str, tuple[Callable[[Path], None], str]] = {
    "vectors end in zeros": (lambda data: zero_tail(segment(data, NAME) / "data_level0.bin"),
                             "segment-file-unfinished"),
    "vectors cut": (lambda data: os.truncate(segment(data, NAME) / "data_level0.bin", 9000), "level0-short"),
    "an index missing": (lambda data: shutil.rmtree(segment(data, NAME)), "segment-missing"),
    "its files empty": (lambda data: [os.truncate(path, 0) for path in segment(data, NAME).iterdir()]
                        and None, "segment-file-unfinished"),
    "the database cut": (lambda data: os.truncate(
        data / "chroma.sqlite3", (data / "chroma.sqlite3").stat().st_size // 8192 * 4096), "database-short"),
    "the database ends in zeros": (lambda data: zero_tail(data / "chroma.sqlite3"), "database-unfinished"),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_copy(name, lines, chromashim, tmp_path):  # noqa: F811
    spoil, finding = HALVES[name]
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    spoil(data)
    assert finding in check(chromashim, data)
    before = state(data)
    ran = chromashim("run", "--no-guard", "--dir", data, "--set", f"CHROMASHIM_LIBRARY={hosts.SHIM}",
                     "--", "echo", "started")
    assert ran.returncode == 1 and not ran.stdout and "copy all of it again" in ran.stderr, ran.stderr
    assert state(data) == before
    assert chromashim("recover", "-y", data).returncode == 3
    assert state(data) != before


# ---- what one release writes and another refuses

QUEUED = """
import chromadb, sys
k = chromadb.PersistentClient(sys.argv[1]).get_or_create_collection("queued")
k.add(ids=[str(i) for i in range(60)], embeddings=[[float(i), 1.0] for i in range(60)],
      metadatas=[{"score": {7: float("nan"), 8: float("inf"), 9: -float("inf")}.get(i, float(i)),
                  "text": "half \\ud83d" if i == 10 else "whole"} for i in range(60)])
"""


def test_not_json(chromashim, tmp_path):
    """Foretold for the newer Chroma, no word for the one that wrote it; mended before or after."""
    for name in "python-0.6", "python":
        hosts.BY_NAME[name].require()
    data = tmp_path / "data"
    hosts.chroma("venv-0.6", "-c", QUEUED.replace('"half \\ud83d" if i == 10 else ', ""), data)
    with sqlite3.connect(data / "chroma.sqlite3") as db:  # as Python's json writes it
        db.execute("UPDATE embeddings_queue SET metadata = replace(metadata, 'whole', 'half \\ud83d') "
                   "WHERE id = '10'")
    db.close()
    assert chromashim("check", data).returncode == 0
    done = chromashim("check", "--backend", hosts.BUILD / "venv", data)
    assert done.returncode == 1 and "queue-not-json" in done.stdout, done.stdout
    done = chromashim("recover", "-y", "--only", "queue", data)
    assert done.returncode == 0 and "4 rows" in done.stdout, done.stdout
    read = ("import chromadb, sys, json\nk = chromadb.PersistentClient(sys.argv[1]).get_collection('queued')"
            "\nprint(json.dumps(k.get(include=['embeddings', 'metadatas'])['metadatas']))")
    metadatas = json.loads(hosts.chroma("venv", "-c", read, data))
    assert len(metadatas) == 60 and sum("score" in m for m in metadatas) >= 57


def test_parameters(lines, chromashim, tmp_path):  # noqa: F811
    line = lines("python-0.6")
    data = Path(shutil.copytree(line.data, tmp_path / "data"))
    sql("UPDATE collections SET config_json_str = NULL; INSERT INTO collection_metadata(collection_id, "
        "key, int_value) SELECT id, 'hnsw:ef', 64 FROM collections WHERE name = 'space-l2'; UPDATE "
        "collection_metadata SET str_value = 'Cosine' WHERE key = 'hnsw:space' AND str_value = "
        "'cosine'; UPDATE collection_metadata SET str_value = '50', int_value = NULL WHERE key = "
        "'hnsw:batch_size'")(data)
    assert "HNSW parameter" in line.ask(Path(shutil.copytree(data, tmp_path / "asked")))["error"]
    done = chromashim("check", data)
    assert done.returncode == 1 and "hnsw:ef" in done.stdout and "hnsw:space" in done.stdout
    account = recover(chromashim, data, "--only", "parameters")
    assert chromashim("check", data).returncode == 0
    compare(line, account, data)


# ---- who asks


needs_another = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"),
                                   reason="needs root and setpriv")


def ask_as_another(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                           hosts.COMMAND, *map(str, words)], env=hosts.environment(),
                          capture_output=True, text=True, check=False)


@needs_another
@pytest.mark.parametrize("where", ["chroma.sqlite3", "data_level0.bin"])
@pytest.mark.parametrize("how, code", [("attribute", "attributes"), ("mount", "read-only-filesystem"),
                                       ("container", "not-writable-for-you")])
def test_not_writable_for_root(where, how, code, lines, tmp_path):  # noqa: F811
    """Chroma fails there, or swallows it: an attribute, a file mounted read-only, and a container's
    root without CAP_DAC_OVERRIDE."""
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    path = next(data.rglob(where))
    words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if how == "container" else []

    def ask(*command):
        done = subprocess.run([*words, hosts.COMMAND, *command], env=hosts.environment(),
                              capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert ask("check", data)[0] == 0
    undo = {"attribute": ["chattr", "-i", path], "mount": ["umount", path]}.get(how, ["true"])
    if how == "container":
        os.chown(path, 65534, 65534)
    elif how == "attribute":
        if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
            pytest.skip("no attributes here")
    elif subprocess.run(["mount", "--bind", path, path], capture_output=True).returncode:
        pytest.skip("no bind mounts here")
    try:
        if how == "mount":
            subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        status, said = ask("check", data)
        assert status == 1 and code in said and where in said, said
        status, said = ask("run", "--check-only", "--dir", data, "--", "true")
        assert status != 0 and where in said, said
        assert how == "container" or "It belongs to" not in said, said
    finally:
        subprocess.run(undo, check=True)


@needs_another
def test_not_writable_for_who_asks(lines, tmp_path):  # noqa: F811
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    hosts.let_others_in(tmp_path)

    def ask() -> subprocess.CompletedProcess:
        return ask_as_another("check", data)

    done = ask()
    assert done.returncode == 1 and "not-writable-for-you" in done.stdout, done.stdout + done.stderr
    for path in [data, *data.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert ask().returncode == 0
    (data / "chroma.sqlite3-journal").write_bytes(bytes(600))  # of root's `PRAGMA journal_mode = persist`
    done = ask()
    assert done.returncode == 1 and "chroma.sqlite3-journal: it belongs to root" in done.stdout, done.stdout
    (data / "chroma.sqlite3-journal").unlink()
    os.chown(data / "chroma.sqlite3", 0, 0)
    done = ask()
    assert done.returncode == 1 and "chroma.sqlite3: it belongs to root" in done.stdout, done.stdout


@needs_another
@pytest.mark.parametrize("name, owner, mode, said", [
    ("chroma.sqlite3-wal", 0, 0o644, "chroma.sqlite3-wal: it belongs to root, mode 0644"),
    ("chroma.sqlite3-shm", 0, 0o644, "chroma.sqlite3-shm: it belongs to root, mode 0644"),
    (".chromashim", 0, 0o700, "the store: it belongs to root, mode 0700"),
    ("SEGMENT", 0, 0o700, "it belongs to root, mode 0700"),
    ("SEGMENT/link_lists.bin", 0, 0o644, "link_lists.bin: it belongs to root, mode 0644"),
    ("SEGMENT/header.bin", 65534, 0o444, "header.bin: it belongs to you, mode 0444"),
])
def test_each_file_that_is_not_writable_is_named(lines, tmp_path, name, owner, mode, said):  # noqa: F811
    """By `check` and by `run`, and whose it is."""
    data = Path(shutil.copytree(lines("python").data, tmp_path / "data"))
    hosts.let_others_in(tmp_path)
    path = data / name.replace("SEGMENT", next(data.glob("*-*/")).name)
    if name == ".chromashim":
        path.mkdir(exist_ok=True)
    elif not path.exists():
        path.touch()
    for each in [data, *data.rglob("*")]:
        os.chown(each, 65534, 65534)
    os.chown(path, owner, owner)
    path.chmod(mode)
    done = ask_as_another("check", data)
    assert done.returncode in ((3,) if name == "SEGMENT" else (1, 2)), done.stdout
    assert f"{said}; you are nobody" in done.stdout, done.stdout
    done = ask_as_another("run", "--dir", data, "--check-only", "--", "true")
    assert said in done.stderr, done.stderr
