# SPDX-License-Identifier: MIT
"""What people do around a backend: the acts of around.py."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import boots
import hosts
from around import PHASE, USER, Act, Lost, Site

NOT_STORE = "--exclude=.chromashim"
ELSEWHERE = "/dev/shm"


def must(*words: Any, **how: Any) -> None:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False,
                          **how)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def files(site: Site) -> list[Path]:
    """Of Chroma."""
    return [p for p in site.data.rglob("*") if ".chromashim" not in p.parts]


# ---- a backup of one's own is put back


def tar_made(site: Site) -> None:
    must("tar", "-cf", site.directory / "backup.tar", "-C", site.directory, "data")
    site.backup_steps = site.steps


def put_back(site: Site) -> None:
    """What it must be afterwards."""
    site.models = [site.backup_steps]


def tar_over(site: Site) -> None:
    must("tar", "-xf", site.directory / "backup.tar", NOT_STORE, "-C", site.directory)
    put_back(site)


def tar_over_with_store(site: Site) -> None:
    must("tar", "-xf", site.directory / "backup.tar", "-C", site.directory)
    put_back(site)


def tar_instead(site: Site) -> None:
    shutil.rmtree(site.data)
    must("tar", "-xf", site.directory / "backup.tar", "-C", site.directory)
    put_back(site)


def tar_instead_keep_store(site: Site) -> None:
    """The directory is emptied, but for what is none of Chroma's."""
    for path in site.data.iterdir():
        if path.name != ".chromashim":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    must("tar", "-xf", site.directory / "backup.tar", NOT_STORE, "-C", site.directory)
    put_back(site)


def rsync_made(site: Site) -> None:
    must("rsync", "-a", f"{site.data}/", site.directory / "backup/")
    site.backup_steps = site.steps


def rsync_back(*options: str) -> Callable[[Site], None]:
    def back(site: Site) -> None:
        must("rsync", "-a", "--checksum", *options, NOT_STORE, f"{site.directory}/backup/", f"{site.data}/")
        put_back(site)
    return back


# ---- it is copied, moved, packed and unpacked


def beside(*words: str) -> Callable[[Site], None]:
    def copy(site: Site) -> None:
        must(*words, site.data, site.directory / "copy")
        site.data = site.directory / "copy"
    return copy


def copied_back(site: Site) -> None:
    old = site.directory / "old"
    site.data.rename(old)
    must("cp", "-a", old, site.data)


def copied_both_used(site: Site) -> None:
    """The copy first, then what it was made of."""
    must("cp", "-a", site.data, site.directory / "copy")
    site.look(data=site.directory / "copy")


def other_file_system(site: Site) -> None:
    target = Path(ELSEWHERE) / f"around-{os.getpid()}-{site.directory.name}"
    must("cp", "-a", site.data, target)
    shutil.rmtree(site.data)
    site.elsewhere = site.data = target


def rsync_beside(site: Site) -> None:
    must("rsync", "-a", f"{site.data}/", site.directory / "copy/")
    site.data = site.directory / "copy"


def moved(site: Site) -> None:
    site.data.rename(site.directory / "moved")
    site.data = site.directory / "moved"


def zipped(site: Site) -> None:
    must("zip", "-qr", "../data.zip", ".", cwd=site.data)
    shutil.rmtree(site.data)
    must("unzip", "-qDD", site.directory / "data.zip", "-d", site.data)


def linked_before(site: Site) -> None:
    must("cp", "-al", site.data, site.directory / "links")


# ---- attributes


def on_all(*words: str) -> Callable[[Site], None]:
    def set_(site: Site) -> None:
        must(*words, site.data, *files(site))
    return set_


def default_acl(site: Site) -> None:
    directories = [site.data, *(p for p in files(site) if p.is_dir())]
    must("setfacl", "-m", "d:u:65533:rwX,u:65533:rwX", *directories)
    must("setfacl", "-m", "u:65533:rw", *(p for p in files(site) if p.is_file()))


def other_times(site: Site) -> None:
    must("touch", *files(site))


def old_times(site: Site) -> None:
    must("touch", "-d", "2001-01-01", *files(site))


# ---- other users


def give(site: Site) -> None:
    must("chown", "-R", f"{USER}:{USER}", site.data)


def is_users(site: Site) -> None:
    give(site)
    site.uid = USER


def users_from_now_on(site: Site) -> None:
    site.uid = USER


def given_after(site: Site) -> None:
    give(site)
    site.uid = USER


def roots_from_now_on(site: Site) -> None:
    site.uid = 0


def root_types(*words: str) -> Callable[[Site], None]:
    def type_(site: Site) -> None:
        done = site.command(*words[:1], *words[1:], site.data)
        site.said += (done.stdout + done.stderr).splitlines()
    return type_


# ---- without the library


def without_library(site: Site) -> None:
    """What it does there must stay. What it loses is Chroma's own: then it must be said."""
    try:
        site.look(more=PHASE, library=False)
    except Lost as lost:
        site.lost_before = lost.args[1]


# ---- stores


def shared_store(site: Site) -> None:
    """Another directory comes with the same store, and is used first."""
    other = site.directory / "other"
    shutil.copytree(site.gallery.base(site.release), other)
    runner = site.gallery.runner(site.release, [hosts.SHIM], site.start_env)
    said, _ = runner.do({"verb": "work", "directory": str(other), "load": "adds", "first": 0,
                         "steps": PHASE})
    site.said += runner.words()


# ---- links


