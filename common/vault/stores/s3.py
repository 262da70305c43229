"""A vault in an S3 bucket (MinIO, SeaweedFS, AWS …) through boto3.

A PUT carries `If-None-Match: *` (V1) and `x-amz-checksum-sha256` (V3: the store refuses a body that does not match, and
shows the checksum later). botocore's own retries are off: `RetryingStore` retries, so that there is one rule.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import boto3
import botocore.exceptions as aws
from botocore.config import Config

from common.errors import AlreadyExists, BucketMissing, StoreDenied, StoreUnavailable, TlsExpected
from common.vault.location import VaultLocation
from common.vault.store import Buffer, ObjectInfo, ObjectMissing, ObjectVersion, StoreCredentials, check_key
from common.vault.stores.pacing import PacedBody, Pacer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "NotFound"}
_DENIED = {
    "AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthorizationHeaderMalformed", "AllAccessDisabled", "InvalidClientTokenId", "MethodNotAllowed",
}  # fmt: skip
_UNTRUSTED = "Name the authority that signed the store's certificate in AWS_CA_BUNDLE, or correct the endpoint's name."
_PLAIN = "Check that the named endpoint runs; if it expects TLS, write https:// in the endpoint."
_FORBIDDEN = 403
_BAD_REQUEST = 400

CredentialsSource = Callable[[], StoreCredentials | None]


class S3Store:
    """`credentials()` is asked before each call, so that refreshed ones are used at once; None means the usual AWS
    environment, profile or instance role."""

    def __init__(
        self,
        location: VaultLocation,
        credentials: CredentialsSource,
        *,
        connections: int = 16,
        timeout_s: float = 60,
        pacer: Pacer | None = None,
    ) -> None:
        self._pacer = pacer
        self._location = location
        self._credentials = credentials
        self._prefix = f"{location.prefix}/" if location.prefix else ""
        self._config = Config(
            retries={"total_max_attempts": 1},
            max_pool_connections=connections,
            connect_timeout=10,
            read_timeout=timeout_s,
            signature_version="s3v4",
            s3={"addressing_style": "path" if location.endpoint else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._lock = threading.Lock()
        self._used: StoreCredentials | None = None
        self._made: S3Client | None = None

    def put(self, key: str, data: Buffer, *, sha256: bytes | None = None) -> None:
        digest = sha256 or hashlib.sha256(data).digest()
        with self._errors(key):
            self._client().put_object(
                Bucket=self._location.bucket,
                Key=self._full(key),
                Body=_body(data),
                IfNoneMatch="*",
                ChecksumSHA256=base64.b64encode(digest).decode(),
            )

    def get(self, key: str, *, offset: int = 0, length: int | None = None, version: str | None = None) -> bytes:
        if length == 0:
            return b""
        wanted: dict[str, Any] = {} if version is None else {"VersionId": version}
        if offset or length is not None:
            end = "" if length is None else str(offset + length - 1)
            wanted["Range"] = f"bytes={offset}-{end}"
        with self._errors(key):
            try:
                answer = self._client().get_object(Bucket=self._location.bucket, Key=self._full(key), **wanted)
            except aws.ClientError as error:
                if error.response["Error"].get("Code") in {"InvalidRange", "416"}:
                    return b""
                raise
            with answer["Body"] as body:
                return body.read()

    def head(self, key: str, *, version: str | None = None) -> ObjectInfo:
        wanted: dict[str, Any] = {} if version is None else {"VersionId": version}
        with self._errors(key):
            answer = self._client().head_object(
                Bucket=self._location.bucket, Key=self._full(key), ChecksumMode="ENABLED", **wanted
            )
        checksum = answer.get("ChecksumSHA256")
        return ObjectInfo(
            key=key,
            size=answer["ContentLength"],
            modified=answer["LastModified"],
            version=answer.get("VersionId"),
            sha256=base64.b64decode(checksum) if checksum else None,
        )

    def list(self, prefix: str, *, hidden: bool = False) -> Iterator[ObjectInfo]:
        if hidden:
            try:
                yield from self._list_hidden(prefix)
            except StoreDenied:  # this caller may list objects alone
                yield from self.list(prefix)
            return
        with self._errors(prefix):
            pages = (
                self._client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self._location.bucket, Prefix=self._prefix + prefix)
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield ObjectInfo(
                        key=item["Key"].removeprefix(self._prefix), size=item["Size"], modified=item["LastModified"]
                    )

    def _list_hidden(self, prefix: str) -> Iterator[ObjectInfo]:
        seen = ""
        with self._errors(prefix):
            pages = (
                self._client()
                .get_paginator("list_object_versions")
                .paginate(Bucket=self._location.bucket, Prefix=self._prefix + prefix)
            )
            for page in pages:
                for item in page.get("Versions", []):  # by key, newest first
                    if item["Key"] != seen:
                        seen = item["Key"]
                        yield ObjectInfo(
                            key=seen.removeprefix(self._prefix), size=item["Size"], modified=item["LastModified"]
                        )

    def versions(self, key: str) -> Sequence[ObjectVersion]:
        full = self._full(key)
        found: list[ObjectVersion] = []
        with self._errors(key):
            pages = (
                self._client().get_paginator("list_object_versions").paginate(Bucket=self._location.bucket, Prefix=full)
            )
            for page in pages:
                found += [
                    ObjectVersion(
                        key=key,
                        version=item["VersionId"],
                        size=item["Size"],
                        modified=item["LastModified"],
                        latest=item["IsLatest"],
                    )
                    for item in page.get("Versions", [])
                    if item["Key"] == full
                ]
                found += [
                    ObjectVersion(
                        key=key,
                        version=marker["VersionId"],
                        size=0,
                        modified=marker["LastModified"],
                        latest=marker["IsLatest"],
                        delete_marker=True,
                    )
                    for marker in page.get("DeleteMarkers", [])
                    if marker["Key"] == full
                ]
        return sorted(found, key=lambda each: (each.latest, each.modified), reverse=True)

    def delete(self, key: str, *, version: str) -> None:
        with self._errors(key):
            self._client().delete_object(Bucket=self._location.bucket, Key=self._full(key), VersionId=version)

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _client(self) -> S3Client:
        credentials = self._credentials()
        with self._lock:
            if self._made is None or credentials is not self._used:
                self._made = s3_client(self._location, credentials, self._config)
                if self._pacer is not None:
                    self._made.meta.events.register("before-send.s3.PutObject", self._pace)
                self._used = credentials
            return self._made

    def _pace(self, request: Any, **_: object) -> None:
        """botocore has signed the request; from here on its body is only read to be sent."""
        if self._pacer is not None and isinstance(request.body, bytes | bytearray):
            request.body = PacedBody(request.body, self._pacer)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        where = self._location.endpoint or "AWS"
        try:
            yield
        except aws.ClientError as error:
            _translate(error, key, self._location.bucket, where)
        except (aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound) as error:
            raise StoreDenied(
                f"No credentials for {where} were found.",
                next_step="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
            ) from error
        except aws.SSLError as error:
            untrusted = "CERTIFICATE_VERIFY_FAILED" in str(error)
            raise TlsExpected(
                f"TLS with the store at {where} failed: {_cause(error)}.", next_step=_UNTRUSTED if untrusted else None
            ) from error
        except aws.ConnectionClosedError as error:
            plain = where.startswith("http://")
            raise StoreUnavailable(
                f"The store at {where} closed the connection: {_cause(error)}.", next_step=_PLAIN if plain else None
            ) from error
        except (aws.HTTPClientError, aws.BotoCoreError, OSError) as error:
            raise StoreUnavailable(f"The store at {where} cannot be reached: {_cause(error)}.") from error


def s3_client(location: VaultLocation, credentials: StoreCredentials | None, config: Config) -> S3Client:
    """A client of its own session: boto3's default session is not safe to share between threads."""
    given: dict[str, Any] = {}
    if credentials is not None:
        given["aws_access_key_id"] = credentials.access_key
        given["aws_secret_access_key"] = credentials.secret_key.reveal()
        if credentials.session_token is not None:
            given["aws_session_token"] = credentials.session_token.reveal()
    session = boto3.session.Session(region_name=location.region, **given)
    return session.client("s3", endpoint_url=location.endpoint, config=config)


