"""What the embedded store must hold, and what a worker's session may not do, against the real server."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from coordinator.embedded import create_bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coordinator.embedded import DataLayout, StoreAccess

pytestmark = pytest.mark.timeout(120)
CONFIG = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})


@pytest.fixture
def janitor(seaweedfs: StoreAccess) -> Iterator[Any]:
    with closing(seaweedfs.janitor()) as client:
        yield client


def narrowed(bucket: str) -> str:
    """The session policy of one host's job, as queue-and-trust.md gives it."""
    arn = f"arn:aws:s3:::{bucket}"
    puts = [f"{arn}/{kind}/alpha/*" for kind in ("packs", "index", "lists", "leases")] + [f"{arn}/points/alpha/p1"]
    gets = [f"{arn}/packs/alpha/*", f"{arn}/index/alpha/*", f"{arn}/lists/*", f"{arn}/points/alpha/p1"]
    statements = [
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": puts},
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:GetObjectVersion"], "Resource": gets},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


@contextmanager
def as_session(access: StoreAccess, credentials: Any, kind: str = "s3") -> Iterator[Any]:
    client: Any = boto3.session.Session().client(
        kind,
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        config=CONFIG,
    )
    with closing(client):
        yield client


@pytest.fixture
def credentials(seaweedfs: StoreAccess, bucket: str) -> Any:
    with closing(seaweedfs.broker_sts()) as sts:
        answer = sts.assume_role(
            RoleArn=seaweedfs.role_arn, RoleSessionName="job-1", Policy=narrowed(bucket), DurationSeconds=3600
        )
    return answer["Credentials"]


def refused(code: str | int, call: Any, **arguments: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    assert code in (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]), answer


def test_a_session_reaches_its_own_prefixes_alone(
    seaweedfs: StoreAccess, bucket: str, credentials: Any, janitor: Any
) -> None:
    janitor.put_object(Bucket=bucket, Key="packs/beta/1", Body=b"other")
    janitor.put_object(Bucket=bucket, Key="points/alpha/p0", Body=b"old")
    with as_session(seaweedfs, credentials) as s3:
        put = s3.put_object(Bucket=bucket, Key="packs/alpha/1", Body=b"mine")
        assert s3.get_object(Bucket=bucket, Key="packs/alpha/1")["Body"].read() == b"mine"
        version = s3.get_object(Bucket=bucket, Key="packs/alpha/1", VersionId=put["VersionId"])
        assert version["Body"].read() == b"mine"
        s3.put_object(Bucket=bucket, Key="points/alpha/p1", Body=b"head")
        assert s3.get_object(Bucket=bucket, Key="points/alpha/p1")["Body"].read() == b"head"

        refused(403, s3.put_object, Bucket=bucket, Key="packs/beta/1", Body=b"x")
        refused(403, s3.put_object, Bucket=bucket, Key="packs/alphabet/1", Body=b"x")
        refused(403, s3.put_object, Bucket=bucket, Key="points/alpha/p0", Body=b"x")
        refused(403, s3.put_object, Bucket=bucket, Key="points/alpha/p10", Body=b"x")
        refused(403, s3.put_object, Bucket=bucket, Key="state/x", Body=b"x")
        refused(403, s3.get_object, Bucket=bucket, Key="packs/beta/1")
        refused(403, s3.get_object, Bucket=bucket, Key="points/alpha/p0")
        refused(403, s3.list_objects_v2, Bucket=bucket)
        refused(403, s3.list_object_versions, Bucket=bucket)
        refused(403, s3.list_objects_v2, Bucket=bucket, Prefix="packs/alpha/")
        assert s3.list_buckets()["Buckets"] == []
        refused(403, s3.delete_object, Bucket=bucket, Key="packs/alpha/1")
        refused(403, s3.delete_object, Bucket=bucket, Key="packs/alpha/1", VersionId=put["VersionId"])
        refused(403, s3.create_bucket, Bucket="another-bucket")
        refused(403, s3.delete_bucket, Bucket=bucket)
        refused(403, s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})


def test_a_session_cannot_lock_nor_delete_many(seaweedfs: StoreAccess, bucket: str, credentials: Any) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    with as_session(seaweedfs, credentials) as s3:
        s3.put_object(Bucket=bucket, Key="packs/alpha/1", Body=b"mine")
        refused(
            403,
            s3.put_object_retention,
            Bucket=bucket,
            Key="packs/alpha/1",
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
        )
        try:
            answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "packs/alpha/1"}]})
        except ClientError as error:
            answer = {"Errors": [error.response["Error"]]}
        assert not answer.get("Deleted"), answer
        assert answer["Errors"][0]["Code"] == "AccessDenied"
        assert s3.get_object(Bucket=bucket, Key="packs/alpha/1")["Body"].read() == b"mine"


