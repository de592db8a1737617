# SPDX-License-Identifier: MIT
"""Replicas in a bucket with object lock, on a real S3 server: what a machine that was taken over can
spoil there, and the way back."""

import json
import os
import subprocess
import sys

import pytest

import hosts
from test_replica import check, chroma_made, listed, machine, same, wait_for  # noqa: F401
from test_replica_servers import answers, free_port

TREE = hosts.BUILD / "objectlock"
RCLONE = hosts.BUILD / "venv-replica/bin"
REGION = "us-east-1"
BUCKET = "replicas"
# As README.md has it: the machine may neither remove nor change the lock.
POLICY = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": ["machine"],
     "Action": ["s3:ListBucket", "s3:GetObject", "s3:PutObject"],
     "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}]}
LOCK = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}}}


def keys(who):
    return {"AWS_ACCESS_KEY_ID": who, "AWS_SECRET_ACCESS_KEY": f"{who}-secret"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """versitygw with a bucket of the keeper's: its address, and the keeper's client."""
    for path in (TREE / "versitygw", TREE / "boto3", RCLONE / "rclone"):
        if not path.exists():
            pytest.skip(f"{path} is missing; run wrappers/setup objectlock")
    sys.path.insert(0, str(TREE))
    import boto3
    root, port = tmp_path_factory.mktemp("gateway"), free_port()
    for name in ("objects", "versions", "users"):
        (root / name).mkdir()
    address = f"http://127.0.0.1:{port}"
    owner = {"ROOT_ACCESS_KEY": "keeper", "ROOT_SECRET_KEY": "keeper-secret"}
    with open(root / "log", "wb") as log, subprocess.Popen(
            [TREE / "versitygw", "--port", f"127.0.0.1:{port}", "--iam-dir", root / "users", "posix",
             "--versioning-dir", root / "versions", root / "objects"],
            env={**os.environ, **owner}, stdout=log, stderr=log) as server:
        try:
            wait_for(lambda: answers(port), 20)
            subprocess.run([TREE / "versitygw", "admin", "-a", "keeper", "-s", "keeper-secret", "--er",
                            address, "create-user", "-a", "machine", "-s", "machine-secret", "-r",
                            "user"], check=True, capture_output=True)
            keeper = boto3.client("s3", endpoint_url=address, region_name=REGION,
                                  aws_access_key_id="keeper", aws_secret_access_key="keeper-secret")
            keeper.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
            keeper.put_object_lock_configuration(Bucket=BUCKET, ObjectLockConfiguration=LOCK)
            keeper.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(POLICY))
            yield address, keeper
        finally:
            server.terminate()


@pytest.fixture
def locked(machine, gateway):
    """A machine that sends there with its own keys."""
    machine.env.update(keys("machine"), RCLONE_CONFIG="/dev/null", RCLONE_CONFIG_FAR_TYPE="s3",
                       RCLONE_CONFIG_FAR_PROVIDER="Other", RCLONE_CONFIG_FAR_ENV_AUTH="true",
                       RCLONE_CONFIG_FAR_ENDPOINT=gateway[0], RCLONE_CONFIG_FAR_REGION=REGION,
                       RCLONE_CONFIG_FAR_NO_CHECK_BUCKET="true",
                       PATH=f"{RCLONE}:{os.environ['PATH']}")
    machine.replica = f"rclone:far:{BUCKET}/{machine.root.name}"
    return machine


def rclone(machine, *words, status=0):
    done = subprocess.run([RCLONE / "rclone", "--retries", "1", *map(str, words)], check=False,
                          env=hosts.environment(machine.env), capture_output=True, text=True)
    assert (done.returncode == 0) == (status == 0), done.stderr
    return done.stdout


def names(machine):
    return sorted(rclone(machine, "lsf", "-R", "--files-only", machine.replica[7:]).split())


def test_a_machine_that_was_taken_over(locked, gateway):
    """It removes nothing. What it writes over is told, never restored, and still there under it: not
    even who keeps the bucket can remove that."""
    locked.snapshot()
    locked.change()
    locked.snapshot()
    there = names(locked)
    assert len(there) > 4
    assert "0 damaged, 0 missing" in check(locked)
    rclone(locked, "delete", locked.replica[7:], status=1)
    assert names(locked) == there
    spoilt = [name for name in there if "chunks/" in name or "snapshots/" in name]
    garbage = locked.root / "garbage"
    garbage.write_bytes(b"garbage " * 100)
    for name in spoilt:
        rclone(locked, "copyto", "--ignore-times", garbage, f"{locked.replica[7:]}/{name}")
    assert f"{len(spoilt)} damaged, 0 missing" in check(locked, status=1)
    locked.restore(status=1)

    keeper, top = gateway[1], f"{locked.root.name}/"
    kept = keeper.list_object_versions(Bucket=BUCKET, Prefix=top)["Versions"]
    assert len(kept) == len(there) + len(spoilt)
    for version in kept:
        with pytest.raises(keeper.exceptions.ClientError, match="locked|AccessDenied"):
            keeper.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
    # Nothing is written twice by a machine that does what it should: the oldest is the right one.
    locked.replica = str(locked.place)
    for version in kept:  # the newest of each name first
        path = locked.place / version["Key"][len(top):]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        keeper.download_file(BUCKET, version["Key"], str(path),
                             ExtraArgs={"VersionId": version["VersionId"]})
    assert "0 damaged, 0 missing" in check(locked)
    assert same(locked.restore(), locked.data)


def test_prune_from_elsewhere(locked, gateway):
    """The keeper's account removes what is too old; the bucket still has it until the lock ends."""
    for _ in range(3):
        locked.snapshot()
        locked.change()
    prune = ["replica", "prune", "--from", locked.replica, "--key", locked.key, "--keep", "last=1", "-y"]
    assert locked.run(*prune, status=None).returncode != 0
    assert len(listed(locked)) == 3 and "0 damaged, 0 missing" in check(locked)
    there = names(locked)
    locked.env.update(keys("keeper"))
    locked.run(*prune)
    assert [one["state"] for one in listed(locked)] == ["there"]
    assert "0 damaged, 0 missing" in check(locked)
    kept = gateway[1].list_object_versions(Bucket=BUCKET, Prefix=f"{locked.root.name}/")["Versions"]
    assert {version["Key"].split("/", 1)[1] for version in kept} >= set(there)
    locked.env.update(keys("machine"))
    locked.snapshot()
    assert same(locked.restore(), locked.data)
    assert "0 damaged, 0 missing" in check(locked)