def _body(data: Buffer) -> bytes:
    """botocore sends a bytearray as it is (its type stubs do not know), so a pack is not copied."""
    return data.tobytes() if isinstance(data, memoryview) else cast("bytes", data)


def _translate(error: aws.ClientError, key: str, bucket: str, where: str) -> None:
    code = error.response.get("Error", {}).get("Code", "")
    text = error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        raise BucketMissing(f"The bucket {bucket} does not exist at {where}.") from error
    if code in _MISSING:
        raise ObjectMissing(f"The store does not hold {key}.") from error
    if code in {"PreconditionFailed", "412"}:
        raise AlreadyExists(f"The store already holds {key}.") from error
    wordless = code == str(_BAD_REQUEST) and not error.operation_name.startswith("Head")  # no XML: no S3 store said it
    if status == _BAD_REQUEST and ("HTTPS" in text or (wordless and where.startswith("http://"))):
        raise TlsExpected(f"The store at {where} expects TLS.") from error
    if code in _DENIED or status == _FORBIDDEN:
        raise StoreDenied(
            f"The store at {where} refused {error.operation_name} of {key or bucket} ({code})."
        ) from error
    raise StoreUnavailable(f"The store at {where} failed at {error.operation_name} of {key} ({code}).") from error


def _cause(error: BaseException) -> str:
    inner: BaseException = error
    while inner.__cause__ is not None or inner.__context__ is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return str(text).strip().rstrip(".")
