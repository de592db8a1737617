# SPDX-License-Identifier: MIT
"""Puts an export of `chromashim export` back, through Chroma's client.

    python -m chromashim.importer EXPORT --path DIR        into a directory (made if missing)
    python -m chromashim.importer EXPORT --host H --port P into a server

EXPORT is a file of JSON Lines, one compressed with zstd, - for stdin, or a directory made with
`export --folders`, whose collections come back with their metadata and their index's settings. Records are
upserted: a second run changes nothing. Needs the chromadb package.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

BATCH = 1000  # bounds memory; the client may allow less
DEFAULT_HOME = ("default_tenant", "default_database")
BEFORE_1 = {"ef_construction": "construction_ef", "ef_search": "search_ef", "max_neighbors": "M"}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class ImportFailed(ValueError):
    """The export cannot be read, or does not fit what is there."""


@dataclass
class Summary:
    """What was put back."""

    collections: set = field(default_factory=set)
    records: int = 0
    without_vector: list = field(default_factory=list)  # (collection, id): not put back

    def __str__(self) -> str:
        text = f"{self.records} records in {len(self.collections)} collections put back"
        if self.without_vector:
            text += f"; {len(self.without_vector)} without a vector left out"
        return text


# ---- reading ----


@contextmanager
def _decompressed(stream):
    """The text of a stream, whether it is compressed or not."""
    buffered = io.BufferedReader(stream) if isinstance(stream, io.RawIOBase) else stream
    if buffered.peek(4)[:4] != ZSTD_MAGIC:
        yield io.TextIOWrapper(buffered, encoding="utf-8")
        return
    try:
        import zstandard
    except ImportError:
        zstandard = None
    if zstandard:
        reader = zstandard.ZstdDecompressor().stream_reader(buffered, read_across_frames=True)
        yield io.TextIOWrapper(io.BufferedReader(reader), encoding="utf-8")
        return
    if not shutil.which("zstd") or not hasattr(buffered, "fileno"):
        raise ImportFailed("the export is compressed: install the zstandard package, or give "
                           "what `zstd -dc` makes of it")
    buffered.seek(0)
    with subprocess.Popen(["zstd", "-dc"], stdin=buffered.fileno(), stdout=subprocess.PIPE) as child:
        yield io.TextIOWrapper(child.stdout, encoding="utf-8")
    if child.returncode:
        raise ImportFailed("zstd could not read the export")


def _lines(stream, name: str):
    with _decompressed(stream) as text:
        for number, line in enumerate(text, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                if not isinstance(record["collection"], str) or not isinstance(record["id"], str):
                    raise TypeError
            except (ValueError, KeyError, TypeError) as error:
                raise ImportFailed(f"{name}, line {number}: no record of an export") from error
            yield record


def _describe(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "collection.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def read_export(source):
    """Gives (description of its collection, None) and (None, record) in the export's order."""
    if hasattr(source, "read"):
        binary = getattr(source, "buffer", source)
        yield from ((None, record) for record in _lines(binary, getattr(source, "name", "input")))
        return
    path = Path(source)
    if not path.is_dir():
        with open(path, "rb") as stream:
            yield from ((None, record) for record in _lines(stream, str(path)))
        return
    folders = [path] if (path / "collection.json").exists() else sorted(
        p for p in path.iterdir() if (p / "collection.json").exists())
    if not folders:
        raise ImportFailed(f"{path} is no export: no folder in it has a collection.json")
    for folder in folders:
        yield _describe(folder), None
        for file in sorted(folder.glob("records.jsonl*")):
            with open(file, "rb") as stream:
                yield from ((None, record) for record in _lines(stream, str(file)))


# ---- writing ----


def _home(record: dict) -> tuple:
    return (record.get("tenant") or DEFAULT_HOME[0], record.get("database") or DEFAULT_HOME[1])


class _Writer:
    """Batches of each collection. client_for gives the client of a tenant and database."""

    def __init__(self, client_for, only: Optional[str], batch: Optional[int]):
        self.client_for = client_for
        self.only = only
        self.batch = batch
        self.clients: dict[tuple, Any] = {}
        self.collections: dict[tuple, Any] = {}
        self.waiting: dict[tuple, list] = defaultdict(list)
        self.summary = Summary()

    def client(self, home: tuple):
        if home not in self.clients:
            self.clients[home] = self.client_for(*home)
        return self.clients[home]

    def collection(self, home: tuple, name: str, description: Optional[dict] = None):
        key = (home, name)
        if key not in self.collections:
            self.collections[key] = _make(self.client(home), name, description or {})
            self.summary.collections.add(key)
        return self.collections[key]

    def add(self, record: dict) -> None:
        key = (_home(record), record["collection"])
        if self.only is not None and record["collection"] != self.only:
            return
        if record.get("embedding") is None:
            self.summary.without_vector.append((record["collection"], record["id"]))
            return
        waiting = self.waiting[key]
        waiting.append(record)
        if len(waiting) >= self.limit(key[0]):
            self.flush(key)

    def limit(self, home: tuple) -> int:
        allowed = getattr(self.client(home), "get_max_batch_size", lambda: BATCH)()
        return max(1, min(self.batch or BATCH, allowed))

    def flush(self, key: tuple) -> None:
        records = self.waiting.pop(key, [])
        # A call takes a document, or metadata, of all of its records or of none.
        groups = defaultdict(list)
        for record in records:
            groups[tuple(bool(record.get(k)) or record.get(k) == "" for k in
                         ("document", "metadata", "uri"))].append(record)
        for (documents, metadatas, uris), group in groups.items():
            self.collection(*key).upsert(
                ids=[r["id"] for r in group], embeddings=[r["embedding"] for r in group],
                documents=[r["document"] for r in group] if documents else None,
                metadatas=[r["metadata"] for r in group] if metadatas else None,
                uris=[r["uri"] for r in group] if uris else None)
            self.summary.records += len(group)

    def flush_all(self) -> None:
        for key in list(self.waiting):
            self.flush(key)


