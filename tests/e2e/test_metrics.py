# SPDX-License-Identifier: MIT
"""What Prometheus and Grafana get: valid text, whole files, rules and a board that ask for what is
there."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import hosts
from test_guardian import guardians, make_directory  # noqa: F401
from test_whose_store import Backend


@pytest.fixture(autouse=True)
def any_disk(monkeypatch):
    """However full this machine's is."""
    monkeypatch.setenv("CHROMASHIM_WARN_FULL", "0")


MONITORING = hosts.ROOT / "wrappers/monitoring"
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')
TYPES = {"gauge", "counter", "histogram"}


def parse(text):
    """The text format of Prometheus: {family: [(name, labels, value)]}. Strict; also promtool's word,
    where there is one."""
    families, types, at = {}, {}, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            at = line.split(" ", 3)[2]
            assert at not in families, f"{at} twice"
            families[at] = []
        elif line.startswith("# TYPE "):
            name, kind = line.split(" ")[2:]
            assert name == at and kind in TYPES, line
            types[name] = kind
        else:
            name, labels, value = re.fullmatch(r"([a-z_]+)\{(.*)\} (\S+)", line).groups()
            pairs, end = [], 0
            while end < len(labels):
                found = LABEL.match(labels, end)
                assert found, line
                pairs.append(found.groups())
                end = found.end()
            base = re.sub("_(bucket|sum|count)$", "", name) if types[at] == "histogram" else name
            assert base == at, line
            families[at].append((name, dict(pairs), float(value)))
    for name, samples in families.items():
        keys = [(n, tuple(sorted(labels.items()))) for n, labels, _ in samples]
        assert len(set(keys)) == len(keys) and samples, name
        buckets = [value for n, _, value in samples if n.endswith("_bucket")]
        assert buckets == sorted(buckets)
        if types[name] == "histogram":
            assert buckets[-1] == next(v for n, _, v in samples if n.endswith("_count"))
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=False,
                              capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return families


def value(families, name):
    (_, _, number), = families[f"chromashim_{name}"]
    return number


def test_a_backend_in_numbers(tmp_path, data, chromashim, guardians):  # noqa: F811
    """Beside a living backend; then the guardian is killed, and whoever asks puts `up` right."""
    out = tmp_path / "metrics" / "chroma.prom"
    out.parent.mkdir()
    backend = Backend(data)
    env = {"CHROMASHIM_METRICS": str(out), "CHROMASHIM_REPLICA": "/srv/replica"}
    guardian = guardians(data, "--follow", str(backend.child.pid), env=env)
    guardian.wait_for("guarding")
    backend.write(30)
    deadline = time.monotonic() + 30
    while not out.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    families = parse(out.read_text())
    assert out.stat().st_mode & 0o777 == 0o644 and list(out.parent.iterdir()) == [out]
    parse((data / ".chromashim/metrics.prom").read_text())
    assert value(families, "up") == value(families, "protected_processes") == 1
    assert value(families, "log_records_lost") == 0 and value(families, "database_bytes") > 0
    assert all(labels["directory"] == str(data) for samples in families.values()
               for _, labels, _ in samples)
    guardian.end(signal.SIGKILL)
    settings = hosts.environment(env)
    assert chromashim("status", "--check", data, env=settings).returncode == 1
    assert value(parse(out.read_text()), "up") == 0
    # The next one counts what comes while it is there.
    guardian = guardians(data, "--follow", str(backend.child.pid), env=env)
    guardian.wait_for("guarding")
    backend.write(20)
    time.sleep(1.2)
    backend.stop()
    assert guardian.child.wait(30) == 0
    families = parse(out.read_text())
    samples = families["chromashim_commit_seconds"]
    count = next(v for n, _, v in samples if n.endswith("_count"))
    assert value(families, "up") == 0 and count == 20
    assert {labels["event"] for _, labels, _ in families["chromashim_last_event_timestamp_seconds"]
            } >= {"guard.died"}
    assert families["chromashim_replica_failures"][0][1]["replica"] == "/srv/replica"


def test_histograms_count_each_commit_once(data, chromashim):
    """Those that come while the guardian is there, and no others."""
    backend = Backend(data)
    guard = subprocess.Popen([str(hosts.COMMAND), "guard", "--follow", str(backend.child.pid),
                              str(data)], stderr=subprocess.DEVNULL,
                             env=hosts.environment({"CHROMASHIM_METRICS_PACE": "1"}))
    metrics = data / ".chromashim/metrics.prom"
    deadline = time.monotonic() + 30
    while not metrics.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    backend.write(40)
    time.sleep(1.5)
    guard.terminate()
    assert guard.wait(30) == 0
    samples = parse(metrics.read_text())["chromashim_commit_seconds"]
    assert next(v for n, _, v in samples if n.endswith("_count")) == 40
    assert next(v for n, _, v in samples if n.endswith("_sum")) > 0
    assert next(v for n, _, v in parse(metrics.read_text())["chromashim_sync_seconds"]
                if n.endswith("_count")) >= 40
    backend.stop()


