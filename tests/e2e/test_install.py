# SPDX-License-Identifier: MIT
"""What `make install` puts where, and that the documents say what the command does."""

import os
import re
import shutil
import subprocess

import pytest

import hosts

SOURCES = hosts.ROOT / "shim" / "command"
OPTION = re.compile(r'\{"([a-z][a-z-]*)",\s+(?:no|required|optional)_argument')
OPTIONS = re.compile(r"static const struct option [a-z_]+\[\] = \{(.*?)\};", re.DOTALL)


def files(root):
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}


@pytest.fixture(scope="module")
def verbs():
    out = subprocess.run([hosts.COMMAND, "help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z]+)  ", out, re.MULTILINE)


def usage(verb):
    return subprocess.run([hosts.COMMAND, "help", verb], capture_output=True, text=True,
                          check=True).stdout


def options_of(verb):
    """The long options in the tables of a verb's source; another verb may be in its folder."""
    found = set()
    for source in (*SOURCES.glob(f"{verb}/*.c"), *SOURCES.glob(f"*/{verb}*.c")):
        text = source.read_text(encoding="utf-8")
        if verb not in (re.findall(r"^int command_(\w+)\(", text, re.MULTILINE) or [verb]):
            continue
        for table in OPTIONS.findall(text):
            found |= set(OPTION.findall(table))
    return found - {"help"}


def test_everything_is_where_the_distribution_looks(installed):
    have = files(installed)
    for name in ("bin/chromashim", "bin/chromashim-launch", "lib/libchromashim.so",
                 "include/chromashim.h", "share/man/man1/chromashim.1",
                 "share/man/man5/chromashim.conf.5", "share/bash-completion/completions/chromashim",
                 "share/zsh/site-functions/_chromashim", "share/chromashim/ecosystem.config.js",
                 "share/chromashim/python/pyproject.toml", "share/doc/chromashim/README.md",
                 "lib/systemd/system/chromashim@.service",
                 "lib/systemd/system/chromashim-guard@.timer"):
        assert name in have
    assert not [name for name in have if "__pycache__" in name or name.endswith(".new")]


def test_help_has_the_options_of_the_tables(verbs):
    """Each option of the tables is in the help, and the other way round."""
    checked = 0
    for verb in verbs:
        text = usage(verb)
        shown = set(re.findall(r"(?<![\w`-])--([a-z][a-z-]*)", re.sub(r"`[^`]*`", "", text)))
        table = options_of(verb)
        if not table:
            assert not shown, f"{verb}: {shown}"
            continue
        checked += 1
        assert table - shown == set(), f"not in `chromashim help {verb}`"
        # Texts may name the options of others, in words.
        named = set(re.findall(r"^ +(?:-\w, )?--([a-z][a-z-]*)", text, re.MULTILINE))
        assert named - table == set(), f"there is no such option of {verb}"
    assert checked >= 8


def test_documents_have_all_verbs_and_options(installed, verbs):
    page = (installed / "share/man/man1/chromashim.1").read_text(encoding="utf-8").replace("\\-", "-")
    bash = (installed / "share/bash-completion/completions/chromashim").read_text(encoding="utf-8")
    zsh = (installed / "share/zsh/site-functions/_chromashim").read_text(encoding="utf-8")
    for verb in verbs:
        section = page.partition(f'"chromashim {verb} - ')[2].partition("\n.S")[0]
        assert section, verb
        words = re.search(rf"\n\t{verb}\)\n\t\twords='([^']*)'", bash)[1].split()
        descriptions = zsh.partition(f"\n\t{verb})\n")[2].partition(";;")[0]
        for option in options_of(verb):
            assert f"--{option}" in section, (verb, option)
            assert f"--{option}" in words, (verb, option)
            assert re.search(rf"'--{option}[:']", descriptions), (verb, option)


def test_the_page_of_settings_has_all_of_them(installed):
    page = (installed / "share/man/man5/chromashim.conf.5").read_text(encoding="utf-8")
    table = (hosts.ROOT / "shim/core/settings/keys.def").read_text(encoding="utf-8")
    names = re.findall(r'^KEY\(\w+, "(\w+)"', table, re.MULTILINE)
    assert re.findall(r"^\.BR (CHROMASHIM\w*) ", page, re.MULTILINE) == names
    assert len(names) > 20
    readme = (hosts.ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\bCHROMASHIM_[A-Z_]+[A-Z]\b", readme)) <= {*names, "CHROMASHIM_MUST_WORK"}


def test_one_version():
    """The header has it; what cannot read the header says the same."""
    said = subprocess.run([hosts.COMMAND, "--version"], capture_output=True, text=True,
                          check=True).stdout.split()[-1]
    for name, pattern in (("include/chromashim.h", r'CHROMASHIM_VERSION "(.*)"'),
                          ("wrappers/python/pyproject.toml", r'^version = "(.*)"'),
                          ("wrappers/python/src/chromashim/__init__.py", r'^__version__ = "(.*)"')):
        text = (hosts.ROOT / name).read_text(encoding="utf-8")
        assert re.findall(pattern, text, re.MULTILINE) == [said], name
    news = (hosts.ROOT / "shim/doc/news.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", news, re.MULTILINE)[0] == said


def test_the_news_are_in_the_page_and_name_the_formats_of_now(installed):
    page = (installed / "share/man/man1/chromashim.1").read_text(encoding="utf-8")
    news = (hosts.ROOT / "shim/doc/news.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)", news, re.MULTILINE)
    assert re.findall(r"^\.SS (.*)", page.partition("\n.SH NEWS\n")[2], re.MULTILINE) == versions
    store = (hosts.ROOT / "shim/core/store/identity.c").read_text(encoding="utf-8")
    now = {"store": re.search(r"define FORMAT (\d+)", store)[1]}
    for name, key in (("log", "oplog"), ("undo files", "undo"), ("pins", "pin"), ("snapshots", "snapshot"),
                      ("replicas", "replica")):
        header = (hosts.ROOT / f"include/chromashim_{key}.h").read_text(encoding="utf-8")
        now[name] = re.search(rf"define {key.upper()}_VERSION (\d+)u", header)[1]
    said = ", ".join(f"{name} {number}" for name, number in now.items())
    assert f"Formats: {said}." in news.partition("\n## ")[2].partition("\n## ")[0]


def test_what_is_installed_again_is_renamed_over(tmp_path, strace):
    """A backend has the old library loaded, another starts meanwhile: none is cut short, or missing."""
    calls = tmp_path / "calls"
    words = ["strace", "-f", "-o", calls, "-s", "400", "-e", "trace=%file", "make", "--no-print-directory",
             f"BUILD={os.path.relpath(hosts.BUILD, hosts.ROOT)}", f"DESTDIR={tmp_path}/root", "install"]
    flags = (hosts.BUILD / "flags").read_text()
    words += [f"CC={flags.split()[0]}", f"WERROR={'1' if ' -Werror' in flags else ''}"]
    settings = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    old = None
    for _ in range(2):
        with hosts.building():
            done = subprocess.run(words, cwd=hosts.ROOT, capture_output=True, text=True, check=False,
                                  timeout=300, env=settings)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        new = (tmp_path / "root/usr/local/lib/libchromashim.so").open("rb")
        assert old is None or os.fstat(new.fileno()).st_ino != os.fstat(old.fileno()).st_ino
        old = old or new
    assert old.read() == new.read() == hosts.SHIM.read_bytes()
    lines = calls.read_text(encoding="utf-8", errors="replace").splitlines()
    for name in ("lib/libchromashim.so", "bin/chromashim"):
        path = f'"{tmp_path}/root/usr/local/{name}"'
        assert any(re.search(rf"\brename(at2?)?\(.*{re.escape(path)}", line) for line in lines), name
        changed = [line for line in lines if path in line and
                   re.search(r"\bunlink|O_TRUNC|O_CREAT|\btruncate|\bcreat\(", line)]
        assert not changed, changed


def completed(installed, *words):
    """What bash offers after these words."""
    script = (f"source {installed}/share/bash-completion/completions/chromashim; "
              f"COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; "
              'COMPREPLY=(); _chromashim; printf "%s\\n" "${COMPREPLY[@]}"')
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True,
                          check=True).stdout.split()


def test_bash_completes(installed, tmp_path):
    assert "snapshot" in completed(installed, "chromashim", "")
    assert completed(installed, "chromashim", "st") == ["status"]
    assert completed(installed, "chromashim", "log", "--tr") == ["--transactions"]
    assert "prune" in completed(installed, "chromashim", "snapshot", "p")
    assert completed(installed, "chromashim", "restore", "--fr") == ["--from"]
    assert str(tmp_path) in completed(installed, "chromashim", "restore", "--from",
                                      str(tmp_path)[:-1])
    assert completed(installed, "chromashim", "export", "-o", f"{tmp_path.parent}/{tmp_path.name[:-1]}")


def test_the_page_and_zsh_are_sound(installed):
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n", installed / "share/zsh/site-functions/_chromashim"], check=True)
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is missing; run wrappers/setup check")
    said = subprocess.run(["mandoc", "-T", "lint", "-W", "warning",
                           installed / "share/man/man1/chromashim.1",
                           installed / "share/man/man5/chromashim.conf.5"],
                          capture_output=True, text=True, check=False).stdout
    assert said == ""


def test_systemd_accepts_the_units(installed, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is missing; run wrappers/setup check")
    # The real place of the command instead of that of the installation.
    for unit in (installed / "lib/systemd/system").iterdir():
        text = unit.read_text(encoding="utf-8")
        assert "/usr/local/bin/chromashim" in text or unit.suffix == ".timer"
        text = text.replace("/usr/local/bin/chromashim", str(installed / "bin/chromashim"))
        (tmp_path / unit.name.replace("@", "@docs")).write_text(
            text.replace("man:chromashim(1)", "https://www.trychroma.com"), encoding="utf-8")
    for unit in sorted(tmp_path.iterdir()):
        done = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=no", unit],
                              capture_output=True, text=True, check=False,
                              env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
        assert (done.returncode, done.stderr.strip()) == (0, ""), unit.name
