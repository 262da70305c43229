"""The store as the coordinator uses it: buckets and reading as janitor, sessions for hosts as broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from common.contracts.jobs import StorageCredentials
from common.errors import StoreDenied, StoreUnavailable
from common.secret import Secret
from common.vault.location import VaultLocation
from common.vault.store import Store, StoreCredentials
from common.vault.stores import open_store
from coordinator.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sts import STSClient

_DENIED = {
    "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidClientTokenId", "ExpiredToken",
}  # fmt: skip
_THERE = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_DEFAULT_REGION = "us-east-1"


class Storage:
    """Thread-safe. Clients are made at first use: a coordinator starts also while its store is down."""

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._s3: S3Client | None = None
        self._sts: STSClient | None = None
        self._stores: dict[str, Store] = {}

    def location(self, bucket: str) -> VaultLocation:
        settings = self._settings
        return VaultLocation(
            scheme="s3", bucket=bucket, endpoint=settings.endpoint or None, region=settings.region or _DEFAULT_REGION
        )

    def make_bucket(self, bucket: str) -> None:
        """With object lock, which brings versioning. A bucket of ours that is there already is success."""
        client = self._janitor()
        with _errors(bucket):
            try:
                if self._settings.region in {"", _DEFAULT_REGION} or self._settings.endpoint:
                    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
                else:
                    client.create_bucket(
                        Bucket=bucket,
                        ObjectLockEnabledForBucket=True,
                        CreateBucketConfiguration={"LocationConstraint": self._settings.region},  # type: ignore[typeddict-item]
                    )
            except ClientError as error:
                if error.response["Error"].get("Code") not in _THERE:
                    raise
            if client.get_bucket_versioning(Bucket=bucket).get("Status") != "Enabled":
                client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def store(self, url: str) -> Store:
        """A vault, with the janitor's rights."""
        with self._lock:
            store = self._stores.get(url)
            if store is None:
                store = self._stores[url] = open_store(VaultLocation.parse(url), self._janitor_credentials())
            return store

    def session(self, *, policy: str, name: str) -> StorageCredentials:
        """Credentials of one host for one job (STS AssumeRole); AWS wants session names of 2 to 64 characters."""
        with _errors("sts"):
            answer = self._broker().assume_role(
                RoleArn=self._settings.role_arn,
                RoleSessionName=name[:64],
                Policy=policy,
                DurationSeconds=self._settings.session_s,
            )
        given = answer["Credentials"]
        return StorageCredentials(
            access_key=given["AccessKeyId"],
            secret_key=given["SecretAccessKey"],
            session_token=given["SessionToken"],
            expires=given["Expiration"],
        )

    def _janitor_credentials(self) -> StoreCredentials | None:
        settings = self._settings
        if not settings.janitor_access_key:
            return None
        return StoreCredentials(
            access_key=settings.janitor_access_key, secret_key=Secret(settings.janitor_secret_key.get_secret_value())
        )

    def _janitor(self) -> S3Client:
        with self._lock:
            if self._s3 is None:
                self._s3 = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._settings.endpoint or None,
                    region_name=self._settings.region,
                    aws_access_key_id=self._settings.janitor_access_key or None,
                    aws_secret_access_key=self._settings.janitor_secret_key.get_secret_value() or None,
                    config=Config(
                        retries={"total_max_attempts": 3},
                        connect_timeout=5,
                        read_timeout=30,
                        s3={"addressing_style": "path" if self._settings.endpoint else "auto"},
                    ),
                )
            return self._s3

    def _broker(self) -> STSClient:
        with self._lock:
            if self._sts is None:
                self._sts = boto3.session.Session().client(
                    "sts",
                    endpoint_url=self._settings.endpoint or None,
                    region_name=self._settings.region,
                    aws_access_key_id=self._settings.broker_access_key or None,
                    aws_secret_access_key=self._settings.broker_secret_key.get_secret_value() or None,
                    config=Config(
                        retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=15, max_pool_connections=32
                    ),
                )
            return self._sts


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        said = error.response["Error"].get("Message", code)
        if code in _DENIED:
            raise StoreDenied(f"The store denies the coordinator's user ({what}): {said}") from error
        raise StoreUnavailable(f"The store could not do it ({what}): {said}") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"The store cannot be reached ({what}): {error}") from error