def test_two_directories_and_odd_names(tmp_path, chromashim):
    """In a collector's directory each takes a file of its own; a name may have any characters."""
    place = tmp_path / "textfile"
    place.mkdir()
    names = ["plain", 'a "quoted"\n\\back']
    for name in names:
        data = tmp_path / name
        make_directory(data)
        done = chromashim("guard", "--once", data,
                          env=hosts.environment({"CHROMASHIM_METRICS": str(place)}))
        assert done.returncode == 0, done.stderr
    files = sorted(place.iterdir())
    assert len(files) == 2 and all(re.fullmatch("chromashim-[0-9a-f]{12}.prom", f.name) for f in files)
    found = [parse(f.read_text())["chromashim_up"][0][1]["directory"] for f in files]
    assert sorted(found) == sorted(str(tmp_path / n).replace("\\", r"\\").replace('"', r'\"')
                                   .replace("\n", r"\n") for n in names)
    sizes = parse(files[0].read_text())["chromashim_collection_index_bytes"]
    assert [labels["collection"] for _, labels, _ in sizes] == ["books"] and sizes[0][2] > 0
    # What cannot be written is said once, and is no failure.
    done = chromashim("guard", "--once", tmp_path / "plain",
                      env=hosts.environment({"CHROMASHIM_METRICS": "/none/there.prom"}))
    assert done.returncode == 0 and done.stderr.count("CHROMASHIM_METRICS cannot be written") == 1


def test_two_directories_and_one_file(tmp_path, chromashim):
    """As where one process has both open, and one environment: neither takes the other's away."""
    place = tmp_path / "textfile"
    place.mkdir()
    env = hosts.environment({"CHROMASHIM_METRICS": str(place / "chroma.prom")})

    def written():
        return {f.name: parse(f.read_text())["chromashim_up"][0][1]["directory"]
                for f in place.iterdir()}

    for name in "first", "second", "first":
        if not (tmp_path / name).exists():
            make_directory(tmp_path / name)
        assert chromashim("guard", "--once", tmp_path / name, env=env).returncode == 0
    found = written()
    assert found.pop("chroma.prom") == str(tmp_path / "first")
    ((own, second),) = found.items()
    assert re.fullmatch("chromashim-[0-9a-f]{12}.prom", own) and second == str(tmp_path / "second")
    # The first one is no more: the second takes the file, and its numbers are there once.
    os.utime(place / "chroma.prom", (0, 0))
    assert chromashim("guard", "--once", tmp_path / "second", env=env).returncode == 0
    assert written() == {"chroma.prom": str(tmp_path / "second")}


