"""A job from the queue to its result: the signed message, the lease, its renewals, the events of a check-in.

Life of a job and who sets which state: `common.jobstates`. Measured facts and attacks behind the shapes:
the queue carries no attempt and no fence (redelivery changes nothing); those come with the lease.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from common.contracts.base import Base64Text, Contract, HexDigest, Moment, Name, Sentence, UlidText, UuidText
from common.jobstates import JobState


class JobKind(StrEnum):
    BACKUP = "backup"
    RESTORE = "restore"
    CHECK = "check"


class Stage(StrEnum):
    """What a running job is doing; each renewal names it."""

    CHECKING = "checking"
    SNAPSHOTTING = "snapshotting"
    UPLOADING = "uploading"
    COMMITTING = "committing"
    AWAITING_GRANT = "awaiting_grant"
    RESTORING = "restoring"


class Conflict(StrEnum):
    """What a restore does with a file that is already there. REFUSE wants an empty folder."""

    REFUSE = "refuse"
    COPY = "copy"
    OVERWRITE = "overwrite"
    SKIP = "skip"


class BackupSpec(Contract):
    kind: Literal[JobKind.BACKUP] = JobKind.BACKUP
    system_state: bool = True
    paths: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    reread: bool = False
    """Read every file, also those whose metadata did not change."""
    max_in_flight: Annotated[int, Field(ge=1, le=64)] = 8
    """Packs under way to the store at one time."""


class RestoreSpec(Contract):
    kind: Literal[JobKind.RESTORE] = JobKind.RESTORE
    point: UlidText
    source_host: UuidText
    destination: str | None = None
    """A folder on the host; None is a new folder in the host's own scratch folder."""
    conflict: Conflict = Conflict.REFUSE
    includes: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=100)] = ()


class CheckSpec(Contract):
    kind: Literal[JobKind.CHECK] = JobKind.CHECK
    system_state: bool = True


JobSpec = Annotated[BackupSpec | RestoreSpec | CheckSpec, Field(discriminator="kind")]


class JobMessage(Contract):
    """Claims of the JWS on list `host.<id>`: the only argument of the Celery task (`typ` stateward-job+jwt)."""

    iss: str
    aud: UuidText
    """The host. A foreign audience is refused and counted."""
    jti: UuidText
    iat: int
    nbf: int
    exp: int
    """Seconds since 1970: limits the *first* lease (end of the start window)."""
    job_id: UuidText
    spec: JobSpec


class StorageCredentials(Contract):
    """Of one job, at most an hour long (STS AssumeRole with an inline session policy)."""

    access_key: str
    secret_key: str = Field(repr=False)
    session_token: str = Field(default="", repr=False)
    expires: Moment


class VaultAccess(Contract):
    vault_id: UuidText
    name: Name
    url: str
    """`s3://bucket[/prefix]?endpoint=…&region=…` without credentials."""


class KnownObject(Contract):
    """An index object or list page whose blocks may count as known, with the SHA-256 of its bytes."""

    key: str
    sha256: HexDigest


class PreviousPoint(Contract):
    point: UlidText
    sha256: HexDigest
    """Of the stored bytes of the point object."""


class Lease(Contract):
    """What `POST /v1/jobs/{id}/lease` gives. The same `request_id` gets the same lease."""

    job_id: UuidText
    spec: JobSpec
    attempt: Annotated[int, Field(ge=1)]
    epoch: int
    fence: Annotated[int, Field(ge=0)]
    """The fence is (epoch, fence); a higher one ends this lease's right to commit."""
    point: UlidText | None = None
    """Allotted for this job: the only point key these credentials can write."""
    seq: int = 0
    prev: PreviousPoint | None = None
    vault: VaultAccess
    credentials: StorageCredentials
    indexes: tuple[KnownObject, ...] = ()
    lists: tuple[KnownObject, ...] = ()
    config: KnownObject | None = None
    deadline: Moment
    renew_every_s: Annotated[float, Field(gt=0)] = 30.0
    server_time: Moment


class LeaseRequest(Contract):
    request_id: UuidText
    message: str
    """The signed job as it came through the queue or the check-in."""


class Progress(Contract):
    stage: Stage
    files_done: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    """0 while it is not known."""
    new_bytes: int = 0
    stored_bytes: int = 0
    rate: float = 0.0
    """Bytes of source a second over the last seconds."""
    detail: Annotated[str, Field(max_length=500)] = ""


class RestoreKey(Contract):
    """The ephemeral HPKE public key that the target host made for this restore, signed with its Ed25519 key."""

    public_key: Base64Text
    signature: Base64Text
    """Over "stateward restore key v1" ‖ 0 ‖ job id (16) ‖ public key (1216)."""


class RenewRequest(Contract):
    epoch: int
    fence: int
    progress: Progress
    restore_key: RestoreKey | None = None


class Renewal(Contract):
    cancel: bool = False
    watched: bool = False
    """Somebody looks on: renew every second."""
    rate_limit: int | None = None
    """Bytes a second; None is unlimited."""
    credentials: StorageCredentials | None = None
    """Fresh ones when the old ones end within a third of their life."""
    grant: Base64Text | None = None
    """The sealed grant of a restore, once a person has made it."""
    server_time: Moment


class PathReason(Contract):
    path: str
    """For people: bytes that are not UTF-8 stand as backslash escapes."""
    reason: Sentence


class CheckReport(Contract):
    name: Name
    outcome: Literal["pass", "warn", "fail"]
    reason: Sentence
    next_step: Sentence = ""
    seconds: float = 0.0


class JobReport(Contract):
    """What became of one attempt; all sizes in bytes, times in seconds."""

    files: int = 0
    logical_bytes: int = 0
    new_bytes: int = 0
    """After deduplication, before compression."""
    stored_bytes: int = 0
    packs: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    warnings_count: int = 0
    warnings: Annotated[tuple[PathReason, ...], Field(max_length=1000)] = ()
    """The first 1,000; `warnings_count` counts all."""
    failed: Annotated[tuple[PathReason, ...], Field(max_length=1000)] = ()
    failed_count: int = 0
    checks: tuple[CheckReport, ...] = ()
    destination: str = ""
    """Of a restore: the folder that was written."""
    consistency: str = ""
    code: str = ""
    """Code of the error that ended it, empty when none did."""
    stage: Stage | None = None
    message: Sentence = ""
    next_step: Sentence = ""


class JobEvent(Contract):
    """State a host reports: spooled on its disk first, sent with the next check-in, taken in once by `id`."""

    id: UlidText
    job_id: UuidText
    attempt: int
    epoch: int
    fence: int
    state: Literal[
        JobState.COMMITTED, JobState.COMPLETED, JobState.COMPLETED_WITH_WARNINGS, JobState.FAILED, JobState.CANCELLED
    ]
    at: Moment
    report: JobReport
    point: UlidText | None = None
