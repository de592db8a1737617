# SPDX-License-Identifier: MIT
"""wrappers/python: with the shim and without, and an export that comes back record by record."""

import json
import os
import shutil
import subprocess
import tarfile
import textwrap
import zipfile

import pytest

import hosts

pytestmark = pytest.mark.memory

SOURCE = hosts.ROOT / "wrappers" / "python" / "src"
LOAD = """
import chromadb, numpy as np, sys
client = chromadb.PersistentClient(sys.argv[1])
rng = np.random.default_rng(1)
docs = client.create_collection("documents", metadata={"owner": "tests", "n": 7},
                                embedding_function=None)
docs.add(ids=[f"d{i}" for i in range(1500)], embeddings=rng.random((1500, 8), dtype=np.float32),
         documents=[f"text {i} ü \\0" for i in range(1500)],
         metadatas=[{"i": i, "f": i / 7, "s": "x", "b": i % 2 == 0} for i in range(1500)])
docs.delete(ids=["d3"])
docs.update(ids=["d4"], embeddings=[[1] * 8], documents=["changed"])
bare = client.create_collection("vectors", configuration={"hnsw": {"space": "ip"}},
                                embedding_function=None)
bare.add(ids=["a", "b"], embeddings=[[1, 2], [3, 4]])
bare.add(ids=["c"], embeddings=[[5, 6]], documents=["only this one has a text"])
"""
DUMP = """
import chromadb, json, sys
client = chromadb.PersistentClient(sys.argv[1])
out = {}
for c in client.list_collections():
    got = c.get(include=["embeddings", "documents", "metadatas", "uris"])
    out[c.name] = {"space": c.configuration["hnsw"]["space"], "metadata": c.metadata, "records": {
        i: [list(map(float, e)), d, m, u] for i, e, d, m, u in zip(
            got["ids"], got["embeddings"], got["documents"], got["metadatas"], got["uris"])}}
print(json.dumps(out))
"""


@pytest.fixture
def run(data, shim):
    """Runs a script of the module's user: run(script, *arguments, preload=False)."""
    def run_(script, *arguments, preload=False, env=None, status=0, venv="venv"):
        settings = hosts.environment({"PYTHONPATH": str(SOURCE), "CHROMASHIM_DIR": str(data),
                                      "CHROMASHIM_COMMAND": str(hosts.COMMAND), **(env or {}),
                                      **({"LD_PRELOAD": shim} if preload else {})})
        words = script if isinstance(script, list) else ["-c", textwrap.dedent(script)]
        done = subprocess.run([hosts.python(venv), *words, *map(str, arguments)], env=settings,
                              capture_output=True, text=True, timeout=120, check=False,
                              cwd=data.parent)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run_


@pytest.fixture
def loaded(run, data):
    # Its own snapshots would be among those that are counted.
    run(LOAD, data, preload=True, env={"CHROMASHIM_SNAPSHOTS": "off"})
    return data


def snapshots(chromashim, data):
    return json.loads(chromashim("snapshot", "list", "--json", data).stdout or "[]")


def test_without_the_shim_operations_go_through_the_command(run, loaded, chromashim):
    done = run("""
        import asyncio, chromashim
        assert not chromashim.loaded() and chromashim.active() == 0 and chromashim.version() is None
        with chromashim.protected_operation("first", snapshot=True) as operation:
            assert operation.snapshot == 1
        with chromashim.protected_operation("without") as operation:
            assert operation.snapshot is None

        @chromashim.protected_operation("twice", snapshot=True)
        def twice(n):
            "its text"
            return n if n == 2 else twice(n + 1)
        assert twice(1) == 2 and twice.__name__ == "twice" and twice.__doc__ == "its text"

        @chromashim.protected_operation("async", snapshot=True)
        async def several():
            await asyncio.sleep(0)
            return "done"
        assert asyncio.iscoroutinefunction(several)
        async def both():
            return await asyncio.gather(several(), several())
        assert asyncio.run(both()) == ["done", "done"]
        try:
            with chromashim.protected_operation("failing"):
                raise KeyError("as before")
        except KeyError:
            print("raised as before")
        """)
    assert "raised as before" in done.stdout
    assert done.stderr.count("protection is partial") == 1, done.stderr
    assert "chromashim run" in done.stderr
    assert [s["description"] for s in snapshots(chromashim, loaded)] == [
        "before first", "before twice", "before twice", "before async", "before async"]