def test_rules_and_board_ask_for_what_there_is(data, chromashim):
    make_directory(data)
    replica = data.parent / "replica"
    replica.mkdir()
    env = hosts.environment({"CHROMASHIM_REPLICA": str(replica), "CHROMASHIM_REPLICA_SEAL": "plain",
                             "CHROMASHIM_KEEP_SPACE": "1G"})
    assert chromashim("guard", "--once", data, env=env).returncode == 0
    assert chromashim("drill", data).returncode == 3
    # An event of some kind.
    (data / ".chromashim/guard.lock").write_text("pid 4000000\n")
    assert chromashim("guard", "--once", data, env=env).returncode == 0
    there = set(parse((data / ".chromashim/metrics.prom").read_text()))
    for path in (MONITORING / "alerts.yaml", MONITORING / "grafana.json"):
        asked = set(re.findall(r"\bchromashim_[a-z_]+", path.read_text()))
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= there, path
    rules = (MONITORING / "alerts.yaml").read_text()
    events = set(re.findall(r'event=~?"([a-z.|_]+)"', rules))
    told = (hosts.ROOT / "shim/core/settings/keys.def").read_text()
    assert events and all(e in told for group in events for e in group.split("|"))
    alerts = re.findall(r"- alert: (\S+)", rules)
    assert len(set(alerts)) == len(alerts) == rules.count("severity: ") == rules.count("summary: ")
    if shutil.which("promtool"):
        done = subprocess.run(["promtool", "check", "rules", MONITORING / "alerts.yaml"],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    board = json.loads((MONITORING / "grafana.json").read_text())
    ids = [p["id"] for p in board["panels"]]
    assert len(set(ids)) == len(ids) and board["schemaVersion"] >= 36
    for panel in board["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24 and panel["title"] and panel["targets"]


# What Grafana reads of a board, as far as this one has it; nothing else may be in there.
SOURCE = {"type": "object", "required": ["type", "uid"], "additionalProperties": False,
          "properties": {"type": {"enum": ["prometheus", "grafana"]}, "uid": {"type": "string", "minLength": 1}}}
GRID = {"type": "object", "required": ["h", "w", "x", "y"], "additionalProperties": False,
        "properties": {"h": {"type": "integer", "minimum": 1}, "w": {"type": "integer", "minimum": 1, "maximum": 24},
                       "x": {"type": "integer", "minimum": 0, "maximum": 23},
                       "y": {"type": "integer", "minimum": 0}}}
TARGET = {"type": "object", "required": ["refId", "expr"], "additionalProperties": False,
          "properties": {"refId": {"type": "string", "pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 1},
                         "legendFormat": {"type": "string"}, "instant": {"type": "boolean"},
                         "format": {"enum": ["time_series", "table", "heatmap"]}}}
PANEL = {"type": "object", "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig"],
         "additionalProperties": False,
         "properties": {"id": {"type": "integer", "minimum": 1},
                        "type": {"enum": ["stat", "table", "timeseries"]},
                        "title": {"type": "string", "minLength": 1}, "description": {"type": "string"},
                        "gridPos": GRID, "datasource": SOURCE,
                        "targets": {"type": "array", "minItems": 1, "items": TARGET},
                        "fieldConfig": {"type": "object", "required": ["defaults", "overrides"],
                                        "properties": {"defaults": {"type": "object"},
                                                       "overrides": {"type": "array"}}},
                        "options": {"type": "object"}, "transformations": {
                            "type": "array", "items": {"type": "object", "required": ["id", "options"]}}}}
BOARD = {"type": "object", "required": ["title", "uid", "schemaVersion", "time", "templating", "panels"],
         "properties": {"title": {"type": "string"}, "uid": {"type": "string", "maxLength": 40},
                        "schemaVersion": {"type": "integer", "minimum": 36}, "version": {"type": "integer"},
                        "time": {"type": "object", "required": ["from", "to"]},
                        "templating": {"type": "object", "required": ["list"], "properties": {"list": {
                            "type": "array", "items": {"type": "object", "required": ["name", "type"]}}}},
                        "panels": {"type": "array", "minItems": 1, "items": PANEL}}}


def test_board_is_one():
    """By the parts of Grafana's schema that it uses; panels lie beside each other, and each variable
    is one of the board's or of Grafana's."""
    jsonschema = pytest.importorskip("jsonschema")  # Chroma needs it
    board = json.loads((MONITORING / "grafana.json").read_text())
    jsonschema.validate(board, BOARD)
    taken = {}
    for panel in board["panels"]:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)
        grid = panel["gridPos"]
        for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"])
                     for y in range(grid["y"], grid["y"] + grid["h"])):
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["title"]
    known = {v["name"] for v in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board)))
    assert {n for n in used if not n.startswith("__")} <= known
    assert {n for n in used if n.startswith("__")} <= {"__rate_interval", "__range", "__interval", "__all"}


PROMTOOL = shutil.which("promtool") or str(hosts.BUILD / "promtool/usr/bin/promtool")


@pytest.mark.skipif(not Path(PROMTOOL).exists(), reason="promtool is missing; run wrappers/setup check")
def test_promtool_reads_rules_and_board(tmp_path):
    """The rules as they are, and the board's queries as if they were some."""
    board = json.loads((MONITORING / "grafana.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = [{"record": f"board:{n}", "expr": expr.replace("$__rate_interval", "5m").replace("$__range", "1h")}
             for n, expr in enumerate(asked)]
    queries = tmp_path / "board.yaml"  # JSON is YAML
    queries.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    for path in (MONITORING / "alerts.yaml", queries):
        done = subprocess.run([PROMTOOL, "check", "rules", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(asked)} rules found" in done.stdout


def test_containers_are_not_ended_by_a_warning():
    dockerfile = (hosts.ROOT / "wrappers/docker/Dockerfile").read_text()
    health = re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.M)
    assert json.loads(health[1]) == ["chromashim", "status", "--ready", "/data"]
    compose = (hosts.ROOT / "wrappers/docker/compose.yaml").read_text()
    ports = re.findall(r'^ +- "([0-9.:]+)"$', compose, re.M)
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
