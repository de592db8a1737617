# SPDX-License-Identifier: MIT
"""The packages for npm, installed from their archives."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from test_wheel import BUILD, ROOT, VERSION, environment, run

pytestmark = pytest.mark.skipif(not shutil.which("npm"), reason="npm is missing; run wrappers/setup wheel")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    out = tmp_path_factory.mktemp("npm")
    said = run(sys.executable, ROOT / "wrappers/npm/pack.py", BUILD, out).stdout.split()
    assert len(said) >= 2
    return out


@pytest.fixture(scope="module", params=["app", "an app"])
def app(request, packages, tmp_path_factory):
    folder = tmp_path_factory.mktemp("app") / request.param
    folder.mkdir()
    (folder / "package.json").write_text('{"name": "app", "private": true}')
    machine = os.uname().machine
    own = packages / f"chromashim-linux-{ {'x86_64': 'x64', 'aarch64': 'arm64'}[machine] }-{VERSION}.tgz"
    # The package for this platform first: it is in no registry to be had from yet.
    run("npm", "install", "--offline", "--no-audit", "--no-fund", own,
        packages / f"chromashim-{VERSION}.tgz", cwd=folder)
    return folder


def test_npx_runs_a_node_program_under_the_library(app):
    (app / "server.js").write_text(
        "const maps = require('fs').readFileSync('/proc/self/maps', 'utf8');"
        "console.log(process.pid, maps.includes('/bin/libchromashim.so'))")
    child = subprocess.Popen([app / "node_modules/.bin/chromashim", "run", "--", "node", "server.js"],
                             cwd=app, stdout=subprocess.PIPE, text=True,
                             env=environment(HOME=str(app.parent)))
    said = child.communicate(timeout=60)[0]
    # The same process: what pm2 starts is the service itself.
    assert said.split() == [str(child.pid), "true"]
    said = run("npx", "--no-install", "chromashim", "run", "--", "node", "server.js", cwd=app,
               env=environment(HOME=str(app.parent))).stdout
    assert said.split()[1] == "true"


def test_it_says_which_package_is_missing(packages, tmp_path):
    (tmp_path / "package.json").write_text('{"name": "app", "private": true}')
    run("npm", "install", "--offline", "--no-audit", "--no-fund", "--omit=optional",
        packages / f"chromashim-{VERSION}.tgz", cwd=tmp_path)
    said = run(tmp_path / "node_modules/.bin/chromashim", "--version", status=1).stderr
    assert "the package 'chromashim-linux-" in said and "is not installed" in said


def test_the_same_wheels_give_the_same_bytes(packages, tmp_path):
    run(sys.executable, ROOT / "wrappers/npm/pack.py", BUILD, tmp_path)
    for package in tmp_path.iterdir():
        assert package.read_bytes() == (packages / package.name).read_bytes()


def test_what_the_first_names_is_there(packages):
    text = run("tar", "-xOf", packages / f"chromashim-{VERSION}.tgz", "package/package.json").stdout
    named = json.loads(text)["optionalDependencies"]
    assert named and all((packages / f"{name}-{version}.tgz").exists() for name, version in named.items())