def _make(client, name: str, description: dict):
    """The collection, as it is if it is there, else made as described."""
    metadata = description.get("metadata") or None
    settings = dict(description.get("hnsw") or {})
    if description.get("space"):
        settings.setdefault("space", description["space"])
    if any(existing == name for existing in _names(client)):
        return client.get_collection(name, embedding_function=None)
    if settings and _is_before_1():  # they were metadata then
        settings = {f"hnsw:{BEFORE_1.get(k, k)}": v for k, v in settings.items()}
        metadata = {**settings, **(metadata or {})}
    elif settings:
        return client.create_collection(name, metadata=metadata, embedding_function=None,
                                        configuration={"hnsw": settings})
    return client.create_collection(name, metadata=metadata, embedding_function=None)


def _is_before_1() -> bool:
    import chromadb

    return chromadb.__version__.startswith("0.")


def _names(client):
    at = 0
    while True:
        page = client.list_collections(limit=500, offset=at)
        yield from (c if isinstance(c, str) else c.name for c in page)
        if len(page) < 500:
            return
        at += len(page)


def import_jsonl(source, client=None, *, client_for=None, collection: Optional[str] = None,
                 batch: Optional[int] = None) -> Summary:
    """Puts an export back: a path, a directory of `export --folders`, or an open binary file.

    client is of the default tenant and database; for an export with others give
    client_for(tenant, database). collection: only this one. Collections that are missing are
    made. Records are upserted, so what is there is overwritten and a second run changes nothing.
    """
    if client_for is None:
        def client_for(tenant, database):
            if (tenant, database) != DEFAULT_HOME:
                raise ImportFailed(f"the export has records of tenant {tenant}, database "
                                   f"{database}: give client_for=, or use the command line")
            return client
    writer = _Writer(client_for, collection, batch)
    for description, record in read_export(source):
        if record is not None:
            writer.add(record)
        elif description and collection in (None, description.get("name")):
            writer.collection(_home(description), description["name"], description)
    writer.flush_all()
    return writer.summary


# ---- the command line ----


def _connect(options):
    """client_for of a directory or a server; makes tenants and databases that are missing."""
    import chromadb

    if options.path:
        settings = chromadb.Settings(is_persistent=True, persist_directory=options.path,
                                     anonymized_telemetry=False)
    else:
        settings = chromadb.Settings(
            chroma_api_impl="chromadb.api.fastapi.FastAPI", chroma_server_host=options.host,
            chroma_server_http_port=options.port, anonymized_telemetry=False)

    def client_for(tenant, database):
        if (tenant, database) != DEFAULT_HOME:
            admin = chromadb.AdminClient(settings)
            _ensure(lambda: admin.get_tenant(tenant), lambda: admin.create_tenant(tenant))
            _ensure(lambda: admin.get_database(database, tenant),
                    lambda: admin.create_database(database, tenant))
        if options.path:
            return chromadb.PersistentClient(options.path, settings=settings, tenant=tenant,
                                             database=database)
        return chromadb.HttpClient(options.host, options.port, tenant=tenant, database=database)

    return client_for


def _ensure(get, create) -> None:
    try:
        get()
    except Exception:  # which one it is differs between releases
        create()


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chromashim.importer",
                                     description=__doc__.partition("\n")[0])
    parser.add_argument("export", help="a file, a directory of `export --folders`, or - for stdin")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--path", help="the directory to put it into")
    where.add_argument("--host", help="or the server")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--collection", help="only this one")
    parser.add_argument("--batch", type=int, help=f"records in a call (at most {BATCH} by default)")
    options = parser.parse_args(arguments)
    try:
        client_for = _connect(options)
    except ImportError:
        print("chromashim: the chromadb package is missing here: pip install chromadb",
              file=sys.stderr)
        return 1
    source = sys.stdin.buffer if options.export == "-" else options.export
    try:
        summary = import_jsonl(source, client_for=client_for, collection=options.collection,
                               batch=options.batch)
    except (ImportFailed, OSError) as error:
        print(f"chromashim: cannot import '{options.export}': {error}", file=sys.stderr)
        return 1
    print(summary)
    return 3 if summary.without_vector else 0


if __name__ == "__main__":
    sys.exit(main())