@pytest.mark.fast
def test_under_the_shim_operations_are_recorded(run, loaded, chromashim):
    done = run("""
        import asyncio, chromadb, chromashim, sys
        from database_protection import get_protection_service, protected_db_operation
        assert chromashim.loaded() and chromashim.version()
        docs = chromadb.PersistentClient(sys.argv[1]).get_collection("vectors", embedding_function=None)
        assert chromashim.active() == 1

        with chromashim.protected_operation("with snapshot", snapshot=True, require_snapshot=True) as o:
            docs.add(ids=["n1"], embeddings=[[7, 8]])
        with chromashim.protected_operation("again, always", snapshot="always") as again:
            pass
        assert 0 < o.snapshot < again.snapshot, (o.snapshot, again.snapshot)
        with chromashim.protected_operation("without"):
            docs.add(ids=["n2"], embeddings=[[7, 8]])

        @chromashim.protected_operation("async one")
        async def work():
            await asyncio.sleep(0)
        asyncio.run(work())
        try:
            with get_protection_service().protected_operation("failing"):
                raise KeyError
        except KeyError:
            pass
        print(o.snapshot)
        """, loaded, preload=True)
    assert done.stderr == ""
    lines = chromashim("log", "--protected", "--json", loaded).stdout.splitlines()
    begins = [line for line in lines if '"protect.begin"' in line]
    ends = [json.loads(line)["result"] for line in lines if '"protect.end"' in line]
    for name, line in zip(("with snapshot", "again, always", "without", "async one", "failing"), begins):
        assert name in line
    assert ends == [0, 0, 0, 0, 1]
    # The snapshot is of the moment before: without n1.
    before = loaded.parent / "before"
    chromashim("guard", "--once", loaded)
    assert chromashim("restore", f"--to={done.stdout.strip()}", "-o", before, loaded).returncode == 0
    assert '"n1"' not in chromashim("export", before).stdout
    assert '"n1"' in chromashim("export", loaded).stdout


def test_no_snapshot_is_said_or_refused(run, tmp_path):
    script = """
        import chromashim
        for required in (False, True):
            with chromashim.protected_operation("x", snapshot=True, require_snapshot=required):
                print("went on", required)
        """
    done = run(script, env={"CHROMASHIM_DIR": str(tmp_path / "nothing")}, status=1)
    assert done.stdout == "went on False\n"
    assert "no snapshot before 'x'" in done.stderr
    assert "ChromashimError: no snapshot before 'x': chromashim snapshot" in done.stderr
    done = run(script, env={"CHROMASHIM_COMMAND": str(tmp_path / "none")}, status=1)
    assert "cannot run the chromashim command" in done.stderr


def test_the_directory_is_found_by_what_the_process_has_open(run, loaded):
    run("""
        import chromadb, chromashim, os, sys
        del os.environ["CHROMASHIM_DIR"]
        assert chromashim.default_directory() == "./chroma_data"
        client = chromadb.PersistentClient(sys.argv[1])
        client.list_collections()
        assert chromashim.default_directory() == sys.argv[1]
        with chromashim.protected_operation("in the program", snapshot=True) as operation:
            client.get_collection("vectors", embedding_function=None).add(ids=["n"], embeddings=[[7, 8]])
        assert operation.snapshot == 1
        """, loaded)


def test_names_that_people_have(run, loaded, chromashim):
    done = run("""
        import sys
        from database_protection import get_protection_service, protected_db_operation

        @protected_db_operation("conversation_add")
        def add():
            return 1

        @protected_db_operation("collection_recreate", force_backup=True)
        def recreate():
            return 2

        service = get_protection_service()
        assert service is get_protection_service()
        assert (add(), recreate()) == (1, 2)
        with service.protected_operation("bulk_update") as operation:
            assert operation["backup"] == 2 and operation["operation"] == "bulk_update", operation
        backup = service.create_backup("by hand")
        assert backup["state"] == "verified"
        assert [b["id"] for b in service.list_backups()] == [3, 2, 1]
        health = service.health_check()
        assert health["healthy"] and health["last_backup"], health
        print(service.restore_backup(1))
        print(service.restore_backup(backup, sys.argv[1]))
        """, loaded.parent / "elsewhere")
    assert done.stderr.count("protection is partial") == 1
    assert (loaded.parent / "elsewhere" / "chroma.sqlite3").exists()
    assert "before collection_recreate" in [s["description"] for s in snapshots(chromashim, loaded)]