def test_a_session_cannot_assume_the_role_again(seaweedfs: StoreAccess, credentials: Any) -> None:
    """With "*" as the role's principal it could, without the inline policy, and then wrote under every prefix."""
    with as_session(seaweedfs, credentials, "sts") as sts:
        refused(403, sts.assume_role, RoleArn=seaweedfs.role_arn, RoleSessionName="again")
        refused(403, sts.assume_role, RoleArn=seaweedfs.role_arn, RoleSessionName="again", Policy=narrowed("x"))


def test_nobody_gets_in_without_a_key(seaweedfs: StoreAccess, bucket: str) -> None:
    anonymous: Any = boto3.session.Session().client(
        "s3",
        endpoint_url=seaweedfs.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    with closing(anonymous):
        refused(403, anonymous.list_objects_v2, Bucket=bucket)
        refused(403, anonymous.put_object, Bucket=bucket, Key="x", Body=b"x")


def test_a_key_is_written_once(bucket: str, janitor: Any) -> None:
    janitor.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
    refused(412, janitor.put_object, Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert janitor.get_object(Bucket=bucket, Key="k")["Body"].read() == b"first"


def test_a_sessions_conditional_put_holds_too(seaweedfs: StoreAccess, bucket: str, credentials: Any) -> None:
    with as_session(seaweedfs, credentials) as s3:
        s3.put_object(Bucket=bucket, Key="packs/alpha/k", Body=b"first", IfNoneMatch="*")
        refused(412, s3.put_object, Bucket=bucket, Key="packs/alpha/k", Body=b"second", IfNoneMatch="*")


def test_a_wrong_checksum_is_refused_and_a_right_one_is_shown(bucket: str, janitor: Any) -> None:
    body = b"sealed" * 1000
    right = base64.b64encode(hashlib.sha256(body).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    refused(400, janitor.put_object, Bucket=bucket, Key="k", Body=body, ChecksumSHA256=wrong)
    refused(404, janitor.head_object, Bucket=bucket, Key="k")
    janitor.put_object(Bucket=bucket, Key="k", Body=body, ChecksumSHA256=right)
    assert janitor.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == right


def test_overwriting_keeps_the_old_version(bucket: str, janitor: Any) -> None:
    first = janitor.put_object(Bucket=bucket, Key="k", Body=b"first")["VersionId"]
    second = janitor.put_object(Bucket=bucket, Key="k", Body=b"second")["VersionId"]
    assert first != second
    assert janitor.get_object(Bucket=bucket, Key="k", VersionId=first)["Body"].read() == b"first"
    assert janitor.get_object(Bucket=bucket, Key="k")["Body"].read() == b"second"
    assert len(janitor.list_object_versions(Bucket=bucket)["Versions"]) == 2


def test_a_locked_version_stays(bucket: str, janitor: Any) -> None:
    until = datetime.now(UTC) + timedelta(minutes=5)
    version = janitor.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    janitor.put_object_retention(
        Bucket=bucket, Key="k", VersionId=version, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until}
    )
    refused(403, janitor.delete_object, Bucket=bucket, Key="k", VersionId=version)
    refused(403, janitor.delete_object, Bucket=bucket, Key="k", VersionId=version, BypassGovernanceRetention=True)
    assert janitor.get_object(Bucket=bucket, Key="k", VersionId=version)["Body"].read() == b"kept"


def test_making_a_bucket_twice_changes_nothing(seaweedfs: StoreAccess, bucket: str, janitor: Any) -> None:
    janitor.put_object(Bucket=bucket, Key="k", Body=b"kept")
    create_bucket(seaweedfs, bucket)
    assert janitor.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    lock = janitor.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    assert lock["ObjectLockEnabled"] == "Enabled"
    assert janitor.get_object(Bucket=bucket, Key="k")["Body"].read() == b"kept"


def test_a_bucket_that_is_not_there_is_not_made_by_a_put(janitor: Any) -> None:
    refused("NoSuchBucket", janitor.put_object, Bucket="never-made", Key="k", Body=b"x")


def test_it_is_called_ready_only_when_earlier_objects_can_be_read(seaweedfs: StoreAccess) -> None:
    """S3 and STS answer seconds before the volumes; the readiness probe is an object, and stays for the next run."""
    with closing(seaweedfs.janitor()) as client:
        assert client.get_object(Bucket="stateward-ready", Key="probe")["Body"].read() == b"ready"


def test_its_files_are_private(seaweedfs: StoreAccess, embedded_folder: DataLayout) -> None:
    for name in ("s3.json", "iam.json", "secrets.json"):
        assert (embedded_folder.store / name).stat().st_mode & 0o777 == 0o600
    assert seaweedfs.janitor_secret.reveal() not in repr(seaweedfs)