def link_away(site: Site, path: Path) -> None:
    target = site.directory / f"target-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def whole_link(site: Site) -> None:
    link_away(site, site.data)


# ---- time


def slow_disk(site: Site, pid: int) -> None:
    """The syncs of the vectors take their time."""
    target = site.segment() / "data_level0.bin"
    tracer = subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(target), "-e",
         "inject=fsync,fdatasync:delay_enter=2300000", "-p", str(pid)], stderr=subprocess.DEVNULL)
    site.tracers.append(tracer)


def suspended(site: Site, pid: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            if f.read().rsplit(")", 1)[1].split()[0] == "T":
                break
        time.sleep(0.01)
    time.sleep(2.3)
    os.kill(pid, signal.SIGKILL if site.state in ("undo", "both") else signal.SIGCONT)


def rebooted(site: Site) -> None:
    site.start_job["boot"] = str(boots.make(site.directory / "boot_id"))


STORE_A, STORE_B = {"CHROMASHIM_STORE": "../store-a"}, {"CHROMASHIM_STORE": "../store-b"}
UNSEEN = "what a store holds that is not named any more is not looked for: only its lack is said"
CLOCK = ("clock",)
HOUR = 3600

ACTS = [
    Act("nothing"),
    # an older backup of one's own
    Act("tar-over", before=tar_made, after=tar_over, backup=True),
    Act("tar-over-with-store", before=tar_made, after=tar_over_with_store, backup=True,
        pins_stay=False),
    Act("tar-instead", before=tar_made, after=tar_instead, backup=True, pins_stay=False),
    Act("tar-instead-keep-store", before=tar_made, after=tar_instead_keep_store, backup=True),
    Act("rsync-back", before=rsync_made, after=rsync_back("--delete"), backup=True,
        needs=("rsync",)),
    Act("rsync-back-in-place", before=rsync_made, after=rsync_back("--delete", "--inplace"),
        backup=True, needs=("rsync",)),
    # copies
    Act("cp-a", after=beside("cp", "-a")),
    Act("cp-a-back", after=copied_back),
    Act("cp-a-both", after=copied_both_used),
    Act("cp-a-file-system", after=other_file_system),
    Act("cp-r", after=beside("cp", "-r")),
    Act("cp-al", after=beside("cp", "-al")),
    Act("cp-al-before", before=linked_before),
    Act("rsync-whole", after=rsync_beside, needs=("rsync",)),
    Act("mv", after=moved),
    Act("unzip-new-times", after=zipped, needs=("zip", "unzip")),
    Act("copytree-inside", job={"copy": "../own-copy"}),
    # attributes
    Act("default-acl", before=default_acl, needs=("setfacl",)),
    Act("xattr-user", before=on_all("setfattr", "-n", "user.note", "-v", "x"), needs=("setfattr",)),
    Act("xattr-selinux", as_root=True, needs=("setfattr",),
        before=on_all("setfattr", "-n", "security.selinux", "-v", "system_u:object_r:var_t:s0")),
    Act("xattr-trusted", as_root=True, needs=("setfattr",),
        before=on_all("setfattr", "-n", "trusted.overlay.note", "-v", "x")),
    Act("relabelled", as_root=True, needs=("setfattr",),
        after=on_all("setfattr", "-n", "security.selinux", "-v", "system_u:object_r:etc_t:s0")),
    Act("touch", after=other_times),
    Act("touch-old", after=old_times),
    # users
    Act("user-then-root", as_root=True, before=is_users, after=roots_from_now_on),
    Act("root-then-user", as_root=True, before=give, after=users_from_now_on),
    Act("chown-R", as_root=True, after=given_after),
    Act("sudo-check-repair", as_root=True, before=is_users, after=root_types("check", "--repair")),
    Act("sudo-snapshot", as_root=True, before=is_users, after=root_types("snapshot", "create")),
    Act("sudo-guard", as_root=True, before=is_users, after=root_types("guard", "--once")),
    # without the library
    Act("without-before", before=without_library, backup=True),
    Act("without-after", after=without_library,
        may_fail="what such a start does to a torn index is lost before the library is there"),
    # containers
    Act("container", as_root=True, job={"container": True}, start_job={"container": True}),
    Act("container-then-host", as_root=True, job={"container": True}),
    Act("host-then-container", as_root=True, start_job={"container": True}),
    # stores
    Act("other-store", env=STORE_A, start_env=STORE_B, pins_stay=False, may_fail=UNSEEN),
    Act("other-store-then-usual", env=STORE_A, pins_stay=False, may_fail=UNSEEN),
    Act("shared-store", env=STORE_A, start_env=STORE_A, after=shared_store),
    # links
    Act("link-segment", before=lambda site: link_away(site, site.segment())),
    Act("link-database", before=lambda site: link_away(site, site.data / "chroma.sqlite3"),
        may_fail="a database behind a symbolic link is said to be unprotected, and is not pinned"),
    Act("link-directory", before=whole_link),
    # time
    Act("clock-back", preload=CLOCK, env={"CLOCK_OFFSET": str(HOUR)}),
    Act("clock-ahead", preload=CLOCK, env={"CLOCK_OFFSET": str(-HOUR)}),
    Act("slow-sync", working=slow_disk, job={"traced": True}, needs=("strace",)),
    Act("suspended", working=suspended, job={"stops": True}),
    Act("reboot", as_root=True, after=rebooted),
]
BY_NAME = {act.name: act for act in ACTS}