def test_recover_chromadb(run, loaded, chromashim):
    module = ["-m", "recover_chromadb"]
    assert "snapshot 1: verified" in run(module, "--backup-only").stdout
    health = run(module, "--health-check")
    assert "fine" in health.stdout
    before = json.loads(run(DUMP, loaded).stdout)
    run("import chromadb, sys; chromadb.PersistentClient(sys.argv[1]).delete_collection('vectors')",
        loaded)
    run(module, "--restore", "1")
    assert differences(before, json.loads(run(DUMP, loaded).stdout)) == []

    # A copy made by other means; what is damaged is refused and changes nothing.
    copy = loaded.parent / "copy"
    subprocess.run(["cp", "-a", loaded, copy], check=True)
    run("import chromadb, sys; chromadb.PersistentClient(sys.argv[1]).delete_collection('vectors')",
        loaded)
    run(module, "--restore", copy)
    assert differences(before, json.loads(run(DUMP, loaded).stdout)) == []
    assert snapshots(chromashim, loaded)[-1]["reason"] == "restore", "this can be undone"
    packed = loaded.parent / "copy.tar.gz"
    subprocess.run(["tar", "-czf", packed, "-C", copy.parent, copy.name], check=True)
    run("import chromadb, sys; chromadb.PersistentClient(sys.argv[1]).delete_collection('vectors')",
        loaded)
    run(module, "--restore", packed)
    assert differences(before, json.loads(run(DUMP, loaded).stdout)) == []
    fresh = loaded.parent / "deep" / "fresh"
    run([*module, "--path", fresh], "--restore", packed)
    assert differences(before, json.loads(run(DUMP, fresh).stdout)) == []
    (copy / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
    done = run(module, "--restore", copy, status=1)
    assert "not sound" in done.stderr and "Nothing was changed" in done.stderr
    done = run(module, "--restore", "99", status=12)
    assert done.stderr.startswith("recover_chromadb: chromashim restore:")


def pack(archive, *folders):
    """A second name of the database comes first: the database itself is a link to it in there."""
    with tarfile.open(archive, "w:gz") as packed:
        for folder in folders:
            if not (folder / "again").exists():
                os.link(folder / "chroma.sqlite3", folder / "again")
            packed.add(folder / "again", f"{folder.name}/again")
            packed.add(folder, folder.name, filter=lambda member: None if
                       member.name.endswith(("/again", "/.chromashim")) else member)


def test_an_archive_is_restored_by_relative_names(run, loaded):
    """Where there is nothing yet, and where only the store is left, too."""
    top = loaded.parent
    pack(top / "one.tar.gz", loaded)
    module = ["-m", "recover_chromadb", "--restore"]
    before = json.loads(run(DUMP, loaded).stdout)
    (top / "empty").mkdir()
    (top / "link").symlink_to("empty")
    (top / "emptied" / ".chromashim").mkdir(parents=True)
    for name in "new", "emptied", "link":
        run([*module, "one.tar.gz", "--path", name])
        assert (top / name / "chroma.sqlite3").exists()
    assert differences(before, json.loads(run(DUMP, top / name).stdout)) == []
    assert (top / "link").is_symlink()

    # What is meant is not guessed at.
    shutil.copytree(loaded, top / "other", ignore=shutil.ignore_patterns(".chromashim"))
    pack(top / "two.tar.gz", loaded, top / "other")
    assert "'chroma_data', 'other'" in run([*module, "two.tar.gz"], status=1).stderr
    (top / "a.zip").write_bytes(b"PK\3\4" * 99)
    assert "no archive that tar has made" in run([*module, "a.zip"], status=1).stderr
    assert not list(top.glob(".*unpacking*"))


def test_install_here(run, loaded, chromashim, tmp_path):
    """`cd backend && python recover_chromadb.py …`, where the directory is in the folder above."""
    backend = loaded.parent / "backend"
    backend.mkdir()
    at = {"CHROMASHIM_DIR": "", "PYTHONPATH": str(SOURCE)}
    assert "is there" in run(["-m", "chromashim", "install-here", backend], env=at).stdout

    def stub(*arguments, status=0):
        # Without PYTHONPATH: it knows from where it was put there.
        done = subprocess.run([hosts.python("venv"), "recover_chromadb.py", *map(str, arguments)],
                              env=hosts.environment({"CHROMASHIM_COMMAND": str(hosts.COMMAND)}),
                              cwd=backend, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    assert "fine" in stub("--health-check").stdout
    assert not (backend / "chromadb_backups").exists(), "looking leaves nothing behind"
    done = stub("--backup-only")
    assert "snapshot 1: verified" in done.stdout and "'../chroma_data'" in done.stderr
    exported, = (backend / "chromadb_backups").glob("conversations-*.jsonl")
    assert len(exported.read_text().splitlines()) == 1502, "each record is a line"
    stub("--restore", 1)
    stub("--restore", 99, status=12)
    stub()
    told = [line.split()[1:3] for line in
            (backend / "chromadb_backups" / "critical_operations.log").read_text().splitlines()]
    assert told == [["done", "backup-only"], ["done", "restore"], ["failed", "restore"],
                    ["done", "recover"]]

    # A second directory is no guess; a program of that name which is somebody else's stays.
    shutil.copytree(loaded, loaded.parent / "other", ignore=shutil.ignore_patterns(".chromashim"))
    (loaded.parent / "chroma_data").rename(loaded.parent / "third")
    assert "several data directories" in stub("--health-check", status=2).stderr
    (backend / "recover_chromadb.py").write_text("print('mine')")
    assert "another program's" in run(["-m", "chromashim", "install-here", backend], env=at,
                                      status=1).stderr
    assert stub().stdout == "mine\n"


def test_critical_operations_have_lines(run, loaded, tmp_path):
    run("""
        from database_protection import protected_db_operation

        @protected_db_operation("conversation_add")
        def add(fails=False):
            if fails:
                raise ValueError("no\\nline of its own")

        @protected_db_operation("bulk_delete")
        def delete():
            pass

        add()
        delete()
        try:
            add(True)
        except ValueError:
            pass
        """)
    log = (loaded.parent / "chromadb_backups" / "critical_operations.log").read_text()
    told = [line.split() for line in log.splitlines()]
    assert [words[1:3] for words in told] == [["begin", "bulk_delete"], ["done", "bulk_delete"],
                                              ["failed", "conversation_add"]]
    assert "snapshot=1" in told[0] and "ValueError: no line of its own" in log


def import_(run, *arguments, status=0):
    return run(["-m", "chromashim.importer"], *arguments, status=status).stdout


def differences(before, after):
    """The first few; pytest's own comparison of so much takes minutes."""
    found = [f"{name}: {before[name]['records'].keys() ^ after.get(name, {'records': {}})['records'].keys()}"
             for name in before if before[name]["records"].keys() != after[name]["records"].keys()]
    found += [(name, i, r, after[name]["records"][i]) for name in before if not found
              for i, r in before[name]["records"].items() if after[name]["records"][i] != r]
    return found[:3]


def test_an_export_comes_back(run, loaded, tmp_path, chromashim):
    before = json.loads(run(DUMP, loaded).stdout)
    again = tmp_path / "again"
    for name, options in {"plain": [], "zstd": ["--zstd"]}.items():
        export = tmp_path / name
        assert chromashim("export", loaded, "-o", export, *options).returncode == 0
        # The second one changes nothing.
        assert "1502 records in 2 collections" in import_(run, export, "--path", again)
        assert differences(before, json.loads(run(DUMP, again).stdout)) == []


def test_folders_bring_the_collections_back(run, loaded, tmp_path, chromashim):
    export, again = tmp_path / "export", tmp_path / "again"
    assert chromashim("export", loaded, "--folders", "-o", export).returncode == 0
    assert "3 records in 1 collections" in import_(run, export, "--path", again,
                                                   "--collection", "vectors")
    assert "1502 records in 2 collections" in import_(run, export, "--path", again)
    before, after = (json.loads(run(DUMP, d).stdout) for d in (loaded, again))
    assert differences(before, after) == []
    for name in before:
        assert after[name]["space"] == before[name]["space"]
        assert after[name]["metadata"] == before[name]["metadata"]


HNSW = {"ef_construction": 150, "ef_search": 70, "max_neighbors": 24, "num_threads": 3,
        "batch_size": 50, "sync_threshold": 200, "resize_factor": 1.5}
METADATA = {"hnsw:construction_ef": 150, "hnsw:search_ef": 70, "hnsw:M": 24, "hnsw:num_threads": 3,
            "hnsw:batch_size": 50, "hnsw:sync_threshold": 200, "hnsw:resize_factor": 1.5}
MAKE = """
import chromadb, json, sys
client = chromadb.PersistentClient(sys.argv[1])
c = client.create_collection("tuned", **json.loads(sys.argv[2]), embedding_function=None)
c.add(ids=["a"], embeddings=[[1, 2]])
"""
TUNED = """
import chromadb, json, sys
c = chromadb.PersistentClient(sys.argv[1]).get_collection("tuned", embedding_function=None)
print(json.dumps([c.get(include=["embeddings"])["embeddings"].tolist(), c.metadata]))
"""


@pytest.mark.parametrize("before", ["venv", "venv-0.6"])
@pytest.mark.parametrize("after", ["venv", "venv-0.6"])
def test_settings_of_an_index_come_back(run, data, tmp_path, chromashim, before, after):
    """Those of Chroma 1 are a configuration, those before were metadata."""
    settings = {"configuration": {"hnsw": {"space": "cosine", **HNSW}}} if before == "venv" else \
        {"metadata": {"hnsw:space": "cosine", **METADATA}}
    run(MAKE, data, json.dumps(settings), venv=before)
    told = []
    for directory in (data, tmp_path / "again"):
        export = tmp_path / f"export-{directory.name}"
        assert chromashim("export", directory, "--folders", "-o", export).returncode == 0
        description = json.loads((export / "tuned" / "collection.json").read_text())
        told.append((description["space"], description["hnsw"]))
        if directory == data:
            run(["-m", "chromashim.importer"], export, "--path", tmp_path / "again", venv=after)
    assert told == [("cosine", HNSW)] * 2
    (embeddings, metadata) = json.loads(run(TUNED, tmp_path / "again", venv=after).stdout)
    assert embeddings == [[1, 2]]
    assert after == "venv" or metadata == {"hnsw:space": "cosine", **METADATA}


def test_what_is_no_export_is_said(run, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"collection":"abc","id":"1","embedding":[1],"document":null,"metadata":null,'
                   '"uri":null}\nnonsense\n', encoding="utf-8")
    done = run(["-m", "chromashim.importer"], bad, "--path", tmp_path / "x", status=1)
    assert "line 2: no record of an export" in done.stderr
    lost = tmp_path / "lost.jsonl"
    lost.write_text('{"collection":"abc","id":"1","embedding":null,"document":"d","metadata":null,'
                    '"uri":null}\n', encoding="utf-8")
    assert "1 without a vector left out" in import_(run, lost, "--path", tmp_path / "x", status=3)


def test_decorators_of_every_kind(run, loaded):
    """Without parentheses, on generators, async functions and async generators, as FastAPI uses them."""
    run("""
        import asyncio, inspect
        from chromashim import protected_operation
        from database_protection import DatabaseProtectionService, protected_db_operation
        service = DatabaseProtectionService()
        for decorator in (protected_operation, protected_operation("named"), protected_db_operation,
                          protected_db_operation("named"), service.protected_operation("named")):
            @decorator
            def plain(n): return n + 1
            assert plain(1) == 2 and plain.__name__ == "plain"

            @decorator
            def generator():
                got = yield 1
                try:
                    yield got
                except KeyError:
                    yield "caught"
                return 5
            assert inspect.isgeneratorfunction(generator)
            g = generator()
            assert next(g) == 1 and g.send(7) == 7 and g.throw(KeyError()) == "caught"

            @decorator
            async def coroutine(): return "done"

            closed = []
            @decorator
            async def asynchronous():
                try:
                    got = yield 1
                    try:
                        yield got
                    except KeyError:
                        yield "caught"
                finally:
                    closed.append(1)
            assert inspect.iscoroutinefunction(coroutine) and inspect.isasyncgenfunction(asynchronous)

            async def all_of_it():
                assert await coroutine() == "done"
                a = asynchronous()
                assert await a.asend(None) == 1 and await a.asend(7) == 7
                assert await a.athrow(KeyError()) == "caught"
                await a.aclose()
                assert [x async for x in asynchronous()] == [1, None]
                async with service.protected_operation("with") as operation:
                    assert operation["operation"] == "with"
            asyncio.run(all_of_it())
            assert closed == [1, 1]

            class Named:
                @protected_db_operation
                @classmethod
                def of_class(cls, x):
                    return cls, x

                @protected_db_operation("with a name")
                @staticmethod
                def static(x):
                    return x

                async def __call__(self, x):
                    return x
            assert Named.of_class(1) == (Named, 1) and Named().static(2) == 2
            assert inspect.iscoroutinefunction(protected_db_operation(Named()))
        """)


def test_services_of_several_directories(run, loaded, tmp_path):
    done = run("""
        import sys
        from database_protection import get_protection_service
        a, b = (get_protection_service(p) for p in sys.argv[1:])
        assert a is not b and str(b.db_path) == sys.argv[2] and get_protection_service(sys.argv[1] + "/.") is a
        assert get_protection_service() is a
        health = b.health_check()
        assert health["healthy"] is False and health["verdict"] == "unknown" and health["error"]
        assert b.start_protection() is False and a.health_check()["healthy"]
        """, loaded, tmp_path / "nowhere")
    assert "no backups will be made by the clock: there is no directory" in done.stderr


def test_a_backup_is_of_the_directory_that_was_meant(run, tmp_path):
    """Of two that a process has open, of one that it has not, and when the first is let go."""
    run("""
        import os, shutil, sqlite3, sys
        from database_protection import get_protection_service

        def fill(name):
            database = sqlite3.connect(name + "/chroma.sqlite3")
            database.execute("create table embeddings (id integer primary key, x)")
            database.execute("insert into embeddings (x) values (1)")
            database.commit()
            return database

        def backup_is_right(service):
            with service.protected_operation("risky", force_backup=True) as operation:
                pass
            newest = service.list_backups()[0]
            assert newest["id"] == operation["backup"], (operation, service.list_backups())
            assert "risky" in newest["description"]

        os.chdir(sys.argv[1])
        for name in "abc":
            os.mkdir(name)
        first, second = fill("a"), fill("b")
        a, b, c = map(get_protection_service, "abc")
        for _ in range(3):
            backup_is_right(a)
        backup_is_right(b)
        if not os.fork():
            fill("c").close()
            os._exit(0)
        os.wait()
        backup_is_right(c)
        first.close()
        shutil.rmtree("a")
        os.mkdir("d")
        fourth = fill("d")
        backup_is_right(b)
        backup_is_right(get_protection_service("d"))
        """, tmp_path, preload=True, env={"CHROMASHIM_DIR": ""})


def test_backups_by_the_clock_without_the_library(run, loaded, chromashim):
    run("""
        import sys, time
        from database_protection import DatabaseProtectionService
        database = open(sys.argv[1] + "/chroma.sqlite3", "rb")
        service = DatabaseProtectionService(sys.argv[1], backup_interval_hours=1 / 3600)
        assert service.start_protection() is True
        end = time.time() + 20
        while not service.list_backups() and time.time() < end:
            time.sleep(0.2)
        assert service.list_backups()
        """, loaded)
    assert snapshots(chromashim, loaded)


def test_backups_that_cannot_be_as_asked_for_are_told(run, loaded, tmp_path):
    """Nothing there yet, a store that cannot be made, a guardian of another mind."""
    (tmp_path / "empty").mkdir()
    ask = """
        import sys
        from database_protection import DatabaseProtectionService as Service
        database = open(sys.argv[1] + "/chroma.sqlite3", "rb") if len(sys.argv) > 2 else None
        print([Service(sys.argv[1], hours).start_protection() for hours in (6, 1, 1, 12)])
        """
    for name, what in ("missing", "directory"), ("empty", "database in"):
        done = run(ask, tmp_path / name)
        assert done.stdout == "[False, False, False, False]\n"
        assert done.stderr.count(f"no backups will be made by the clock: there is no {what} '") == 1
    shutil.rmtree(loaded / ".chromashim")
    (loaded / ".chromashim").write_text("")
    done = run(ask, loaded, "open")
    assert "[False" in done.stdout and "cannot open the store" in done.stderr, done.stderr
    (loaded / ".chromashim").unlink()
    done = run(ask, loaded, "open")
    assert done.stdout == "[True, True, True, True]\n"
    assert done.stderr.count("takes one every 21600 s, and not one every 3600 s") == 1
    assert done.stderr.count("\n") == 1


def test_wheel_is_built_from_a_directory_that_is_read_only(tmp_path):
    """By any user, without any package, and nothing is written beside the sources."""
    tree = tmp_path / "shipped"
    shutil.copytree(SOURCE.parent, tree, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(p for p in tree.rglob("*"))
    done = subprocess.run(["/usr/bin/python3", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); "
                           "import backend; print(backend.build_wheel(sys.argv[2]))", tree, tmp_path],
                          capture_output=True, text=True, check=True)
    assert sorted(p for p in tree.rglob("*")) == before
    with zipfile.ZipFile(tmp_path / done.stdout.strip()) as wheel:
        names = wheel.namelist()
        assert {"chromashim/__init__.py", "chromashim/py.typed", "database_protection.py",
                "recover_chromadb.py"} <= set(names)
        record, = (wheel.read(n).decode() for n in names if n.endswith("/RECORD"))
        assert sorted(line.split(",")[0] for line in record.splitlines()) == sorted(names)
